/* One sequence, one step after the other: the state stays inside, weights are read once a step.
 *
 * A step is bound by how fast weights arrive. Blocks are therefore taken up and down in turn
 * (boustrophedon): what the last step read last is still in the nearest cache when the next step
 * begins with it. Cells of one block keep c in a register and read h from one cache line.
 */
#ifndef IFGO_STEP_H
#define IFGO_STEP_H

#include "cell.h"
#include "gemm.h"

/* a[g] += Σ_k v[k]·w[k][g], the sum cut into `split` chains of k modulo split (latency). */
INLINE void sums(const int split, const float *restrict w, const float *restrict v, ptrdiff_t K,
                 vec a[4]) {
    vec chain[4][4];
    for (int s = 0; s < split; s++)
        for (int g = 0; g < 4; g++) chain[s][g] = s ? v_zero() : a[g];
    ptrdiff_t k = 0;
    for (; k + split <= K; k += split) {
#pragma GCC unroll 4
        for (int s = 0; s < split; s++) {
            const vec x = v_all(v[k + s]);
#pragma GCC unroll 4
            for (int g = 0; g < 4; g++)
                chain[s][g] = v_fma(v_load(w + ((k + s) * 4 + g) * LANES), x, chain[s][g]);
        }
    }
    for (; k < K; k++) {
        const vec x = v_all(v[k]);
        for (int g = 0; g < 4; g++)
            chain[0][g] = v_fma(v_load(w + (k * 4 + g) * LANES), x, chain[0][g]);
    }
    for (int g = 0; g < 4; g++) {
        a[g] = chain[0][g];
        if (split == 2) a[g] = a[g] + chain[1][g];
        if (split == 4) a[g] = (a[g] + chain[1][g]) + (chain[2][g] + chain[3][g]);
    }
}

/* The bias and input part of block b: from zx where it was made before, else from x. */
INLINE void input_part(const ifgo_cell *cell, ptrdiff_t b, const float *x, const float *zx,
                       vec a[4]) {
    const float *from = zx ? zx + b * PANEL : cell->bias + b * PANEL;
    for (int g = 0; g < 4; g++) a[g] = v_load(from + g * LANES);
    if (!zx) sums(1, cell->wx + b * cell->input * PANEL, x, cell->input, a);
}

INLINE void step_block(const ifgo_cell *cell, ptrdiff_t b, const float *x, const float *zx,
                       const float *h, float *c, float *out) {
    vec a[4], state = v_load(c + b * LANES), y;
    input_part(cell, b, x, zx, a);
    sums(2, cell->wh + b * cell->depth * PANEL, h, cell->depth, a);
    cell_forward(cell, b, a, &state, &y);
    v_store(c + b * LANES, state);
    v_store(out + b * LANES, y);
}

/* h = clip(Wr·m + br), panels [p0, p1) */
INLINE void project(const ifgo_cell *cell, ptrdiff_t p0, ptrdiff_t p1, const float *m, float *h) {
    for (ptrdiff_t p = p0; p < p1; p++) {
        vec a[4];
        for (int g = 0; g < 4; g++) a[g] = v_load(cell->projection_bias + p * PANEL + g * LANES);
        sums(2, cell->projection + p * cell->hidden * PANEL, m, cell->hidden, a);
        for (int g = 0; g < 4; g++) {
            if (cell->clip_projection < INFINITY) a[g] = v_bound(a[g], cell->clip_projection);
            v_store(h + p * PANEL + g * LANES, a[g]);
        }
    }
}

/* What one member of a team does of the sequence: blocks [b0, b1). */
typedef struct {
    const ifgo_cell *cell;
    ifgo_member *member;
    ptrdiff_t b0, b1;
} part_t;

/* Shares the blocks again, for the team may have shrunk; false for a member sent away. */
INLINE bool meet(part_t *part) {
    if (!ifgo_meet(part->member)) return false;
    share(part->cell->blocks, part->member->rank, part->member->size, &part->b0, &part->b1);
    return true;
}

/* From h[turn] to h[1 − turn]; false where meet() is. */
static bool step(part_t *part, ifgo_state *s, int turn, const float *x, const float *zx) {
    const ifgo_cell *cell = part->cell;
    const float *h = s->h[turn];
    float *next = s->h[1 - turn], *out = cell->projection ? s->m : next;
    if (turn)
        for (ptrdiff_t b = part->b1 - 1; b >= part->b0; b--) step_block(cell, b, x, zx, h, s->c, out);
    else
        for (ptrdiff_t b = part->b0; b < part->b1; b++) step_block(cell, b, x, zx, h, s->c, out);
    if (!meet(part)) return false;
    if (!cell->projection) return true;
    ptrdiff_t p0, p1;
    share((cell->output + PANEL - 1) / PANEL, part->member->rank, part->member->size, &p0, &p1);
    project(cell, p0, p1, s->m, next);
    return meet(part);
}

