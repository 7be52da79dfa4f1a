/* Dense layers: packed once to run, or at each call to train. */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "memory.h"
#include "packing.h"
#include "pool.h"

void ifgo_pack_panels(const float *weight, ptrdiff_t outputs, ptrdiff_t K, ptrdiff_t panel,
                      float *packed) {
    const ptrdiff_t lanes = panel / 4;
    for (ptrdiff_t j = 0; j < outputs; j += lanes)
        ifgo_kernels_in_use->pack(weight + j * K, K, outputs - j < lanes ? outputs - j : lanes, K,
                                  1.0f, packed + j / panel * K * panel + j % panel);
}

void ifgo_pack_columns(const float *weight, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t height,
                       ptrdiff_t panel, float *packed) {
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t k = 0; k < K; k += panel) {
            const ptrdiff_t count = K - k < panel ? K - k : panel;
            memcpy(packed + (k / panel * height + row) * panel, weight + row * K + k,
                   (size_t)count * sizeof *packed);
        }
}

ifgo_status ifgo_dense_new(ptrdiff_t input, ptrdiff_t output, const float *weight,
                           const float *bias, int activation, ifgo_dense **made) {
    const ptrdiff_t panel = 4 * ifgo_kernels_in_use->lanes;
    const ptrdiff_t panels = ifgo_panels_of(output, panel);
    ifgo_dense *dense = calloc(1, sizeof *dense);
    if (!dense) return IFGO_E_MEMORY;
    dense->input = input;
    dense->output = output;
    dense->activation = activation;
    const bool few = output <= IFGO_FEW_OUTPUTS;
    float *packed = ifgo_zeros(ifgo_product(few ? 1 : panels, few ? output : panel, input, 1));
    float *biases = ifgo_zeros(ifgo_product(panels, panel, 1, 1));
    if (few) dense->rows = packed;
    else dense->panels = packed;
    dense->bias = biases;
    if (!packed || !biases) {
        ifgo_dense_free(dense);
        return IFGO_E_MEMORY;
    }
    if (dense->panels) ifgo_pack_panels(weight, output, input, panel, packed);
    else memcpy(packed, weight, (size_t)(output * input) * sizeof *packed);
    if (bias) memcpy(biases, bias, (size_t)output * sizeof *biases);
    *made = dense;
    return IFGO_OK;
}

void ifgo_dense_free(ifgo_dense *dense) {
    if (!dense) return;
    ifgo_release(dense->panels);
    ifgo_release(dense->rows);
    ifgo_release(dense->bias);
    free(dense);
}

typedef struct {
    const ifgo_dense *dense;
    ptrdiff_t rows, x_row, y_row;
    const float *x;
    float *y;
} run_t;

static void run_part(void *context, ifgo_member *member) {
    const run_t *run = context;
    ifgo_kernels_in_use->dense(run->dense, run->rows, run->x, run->x_row, run->y, run->y_row,
                               member);
}

void ifgo_dense_run(const ifgo_dense *dense, ptrdiff_t rows, const float *x, ptrdiff_t x_row,
                    float *y, ptrdiff_t y_row, int threads) {
    run_t run = {dense, rows, x_row, y_row, x, y};
    const double work = (double)rows * (double)dense->input * (double)dense->output;
    ifgo_team_run(threads ? threads : ifgo_threads_worth(work, work), run_part, &run);
}

/* -- Training ---------------------------------------------------------------------------------- */

struct ifgo_trainer {
    ifgo_space panels, bias, back, q, packed, top, sum, norm, at_target, loss;
};

ifgo_status ifgo_trainer_new(ifgo_trainer **trainer) {
    *trainer = calloc(1, sizeof **trainer);
    return *trainer ? IFGO_OK : IFGO_E_MEMORY;
}

void ifgo_trainer_free(ifgo_trainer *t) {
    if (!t) return;
    const ifgo_space all[] = {t->panels, t->bias, t->back, t->q,         t->packed,
                              t->top,    t->sum,  t->norm, t->at_target, t->loss};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) ifgo_release(all[i].at);
    free(t);
}

static void head_part(void *context, ifgo_member *member) {
    ifgo_kernels_in_use->head(context, member);
}

ifgo_status ifgo_dense_train(ifgo_trainer *t, const ifgo_dense_training *c) {
    const ptrdiff_t panel = 4 * ifgo_kernels_in_use->lanes, R = c->rows;
    const ptrdiff_t outs = ifgo_panels_of(c->output, panel), ins = ifgo_panels_of(c->input, panel);
    if (!ifgo_hold(&t->q, outs, R, panel, 1) || !ifgo_hold(&t->packed, ins, R, panel, 1) ||
        !ifgo_hold(&t->top, outs, R, 1, 1) || !ifgo_hold(&t->sum, outs, R, 1, 1) ||
        !ifgo_hold(&t->norm, R, 1, 1, 1) || !ifgo_hold(&t->at_target, R, 1, 1, 1) ||
        !ifgo_hold(&t->loss, R, 1, 1, 1) || !ifgo_hold(&t->bias, outs, panel, 1, 1) ||
        (!c->dy && !ifgo_hold(&t->panels, outs, c->input, panel, 1)) ||
        (c->dx && !ifgo_hold(&t->back, ins, outs, panel, panel)))
        return IFGO_E_MEMORY;
    if (!c->dy) {
        ifgo_pack_panels(c->weight, c->output, c->input, panel, t->panels.at);
        for (ptrdiff_t j = 0; j < outs * panel; j++)
            t->bias.at[j] = j >= c->output ? -1e30f : c->bias ? c->bias[j] : 0.0f;
    }
    if (c->dx)
        ifgo_pack_columns(c->weight, c->output, c->input, outs * panel, panel, t->back.at);
    ifgo_head head = {.rows = R, .input = c->input, .output = c->output, .panels = t->panels.at,
                      .bias = t->bias.at, .back = t->back.at, .x = c->x, .x_row = c->x_row,
                      .dy = c->dy, .dy_row = c->dy_row, .target = c->target,
                      .weight = c->row_weight, .loss = c->loss ? c->loss : t->loss.at,
                      .dx = c->dx, .dx_row = c->dx_row, .d_weight = c->d_weight,
                      .d_bias = c->d_bias, .q = t->q.at, .packed = t->packed.at, .top = t->top.at,
                      .sum = t->sum.at, .norm = t->norm.at, .at_target = t->at_target.at};
    const double work = (double)R * (double)c->input * (double)c->output;
    ifgo_team_run(c->threads ? c->threads : ifgo_threads_worth(work, 3 * work), head_part, &head);
    return IFGO_OK;
}
