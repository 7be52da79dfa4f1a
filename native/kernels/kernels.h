/* What the kernels of one instruction set offer, and the packed cell that they read.
 *
 * kernels.c is compiled once per instruction set, with that set's compiler flags. Nothing in it but
 * its table may have external linkage: the linker keeps one copy of an inline or weak function, and
 * if that were the AVX-512 one, it would run on every CPU.
 *
 * Letters: N rows (batch), T steps, I input_size, H hidden_size, P output size of the cell (H
 * unless projected), K the length of a sum. A block is LANES units; a panel is the LANES × 4
 * columns of one block: for each k, the weights of its units for gate i, then f, g and o.
 */
#ifndef IFGO_KERNELS_H
#define IFGO_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ifgo_engine.h"

/* A cell, packed for one number of lanes; read-only while it runs, shared by threads. Rows of i, f
 * and o are halved (sigmoid(z) = ½ + ½·tanh(z/2)). Padding holds zeros: a padded unit stays 0. */
struct ifgo_cell {
    ptrdiff_t input, hidden, output; /* I, H, P */
    ptrdiff_t blocks;                /* ⌈H / LANES⌉ */
    ptrdiff_t depth;                 /* P rounded up to 4: the k of wh */
    const float *wx;                 /* [block][I][4][LANES] */
    const float *wh;                 /* [block][depth][4][LANES] */
    const float *bias;               /* [block][4][LANES] */
    const float *peephole;           /* [block][3][LANES] for i, f, o, halved; or NULL */
    const float *projection;         /* [⌈P / panel⌉][H][panel]; or NULL */
    const float *projection_bias;    /* [⌈P / panel⌉][panel] */
    const float *wx_back;            /* [⌈I / panel⌉][block][4][LANES][panel]; or NULL */
    const float *wh_back;            /* [⌈P / panel⌉][block][4][LANES][panel]; or NULL */
    const float *projection_back;    /* [⌈H / panel⌉][P][panel]; or NULL */
    float clip_z, clip_cell, clip_projection; /* INFINITY: none */
    int coupling; /* IFGO_UNCOUPLED … */
    bool plain; /* neither peephole, clips nor coupling */
};

/* The state of one stream of one cell. Buffers hold whole panels, zero beyond P or H. */
typedef struct {
    float *h[2]; /* of the even and the odd steps */
    float *c;
    float *m; /* o·tanh(c), where it is projected */
    int turn; /* h[turn] is the newest */
} ifgo_state;

/* One member of a team of threads that run the same call (engine/pool.c). */
typedef struct ifgo_team ifgo_team;
typedef struct {
    int rank, size; /* of the team until the next meeting */
    int worker;
    ifgo_team *team;
} ifgo_member;
/* Returns once every member has called it. A team may shrink to rank 0 here, which then does all
 * that is left: false sends the member away, who returns at once and touches nothing. */
bool ifgo_meet(ifgo_member *member);

/* Where row n of a batch stands: row n of the kernel is row `index` of the caller, and it runs
 * for `length` steps. Rows come in order of falling length. */
typedef struct {
    ptrdiff_t index, length;
} ifgo_row;

/* A batch of sequences through one cell in one direction. Strides count floats. */
typedef struct {
    const ifgo_cell *cell;
    ptrdiff_t rows, steps; /* N, T */
    const ifgo_row *order; /* (N,) */
    bool reverse;          /* step s of a row reads time length−1−s */
    const float *x;
    ptrdiff_t x_row, x_time;
    float *y; /* or NULL */
    ptrdiff_t y_row, y_time;
    ptrdiff_t chunk; /* steps whose input projection is made at once; T where gates are kept */
    bool keep;       /* keep what backward reads: z, c, h and m of every step */
    float *z;        /* [chunk][block][N][4][LANES]: gates i, f, g, o where kept */
    float *h;        /* [T+1 or 2][N][width_h]: h[0] is the initial state */
    float *c;        /* [T+1 or 2][N][width_c] */
    float *m;        /* [T or 1][N][width_c], where projected */
    ptrdiff_t width_h, width_c; /* P and H in whole panels */
    ptrdiff_t near_bytes; /* weights beyond this do not stay in a core's own cache */
} ifgo_sequence;

