/* The kernels of every instruction set on random shapes and options, against the equations in plain
 * double precision; teams of two, whole and shrinking, must give the bits of one thread.
 *
 *     test_engine [CASES [SEED]]
 */
#include <math.h>

#include "check.h"
#include "ifgo_engine.h"
#include "kernels.h"
#include "pool.h"

/* Largest error beside the largest value of an array. Sums are of K ≤ 120 terms of at most 1 and
 * weights keep errors from growing from step to step: 120 · 2⁻²⁴ and 4e-7 of the activations. */
#define VALUE_BOUND 1e-5
#define GRADIENT_BOUND 2e-5

typedef struct {
    ptrdiff_t I, H, P, N, T, *lengths;
    ifgo_weights w;
    bool reverse;
    float *x, *h0, *c0, *dy, *dh_n, *dc_n;
} problem_t;

/* Everything that a call gives, in one array so that bits are compared at once. */
enum { Y, H_N, C_N, DX, DH0, DC0, D_IH, D_HH, D_BIAS, D_PEEPHOLE, D_HR, D_BIAS_HR, OUTPUTS };

static ptrdiff_t size_of(const problem_t *p, int what) {
    switch (what) {
    case Y: return p->N * p->T * p->P;
    case H_N:
    case DH0: return p->N * p->P;
    case C_N:
    case DC0: return p->N * p->H;
    case DX: return p->N * p->T * p->I;
    case D_IH: return 4 * p->H * p->I;
    case D_HH: return 4 * p->H * p->P;
    case D_BIAS: return 4 * p->H;
    case D_PEEPHOLE: return p->w.peephole ? 3 * p->H : 0;
    case D_HR: return p->w.weight_hr ? p->P * p->H : 0;
    default: return p->w.weight_hr ? p->P : 0;
    }
}

typedef struct {
    float *at[OUTPUTS];
} result_t;

static result_t new_result(const problem_t *p) {
    result_t r;
    for (int k = 0; k < OUTPUTS; k++) {
        const size_t n = (size_t)size_of(p, k);
        r.at[k] = calloc(n ? n : 1, sizeof(float));
        if (!r.at[k]) abort();
    }
    return r;
}

static void free_result(result_t r) {
    for (int k = 0; k < OUTPUTS; k++) free(r.at[k]);
}

static problem_t new_problem(void) {
    static const ptrdiff_t hiddens[] = {1, 3, 4, 5, 8, 11, 16, 17, 31, 33, 48, 70};
    problem_t p = {.I = 1 + below(20), .H = hiddens[below(12)], .N = 1 + below(9), .T = below(9)};
    if (below(4) == 0) p.I = 60 + below(60);
    if (below(4) == 0) p.N = 1;
    const bool projected = below(3) == 0;
    p.P = projected ? 1 + below(p.H) : p.H;
    p.reverse = below(2);
    p.lengths = calloc((size_t)p.N, sizeof *p.lengths);
    if (!p.lengths) abort();
    for (ptrdiff_t n = 0; n < p.N; n++) p.lengths[n] = below(p.T + 1);
    const double scale = 1.0 / (double)p.P, input_scale = 2.0 / (double)p.I;
    p.w = (ifgo_weights){.input = p.I, .hidden = p.H, .output = p.P,
                         .weight_ih = random_floats(4 * p.H * p.I, input_scale),
                         .weight_hh = random_floats(4 * p.H * p.P, scale),
                         .bias = random_floats(4 * p.H, 0.5),
                         .peephole = below(3) ? NULL : random_floats(3 * p.H, 0.5),
                         .weight_hr = projected ? random_floats(p.P * p.H, 1.0 / (double)p.H) : NULL,
                         .bias_hr = projected && below(2) ? random_floats(p.P, 0.5) : NULL,
                         .clip_z = below(5) ? INFINITY : 0.7f,
                         .clip_cell = below(4) ? INFINITY : 0.25f,
                         .clip_projection = projected && !below(2) ? 0.2f : INFINITY,
                         .coupling = (int)below(3)};
    p.x = random_floats(p.N * p.T * p.I, 1);
    p.h0 = random_floats(p.N * p.P, 1);
    p.c0 = random_floats(p.N * p.H, 1);
    p.dy = random_floats(p.N * p.T * p.P, 1);
    p.dh_n = random_floats(p.N * p.P, 1);
    p.dc_n = random_floats(p.N * p.H, 1);
    return p;
}

