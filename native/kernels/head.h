/* A dense layer in training, and the softmax cross-entropy over it: forward beside backward.
 *
 * Logits stand in panels of outputs, [panel][row][panel columns]: the exponentials of a row are
 * taken while its panel is still near, against the row's largest logit of that panel, and only a
 * factor per row and panel corrects them once the largest of all is known. The same place then
 * holds the gradients. No sum's order depends on the size of the team.
 */
#ifndef IFGO_HEAD_H
#define IFGO_HEAD_H

#include "activations.h"
#include "backward.h"

INLINE ptrdiff_t head_panels(const ifgo_head *d) { return (d->output + PANEL - 1) / PANEL; }
INLINE float *head_panel(const ifgo_head *d, ptrdiff_t p) { return d->q + p * d->rows * PANEL; }

/* q of one panel = W·x + b */
static void head_logits(const ifgo_head *d, ptrdiff_t p) {
    float *q = head_panel(d, p);
    for (ptrdiff_t n = 0, r; n < d->rows; n += r) {
        const float *row[MAX_ROWS];
        float *to[MAX_ROWS];
        r = tile_rows(n, d->rows);
        for (ptrdiff_t i = 0; i < r; i++) {
            row[i] = d->x + (n + i) * d->x_row;
            to[i] = q + (n + i) * PANEL;
        }
#define CASE(R) plain_tile_##R(d->input, row, d->panels + p * d->input * PANEL, to)
        FOR_ROWS(r, CASE)
#undef CASE
        for (ptrdiff_t i = 0; i < r; i++)
            for (int g = 0; g < 4; g++) {
                const vec b = v_load(d->bias + p * PANEL + g * LANES);
                v_store(to[i] + g * LANES, v_load(to[i] + g * LANES) + b);
            }
    }
}

/* q of one panel → exp(q − the row's largest here); that largest and the sum of the row. */
static void head_powers(const ifgo_head *d, ptrdiff_t p) {
    float *q = head_panel(d, p);
    for (ptrdiff_t n = 0; n < d->rows; n++, q += PANEL) {
        const ptrdiff_t column = (ptrdiff_t)d->target[n] - p * PANEL;
        if (column >= 0 && column < PANEL) d->at_target[n] = q[column];
        vec a[4], sum = v_zero();
        for (int g = 0; g < 4; g++) a[g] = v_load(q + g * LANES);
        const float top = v_top(v_max(v_max(a[0], a[1]), v_max(a[2], a[3])));
        for (int g = 0; g < 4; g++) {
            a[g] = v_exp(a[g] - v_all(top));
            v_store(q + g * LANES, a[g]);
            sum = sum + a[g];
        }
        d->top[p * d->rows + n] = top;
        d->sum[p * d->rows + n] = v_sum(sum);
    }
}

/* Rows [from, to): top becomes each panel's factor, norm is weight / Σ exp, and the loss. */
static void head_losses(const ifgo_head *d, ptrdiff_t from, ptrdiff_t to) {
    const ptrdiff_t panels = head_panels(d), R = d->rows;
    for (ptrdiff_t n = from; n < to; n += LANES) {
        const ptrdiff_t left = to - n;
        vec top = v_all(-INFINITY), sum = v_zero();
        for (ptrdiff_t p = 0; p < panels; p++)
            top = v_max(top, v_load_first(d->top + p * R + n, left));
        for (ptrdiff_t p = 0; p < panels; p++) {
            const vec factor = v_exp(v_load_first(d->top + p * R + n, left) - top);
            sum = v_fma(factor, v_load_first(d->sum + p * R + n, left), sum);
            v_store_first(d->top + p * R + n, factor, left);
        }
        v_store_first(d->norm + n, sum, left);
        v_store_first(d->loss + n, top, left);
    }
    for (ptrdiff_t n = from; n < to; n++) {
        d->loss[n] = d->weight[n] * (logf(d->norm[n]) + (d->loss[n] - d->at_target[n]));
        d->norm[n] = d->weight[n] / d->norm[n];
    }
}

/* q of one panel becomes the gradient of its logits. */
static void head_softmax_gradient(const ifgo_head *d, ptrdiff_t p) {
    float *q = head_panel(d, p);
    for (ptrdiff_t n = 0; n < d->rows; n++, q += PANEL) {
        const vec scale = v_all(d->top[p * d->rows + n] * d->norm[n]);
        for (int g = 0; g < 4; g++) v_store(q + g * LANES, v_load(q + g * LANES) * scale);
        const ptrdiff_t column = (ptrdiff_t)d->target[n] - p * PANEL;
        if (column >= 0 && column < PANEL) q[column] -= d->weight[n];
    }
}

/* q of one panel from the caller's dy (rows, output). */
static void head_take(const ifgo_head *d, ptrdiff_t p) {
    float *q = head_panel(d, p);
    for (ptrdiff_t n = 0; n < d->rows; n++, q += PANEL)
        for (int g = 0; g < 4; g++) {
            const ptrdiff_t at = p * PANEL + g * LANES, left = d->output - at;
            const float *from = d->dy + n * d->dy_row + at;
            v_store(q + g * LANES, left > 0 ? v_load_first(from, left) : v_zero());
        }
}

/* Panel j of x: [row][panel columns], zero beyond the input. */
static void head_pack(const ifgo_head *d, ptrdiff_t j) {
    float *to = d->packed + j * d->rows * PANEL;
    for (ptrdiff_t n = 0; n < d->rows; n++, to += PANEL)
        for (int g = 0; g < 4; g++) {
            const ptrdiff_t at = j * PANEL + g * LANES, left = d->input - at;
            const float *from = d->x + n * d->x_row + at;
            v_store(to + g * LANES, left > 0 ? v_load_first(from, left) : v_zero());
        }
}