/* zx[t][block][4][LANES] = bias + Wx·x[t] */
static void project_inputs(const part_t *part, ptrdiff_t steps, const float *x, ptrdiff_t x_step,
                           float *zx) {
    const ifgo_cell *cell = part->cell;
    const ptrdiff_t all = cell->blocks * PANEL;
    const ahead_t none = {NULL, 0};
    for (ptrdiff_t b = part->b0; b < part->b1; b++) {
        const float *w = cell->wx + b * cell->input * PANEL, *bias = cell->bias + b * PANEL;
        for (ptrdiff_t t = 0, n; t < steps; t += n) {
            const float *row[MAX_ROWS];
            n = tile_rows(t, steps);
            for (ptrdiff_t r = 0; r < n; r++) row[r] = x + (t + r) * x_step;
#define CASE(R)                                                                                    \
    do {                                                                                           \
        vec acc[MAX_ROWS][4];                                                                      \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4; g++) acc[r][g] = v_load(bias + g * LANES);                      \
        tile(R, cell->input, row, 1, w, acc, none);                                                \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4; g++)                                                            \
                v_store(zx + (t + r) * all + b * PANEL + g * LANES, acc[r][g]);                    \
    } while (0)
            FOR_ROWS(n, CASE)
#undef CASE
        }
    }
}

/* A plain cell of one block: c stays in a register, and the input part of the next step does not
 * wait for this one. K: H rounded up to 4. */
INLINE void run_small(const int K, const ifgo_cell *cell, ifgo_state *s, ptrdiff_t steps,
                      const float *x, ptrdiff_t x_step, float *y, ptrdiff_t y_step) {
    const float *w = cell->wh;
    float *now = s->h[s->turn], *next = s->h[1 - s->turn];
    const ptrdiff_t I = cell->input, H = cell->hidden;
    vec c = v_load(s->c), h;
    for (ptrdiff_t t = 0; t < steps; t++) {
        vec a[4][4], z[4];
        for (int g = 0; g < 4; g++) a[0][g] = v_load(cell->bias + g * LANES);
        for (ptrdiff_t k = 0; k < I; k++) {
            const vec v = v_all(x[t * x_step + k]);
            for (int g = 0; g < 4; g++)
                a[0][g] = v_fma(v_load(cell->wx + (k * 4 + g) * LANES), v, a[0][g]);
        }
#pragma GCC unroll 16
        for (int k = 0; k < K; k++) {
            const vec v = v_all(now[k]);
#pragma GCC unroll 4
            for (int g = 0; g < 4; g++) {
                const vec weight = v_load(w + (k * 4 + g) * LANES);
                if (k > 0 && k < 4) a[k][g] = weight * v;
                else a[k % 4][g] = v_fma(weight, v, a[k % 4][g]);
            }
        }
        for (int g = 0; g < 4; g++) z[g] = (a[0][g] + a[1][g]) + (a[2][g] + a[3][g]);
        cell_plain(z, &c, &h);
        v_store(next, h);
        if (y) v_store_first(y + t * y_step, h, H);
        float *swap = now;
        now = next;
        next = swap;
    }
    v_store(s->c, c);
    s->turn = now == s->h[1];
}

static bool run(const ifgo_cell *cell, ifgo_state *s, ptrdiff_t steps, const float *x,
                ptrdiff_t x_step, float *y, ptrdiff_t y_step, float *scratch,
                ifgo_member *member) {
    if (cell->blocks == 1 && cell->plain && !cell->projection) {
        if (member->rank > 0) return true; /* a team gives the bits of one thread */
        switch (cell->depth) {
        case 4: run_small(4, cell, s, steps, x, x_step, y, y_step); return true;
#if LANES >= 8
        case 8: run_small(8, cell, s, steps, x, x_step, y, y_step); return true;
#endif
#if LANES >= 16
        case 12: run_small(12, cell, s, steps, x, x_step, y, y_step); return true;
        case 16: run_small(16, cell, s, steps, x, x_step, y, y_step); return true;
#endif
        default: break;
        }
    }
    part_t part = {cell, member, 0, 0};
    share(cell->blocks, member->rank, member->size, &part.b0, &part.b1);
    const bool early = cell->input >= 8 && steps >= 4;
    int turn = s->turn;
    for (ptrdiff_t t = 0; t < steps; t++) {
        const ptrdiff_t in_chunk = t % IFGO_RUN_CHUNK, left = steps - t;
        if (early && in_chunk == 0)
            project_inputs(&part, left < IFGO_RUN_CHUNK ? left : IFGO_RUN_CHUNK, x + t * x_step,
                           x_step, scratch);
        if (!step(&part, s, turn, x + t * x_step,
                  early ? scratch + in_chunk * cell->blocks * PANEL : NULL))
            return false;
        turn = 1 - turn;
        if (y && member->rank == 0)
            memcpy(y + t * y_step, s->h[turn], (size_t)cell->output * sizeof *y);
    }
    if (member->rank == 0) s->turn = turn; /* the others have long read what it was */
    return true;
}

#endif