static void free_problem(problem_t *p) {
    const float *all[] = {p->w.weight_ih, p->w.weight_hh, p->w.bias, p->w.peephole, p->w.weight_hr,
                          p->w.bias_hr, p->x, p->h0, p->c0, p->dy, p->dh_n, p->dc_n};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) free((void *)(uintptr_t)all[k]);
    free(p->lengths);
}

/* -- The equations ---------------------------------------------------------------------------- */

static double bounded(double x, double clip) { return x > clip ? clip : x < -clip ? -clip : x; }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

typedef struct {
    double *at[OUTPUTS];
    bool near_a_clip; /* a value so near its clip that its gradient is any of two */
} truth_t;

static bool close_to(double x, double clip) { return fabs(fabs(x) - clip) < 1e-4; }

/* One row, forward and backward; gates[s][4][H], c and m [s][H], h [s][P], c[0] and h[0] initial. */
static void true_row(const problem_t *p, ptrdiff_t n, truth_t *t) {
    const ptrdiff_t I = p->I, H = p->H, P = p->P, L = p->lengths[n];
    const ifgo_weights *w = &p->w;
    double *gates = calloc((size_t)((L + 1) * H * 8), sizeof *gates);
    double *c = calloc((size_t)((L + 1) * H), sizeof *c), *m = calloc((size_t)((L + 1) * H), sizeof *m);
    double *h = calloc((size_t)((L + 1) * P), sizeof *h), *dh = calloc((size_t)P, sizeof *dh);
    double *dc = calloc((size_t)H, sizeof *dc), *dp = calloc((size_t)P, sizeof *dp);
    if (!gates || !c || !m || !h || !dh || !dc || !dp) abort();
    for (ptrdiff_t u = 0; u < H; u++) c[u] = p->c0[n * H + u];
    for (ptrdiff_t j = 0; j < P; j++) h[j] = p->h0[n * P + j];
    for (ptrdiff_t s = 0; s < L; s++) {
        const ptrdiff_t time = p->reverse ? L - 1 - s : s;
        const float *x = p->x + (n * p->T + time) * I;
        double *new_h = h + (s + 1) * P;
        for (ptrdiff_t u = 0; u < H; u++) {
            double z[4], a[4];
            for (ptrdiff_t g = 0; g < 4; g++) {
                const ptrdiff_t row = g * H + u;
                z[g] = w->bias[row];
                for (ptrdiff_t k = 0; k < I; k++) z[g] += (double)w->weight_ih[row * I + k] * x[k];
                for (ptrdiff_t k = 0; k < P; k++)
                    z[g] += (double)w->weight_hh[row * P + k] * h[s * P + k];
            }
            const double old = c[s * H + u];
            if (w->peephole) z[0] += w->peephole[u] * old, z[1] += w->peephole[H + u] * old;
            for (int g = 0; g < 3; g++) z[g] = bounded(z[g], w->clip_z);
            a[0] = sigmoid(z[0]), a[1] = sigmoid(z[1]), a[2] = tanh(z[2]);
            if (w->coupling == IFGO_FORGET_COUPLED) a[1] = 1 - a[0];
            if (w->coupling == IFGO_INPUT_COUPLED) a[0] = 1 - a[1];
            double new = a[1] * old + a[0] * a[2];
            t->near_a_clip |= close_to(new, w->clip_cell);
            new = bounded(new, w->clip_cell);
            if (w->peephole) z[3] += w->peephole[2 * H + u] * new;
            a[3] = sigmoid(bounded(z[3], w->clip_z));
            for (int g = 0; g < 4; g++) gates[(s * 4 + g) * H + u] = a[g];
            c[(s + 1) * H + u] = new;
            m[s * H + u] = a[3] * tanh(new);
            if (!w->weight_hr) new_h[u] = m[s * H + u];
        }
        for (ptrdiff_t j = 0; w->weight_hr && j < P; j++) {
            double sum = w->bias_hr ? w->bias_hr[j] : 0;
            for (ptrdiff_t u = 0; u < H; u++) sum += (double)w->weight_hr[j * H + u] * m[s * H + u];
            t->near_a_clip |= close_to(sum, w->clip_projection);
            new_h[j] = bounded(sum, w->clip_projection);
        }
        for (ptrdiff_t j = 0; j < P; j++) t->at[Y][(n * p->T + time) * P + j] = new_h[j];
    }
    for (ptrdiff_t j = 0; j < P; j++) t->at[H_N][n * P + j] = h[L * P + j], dh[j] = p->dh_n[n * P + j];
    for (ptrdiff_t u = 0; u < H; u++) t->at[C_N][n * H + u] = c[L * H + u], dc[u] = p->dc_n[n * H + u];
    double *dz = gates + (L + 1) * H * 4;
    for (ptrdiff_t s = L - 1; s >= 0; s--) {
        const ptrdiff_t time = p->reverse ? L - 1 - s : s;
        const float *x = p->x + (n * p->T + time) * I;
        for (ptrdiff_t j = 0; j < P; j++) {
            const bool free_of_clip = fabs(h[(s + 1) * P + j]) < w->clip_projection;
            dp[j] = free_of_clip ? dh[j] + p->dy[(n * p->T + time) * P + j] : 0;
            if (w->weight_hr) t->at[D_BIAS_HR][j] += dp[j];
            for (ptrdiff_t u = 0; w->weight_hr && u < H; u++)
                t->at[D_HR][j * H + u] += dp[j] * m[s * H + u];
        }
        for (ptrdiff_t u = 0; u < H; u++) {
            double dm = w->weight_hr ? 0 : dp[u];
            for (ptrdiff_t j = 0; w->weight_hr && j < P; j++) dm += dp[j] * w->weight_hr[j * H + u];
            const double *a = gates + s * 4 * H + u, i = a[0], f = a[H], g = a[2 * H], o = a[3 * H];
            const double new = c[(s + 1) * H + u], old = c[s * H + u], squashed = tanh(new);
            double d = dc[u] + dm * o * (1 - squashed * squashed);
            const double d_o = dm * squashed * o * (1 - o);
            if (w->peephole) d += d_o * w->peephole[2 * H + u];
            if (fabs(new) >= w->clip_cell) d = 0;
            double di = d * g, df = d * old;
            if (w->coupling == IFGO_FORGET_COUPLED) di -= df, df = 0;
            if (w->coupling == IFGO_INPUT_COUPLED) df -= di, di = 0;
            dz[u] = di * i * (1 - i), dz[H + u] = df * f * (1 - f);
            dz[2 * H + u] = d * i * (1 - g * g), dz[3 * H + u] = d_o;
            dc[u] = d * f;
            if (!w->peephole) continue;
            dc[u] += dz[u] * w->peephole[u] + dz[H + u] * w->peephole[H + u];
            t->at[D_PEEPHOLE][u] += dz[u] * old;
            t->at[D_PEEPHOLE][H + u] += dz[H + u] * old;
            t->at[D_PEEPHOLE][2 * H + u] += d_o * new;
        }
        memset(dh, 0, (size_t)P * sizeof *dh);
        for (ptrdiff_t row = 0; row < 4 * H; row++) {
            t->at[D_BIAS][row] += dz[row];
            for (ptrdiff_t k = 0; k < I; k++) {
                t->at[D_IH][row * I + k] += dz[row] * x[k];
                t->at[DX][(n * p->T + time) * I + k] += dz[row] * w->weight_ih[row * I + k];
            }
            for (ptrdiff_t k = 0; k < P; k++) {
                t->at[D_HH][row * P + k] += dz[row] * h[s * P + k];
                dh[k] += dz[row] * w->weight_hh[row * P + k];
            }
        }
    }
    for (ptrdiff_t j = 0; j < P; j++) t->at[DH0][n * P + j] = dh[j];
    for (ptrdiff_t u = 0; u < H; u++) t->at[DC0][n * H + u] = dc[u];
    free(gates), free(c), free(m), free(h), free(dh), free(dc), free(dp);
}

