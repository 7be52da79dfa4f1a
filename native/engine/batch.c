/* Batches: what stands around the kernels' forward and backward. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "memory.h"
#include "packing.h"
#include "pool.h"

struct ifgo_tape {
    ifgo_space z, h, c, m, dh, dc, dm, dp, packed, scratch;
    ifgo_row *order;
    ptrdiff_t order_count;
    ifgo_sequence sequence; /* of the last call */
    int threads;
};

ifgo_status ifgo_tape_new(ifgo_tape **tape) {
    *tape = calloc(1, sizeof **tape);
    return *tape ? IFGO_OK : IFGO_E_MEMORY;
}

void ifgo_tape_free(ifgo_tape *t) {
    if (!t) return;
    const ifgo_space all[] = {t->z,  t->h,  t->c,  t->m,      t->dh,
                           t->dc, t->dm, t->dp, t->packed, t->scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) ifgo_release(all[i].at);
    free(t->order);
    free(t);
}

static int longer_first(const void *left, const void *right) {
    const ifgo_row *a = left, *b = right;
    if (a->length != b->length) return a->length < b->length ? 1 : -1;
    return a->index < b->index ? -1 : a->index > b->index;
}

static bool order_rows(ifgo_tape *tape, const ifgo_batch *batch) {
    if (batch->rows > tape->order_count) {
        free(tape->order);
        tape->order_count = 0;
        tape->order = calloc((size_t)batch->rows, sizeof *tape->order);
        if (!tape->order) return false;
        tape->order_count = batch->rows;
    }
    for (ptrdiff_t n = 0; n < batch->rows; n++)
        tape->order[n] = (ifgo_row){n, batch->lengths ? batch->lengths[n] : batch->steps};
    if (batch->lengths) qsort(tape->order, (size_t)batch->rows, sizeof *tape->order, longer_first);
    return true;
}

/* Rows of the caller's (rows, count) array, NULL for zeros, into rows of `width`. */
static void take_rows(const ifgo_sequence *q, const float *from, ptrdiff_t count, float *to,
                      ptrdiff_t width) {
    memset(to, 0, (size_t)(q->rows * width) * sizeof *to);
    for (ptrdiff_t n = 0; from && n < q->rows; n++)
        memcpy(to + n * width, from + q->order[n].index * count, (size_t)count * sizeof *to);
}

static void forward_part(void *context, ifgo_member *member) {
    ifgo_kernels_in_use->forward(context, member);
}

typedef struct {
    const ifgo_cell *cell;
    ifgo_state state;
    ptrdiff_t steps, x_step, y_step;
    const float *x;
    float *y, *scratch;
} single_t;

static void single_part(void *context, ifgo_member *member) {
    single_t *one = context;
    ifgo_kernels_in_use->run(one->cell, &one->state, one->steps, one->x, one->x_step, one->y,
                             one->y_step, one->scratch, member);
}

static ptrdiff_t whole(ptrdiff_t size, ptrdiff_t panel) {
    return ifgo_panels_of(size, panel) * panel;
}

/* One row that nobody differentiates: as a stream. */
static ifgo_status forward_single(ifgo_tape *tape, const ifgo_batch *b, int threads) {
    const ifgo_sequence *q = &tape->sequence;
    const ifgo_cell *cell = q->cell;
    const ptrdiff_t panel = 4 * ifgo_kernels_in_use->lanes, length = tape->order[0].length;
    if (!ifgo_hold(&tape->scratch, IFGO_RUN_CHUNK, cell->blocks, panel, 1)) return IFGO_E_MEMORY;
    const ptrdiff_t last = b->reverse && length ? length - 1 : 0, sign = b->reverse ? -1 : 1;
    single_t one = {.cell = cell,
                    .state = {{q->h, q->h + q->width_h}, q->c, q->m, 0},
                    .steps = length,
                    .x_step = sign * b->x_time,
                    .y_step = sign * b->y_time,
                    .x = b->x + last * b->x_time,
                    .y = b->y ? b->y + last * b->y_time : NULL,
                    .scratch = tape->scratch.at};
    if (length) ifgo_team_run(threads, single_part, &one);
    const float *h = one.state.h[one.state.turn];
    if (b->h_n) memcpy(b->h_n, h, (size_t)cell->output * sizeof *h);
    if (b->c_n) memcpy(b->c_n, q->c, (size_t)cell->hidden * sizeof *h);
    return IFGO_OK;
}

