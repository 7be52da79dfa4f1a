/* A dense layer with its activation. */
#ifndef IFGO_DENSE_H
#define IFGO_DENSE_H

#include "activations.h"
#include "gemm.h"
#include "kernels.h"

INLINE vec activate(int activation, vec x) {
    switch (activation) {
    case IFGO_TANH: return v_tanh(x);
    case IFGO_SIGMOID: return v_sigmoid(x);
    case IFGO_RELU: return v_max(v_zero(), x);
    default: return x;
    }
}

/* y ← exp(y − max) / Σ exp(y − max) */
static void softmax(float *y, ptrdiff_t n) {
    float top = y[0];
    for (ptrdiff_t i = 1; i < n; i++) top = y[i] > top ? y[i] : top;
    vec sum = v_zero();
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const ptrdiff_t left = n - i;
        const vec e = v_exp(v_load_first(y + i, left) - v_all(top));
        v_store_first(y + i, e, left);
        sum = sum + v_load_first(y + i, left);
    }
    const float scale = 1.0f / v_sum(sum);
    for (ptrdiff_t i = 0; i < n; i++) y[i] *= scale;
}

static void dense_few(const ifgo_dense *d, const float *x, float *y) {
    float sums[LANES > IFGO_FEW_OUTPUTS ? LANES : IFGO_FEW_OUTPUTS] = {0};
    for (ptrdiff_t j = 0; j < d->output; j++) {
        const float *w = d->rows + j * d->input;
        vec a = v_zero();
        for (ptrdiff_t k = 0; k < d->input; k += LANES)
            a = v_fma(v_load_first(w + k, d->input - k), v_load_first(x + k, d->input - k), a);
        sums[j] = v_sum(a) + d->bias[j];
    }
    v_store_first(y, activate(d->activation, v_load_any(sums)), d->output);
}

#define DENSE_TILE(R)                                                                              \
    static __attribute__((noinline)) void dense_tile_##R(                                          \
        const ifgo_dense *d, ptrdiff_t p, const float *const *row, float *y, ptrdiff_t y_row) {    \
        const ahead_t none = {NULL, 0};                                                            \
        vec acc[MAX_ROWS][4];                                                                      \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4; g++) acc[r][g] = v_load(d->bias + p * PANEL + g * LANES);       \
        tile(R, d->input, row, 1, d->panels + p * d->input * PANEL, acc, none);                    \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4; g++) {                                                          \
                const ptrdiff_t at = p * PANEL + g * LANES, left = d->output - at;                 \
                if (left > 0)                                                                      \
                    v_store_first(y + r * y_row + at, activate(d->activation, acc[r][g]), left);   \
            }                                                                                      \
    }
DENSE_TILE(1) DENSE_TILE(2) DENSE_TILE(3) DENSE_TILE(4) DENSE_TILE(5) DENSE_TILE(6)

/* Panels are shared, or rows where there are more of them. */
static bool dense(const ifgo_dense *d, ptrdiff_t rows, const float *x, ptrdiff_t x_row, float *y,
                  ptrdiff_t y_row, ifgo_member *member) {
    const ptrdiff_t panels = d->panels ? (d->output + PANEL - 1) / PANEL : 1;
    const bool by_rows = rows > panels;
    ptrdiff_t n0, n1, p0, p1;
    share(by_rows ? rows : panels, member->rank, member->size, &p0, &p1);
    if (by_rows) n0 = p0, n1 = p1, p0 = 0, p1 = panels;
    else n0 = 0, n1 = rows;
    if (!d->panels)
        for (ptrdiff_t n = n0; n < n1 && p0 < p1; n++) dense_few(d, x + n * x_row, y + n * y_row);
    else
        for (ptrdiff_t p = p0; p < p1; p++)
            for (ptrdiff_t n = n0, r; n < n1; n += r) {
                const float *row[MAX_ROWS];
                r = tile_rows(n, n1);
                for (ptrdiff_t i = 0; i < r; i++) row[i] = x + (n + i) * x_row;
#define CASE(R) dense_tile_##R(d, p, row, y + n * y_row, y_row)
                FOR_ROWS(r, CASE)
#undef CASE
            }
    if (d->activation != IFGO_SOFTMAX) return true;
    if (!by_rows) {
        if (!ifgo_meet(member)) return false;
        share(rows, member->rank, member->size, &n0, &n1);
    }
    for (ptrdiff_t n = n0; n < n1; n++) softmax(y + n * y_row, d->output);
    return true;
}

#endif