static void compare(const double *truth, const float *got, ptrdiff_t n, double bound, int what) {
    double largest = 1, worst = 0;
    for (ptrdiff_t i = 0; i < n; i++) largest = fmax(largest, fabs(truth[i]));
    for (ptrdiff_t i = 0; i < n; i++)
        if (!(fabs(truth[i] - got[i]) <= worst)) worst = fabs(truth[i] - got[i]);
    if (worst <= bound * largest) return;
    failures++;
    printf("%s: output %d is %g off, largest value %g\n", ifgo_isa(), what, worst, largest);
}

/* -- The engine ------------------------------------------------------------------------------- */

static void run(const problem_t *p, const ifgo_cell *cell, ifgo_tape *tape, bool keep, int threads,
                result_t r) {
    const ifgo_batch b = {.rows = p->N, .steps = p->T, .lengths = p->lengths, .reverse = p->reverse,
                          .keep = keep, .threads = threads, .x = p->x, .x_row = p->T * p->I,
                          .x_time = p->I, .h0 = p->h0, .c0 = p->c0, .y = r.at[Y],
                          .y_row = p->T * p->P, .y_time = p->P, .h_n = r.at[H_N], .c_n = r.at[C_N]};
    CHECK(ifgo_forward(cell, tape, &b) == IFGO_OK);
    if (!keep) return;
    const ifgo_gradients g = {.dy = p->dy, .dy_row = p->T * p->P, .dy_time = p->P, .dh_n = p->dh_n,
                              .dc_n = p->dc_n, .dx = r.at[DX], .dx_row = p->T * p->I,
                              .dx_time = p->I, .dh0 = r.at[DH0], .dc0 = r.at[DC0],
                              .d_weight_ih = r.at[D_IH], .d_weight_hh = r.at[D_HH],
                              .d_bias = r.at[D_BIAS],
                              .d_peephole = p->w.peephole ? r.at[D_PEEPHOLE] : NULL,
                              .d_weight_hr = p->w.weight_hr ? r.at[D_HR] : NULL,
                              .d_bias_hr = p->w.weight_hr ? r.at[D_BIAS_HR] : NULL};
    CHECK(ifgo_backward(cell, tape, &g) == (p->w.clip_z < INFINITY ? IFGO_E_CLIP_Z : IFGO_OK));
    if (p->w.clip_z == INFINITY) CHECK(ifgo_backward(cell, tape, &g) == IFGO_E_TAPE);
}

