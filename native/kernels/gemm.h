/* Register tiles: R rows of A times one packed panel of 4 × LANES columns.
 *
 * A row of A is read through its own pointer, one value at a time (a broadcast), so that rows may
 * lie anywhere; the panel is [k][4][LANES]. Every column is one sum over ascending k, whatever the
 * number of rows: results do not depend on how rows are grouped.
 */
#ifndef IFGO_GEMM_H
#define IFGO_GEMM_H

#include "vector.h"

#define MAX_ROWS 6

/* Bytes of a panel that the next tiles will read, fetched while this one computes. */
typedef struct {
    const char *at;
    ptrdiff_t lines;
} ahead_t;

#define PREFETCH(p) __builtin_prefetch((p), 0, 2)

/* acc[r][g] += Σ_k a[r][k]·panel[k][g]; R is a constant of the caller. */
INLINE void tile(const int R, ptrdiff_t K, const float *const *a, ptrdiff_t a_step,
                 const float *restrict panel, vec acc[MAX_ROWS][4], ahead_t ahead) {
    const float *row[MAX_ROWS];
    for (int r = 0; r < R; r++) row[r] = a[r];
    for (ptrdiff_t k = 0; k < K; k++) {
        const vec w0 = v_load(panel), w1 = v_load(panel + LANES), w2 = v_load(panel + 2 * LANES),
                  w3 = v_load(panel + 3 * LANES);
        panel += PANEL;
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
            const vec x = v_all(row[r][k * a_step]);
            acc[r][0] = v_fma(w0, x, acc[r][0]);
            acc[r][1] = v_fma(w1, x, acc[r][1]);
            acc[r][2] = v_fma(w2, x, acc[r][2]);
            acc[r][3] = v_fma(w3, x, acc[r][3]);
        }
        if (k < ahead.lines) {
            PREFETCH(ahead.at);
            ahead.at += 64;
        }
    }
}

/* Calls CASE(R) with R the constant equal to `rows`, 1 to MAX_ROWS. */
#define FOR_ROWS(rows, CASE)                                                                       \
    switch (rows) {                                                                                \
    case 1: CASE(1); break;                                                                        \
    case 2: CASE(2); break;                                                                        \
    case 3: CASE(3); break;                                                                        \
    case 4: CASE(4); break;                                                                        \
    case 5: CASE(5); break;                                                                        \
    default: CASE(6); break;                                                                       \
    }

/* Rows of the tile that starts at `row` of n, all tiles of nearly equal height. */
INLINE ptrdiff_t tile_rows(ptrdiff_t row, ptrdiff_t n) {
    const ptrdiff_t left = n - row, tiles = (left + ROWS - 1) / ROWS;
    return (left + tiles - 1) / tiles;
}

/* The part [*from, *to) of n things that member `rank` of `size` takes: never less than a member of
 * higher rank (engine/pool.c counts on it). */
INLINE void share(ptrdiff_t n, int rank, int size, ptrdiff_t *from, ptrdiff_t *to) {
    *from = size == 1 ? 0 : (n * rank + size - 1) / size;
    *to = size == 1 ? n : (n * (rank + 1) + size - 1) / size;
}

#endif
