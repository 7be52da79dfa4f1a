/* Forward over a batch of sequences: the input projection of a chunk of steps as one product that
 * stays in the cache, then step by step the recurrent product with the cell in its epilogue.
 *
 * Members of a team take blocks of units, and meet once a step. A unit's sums do not depend on who
 * takes it, so neither do the results.
 */
#ifndef IFGO_SEQUENCE_H
#define IFGO_SEQUENCE_H

#include "cell.h"
#include "gemm.h"

/* Rows that still run at step s: they come first. */
INLINE ptrdiff_t running(const ifgo_sequence *q, ptrdiff_t s) {
    ptrdiff_t n = q->rows;
    while (n > 0 && q->order[n - 1].length <= s) n--;
    return n;
}

INLINE ptrdiff_t time_of(const ifgo_sequence *q, ptrdiff_t n, ptrdiff_t s) {
    return q->reverse ? q->order[n].length - 1 - s : s;
}

INLINE const float *x_of(const ifgo_sequence *q, ptrdiff_t n, ptrdiff_t s) {
    return q->x + q->order[n].index * q->x_row + time_of(q, n, s) * q->x_time;
}

INLINE float *y_of(const ifgo_sequence *q, ptrdiff_t n, ptrdiff_t s) {
    return q->y + q->order[n].index * q->y_row + time_of(q, n, s) * q->y_time;
}

/* Block b of the gates of step s: [N][4][LANES]. */
INLINE float *z_of(const ifgo_sequence *q, ptrdiff_t s, ptrdiff_t b) {
    const ptrdiff_t slot = q->keep ? s : s % q->chunk;
    return q->z + (slot * q->cell->blocks + b) * q->rows * PANEL;
}

/* The state after s steps. */
INLINE float *h_of(const ifgo_sequence *q, ptrdiff_t s) {
    return q->h + (q->keep ? s : s & 1) * q->rows * q->width_h;
}
INLINE float *c_of(const ifgo_sequence *q, ptrdiff_t s) {
    return q->c + (q->keep ? s : 0) * q->rows * q->width_c;
}
INLINE float *m_of(const ifgo_sequence *q, ptrdiff_t s) {
    return q->m + (q->keep ? s : 0) * q->rows * q->width_c;
}

#define INPUT_TILE(R)                                                                              \
    static __attribute__((noinline)) void input_tile_##R(const ifgo_cell *cell, ptrdiff_t b,       \
                                                         const float *const *row, float *z,        \
                                                         ahead_t ahead) {                          \
        vec acc[MAX_ROWS][4];                                                                      \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4; g++) acc[r][g] = v_load(cell->bias + b * PANEL + g * LANES);    \
        tile(R, cell->input, row, 1, cell->wx + b * cell->input * PANEL, acc, ahead);              \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4; g++) v_store(z + r * PANEL + g * LANES, acc[r][g]);             \
    }

/* Not inlined into the loops around: there its accumulators would spill. */
#define STEP_TILE(R)                                                                               \
    static __attribute__((noinline)) void step_tile_##R(                                           \
        const ifgo_sequence *q, ptrdiff_t s, ptrdiff_t b, ptrdiff_t n, ahead_t ahead) {            \
        const ifgo_cell *cell = q->cell;                                                           \
        const float *row[MAX_ROWS], *c_old = c_of(q, s) + n * q->width_c + b * LANES;              \
        float *z = z_of(q, s, b) + n * PANEL, *c = c_of(q, s + 1) + n * q->width_c + b * LANES;    \
        const ptrdiff_t width = cell->projection ? q->width_c : q->width_h;                        \
        float *out = (cell->projection ? m_of(q, s) : h_of(q, s + 1)) + n * width + b * LANES;     \
        const ptrdiff_t units = cell->hidden - b * LANES;                                          \
        vec acc[MAX_ROWS][4];                                                                      \
        for (int r = 0; r < R; r++) {                                                              \
            row[r] = h_of(q, s) + (n + r) * q->width_h;                                            \
            for (int g = 0; g < 4; g++) acc[r][g] = v_load(z + r * PANEL + g * LANES);             \
        }                                                                                          \
        tile(R, cell->output, row, 1, cell->wh + b * cell->depth * PANEL, acc, ahead);             \
        for (int r = 0; r < R; r++) {                                                              \
            vec state = v_load(c_old + r * q->width_c), h;                                         \
            if (q->keep) cell_forward_kept(cell, b, acc[r], &state, &h, z + r * PANEL);            \
            else cell_forward(cell, b, acc[r], &state, &h);                                        \
            v_store(c + r * q->width_c, state);                                                    \
            v_store(out + r * width, h);                                                           \
            if (q->y && !cell->projection)                                                         \
                v_store_first(y_of(q, n + r, s) + b * LANES, h, units);                            \
        }                                                                                          \
    }