ifgo_status ifgo_forward(const ifgo_cell *cell, ifgo_tape *tape, const ifgo_batch *b) {
    const ptrdiff_t panel = 4 * ifgo_kernels_in_use->lanes, rows = b->rows, steps = b->steps;
    ifgo_sequence *q = &tape->sequence;
    /* a chunk's gates stay in the second-level cache beside the weights */
    const ptrdiff_t fit = rows < 240 ? 240 / (rows ? rows : 1) : 1;
    const ptrdiff_t chunk = b->keep || fit > steps ? (steps ? steps : 1) : fit;
    const ptrdiff_t states = b->keep && steps < PTRDIFF_MAX ? steps + 1 : 2;
    const ptrdiff_t width_h = whole(cell->output, panel), width_c = whole(cell->hidden, panel);
    q->cell = NULL; /* nothing to differentiate, should memory run out */
    if (rows < 0 || steps < 0 || steps == PTRDIFF_MAX) return IFGO_E_MEMORY;
    if (!ifgo_hold(&tape->h, states, rows, width_h, 1) ||
        !ifgo_hold(&tape->c, states, rows, width_c, 1) ||
        (cell->projection && !ifgo_hold(&tape->m, b->keep ? steps : 1, rows, width_c, 1)) ||
        !order_rows(tape, b))
        return IFGO_E_MEMORY;
    const bool single = rows == 1 && !b->keep;
    if (!single && !ifgo_hold(&tape->z, chunk, rows, cell->blocks, panel)) return IFGO_E_MEMORY;
    const int threads = b->threads ? b->threads : ifgo_threads_for(cell->hidden, rows, steps);
    *q = (ifgo_sequence){.cell = cell, .rows = rows, .steps = steps, .order = tape->order,
                         .reverse = b->reverse, .x = b->x, .x_row = b->x_row, .x_time = b->x_time,
                         .y = b->y, .y_row = b->y_row, .y_time = b->y_time, .chunk = chunk,
                         .keep = b->keep, .z = tape->z.at, .h = tape->h.at, .c = tape->c.at,
                         .m = tape->m.at, .width_h = width_h, .width_c = width_c,
                         .near_bytes = ifgo_near_bytes()};
    tape->threads = threads;
    take_rows(q, b->h0, cell->output, q->h, width_h);
    take_rows(q, b->c0, cell->hidden, q->c, width_c);
    /* what another call left beyond P and H must be zero again */
    for (ptrdiff_t s = 1; s < states; s++) {
        for (ptrdiff_t n = 0; n < rows; n++) {
            float *h = q->h + (s * rows + n) * width_h;
            memset(h + cell->output, 0, (size_t)(width_h - cell->output) * sizeof *h);
        }
    }
    if (single) return forward_single(tape, b, threads);
    ifgo_team_run(threads, forward_part, q);
    for (ptrdiff_t n = 0; n < rows; n++) {
        const ptrdiff_t length = q->order[n].length, row = q->order[n].index;
        const ptrdiff_t h_at = b->keep ? length : length & 1, c_at = b->keep ? length : 0;
        if (b->h_n)
            memcpy(b->h_n + row * cell->output, q->h + (h_at * rows + n) * width_h,
                   (size_t)cell->output * sizeof *q->h);
        if (b->c_n)
            memcpy(b->c_n + row * cell->hidden, q->c + (c_at * rows + n) * width_c,
                   (size_t)cell->hidden * sizeof *q->c);
    }
    return IFGO_OK;
}

static void backward_part(void *context, ifgo_member *member) {
    ifgo_kernels_in_use->backward(context, member);
}

ifgo_status ifgo_backward(const ifgo_cell *cell, ifgo_tape *tape, const ifgo_gradients *g) {
    const ifgo_sequence *q = &tape->sequence;
    const ptrdiff_t panel = 4 * ifgo_kernels_in_use->lanes, rows = q->rows;
    if (q->cell != cell || !q->keep) return IFGO_E_TAPE;
    if (cell->clip_z < INFINITY) return IFGO_E_CLIP_Z;
    ptrdiff_t all = 0;
    for (ptrdiff_t n = 0; n < rows; n++) all += q->order[n].length;
    if (!ifgo_hold(&tape->dh, rows, q->width_h, 1, 1) || !ifgo_hold(&tape->dc, rows, q->width_c, 1, 1) ||
        (cell->projection && (!ifgo_hold(&tape->dm, rows, q->width_c, 1, 1) ||
                              !ifgo_hold(&tape->dp, q->steps, rows, q->width_h, 1))) ||
        !ifgo_hold(&tape->packed, tape->threads, all ? all : 1, panel, 1))
        return IFGO_E_MEMORY;
    ifgo_return d = {.forward = q, .dy = g->dy, .dy_row = g->dy_row, .dy_time = g->dy_time,
                     .dh = tape->dh.at, .dc = tape->dc.at, .dm = tape->dm.at, .dp = tape->dp.at,
                     .packed = tape->packed.at, .packed_each = (all ? all : 1) * panel, .dx = g->dx,
                     .dx_row = g->dx_row, .dx_time = g->dx_time, .add_dx = g->add_dx,
                     .d_weight_ih = g->d_weight_ih, .d_weight_hh = g->d_weight_hh,
                     .d_bias = g->d_bias, .d_peephole = g->d_peephole,
                     .d_weight_hr = g->d_weight_hr, .d_bias_hr = g->d_bias_hr};
    take_rows(q, g->dh_n, cell->output, d.dh, q->width_h);
    take_rows(q, g->dc_n, cell->hidden, d.dc, q->width_c);
    if (d.d_bias_hr) memset(d.d_bias_hr, 0, (size_t)cell->output * sizeof *d.d_bias_hr);
    ifgo_team_run(tape->threads, backward_part, &d);
    tape->sequence.cell = NULL; /* z holds dz now */
    for (ptrdiff_t n = 0; n < rows; n++) {
        const ptrdiff_t row = q->order[n].index;
        if (g->dh0)
            memcpy(g->dh0 + row * cell->output, d.dh + n * q->width_h,
                   (size_t)cell->output * sizeof *d.dh);
        if (g->dc0)
            memcpy(g->dc0 + row * cell->hidden, d.dc + n * q->width_c,
                   (size_t)cell->hidden * sizeof *d.dc);
    }
    return IFGO_OK;
}
