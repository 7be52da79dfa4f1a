/* Programs: a layer's worth of instructions forward and backward, lengths, reuse, refusals. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ifgo_engine.h"

static int failures = 0;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            printf("%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                   \
        }                                                                                          \
    } while (0)

/* h ← tanh(W·x + R·h + b), y ← softmax(h) where the step lies inside, else 0; I 3, H 5. */
enum { X, Y, H, Z, INSIDE, ZERO, W, R, B, BUFFERS, INPUTS = 3, UNITS = 5 };
static ifgo_buffer buffers[BUFFERS] = {
    [X] = {IFGO_MEMORY, INPUTS, -1, 0}, [Y] = {IFGO_MEMORY, UNITS, -1, 0},
    [H] = {IFGO_MEMORY, UNITS, 1, 0},   [Z] = {IFGO_MEMORY, UNITS, 1, 0},
    [INSIDE] = {IFGO_MEMORY, 1, 1, 0},  [ZERO] = {IFGO_WEIGHT, UNITS, 1, 0},
    [W] = {IFGO_WEIGHT, INPUTS, UNITS, UNITS},
    [R] = {IFGO_WEIGHT, UNITS, UNITS, UNITS + UNITS * INPUTS},
    [B] = {IFGO_WEIGHT, UNITS, 1, UNITS + UNITS * INPUTS + UNITS * UNITS},
};
enum { X_T, Y_T, H_1, Z_1, INSIDE_1, ZERO_1, B_1, VIEWS };
static ifgo_view views[VIEWS] = {
    [X_T] = {X, 0, INPUTS, INPUTS, 1}, [Y_T] = {Y, 0, UNITS, UNITS, 0},
    [H_1] = {H, 0, UNITS, 0, 0},       [Z_1] = {Z, 0, UNITS, 0, 0},
    [INSIDE_1] = {INSIDE, 0, 1, 0, 0}, [ZERO_1] = {ZERO, 0, UNITS, 0, 0},
    [B_1] = {B, 0, UNITS, 0, 0},
};
static ifgo_term terms[] = {{W, X_T}, {R, H_1}};
static ifgo_instruction instructions[] = {
    {IFGO_OP_INSIDE, INSIDE_1, -1, -1, -1, 0, 0, 0},
    {IFGO_OP_AFFINE, Z_1, B_1, -1, -1, 0, 0, 2},
    {IFGO_OP_ACTIVATE, Z_1, Z_1, -1, -1, IFGO_ACT_TANH, 0, 0},
    {IFGO_OP_SELECT, H_1, Z_1, H_1, INSIDE_1, 0, 0, 0},
    {IFGO_OP_SOFTMAX, Z_1, H_1, -1, -1, 0, 0, 0},
    {IFGO_OP_SELECT, Y_T, Z_1, ZERO_1, INSIDE_1, 0, 0, 0},
};
enum { INSTRUCTIONS = sizeof instructions / sizeof *instructions };
static float parameters[INSTRUCTIONS * 2];
static ifgo_sweep sweeps[] = {{-1, 0, 0, INSTRUCTIONS}};
enum { WEIGHTS = UNITS + UNITS * INPUTS + UNITS * UNITS + UNITS };
static float weights[WEIGHTS];

static ifgo_text text(void) {
    return (ifgo_text){BUFFERS, VIEWS,        INSTRUCTIONS, 2,     1,      WEIGHTS, buffers,
                       views,   instructions, parameters,   terms, sweeps, weights, 1};
}

static float drawn(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) / 16777216.0f - 0.5f;
}

enum { N = 3, T = 4 };
static const ptrdiff_t lengths[N] = {4, 2, 0};