#define HEAD_OUTER_TILE(R)                                                                         \
    static __attribute__((noinline)) void head_outer_tile_##R(                                     \
        ptrdiff_t K, const float *q, const float *packed, float *to, ptrdiff_t width,              \
        ptrdiff_t columns) {                                                                       \
        const ahead_t none = {NULL, 0};                                                            \
        const float *row[MAX_ROWS];                                                                \
        vec acc[MAX_ROWS][4];                                                                      \
        for (int r = 0; r < R; r++) {                                                              \
            row[r] = q + r;                                                                        \
            for (int g = 0; g < 4; g++) acc[r][g] = v_zero();                                      \
        }                                                                                          \
        tile(R, K, row, PANEL, packed, acc, none);                                                 \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4 && g * LANES < columns; g++)                                     \
                v_store_first(to + r * width + g * LANES, acc[r][g], columns - g * LANES);         \
    }
TILES_OF(HEAD_OUTER_TILE)

/* d weight and d bias of the outputs of panel p. */
static void head_weights(const ifgo_head *d, ptrdiff_t p) {
    const float *q = head_panel(d, p);
    const ptrdiff_t first = p * PANEL, left = d->output - first, count = left < PANEL ? left : PANEL;
    for (ptrdiff_t m = 0, r; d->d_weight && m < count; m += r) {
        r = tile_rows(m, count);
        for (ptrdiff_t j = 0; j * PANEL < d->input; j++) {
            const float *packed = d->packed + j * d->rows * PANEL;
            float *to = d->d_weight + (first + m) * d->input + j * PANEL;
#define CASE(R)                                                                                    \
    head_outer_tile_##R(d->rows, q + m, packed, to, d->input, d->input - j * PANEL)
            FOR_ROWS(r, CASE)
#undef CASE
        }
    }
    if (!d->d_bias) return;
    vec sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    for (ptrdiff_t n = 0; n < d->rows; n++)
        for (int g = 0; g < 4; g++) sum[g] = sum[g] + v_load(q + n * PANEL + g * LANES);
    for (int g = 0; g < 4 && g * LANES < left; g++)
        v_store_first(d->d_bias + first + g * LANES, sum[g], left - g * LANES);
}

#define HEAD_BACK_TILE(R)                                                                          \
    static __attribute__((noinline)) void head_back_tile_##R(                                      \
        const ifgo_head *d, ptrdiff_t n, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t j) {                \
        const ptrdiff_t columns = d->input - j * PANEL;                                            \
        const float *back = d->back + j * head_panels(d) * PANEL * PANEL;                          \
        float *to = d->dx + n * d->dx_row + j * PANEL;                                             \
        const ahead_t none = {NULL, 0};                                                            \
        vec acc[MAX_ROWS][4];                                                                      \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4; g++) {                                                          \
                const ptrdiff_t left = columns - g * LANES;                                        \
                const float *old = to + r * d->dx_row + g * LANES;                                 \
                acc[r][g] = p0 && left > 0 ? v_load_first(old, left) : v_zero();                   \
            }                                                                                      \
        for (ptrdiff_t p = p0; p < p1; p++) {                                                      \
            const float *row[MAX_ROWS];                                                            \
            for (int r = 0; r < R; r++) row[r] = head_panel(d, p) + (n + r) * PANEL;               \
            tile(R, PANEL, row, 1, back + p * PANEL * PANEL, acc, none);                           \
        }                                                                                          \
        for (int r = 0; r < R; r++)                                                                \
            for (int g = 0; g < 4 && g * LANES < columns; g++)                                     \
                v_store_first(to + r * d->dx_row + g * LANES, acc[r][g], columns - g * LANES);     \
    }
TILES_OF(HEAD_BACK_TILE)

/* dx of rows [from, to). */
static void head_inputs(const ifgo_head *d, ptrdiff_t from, ptrdiff_t to) {
    const ptrdiff_t panels = head_panels(d), deep = DEEP / PANEL;
    for (ptrdiff_t p0 = 0; p0 < panels; p0 += deep) {
        const ptrdiff_t p1 = panels - p0 < deep ? panels : p0 + deep;
        for (ptrdiff_t j = 0; j * PANEL < d->input; j++)
            for (ptrdiff_t n = from, r; n < to; n += r) {
                r = tile_rows(n, to);
#define CASE(R) head_back_tile_##R(d, n, p0, p1, j)
                FOR_ROWS(r, CASE)
#undef CASE
            }
    }
}

/* Forward and backward in one call: with targets the loss and its gradients, else those of dy. */
static void head(const ifgo_head *d, ifgo_member *member) {
    ptrdiff_t p0, p1, r0, r1, j0, j1;
    share(head_panels(d), member->rank, member->size, &p0, &p1);
    for (ptrdiff_t p = p0; p < p1; p++) {
        if (d->dy) {
            head_take(d, p);
        } else {
            head_logits(d, p);
            head_powers(d, p);
        }
    }
    if (!ifgo_meet(member)) return;
    share(d->rows, member->rank, member->size, &r0, &r1);
    share((d->input + PANEL - 1) / PANEL, member->rank, member->size, &j0, &j1);
    if (!d->dy) head_losses(d, r0, r1);
    for (ptrdiff_t j = j0; d->d_weight && j < j1; j++) head_pack(d, j);
    if (!ifgo_meet(member)) return;
    share(head_panels(d), member->rank, member->size, &p0, &p1);
    for (ptrdiff_t p = p0; p < p1; p++) {
        if (!d->dy) head_softmax_gradient(d, p);
        head_weights(d, p);
    }
    if (!d->dx || !ifgo_meet(member)) return;
    share(d->rows, member->rank, member->size, &r0, &r1);
    head_inputs(d, r0, r1);
}

#endif