/* A team of two gives the bits of one thread, and so does one that shrinks on the way. */
static void same_in_teams(const problem_t *p, const ifgo_cell *cell, ifgo_tape *tape, bool keep,
                          result_t alone) {
    for (int part = 0; part < 3; part++) {
        result_t r = new_result(p);
        ifgo_team_parts_after = part ? 1 + (int)below(12) : 0;
        run(p, cell, tape, keep, 2, r);
        ifgo_team_parts_after = 0;
        for (int k = 0; k < OUTPUTS; k++)
            CHECK(!memcmp(r.at[k], alone.at[k], (size_t)size_of(p, k) * sizeof(float)));
        free_result(r);
    }
}

/* Row 0 as a stream: steps one by one, in one call, and in a team give the same bits. */
static void same_in_streams(const problem_t *p, const ifgo_cell *cell, const double *y, bool dense) {
    const ptrdiff_t L = p->lengths[0], O = dense ? 70 : p->P;
    float *weight = random_floats(O * p->P, 1), *made[4];
    ifgo_dense *top = NULL;
    CHECK(ifgo_dense_new(p->P, O, weight, NULL, IFGO_SOFTMAX, &top) == IFGO_OK);
    const ifgo_link links[] = {{cell, NULL}, {NULL, top}};
    ifgo_stream *stream = NULL;
    CHECK(ifgo_stream_new(links, dense ? 2 : 1, &stream) == IFGO_OK);
    for (int way = 0; way < 4; way++) {
        made[way] = random_floats(L * O, 1);
        ifgo_stream_reset(stream);
        ifgo_stream_set(stream, 0, p->h0, p->c0);
        ifgo_team_parts_after = way == 3 ? 1 + (int)below(12) : 0;
        if (way == 0)
            for (ptrdiff_t s = 0; s < L; s++)
                ifgo_stream_run(stream, 1, p->x + s * p->I, made[0] + s * O, 1);
        else ifgo_stream_run(stream, L, p->x, made[way], way > 1 ? 2 : 1);
        ifgo_team_parts_after = 0;
        if (way) CHECK(!memcmp(made[way], made[0], (size_t)(L * O) * sizeof(float)));
    }
    if (!dense && !p->reverse) compare(y, made[0], L * O, VALUE_BOUND, Y);
    for (int way = 0; way < 4; way++) free(made[way]);
    ifgo_stream_free(stream);
    ifgo_dense_free(top);
    free(weight);
}