/* Σ y·k over a run from x and h, in float64 by hand. */
static double loss_by_hand(const float *x, const float *h0) {
    double loss = 0.0;
    for (int n = 0; n < N; n++) {
        double h[UNITS], z[UNITS];
        for (int j = 0; j < UNITS; j++) h[j] = h0[n * UNITS + j];
        for (int t = 0; t < lengths[n]; t++) {
            const float *now = x + (n * T + (int)lengths[n] - 1 - t) * INPUTS;
            for (int j = 0; j < UNITS; j++) {
                z[j] = weights[buffers[B].data + j];
                for (int k = 0; k < INPUTS; k++)
                    z[j] += (double)weights[buffers[W].data + j * INPUTS + k] * now[k];
                for (int k = 0; k < UNITS; k++)
                    z[j] += (double)weights[buffers[R].data + j * UNITS + k] * h[k];
            }
            double sum = 0.0;
            for (int j = 0; j < UNITS; j++) sum += exp(h[j] = tanh(z[j]));
            for (int j = 0; j < UNITS; j++) loss += exp(h[j]) / sum * (j + 1);
        }
    }
    return loss;
}

static void forward_and_backward(void) {
    ifgo_program *program = NULL;
    ifgo_machine *machine = NULL;
    const ifgo_text given = text();
    unsigned seed = 1;
    for (int k = UNITS; k < WEIGHTS; k++) weights[k] = drawn(&seed);
    CHECK(ifgo_program_new(&given, 1, &program) == IFGO_OK);
    CHECK(ifgo_machine_new(program, &machine) == IFGO_OK);
    CHECK(ifgo_machine_size(machine, 1, 9, 0) == IFGO_OK);
    CHECK(ifgo_machine_size(machine, N, T, 1) == IFGO_OK);
    float x[N * T * INPUTS], h[N * UNITS];
    for (int k = 0; k < N * T * INPUTS; k++) x[k] = drawn(&seed);
    for (int k = 0; k < N * UNITS; k++) h[k] = drawn(&seed);
    for (int again = 0; again < 2; again++) {
        memcpy(ifgo_machine_buffer(machine, X), x, sizeof x);
        memcpy(ifgo_machine_buffer(machine, H), h, sizeof h);
        CHECK(ifgo_machine_run(machine, lengths, 1) == IFGO_OK);
        const float *y = ifgo_machine_buffer(machine, Y);
        double loss = 0.0;
        for (int k = 0; k < N * T * UNITS; k++) loss += (double)y[k] * (k % UNITS + 1);
        CHECK(fabs(loss - loss_by_hand(x, h)) < 1e-5);
        for (int k = 0; k < UNITS; k++) CHECK(y[(1 * T + 2) * UNITS + k] == 0.0f);
        CHECK(ifgo_machine_adjoints(machine) == IFGO_OK);
        float *dy = ifgo_machine_adjoint(machine, Y);
        for (int k = 0; k < N * T * UNITS; k++) dy[k] = (float)(k % UNITS + 1);
        const float *dx = ifgo_machine_adjoint(machine, X), *dh = ifgo_machine_adjoint(machine, H);
        const float *dw = ifgo_machine_adjoint(machine, W), *db = ifgo_machine_adjoint(machine, B);
        ifgo_machine_back(machine, lengths);
        CHECK(ifgo_machine_adjoint(machine, Y) == NULL);
        CHECK(ifgo_machine_adjoints(machine) == IFGO_E_PROGRAM);
        float *const moved[] = {x + 4, h + 1, weights + buffers[W].data + 7,
                                weights + buffers[B].data + 2};
        const float found[] = {dx[4], dh[1], dw[7], db[2]};
        for (int k = 0; k < 4; k++) {
            const float before = *moved[k];
            *moved[k] = before + 0.0078125f;
            const double up = loss_by_hand(x, h), top = *moved[k];
            *moved[k] = before - 0.0078125f;
            const double slope = (up - loss_by_hand(x, h)) / (top - *moved[k]);
            *moved[k] = before;
            CHECK(fabs(slope - found[k]) < 1e-4);
        }
    }
    CHECK(ifgo_machine_run(machine, NULL, 1) == IFGO_E_PROGRAM);
    CHECK(ifgo_machine_buffer(machine, W) == NULL);
    CHECK(ifgo_machine_buffer(machine, BUFFERS) == NULL);
    CHECK(ifgo_machine_size(machine, PTRDIFF_MAX / 2, 2, 0) == IFGO_E_MEMORY);
    CHECK(ifgo_machine_size(machine, 1, PTRDIFF_MAX / 2, 0) == IFGO_E_MEMORY);
    CHECK(ifgo_machine_buffer(machine, X) == NULL);
    CHECK(ifgo_machine_run(machine, lengths, 1) == IFGO_E_PROGRAM);
    ifgo_machine_free(machine);
    ifgo_program_free(program);
}

