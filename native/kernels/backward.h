/* Backward over the same batch, from the last step to the first (Werbos 1990).
 *
 * A step turns the gates kept in z into dz, in place, then sends dz·Wh back to the h before. When
 * all steps are done, the gradients of the weights are sums over all rows of all steps: tiles whose
 * rows are columns of dz and whose panel is packed from x, h or m. So they come out in the caller's
 * own layout, rows i, f, g, o.
 */
#ifndef IFGO_BACKWARD_H
#define IFGO_BACKWARD_H

#include "sequence.h"

#define DEEP 1024 /* k of one pass over a panel of backward weights: 256 KiB at 16 lanes */

/* acc += dz of R rows · the panels of blocks [b0, b1) */
INLINE void back_tile(const int R, const ifgo_sequence *q, ptrdiff_t s, ptrdiff_t n, ptrdiff_t b0,
                      ptrdiff_t b1, const float *panel, vec acc[MAX_ROWS][4], ahead_t ahead) {
    for (ptrdiff_t b = b0; b < b1; b++) {
        const float *row[MAX_ROWS], *z = z_of(q, s, b) + n * PANEL;
        for (int r = 0; r < R; r++) row[r] = z + r * PANEL;
        const ptrdiff_t done = (b - b0) * PANEL, left = ahead.lines - done;
        const ahead_t part = {ahead.at + done * 64, left < 0 ? 0 : left};
        tile(R, PANEL, row, 1, panel + b * PANEL * PANEL, acc, part);
    }
}

/* to[r] (first `columns` of a panel) = or += dz·panel over blocks [b0, b1) */
#define BACK_TILE(R)                                                                               \
    static __attribute__((noinline)) void back_tile_##R(                                           \
        const ifgo_sequence *q, ptrdiff_t s, ptrdiff_t n, ptrdiff_t b0, ptrdiff_t b1,              \
        const float *panel, float *const *to, ptrdiff_t columns, bool add, ahead_t ahead) {        \
        vec acc[MAX_ROWS][4];                                                                      \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4; g++) {                                                          \
                const ptrdiff_t left = columns - g * LANES;                                        \
                acc[r][g] = add && left > 0 ? v_load_first(to[r] + g * LANES, left) : v_zero();    \
            }                                                                                      \
        back_tile(R, q, s, n, b0, b1, panel, acc, ahead);                                          \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4 && g * LANES < columns; g++)                                     \
                v_store_first(to[r] + g * LANES, acc[r][g], columns - g * LANES);                  \
    }
TILES_OF(BACK_TILE)

/* to[r] = d[r]·panel over K, d rows anywhere: dm = dp·Wr */
#define PLAIN_TILE(R)                                                                              \
    static __attribute__((noinline)) void plain_tile_##R(ptrdiff_t K, const float *const *row,     \
                                                         const float *panel, float *const *to) {   \
        const ahead_t none = {NULL, 0};                                                            \
        vec acc[MAX_ROWS][4];                                                                      \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4; g++) acc[r][g] = v_zero();                                      \
        tile(R, K, row, 1, panel, acc, none);                                                      \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4; g++) v_store(to[r] + g * LANES, acc[r][g]);                     \
    }
TILES_OF(PLAIN_TILE)

INLINE const float *dy_of(const ifgo_return *d, ptrdiff_t n, ptrdiff_t s) {
    const ifgo_sequence *q = d->forward;
    return d->dy + q->order[n].index * d->dy_row + time_of(q, n, s) * d->dy_time;
}

/* Kept gradient at the projected h of step s: [N][width_h]. */
INLINE float *dp_of(const ifgo_return *d, ptrdiff_t s) {
    return d->dp + s * d->forward->rows * d->forward->width_h;
}

