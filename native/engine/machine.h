/* A program and the memory that it runs in: what program.c, machine.c and machine_back.c share. */
#ifndef IFGO_MACHINE_H
#define IFGO_MACHINE_H

#include "kernels.h"

#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep") /* operands of a loop are the same memory, or apart */
#endif

struct ifgo_program {
    ifgo_text text; /* its arrays belong to the program */
    void *arrays;
    float *weights;
    ifgo_dense **dense;         /* by term: with the start, where that is a weight */
    ifgo_dense **back;          /* by term: transposed; NULLs unless with_back */
    int with_back;
    ptrdiff_t widest;           /* result or source of an instruction, in floats */
};

struct ifgo_machine {
    const ifgo_program *program;
    ptrdiff_t rows, steps;      /* N, T */
    ptrdiff_t room, tape_room;  /* floats allocated */
    ptrdiff_t adjoint_room;
    float *memory, *tape, *adjoints;
    float **at;                 /* by buffer: values */
    float **adjoint;            /* by buffer: gradients */
    ptrdiff_t *row;             /* by buffer: floats between rows; 0 for weights */
    float *work[3];             /* N × widest each */
    int keep, kept;
    /* of the instruction that runs */
    const ptrdiff_t *lengths;
    ptrdiff_t step, count;
    int by_row; /* mirrored views count from the end of each row's own sequence */
    float *top; /* of the tape */
};

/* Where row n of a view starts in its buffer. */
static inline ptrdiff_t ifgo_place(const ifgo_machine *m, const ifgo_view *v, ptrdiff_t n) {
    ptrdiff_t t = m->step;
    if (v->mirrored) {
        const ptrdiff_t count = m->by_row ? m->lengths[n] : m->count;
        if (t < count) t = count - 1 - t;
    }
    return n * m->row[v->buffer] + v->offset + v->stride * t;
}

static inline float *ifgo_value(const ifgo_machine *m, const ifgo_view *v, ptrdiff_t n) {
    return m->at[v->buffer] + ifgo_place(m, v, n);
}

/* Row 0 of a view whose rows lie a fixed distance apart, *row; else a copy of all rows in `work`. */
const float *ifgo_rows(const ifgo_machine *m, const ifgo_view *v, float *work, ptrdiff_t *row);

/* Rows of x through a packed matrix, on this thread. */
static inline void ifgo_apply(const ifgo_dense *dense, ptrdiff_t rows, const float *x,
                                ptrdiff_t x_row, float *y, ptrdiff_t y_row) {
    ifgo_member alone = {0, 1, 0, NULL};
    ifgo_kernels_in_use->dense(dense, rows, x, x_row, y, y_row, &alone);
}

/* y = softmax(x), n values; they may be the same. */
void ifgo_softmax(const float *x, float *y, ptrdiff_t n);
/* y = activation(x), and x's derivative times dy. */
void ifgo_activate(ptrdiff_t activation, const float *x, float *y, ptrdiff_t n, float alpha,
                   float beta);
void ifgo_activate_back(ptrdiff_t activation, const float *x, const float *dy, float *dx,
                        ptrdiff_t n, float alpha, float beta);
/* Mean of n values, and what layer norm divides by: sqrt(variance + epsilon). In float64: what is
 * left of few units close together is all cancellation. */
void ifgo_spread(const float *x, ptrdiff_t n, float epsilon, double *mean, double *deviation);

/* Denormals keep their values inside a program: it compares values exactly, and is judged by
 * bounds that hold for them. What the caller had goes to ifgo_leave(). */
unsigned ifgo_enter(void);
void ifgo_leave(unsigned before);

#endif
