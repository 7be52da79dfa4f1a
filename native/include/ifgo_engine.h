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
    IFGO_E_TAPE,            /* the tape holds no kept call of this cell */
    IFGO_E_PROGRAM,         /* a program contradicts itself, or does not fit its input */
    IFGO_E_TOKEN            /* a token has no row in its table */
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

/* -- Programs: the general path ---------------------------------------------------------------- */

/* A model as instructions over whole vectors (src/ifgo/program.py says what each one means), for
 * what the kernels above do not compute. Values lie in buffers, a row for each sequence of the
 * batch; indices and offsets count from 0, and −1 stands for none. */
enum { IFGO_MEMORY, IFGO_CARRY /* 0 where a sequence starts */, IFGO_WEIGHT };
typedef struct {
    ptrdiff_t storage, width;
    ptrdiff_t rows; /* −1: one for each step of the input */
    ptrdiff_t data; /* of a weight: where it starts among the weights */
} ifgo_buffer;

/* `size` floats at offset + stride·t; mirrored: t counts from the end. */
typedef struct {
    ptrdiff_t buffer, offset, size, stride, mirrored;
} ifgo_view;

enum {
    IFGO_OP_COPY,
    IFGO_OP_ADD,
    IFGO_OP_SUB,
    IFGO_OP_MUL,
    IFGO_OP_CLIP,      /* b: one value */
    IFGO_OP_SELECT,    /* condition: one value */
    IFGO_OP_ACTIVATE,  /* alpha and beta of the activation */
    IFGO_OP_AFFINE,    /* a: where the sums start, or none */
    IFGO_OP_GATHER,    /* a: one value, the token; its row of the matrix of the one term */
    IFGO_OP_SOFTMAX,
    IFGO_OP_DIFFERS,   /* alpha: the value */
    IFGO_OP_INSIDE,
    IFGO_OP_NORMALISE, /* b: the weight; alpha: epsilon */
    IFGO_OPS
};
enum { /* what IFGO_OP_ACTIVATE applies, in the order of src/ifgo/activations.py */
    IFGO_ACT_SIGMOID,
    IFGO_ACT_TANH,
    IFGO_ACT_RELU,
    IFGO_ACT_LINEAR,
    IFGO_ACT_HARD_SIGMOID,
    IFGO_ACT_LEAKY_RELU,
    IFGO_ACT_THRESHOLDED_RELU,
    IFGO_ACT_ELU,
    IFGO_ACT_SCALED_TANH,
    IFGO_ACT_AFFINE,
    IFGO_ACT_SOFTSIGN,
    IFGO_ACT_SOFTPLUS,
    IFGO_ACTS
};
typedef struct {
    ptrdiff_t op, result, a, b, condition; /* views */
    ptrdiff_t activation;
    ptrdiff_t first, terms; /* terms first … first + terms − 1 */
} ifgo_instruction;
typedef struct {
    ptrdiff_t matrix, source; /* a buffer, a view */
} ifgo_term;
typedef struct {
    ptrdiff_t count; /* of steps; −1: as many as the input has */
    ptrdiff_t reverse;
    ptrdiff_t first, instructions;
} ifgo_sweep;

typedef struct {
    ptrdiff_t buffers, views, instructions, terms, sweeps, weights;
    const ifgo_buffer *buffer;
    const ifgo_view *view;
    const ifgo_instruction *instruction;
    const float *parameters; /* (instructions, 2): alpha, beta */
    const ifgo_term *term;
    const ifgo_sweep *sweep;
    const float *weight;
    int lengths; /* each row has a length of its own */
} ifgo_text;

/* A copy of the text with its matrices packed; read-only, threads share it. with_back: gradients
 * can follow. IFGO_E_PROGRAM where the text contradicts itself. */
typedef struct ifgo_program ifgo_program;
ifgo_status ifgo_program_new(const ifgo_text *text, int with_back, ifgo_program **program);
void ifgo_program_free(ifgo_program *program);

/* The memory that a program runs in. It borrows the program. One call at a time. */
typedef struct ifgo_machine ifgo_machine;
ifgo_status ifgo_machine_new(const ifgo_program *program, ifgo_machine **machine);
void ifgo_machine_free(ifgo_machine *machine);
/* Makes room for N rows of T steps, zeros where there was none; keep: also for ifgo_machine_back(). IFGO_E_MEMORY where
 * that exceeds IFGO_MACHINE_FLOATS, IFGO_E_PROGRAM where the program takes another T. */
ifgo_status ifgo_machine_size(ifgo_machine *machine, ptrdiff_t rows, ptrdiff_t steps, int keep);
#define IFGO_MACHINE_FLOATS ((ptrdiff_t)1 << 32)
/* The values of a buffer, (N, rows·width). NULL: no such buffer, or a weight. */
float *ifgo_machine_buffer(ifgo_machine *machine, ptrdiff_t buffer);
/* Floats in a buffer: N·rows·width, of a weight rows·width. */
ptrdiff_t ifgo_machine_floats(const ifgo_machine *machine, ptrdiff_t buffer);
/* Runs the program on what its buffers hold. lengths: (N,), where it takes them. fresh: a sequence
 * starts. IFGO_E_TOKEN where a token has no row in its matrix. Allocates nothing. */
ifgo_status ifgo_machine_run(ifgo_machine *machine, const ptrdiff_t *lengths, int fresh);
/* Gradients, once after each run that was kept: ifgo_machine_adjoints() zeroes them all, then those
 * of outputs and final states are written into ifgo_machine_adjoint(), and ifgo_machine_back()
 * turns them into those of inputs, initial states and weights. lengths as in the run. */
ifgo_status ifgo_machine_adjoints(ifgo_machine *machine);
float *ifgo_machine_adjoint(ifgo_machine *machine, ptrdiff_t buffer);
void ifgo_machine_back(ifgo_machine *machine, const ptrdiff_t *lengths);
/* One row: steps of the input buffer, x (steps, width), each a run of one step → y. */
ifgo_status ifgo_machine_stream(ifgo_machine *machine, ptrdiff_t input, ptrdiff_t output,
                                ptrdiff_t steps, const float *x, float *y);

/* Threads that a call of this size is worth, of the cores that the caller may run on; what
 * `threads = 0` means. steps: 0 for calls of one step that follow each other closely. */
int ifgo_threads_for(ptrdiff_t hidden, ptrdiff_t rows, ptrdiff_t steps);

#ifdef __cplusplus
}
#endif

#endif