/* dp = dh + dy, 0 where the projection was clipped; then dm = dp·Wr; false where ifgo_meet() is. */
static bool through_projection(const ifgo_return *d, ptrdiff_t s, ptrdiff_t rows,
                               ifgo_member *member) {
    const ifgo_sequence *q = d->forward;
    const ifgo_cell *cell = q->cell;
    ptrdiff_t from, to;
    share(rows, member->rank, member->size, &from, &to);
    for (ptrdiff_t n = from; n < to; n++) {
        const float *dh = d->dh + n * q->width_h, *h = h_of(q, s + 1) + n * q->width_h;
        const float *dy = d->dy ? dy_of(d, n, s) : NULL, clip = cell->clip_projection;
        float *dp = dp_of(d, s) + n * q->width_h;
        for (ptrdiff_t p = 0; p < cell->output; p++) {
            const float sum = dh[p] + (dy ? dy[p] : 0.0f);
            dp[p] = h[p] < clip && h[p] > -clip ? sum : 0.0f;
        }
        for (ptrdiff_t p = cell->output; p < q->width_h; p++) dp[p] = 0.0f;
    }
    if (!ifgo_meet(member)) return false;
    share(q->width_c / PANEL, member->rank, member->size, &from, &to);
    for (ptrdiff_t p = from; p < to; p++)
        for (ptrdiff_t n = 0, r; n < rows; n += r) {
            const float *row[MAX_ROWS];
            float *out[MAX_ROWS];
            r = tile_rows(n, rows);
            for (ptrdiff_t i = 0; i < r; i++) {
                row[i] = dp_of(d, s) + (n + i) * q->width_h;
                out[i] = d->dm + (n + i) * q->width_c + p * PANEL;
            }
            const float *panel = cell->projection_back + p * cell->output * PANEL;
#define CASE(R) plain_tile_##R(cell->output, row, panel, out)
            FOR_ROWS(r, CASE)
#undef CASE
        }
    return ifgo_meet(member);
}

/* The cells of step s in blocks [b0, b1). */
static void through_cells(const ifgo_return *d, ptrdiff_t s, ptrdiff_t rows, ptrdiff_t b0,
                          ptrdiff_t b1) {
    const ifgo_sequence *q = d->forward;
    const ifgo_cell *cell = q->cell;
    for (ptrdiff_t b = b0; b < b1; b++)
        for (ptrdiff_t n = 0; n < rows; n++) {
            const ptrdiff_t at = n * q->width_c + b * LANES, units = cell->hidden - b * LANES;
            vec dc = v_load(d->dc + at), dh;
            if (cell->projection) {
                dh = v_load(d->dm + at);
            } else {
                dh = v_load(d->dh + n * q->width_h + b * LANES);
                if (d->dy) dh = dh + v_load_first(dy_of(d, n, s) + b * LANES, units);
            }
            cell_backward(cell, b, dh, v_load(c_of(q, s + 1) + at), v_load(c_of(q, s) + at), &dc,
                          z_of(q, s, b) + n * PANEL);
            v_store(d->dc + at, dc);
        }
}

/* dh of the step before s: dz·Wh, shared as panels of P, cut into parts of the rows where there
 * are few panels. */