/* The gradients of a kept sequence; z becomes dz. What is NULL is not made (dy: it is 0). */
typedef struct {
    const ifgo_sequence *forward;
    const float *dy; /* (.., P) */
    ptrdiff_t dy_row, dy_time;
    float *dh;     /* [N][width_h]: of the final h, then of the initial h */
    float *dc;     /* [N][width_c]: of the final c, then of the initial c */
    float *dm;     /* [N][width_c], where projected */
    float *dp;     /* [T][N][width_h], where projected */
    float *packed; /* packed_each floats per member: rows of all steps × panel */
    ptrdiff_t packed_each;
    float *dx; /* (.., I) */
    ptrdiff_t dx_row, dx_time;
    bool add_dx; /* add to dx */
    float *d_weight_ih, *d_weight_hh, *d_bias; /* (4H, I), (4H, P), (4H,): rows i, f, g, o */
    float *d_peephole;                         /* (3, H): rows i, f, o */
    float *d_weight_hr, *d_bias_hr;            /* (P, H), (P,); d_bias_hr comes in as 0 */
} ifgo_return;

/* y = activation(W·x + b), packed. */
struct ifgo_dense {
    ptrdiff_t input, output; /* K, N */
    const float *panels;     /* [⌈N / panel⌉][K][panel]; or NULL, where N is small: */
    const float *rows;       /* [N][K] */
    const float *bias;       /* N in whole panels */
    int activation; /* IFGO_LINEAR … */
};
#define IFGO_FEW_OUTPUTS 4 /* up to this many outputs, a sum per row beats a panel */

/* A dense layer in training. What is NULL is not made. */
typedef struct {
    ptrdiff_t rows, input, output;
    const float *panels; /* [⌈output / panel⌉][input][panel] */
    const float *bias;   /* whole panels; a very negative number beyond the output */
    const float *back;   /* [⌈input / panel⌉][output in whole panels][panel] */
    const float *x;
    ptrdiff_t x_row;
    const float *dy; /* gradients of the outputs; or NULL: softmax cross-entropy against target */
    ptrdiff_t dy_row;
    const int64_t *target; /* (rows,) */
    const float *weight;   /* (rows,): of each row's loss */
    float *loss;           /* (rows,): weight · cross-entropy */
    float *dx;
    ptrdiff_t dx_row;
    float *d_weight, *d_bias; /* (output, input), (output,) */
    float *q;      /* [⌈output / panel⌉][rows][panel] */
    float *packed; /* [⌈input / panel⌉][rows][panel] */
    float *top, *sum; /* [⌈output / panel⌉][rows] */
    float *norm, *at_target; /* (rows,) */
} ifgo_head;

typedef struct ifgo_kernels {
    const char *isa; /* the name that IFGO_ISA takes */
    int lanes;       /* floats in one native vector */
    /* steps of batch 1; x_step, y_step: floats between steps; scratch: IFGO_RUN_CHUNK × 4H in
     * whole panels; every member of a team calls it alike; false, here and in `dense`, for
     * one sent away */
    bool (*run)(const ifgo_cell *cell, ifgo_state *state, ptrdiff_t steps, const float *x,
                ptrdiff_t x_step, float *y, ptrdiff_t y_step, float *scratch,
                ifgo_member *member);
    /* to[k][r] = scale · rows[r][k] for r < count ≤ lanes: rows `stride` floats apart, k a panel */
    void (*pack)(const float *rows, ptrdiff_t stride, ptrdiff_t count, ptrdiff_t K, float scale,
                 float *to);
    /* every member of a team calls these alike */
    bool (*dense)(const ifgo_dense *dense, ptrdiff_t rows, const float *x, ptrdiff_t x_row,
                  float *y, ptrdiff_t y_row, ifgo_member *member);
    void (*forward)(const ifgo_sequence *sequence, ifgo_member *member);
    void (*backward)(const ifgo_return *gradients, ifgo_member *member);
    void (*head)(const ifgo_head *head, ifgo_member *member);
} ifgo_kernels;

/* The table in use, NULL until ifgo_isa_choose() has found one (native/engine/dispatch.c). */
extern const ifgo_kernels *ifgo_kernels_in_use;

/* Steps whose input projection `run` makes at once. */
#define IFGO_RUN_CHUNK 24

#endif