#define REFUSED(change, undo)                                                                      \
    do {                                                                                           \
        change;                                                                                    \
        const ifgo_text wrong = text();                                                            \
        ifgo_program *none = NULL;                                                                 \
        CHECK(ifgo_program_new(&wrong, 0, &none) == IFGO_E_PROGRAM);                               \
        CHECK(none == NULL);                                                                       \
        undo;                                                                                      \
    } while (0)

/* One number of a text changed at a time, to what would lead beyond some memory. */
static void refusals(void) {
    REFUSED(buffers[W].data = WEIGHTS, buffers[W].data = UNITS);
    REFUSED(buffers[W].rows = PTRDIFF_MAX / 2, buffers[W].rows = UNITS);
    REFUSED(buffers[H].width = 0, buffers[H].width = UNITS);
    REFUSED(buffers[X].storage = 9, buffers[X].storage = IFGO_MEMORY);
    REFUSED(views[Z_1].buffer = BUFFERS, views[Z_1].buffer = Z);
    REFUSED(views[Z_1].buffer = ZERO, views[Z_1].buffer = Z);
    REFUSED(views[Z_1].offset = -1, views[Z_1].offset = 0);
    REFUSED(views[Z_1].size = UNITS - 1, views[Z_1].size = UNITS);
    REFUSED(views[X_T].stride = -1, views[X_T].stride = INPUTS);
    REFUSED(views[B_1].offset = 1, views[B_1].offset = 0);
    REFUSED(terms[1].source = VIEWS, terms[1].source = H_1);
    REFUSED(terms[1].source = Z_1, terms[1].source = H_1);
    REFUSED(terms[0].matrix = X, terms[0].matrix = W);
    REFUSED(instructions[1].terms = 3, instructions[1].terms = 2);
    REFUSED(instructions[2].op = IFGO_OPS, instructions[2].op = IFGO_OP_ACTIVATE);
    REFUSED(instructions[2].activation = IFGO_ACTS, instructions[2].activation = IFGO_ACT_TANH);
    REFUSED(instructions[3].condition = -1, instructions[3].condition = INSIDE_1);
    REFUSED(sweeps[0].instructions++, sweeps[0].instructions--);
}

/* What only shows once the number of steps is known. */
static void views_beyond_their_buffer(void) {
    buffers[Y].rows = 6;
    const ifgo_text given = text();
    ifgo_program *program = NULL;
    ifgo_machine *machine = NULL;
    CHECK(ifgo_program_new(&given, 0, &program) == IFGO_OK);
    CHECK(ifgo_machine_new(program, &machine) == IFGO_OK);
    CHECK(ifgo_machine_size(machine, 2, 6, 0) == IFGO_OK);
    CHECK(ifgo_machine_size(machine, 2, 7, 0) == IFGO_E_PROGRAM);
    CHECK(ifgo_machine_size(machine, 2, 6, 1) == IFGO_E_PROGRAM);
    CHECK(ifgo_machine_size(machine, 0, 6, 0) == IFGO_E_PROGRAM);
    ifgo_machine_free(machine);
    ifgo_program_free(program);
    buffers[Y].rows = -1;
}

int main(void) {
    CHECK(ifgo_isa_choose(NULL) == IFGO_OK);
    forward_and_backward();
    refusals();
    views_beyond_their_buffer();
    printf("instruction set %s, %d failures\n", ifgo_isa(), failures);
    return failures != 0;
}