static void to_h_before(const ifgo_return *d, ptrdiff_t s, ptrdiff_t rows,
                        ifgo_member *member) {
    const ifgo_sequence *q = d->forward;
    const ifgo_cell *cell = q->cell;
    const ptrdiff_t panels = q->width_h / PANEL, K = cell->blocks * PANEL;
    const ptrdiff_t parts = panels < 2 * member->size ? member->size : 1, deep = DEEP / PANEL;
    ptrdiff_t from, to;
    share(panels * parts, member->rank, member->size, &from, &to);
    const bool large = (to - from) * K * PANEL * 4 > parts * q->near_bytes;
    for (ptrdiff_t b0 = 0; b0 < cell->blocks; b0 += deep) {
        const ptrdiff_t b1 = cell->blocks - b0 < deep ? cell->blocks : b0 + deep;
        for (ptrdiff_t item = from; item < to; item++) {
            const ptrdiff_t p = item / parts;
            const float *panel = cell->wh_back + p * K * PANEL, *next = NULL;
            ptrdiff_t n0, n1, number = 0;
            share(rows, (int)(item % parts), (int)parts, &n0, &n1);
            if (large && item + 1 < to) next = panel + (K + b0 * PANEL) * PANEL;
            else if (large && b1 < cell->blocks)
                next = cell->wh_back + (from / parts * K + b1 * PANEL) * PANEL;
            const ptrdiff_t tiles = (n1 - n0 + ROWS - 1) / ROWS, lines = (b1 - b0) * PANEL * PANEL / 16;
            for (ptrdiff_t n = n0, r; n < n1; n += r, number++) {
                float *out[MAX_ROWS];
                const ahead_t ahead = fetch(next, lines, tiles, number);
                r = tile_rows(n, n1);
                for (ptrdiff_t i = 0; i < r; i++) out[i] = d->dh + (n + i) * q->width_h + p * PANEL;
#define CASE(R) back_tile_##R(q, s, n, b0, b1, panel, out, PANEL, b0 > 0, ahead)
                FOR_ROWS(r, CASE)
#undef CASE
            }
        }
    }
}

/* dx of all steps: dz·Wx, shared as steps. */
static void to_inputs(const ifgo_return *d, ifgo_member *member) {
    const ifgo_sequence *q = d->forward;
    const ifgo_cell *cell = q->cell;
    const ptrdiff_t panels = (cell->input + PANEL - 1) / PANEL, K = cell->blocks * PANEL;
    const ptrdiff_t deep = DEEP / PANEL;
    const ahead_t none = {NULL, 0};
    ptrdiff_t from, to;
    share(q->steps, member->rank, member->size, &from, &to);
    for (ptrdiff_t p = 0; p < panels; p++)
        for (ptrdiff_t b0 = 0; b0 < cell->blocks; b0 += deep) {
            const ptrdiff_t b1 = cell->blocks - b0 < deep ? cell->blocks : b0 + deep;
            const float *panel = cell->wx_back + p * K * PANEL;
            for (ptrdiff_t s = from; s < to; s++) {
                const ptrdiff_t rows = running(q, s), columns = cell->input - p * PANEL;
                for (ptrdiff_t n = 0, r; n < rows; n += r) {
                    float *out[MAX_ROWS];
                    r = tile_rows(n, rows);
                    for (ptrdiff_t i = 0; i < r; i++)
                        out[i] = d->dx + q->order[n + i].index * d->dx_row +
                                 time_of(q, n + i, s) * d->dx_time + p * PANEL;
                    const ptrdiff_t width = columns < PANEL ? columns : PANEL;
#define CASE(R) back_tile_##R(q, s, n, b0, b1, panel, out, width, b0 > 0 || d->add_dx, none)
                    FOR_ROWS(r, CASE)
#undef CASE
                }
            }
        }
}

/* The left factor of a weight gradient: R columns of step s start at `at` + s·time. */
typedef struct {
    const float *at;
    ptrdiff_t time, row;
} columns_t;

/* Steps [from, to): few enough that their rows of one panel and of one block stay near. */
typedef struct {
    ptrdiff_t from, to;
} span_t;

#define NEAR_ROWS 768

/* to[m][j] (R rows, stride `width`) = Σ over the rows of the steps of a[m]·packed[j]; added to
 * what is there but for the first steps. */
