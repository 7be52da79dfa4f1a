/* The engine's C interface. It knows no Python; native/python/ is the one caller that does.
 *
 * Every function is safe to call from any thread once ifgo_engine_load() has returned.
 */
#ifndef IFGO_ENGINE_H
#define IFGO_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ifgo_status {
    IFGO_OK = 0,
    IFGO_E_ISA_UNKNOWN,     /* no kernels of that name are built in */
    IFGO_E_ISA_UNSUPPORTED, /* they are built in, but this CPU or its system cannot run them */
    IFGO_E_MEMORY,          /* not enough memory; nothing has changed */
    IFGO_E_CLIP_Z,          /* gradients of a cell with clip_z are not made here */
    IFGO_E_TAPE             /* the tape holds no kept call of this cell */
} ifgo_status;

/* The instruction sets built in, from the narrowest to the widest vectors. */
size_t ifgo_isa_count(void);
const char *ifgo_isa_name(size_t index); /* NULL where index is too large */
int ifgo_isa_runs(size_t index);         /* whether this CPU and its system can run it */

/* Chooses the kernels of the instruction set `name`, or the widest that run here where `name` is
 * NULL or empty. A name that is refused leaves the choice as it was: none, if there was none. */
ifgo_status ifgo_isa_choose(const char *name);

/* The instruction set in use; NULL where none is. */
const char *ifgo_isa(void);

/* ifgo_isa_choose() of the environment variable IFGO_ISA. Called once, when the engine is loaded. */
ifgo_status ifgo_engine_load(void);

/* -- Cells ------------------------------------------------------------------------------------ */

enum { IFGO_UNCOUPLED, IFGO_FORGET_COUPLED /* f = 1 − i */, IFGO_INPUT_COUPLED /* i = 1 − f */ };

/* The weights of one cell, in rows of gates i, f, g, o. I input_size, H hidden_size, P output size
 * (H unless projected). Clips are INFINITY where there are none. */
typedef struct {
    ptrdiff_t input, hidden, output;
    const float *weight_ih; /* (4H, I) */
    const float *weight_hh; /* (4H, P) */
    const float *bias;      /* (4H,), or NULL */
    const float *peephole;  /* (3, H): i, f, o; or NULL */
    const float *weight_hr; /* (P, H), or NULL */
    const float *bias_hr;   /* (P,), or NULL */
    float clip_z, clip_cell, clip_projection;
    int coupling;
} ifgo_weights;

/* A cell packed for the instruction set in use. Read-only while it computes: threads share it. */
typedef struct ifgo_cell ifgo_cell;

/* with_back: also pack what ifgo_backward() reads. */
ifgo_status ifgo_cell_new(const ifgo_weights *weights, int with_back, ifgo_cell **cell);
/* Packs other weights of the same sizes and options into the cell. */
void ifgo_cell_set(ifgo_cell *cell, const ifgo_weights *weights);
void ifgo_cell_free(ifgo_cell *cell);

/* y = activation(W·x + b): weight (output, input), bias (output,) or NULL. */
enum { IFGO_LINEAR, IFGO_TANH, IFGO_SIGMOID, IFGO_RELU, IFGO_SOFTMAX };
typedef struct ifgo_dense ifgo_dense;
ifgo_status ifgo_dense_new(ptrdiff_t input, ptrdiff_t output, const float *weight,
                           const float *bias, int activation, ifgo_dense **dense);
void ifgo_dense_free(ifgo_dense *dense);
/* rows of x (x_row floats apart) → rows of y. threads: here and below, 0 lets the engine choose. */
void ifgo_dense_run(const ifgo_dense *dense, ptrdiff_t rows, const float *x, ptrdiff_t x_row,
                    float *y, ptrdiff_t y_row, int threads);