#define PROJECTION_TILE(R)                                                                         \
    static __attribute__((noinline)) void projection_tile_##R(const ifgo_sequence *q, ptrdiff_t s, \
                                                              ptrdiff_t p, ptrdiff_t n) {          \
        const ifgo_cell *cell = q->cell;                                                           \
        const float *row[MAX_ROWS];                                                                \
        const ahead_t none = {NULL, 0};                                                            \
        vec acc[MAX_ROWS][4];                                                                      \
        for (int r = 0; r < R; r++) {                                                              \
            row[r] = m_of(q, s) + (n + r) * q->width_c;                                            \
            for (int g = 0; g < 4; g++)                                                            \
                acc[r][g] = v_load(cell->projection_bias + p * PANEL + g * LANES);                 \
        }                                                                                          \
        tile(R, cell->hidden, row, 1, cell->projection + p * cell->hidden * PANEL, acc, none);     \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4; g++) {                                                          \
                const ptrdiff_t at = p * PANEL + g * LANES, left = cell->output - at;              \
                vec h = acc[r][g];                                                                 \
                if (cell->clip_projection < INFINITY) h = v_bound(h, cell->clip_projection);       \
                v_store(h_of(q, s + 1) + (n + r) * q->width_h + at, h);                            \
                if (q->y && left > 0) v_store_first(y_of(q, n + r, s) + at, h, left);              \
            }                                                                                      \
    }

#define TILES_OF(MACRO) MACRO(1) MACRO(2) MACRO(3) MACRO(4) MACRO(5) MACRO(6)
TILES_OF(INPUT_TILE)
TILES_OF(STEP_TILE)
TILES_OF(PROJECTION_TILE)

/* What a tile fetches of the `lines` at `next` while `tiles` tiles compute, this being number i. */
INLINE ahead_t fetch(const float *next, ptrdiff_t lines, ptrdiff_t tiles, ptrdiff_t i) {
    if (!next) return (ahead_t){NULL, 0};
    const ptrdiff_t each = (lines + tiles - 1) / tiles;
    return (ahead_t){(const char *)next + i * each * 64, each};
}

static void input_steps(const ifgo_sequence *q, ptrdiff_t from, ptrdiff_t to, ptrdiff_t b,
                        bool more) {
    const ifgo_cell *cell = q->cell;
    const ptrdiff_t lines = cell->input * PANEL / 16;
    const ptrdiff_t tiles = (to - from) * ((running(q, from) + ROWS - 1) / ROWS);
    const float *next = more ? cell->wx + (b + 1) * cell->input * PANEL : NULL;
    ptrdiff_t number = 0;
    for (ptrdiff_t s = from; s < to; s++) {
        const ptrdiff_t rows = running(q, s);
        float *z = z_of(q, s, b);
        for (ptrdiff_t n = 0, r; n < rows; n += r, number++) {
            const float *row[MAX_ROWS];
            const ahead_t ahead = fetch(next, lines, tiles, number);
            r = tile_rows(n, rows);
            for (ptrdiff_t i = 0; i < r; i++) row[i] = x_of(q, n + i, s);
#define CASE(R) input_tile_##R(cell, b, row, z + n * PANEL, ahead)
            FOR_ROWS(r, CASE)
#undef CASE
        }
    }
}

static void forward(const ifgo_sequence *q, ifgo_member *member) {
    const ifgo_cell *cell = q->cell;
    const ptrdiff_t lines = cell->depth * PANEL / 16, panels = (cell->output + PANEL - 1) / PANEL;
    ptrdiff_t b0, b1, p0, p1;
    share(cell->blocks, member->rank, member->size, &b0, &b1);
    for (ptrdiff_t from = 0; from < q->steps; from += q->chunk) {
        const ptrdiff_t to = q->steps - from < q->chunk ? q->steps : from + q->chunk;
        for (ptrdiff_t b = b0; b < b1; b++) input_steps(q, from, to, b, b + 1 < b1);
        for (ptrdiff_t s = from; s < to; s++) {
            const ptrdiff_t rows = running(q, s), tiles = (rows + ROWS - 1) / ROWS;
            if (rows == 0) return; /* every member sees the same */
            const bool large = (b1 - b0) * lines * 64 > q->near_bytes;
            const ptrdiff_t up = s & 1 ? -1 : 1;
            for (ptrdiff_t i = 0; i < b1 - b0; i++) {
                const ptrdiff_t b = up > 0 ? b0 + i : b1 - 1 - i;
                const bool more = large && i + 1 < b1 - b0;
                const float *next = more ? cell->wh + (b + up) * cell->depth * PANEL : NULL;
                ptrdiff_t number = 0;
                for (ptrdiff_t n = 0, r; n < rows; n += r, number++) {
                    const ahead_t ahead = fetch(next, lines, tiles, number);
                    r = tile_rows(n, rows);
#define CASE(R) step_tile_##R(q, s, b, n, ahead)
                    FOR_ROWS(r, CASE)
#undef CASE
                }
            }
            if (!ifgo_meet(member)) return;
            share(cell->blocks, member->rank, member->size, &b0, &b1);
            if (!cell->projection) continue;
            share(panels, member->rank, member->size, &p0, &p1);
            for (ptrdiff_t p = p0; p < p1; p++)
                for (ptrdiff_t n = 0, r; n < rows; n += r) {
                    r = tile_rows(n, rows);
#define CASE(R) projection_tile_##R(q, s, p, n)
                    FOR_ROWS(r, CASE)
#undef CASE
                }
            if (!ifgo_meet(member)) return;
            share(cell->blocks, member->rank, member->size, &b0, &b1);
        }
    }
}

#endif