#define OUTER_TILE(R)                                                                              \
    static __attribute__((noinline)) void outer_tile_##R(                                          \
        const ifgo_sequence *q, span_t span, columns_t a, const float *packed, float *to,          \
        ptrdiff_t width, ptrdiff_t columns) {                                                      \
        const ahead_t none = {NULL, 0};                                                            \
        vec acc[MAX_ROWS][4];                                                                      \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4; g++) {                                                          \
                const ptrdiff_t left = columns - g * LANES;                                        \
                const float *old = to + r * width + g * LANES;                                     \
                acc[r][g] = span.from && left > 0 ? v_load_first(old, left) : v_zero();            \
            }                                                                                      \
        for (ptrdiff_t s = span.from; s < span.to; s++) {                                          \
            const ptrdiff_t rows = running(q, s);                                                  \
            const float *row[MAX_ROWS];                                                            \
            for (int r = 0; r < R; r++) row[r] = a.at + s * a.time + r;                            \
            tile(R, rows, row, a.row, packed, acc, none);                                          \
            packed += rows * PANEL;                                                                \
        }                                                                                          \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4 && g * LANES < columns; g++)                                     \
                v_store_first(to + r * width + g * LANES, acc[r][g], columns - g * LANES);         \
    }
TILES_OF(OUTER_TILE)

static void outer(const ifgo_sequence *q, span_t span, columns_t a, ptrdiff_t count,
                  const float *packed, float *to, ptrdiff_t width, ptrdiff_t columns) {
    for (ptrdiff_t m = 0, r; m < count; m += r) {
        const columns_t part = {a.at + m, a.time, a.row};
        r = tile_rows(m, count);
#define CASE(R) outer_tile_##R(q, span, part, packed, to + m * width, width, columns)
        FOR_ROWS(r, CASE)
#undef CASE
    }
}

enum { OF_X, OF_H, OF_M };

/* Panel p of x, of the h before, or of m, rows of the steps one after the other. */
static void pack_rows(const ifgo_sequence *q, span_t span, int what, ptrdiff_t p,
                      ptrdiff_t columns, float *packed) {
    for (ptrdiff_t s = span.from; s < span.to; s++) {
        const ptrdiff_t rows = running(q, s);
        for (ptrdiff_t n = 0; n < rows; n++, packed += PANEL) {
            const float *from = what == OF_X   ? x_of(q, n, s)
                                : what == OF_H ? h_of(q, s) + n * q->width_h
                                               : m_of(q, s) + n * q->width_c;
            for (int g = 0; g < 4; g++) {
                const ptrdiff_t at = p * PANEL + g * LANES, left = columns - at;
                v_store(packed + g * LANES, left > 0 ? v_load_first(from + at, left) : v_zero());
            }
        }
    }
}

/* d weights from `columns` columns of x, h or m: panels shared, and blocks where panels are few. */
static void weight_gradient(const ifgo_return *d, int what, ptrdiff_t columns, float *to,
                            ifgo_member *member) {
    const ifgo_sequence *q = d->forward;
    const ifgo_cell *cell = q->cell;
    const ptrdiff_t panels = (columns + PANEL - 1) / PANEL;
    const ptrdiff_t parts = panels < 2 * member->size ? member->size : 1;
    const ptrdiff_t units = what == OF_M ? cell->output : cell->blocks;
    float *packed = d->packed + member->rank * d->packed_each;
    ptrdiff_t from, until;
    share(panels * parts, member->rank, member->size, &from, &until);
    const ptrdiff_t near = q->rows < NEAR_ROWS ? NEAR_ROWS / q->rows : 1;
    for (ptrdiff_t item = from; item < until; item++) {
        const ptrdiff_t p = item / parts, left = columns - p * PANEL;
        ptrdiff_t u0, u1;
        share(units, (int)(item % parts), (int)parts, &u0, &u1);
        for (span_t span = {0, 0}; span.from < q->steps; span.from = span.to) {
            span.to = q->steps - span.from < near ? q->steps : span.from + near;
            pack_rows(q, span, what, p, columns, packed);
            if (what == OF_M) {
                const columns_t a = {d->dp + u0, q->rows * q->width_h, q->width_h};
                outer(q, span, a, u1 - u0, packed, to + u0 * columns + p * PANEL, columns, left);
                continue;
            }
            const ptrdiff_t step = cell->blocks * q->rows * PANEL;
            for (ptrdiff_t b = u0; b < u1; b++)
                for (ptrdiff_t g = 0; g < 4; g++) {
                    const ptrdiff_t unit = b * LANES, count = cell->hidden - unit;
                    const columns_t a = {z_of(q, 0, b) + g * LANES, step, PANEL};
                    outer(q, span, a, count < LANES ? count : LANES, packed,
                          to + (g * cell->hidden + unit) * columns + p * PANEL, columns, left);
                }
        }
    }
}