/* The same layer in training: weights are packed at each call, buffers are kept between calls. */
typedef struct ifgo_trainer ifgo_trainer;
typedef struct {
    ptrdiff_t rows, input, output;
    int threads;
    const float *weight, *bias; /* (output, input), (output,) or NULL */
    const float *x;             /* (rows, input), x_row floats apart */
    ptrdiff_t x_row;
    const float *dy; /* gradients of the outputs, dy_row apart; NULL: softmax cross-entropy: */
    ptrdiff_t dy_row;
    const int64_t *target;   /* (rows,), 0 to output − 1 */
    const float *row_weight; /* (rows,): weight of each row's loss */
    float *loss;             /* (rows,): row_weight · cross-entropy */
    float *dx;               /* (rows, input), dx_row apart; or NULL */
    ptrdiff_t dx_row;
    float *d_weight, *d_bias; /* or NULL */
} ifgo_dense_training;

ifgo_status ifgo_trainer_new(ifgo_trainer **trainer);
void ifgo_trainer_free(ifgo_trainer *trainer);
ifgo_status ifgo_dense_train(ifgo_trainer *trainer, const ifgo_dense_training *call);

/* -- Batches ---------------------------------------------------------------------------------- */

/* What a call works in: it grows to the largest call and is then used again. One call at a time. */
typedef struct ifgo_tape ifgo_tape;
ifgo_status ifgo_tape_new(ifgo_tape **tape);
void ifgo_tape_free(ifgo_tape *tape);

/* N sequences of up to T steps. Strides count floats. What is NULL is zero, or not made. */
typedef struct {
    ptrdiff_t rows, steps;
    const ptrdiff_t *lengths; /* (N,), 0 to T; NULL: all T */
    int reverse;              /* from the last step of each row to its first */
    int keep;                 /* so that ifgo_backward() can follow */
    int threads;
    const float *x;
    ptrdiff_t x_row, x_time;
    const float *h0, *c0; /* (N, P), (N, H) */
    float *y;             /* steps at or beyond a row's length are not written */
    ptrdiff_t y_row, y_time;
    float *h_n, *c_n; /* (N, P), (N, H): after each row's last step */
} ifgo_batch;

ifgo_status ifgo_forward(const ifgo_cell *cell, ifgo_tape *tape, const ifgo_batch *batch);

/* Gradients of the last kept call on the tape, whose x must still be there. Arrays are contiguous
 * but for dy and dx; all are overwritten, dx added to where add_dx. dx beyond a row's length is
 * not written. */
typedef struct {
    const float *dy;
    ptrdiff_t dy_row, dy_time;
    const float *dh_n, *dc_n;
    float *dx;
    ptrdiff_t dx_row, dx_time;
    int add_dx;
    float *dh0, *dc0;
    float *d_weight_ih, *d_weight_hh, *d_bias, *d_peephole, *d_weight_hr, *d_bias_hr;
} ifgo_gradients;

ifgo_status ifgo_backward(const ifgo_cell *cell, ifgo_tape *tape, const ifgo_gradients *gradients);

/* -- Streams ---------------------------------------------------------------------------------- */

/* A chain of cells and dense layers with its state. It borrows them: they must outlive it. */
typedef struct ifgo_stream ifgo_stream;
typedef struct {
    const ifgo_cell *cell; /* or */
    const ifgo_dense *dense;
} ifgo_link;

ifgo_status ifgo_stream_new(const ifgo_link *links, ptrdiff_t count, ifgo_stream **stream);
void ifgo_stream_free(ifgo_stream *stream);
/* steps of x (steps, I) → y (steps, size of the last layer). Allocates nothing. */
void ifgo_stream_run(ifgo_stream *stream, ptrdiff_t steps, const float *x, float *y, int threads);
/* State of link `index`, a cell: h (P,), c (H,). */
void ifgo_stream_get(const ifgo_stream *stream, ptrdiff_t index, float *h, float *c);
void ifgo_stream_set(ifgo_stream *stream, ptrdiff_t index, const float *h, const float *c);
void ifgo_stream_reset(ifgo_stream *stream);

/* Threads that a call of this size is worth, of the cores that the caller may run on; what
 * `threads = 0` means. steps: 0 for calls of one step that follow each other closely. */
int ifgo_threads_for(ptrdiff_t hidden, ptrdiff_t rows, ptrdiff_t steps);

#ifdef __cplusplus
}
#endif

#endif