static void cells(const problem_t *p, const truth_t *truth) {
    ifgo_cell *cell = NULL;
    ifgo_tape *tape = NULL;
    result_t r = new_result(p), kept = new_result(p);
    CHECK(ifgo_cell_new(&p->w, 1, &cell) == IFGO_OK);
    CHECK(ifgo_tape_new(&tape) == IFGO_OK);
    run(p, cell, tape, false, 1, r);
    for (int k = Y; k <= C_N; k++) compare(truth->at[k], r.at[k], size_of(p, k), VALUE_BOUND, k);
    same_in_teams(p, cell, tape, false, r);
    run(p, cell, tape, true, 1, kept);
    for (int k = Y; k <= C_N; k++) compare(truth->at[k], kept.at[k], size_of(p, k), VALUE_BOUND, k);
    for (int k = DX; k < OUTPUTS && p->w.clip_z == INFINITY && !truth->near_a_clip; k++)
        compare(truth->at[k], kept.at[k], size_of(p, k), GRADIENT_BOUND, k);
    same_in_teams(p, cell, tape, true, kept);
    same_in_streams(p, cell, truth->at[Y], false);
    same_in_streams(p, cell, truth->at[Y], true);
    free_result(r), free_result(kept);
    ifgo_tape_free(tape);
    ifgo_cell_free(cell);
}