/* d bias and d peephole of blocks [b0, b1): sums over rows. */
static void unit_gradients(const ifgo_return *d, ptrdiff_t b0, ptrdiff_t b1) {
    const ifgo_sequence *q = d->forward;
    const ptrdiff_t H = q->cell->hidden;
    for (ptrdiff_t b = b0; b < b1; b++) {
        const ptrdiff_t unit = b * LANES, units = H - unit;
        vec bias[4], peephole[3];
        for (int g = 0; g < 4; g++) bias[g] = v_zero();
        for (int g = 0; g < 3; g++) peephole[g] = v_zero();
        for (ptrdiff_t s = 0; s < q->steps; s++) {
            const ptrdiff_t rows = running(q, s);
            const float *z = z_of(q, s, b);
            for (ptrdiff_t n = 0; n < rows; n++, z += PANEL) {
                vec dz[4];
                for (int g = 0; g < 4; g++) bias[g] = bias[g] + (dz[g] = v_load(z + g * LANES));
                if (!d->d_peephole) continue;
                const vec old = v_load(c_of(q, s) + n * q->width_c + unit);
                const vec new = v_load(c_of(q, s + 1) + n * q->width_c + unit);
                peephole[0] = v_fma(dz[0], old, peephole[0]);
                peephole[1] = v_fma(dz[1], old, peephole[1]);
                peephole[2] = v_fma(dz[3], new, peephole[2]);
            }
        }
        for (int g = 0; g < 4; g++) v_store_first(d->d_bias + g * H + unit, bias[g], units);
        for (int g = 0; g < 3 && d->d_peephole; g++)
            v_store_first(d->d_peephole + g * H + unit, peephole[g], units);
    }
}

static void backward(const ifgo_return *d, ifgo_member *member) {
    const ifgo_sequence *q = d->forward;
    const ifgo_cell *cell = q->cell;
    ptrdiff_t b0, b1;
    for (ptrdiff_t s = q->steps - 1; s >= 0; s--) {
        const ptrdiff_t rows = running(q, s);
        if (rows == 0) continue;
        if (cell->projection && !through_projection(d, s, rows, member)) return;
        share(cell->blocks, member->rank, member->size, &b0, &b1);
        through_cells(d, s, rows, b0, b1);
        if (!ifgo_meet(member)) return;
        to_h_before(d, s, rows, member);
        if (!ifgo_meet(member)) return;
    }
    if (d->d_weight_ih) weight_gradient(d, OF_X, cell->input, d->d_weight_ih, member);
    if (d->d_weight_hh) weight_gradient(d, OF_H, cell->output, d->d_weight_hh, member);
    if (d->d_weight_hr) weight_gradient(d, OF_M, cell->hidden, d->d_weight_hr, member);
    share(cell->blocks, member->rank, member->size, &b0, &b1);
    if (d->d_bias) unit_gradients(d, b0, b1);
    if (d->d_bias_hr && member->rank == 0)
        for (ptrdiff_t s = 0; s < q->steps; s++)
            for (ptrdiff_t n = 0; n < running(q, s); n++)
                for (ptrdiff_t p = 0; p < cell->output; p++)
                    d->d_bias_hr[p] += dp_of(d, s)[n * q->width_h + p];
    if (d->dx) to_inputs(d, member);
}

#endif