/* A dense layer: forward with every activation, and in training against targets. */
static void heads(void) {
    const ptrdiff_t K = 1 + below(90), O = 1 + below(150), R = 1 + below(20);
    float *weight = random_floats(O * K, 2.0 / (double)K), *bias = random_floats(O, 1);
    float *x = random_floats(R * K, 1), *row_weight = random_floats(R, 1);
    double *z = calloc((size_t)(R * O), sizeof *z), *want = calloc((size_t)(R * O), sizeof *want);
    double *dx = calloc((size_t)(R * K), sizeof *dx), *dw = calloc((size_t)(O * K), sizeof *dw);
    double *db = calloc((size_t)O, sizeof *db), *loss = calloc((size_t)R, sizeof *loss);
    int64_t *target = calloc((size_t)R, sizeof *target);
    if (!z || !want || !dx || !dw || !db || !loss || !target) abort();
    for (ptrdiff_t n = 0; n < R; n++) {
        double sum = 0;
        target[n] = below(O);
        for (ptrdiff_t j = 0; j < O; j++) {
            z[n * O + j] = bias[j];
            for (ptrdiff_t k = 0; k < K; k++) z[n * O + j] += (double)weight[j * K + k] * x[n * K + k];
            sum += exp(z[n * O + j]);
        }
        loss[n] = row_weight[n] * (log(sum) - z[n * O + target[n]]);
        for (ptrdiff_t j = 0; j < O; j++) {
            const double d = row_weight[n] * (exp(z[n * O + j]) / sum - (j == target[n]));
            db[j] += d;
            for (ptrdiff_t k = 0; k < K; k++) dw[j * K + k] += d * x[n * K + k], dx[n * K + k] += d * weight[j * K + k];
        }
    }
    for (int activation = IFGO_LINEAR; activation <= IFGO_SOFTMAX; activation++) {
        ifgo_dense *dense = NULL;
        float *y = random_floats(R * O, 1), *pair = random_floats(R * O, 1);
        CHECK(ifgo_dense_new(K, O, weight, bias, activation, &dense) == IFGO_OK);
        ifgo_dense_run(dense, R, x, K, y, O, 1);
        ifgo_dense_run(dense, R, x, K, pair, O, 2);
        CHECK(!memcmp(y, pair, (size_t)(R * O) * sizeof *y));
        for (ptrdiff_t n = 0; n < R; n++) {
            double sum = 0;
            for (ptrdiff_t j = 0; j < O; j++) sum += exp(z[n * O + j]);
            for (ptrdiff_t j = 0; j < O; j++) {
                const double v = z[n * O + j];
                want[n * O + j] = activation == IFGO_TANH ? tanh(v) : activation == IFGO_SIGMOID ? sigmoid(v)
                                  : activation == IFGO_RELU ? fmax(v, 0) : activation == IFGO_SOFTMAX ? exp(v) / sum : v;
            }
        }
        compare(want, y, R * O, VALUE_BOUND, 100 + activation);
        free(y), free(pair);
        ifgo_dense_free(dense);
    }
    ifgo_trainer *trainer = NULL;
    float *made[2][4];
    CHECK(ifgo_trainer_new(&trainer) == IFGO_OK);
    const ptrdiff_t sizes[] = {R, R * K, O * K, O};
    const double *wanted[] = {loss, dx, dw, db};
    for (int t = 0; t < 2; t++) {
        for (int k = 0; k < 4; k++) made[t][k] = random_floats(sizes[k], 1);
        const ifgo_dense_training call = {.rows = R, .input = K, .output = O, .threads = 1 + t,
                                          .weight = weight, .bias = bias, .x = x, .x_row = K,
                                          .target = target, .row_weight = row_weight,
                                          .loss = made[t][0], .dx = made[t][1], .dx_row = K,
                                          .d_weight = made[t][2], .d_bias = made[t][3]};
        ifgo_team_parts_after = (int)below(4);
        CHECK(ifgo_dense_train(trainer, &call) == IFGO_OK);
        ifgo_team_parts_after = 0;
    }
    for (int k = 0; k < 4; k++) {
        compare(wanted[k], made[0][k], sizes[k], GRADIENT_BOUND, 200 + k);
        CHECK(!memcmp(made[0][k], made[1][k], (size_t)sizes[k] * sizeof(float)));
        free(made[0][k]), free(made[1][k]);
    }
    ifgo_trainer_free(trainer);
    free(weight), free(bias), free(x), free(row_weight), free(z), free(want);
    free(dx), free(dw), free(db), free(loss), free(target);
}

int main(int count, char **arguments) {
    const long cases = count > 1 ? atol(arguments[1]) : 40;
    if (count > 2) seed ^= (uint64_t)atoll(arguments[2]) << 20;
    ifgo_team_patience = INT64_MAX / 32; /* whoever is invited is waited for */
    for (long k = 0; k < cases; k++) {
        problem_t p = new_problem();
        truth_t truth = {.near_a_clip = false};
        for (int o = 0; o < OUTPUTS; o++) {
            const size_t n = (size_t)size_of(&p, o);
            truth.at[o] = calloc(n ? n : 1, sizeof(double));
            if (!truth.at[o]) abort();
        }
        for (ptrdiff_t n = 0; n < p.N; n++) true_row(&p, n, &truth);
        for (size_t isa = 0; isa < ifgo_isa_count(); isa++) {
            if (!ifgo_isa_runs(isa)) continue;
            CHECK(ifgo_isa_choose(ifgo_isa_name(isa)) == IFGO_OK);
            cells(&p, &truth);
            heads();
        }
        for (int o = 0; o < OUTPUTS; o++) free(truth.at[o]);
        free_problem(&p);
    }
    printf("instruction set %s, %d failures\n", ifgo_isa(), failures);
    return failures != 0;
}
