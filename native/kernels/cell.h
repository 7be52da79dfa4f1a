/* What one cell does with its pre-activations, LANES units at a time: z → (c, h), and back.
 *
 * z holds the sums of gates i, f, g, o, those of i, f and o halved (kernels.h).
 */
#ifndef IFGO_CELL_H
#define IFGO_CELL_H

#include "activations.h"
#include "kernels.h"

/* The plain cell with two divisions instead of five: with tanh = n/d and sigmoid = (d + n)/2d,
 * c' = ((nf+df)·c·di·dg + (ni+di)·ng·df) / 2·di·df·dg and h = (no+do)·nt / 2·do·dt. What does not
 * wait for the sums of this step's h, and what waits for the least, comes first. */
INLINE void cell_plain(const vec z[4], vec *c, vec *h) {
    const vec half = v_all(0.5f);
    vec ni, di, nf, df, ng, dg, no, d_o, nt, dt;
    tanh_fraction(z[0], &ni, &di);
    tanh_fraction(z[1], &nf, &df);
    tanh_fraction(z[2], &ng, &dg);
    tanh_fraction(z[3], &no, &d_o);
    const vec dig = di * dg;
    const vec inverse = v_inverse(dig * df);
    const vec carried = (*c * half) * dig;
    const vec kept = v_fma(nf, carried, df * carried);
    const vec added = (ni + di) * (ng * (df * half));
    *c = (kept + added) * inverse;
    const vec out = ((no + d_o) * half) * v_inverse(d_o);
    tanh_fraction(*c, &nt, &dt);
    *h = (nt * out) * v_inverse(dt);
}

typedef struct {
    vec i, f, g, o;
} gates_t;

/* Gates up to o, with the options of `cell`; c becomes the new state. p: the block's peepholes. */
INLINE gates_t cell_gates(const ifgo_cell *cell, const float *p, vec z[4], vec *c) {
    gates_t a;
    if (p) {
        z[0] = v_fma(v_load(p), *c, z[0]);
        z[1] = v_fma(v_load(p + LANES), *c, z[1]);
    }
    const float clip = cell->clip_z, half_clip = 0.5f * clip;
    if (clip < INFINITY)
        for (int g = 0; g < 3; g++) z[g] = v_bound(z[g], g == 2 ? clip : half_clip);
    a.i = v_sigmoid_of_double(z[0]);
    a.f = v_sigmoid_of_double(z[1]);
    a.g = v_tanh(z[2]);
    if (cell->coupling == IFGO_FORGET_COUPLED) a.f = v_all(1.0f) - a.i;
    if (cell->coupling == IFGO_INPUT_COUPLED) a.i = v_all(1.0f) - a.f;
    *c = v_fma(a.f, *c, a.i * a.g);
    if (cell->clip_cell < INFINITY) *c = v_bound(*c, cell->clip_cell);
    if (p) z[3] = v_fma(v_load(p + 2 * LANES), *c, z[3]);
    if (clip < INFINITY) z[3] = v_bound(z[3], half_clip);
    a.o = v_sigmoid_of_double(z[3]);
    return a;
}

/* z → c, h of block b. */
INLINE void cell_forward(const ifgo_cell *cell, ptrdiff_t b, vec z[4], vec *c, vec *h) {
    if (cell->plain) {
        cell_plain(z, c, h);
        return;
    }
    const float *p = cell->peephole ? cell->peephole + b * 3 * LANES : NULL;
    const gates_t a = cell_gates(cell, p, z, c);
    *h = a.o * v_tanh(*c);
}

/* The same, the gates stored at kept[4][LANES] for cell_backward. */
INLINE void cell_forward_kept(const ifgo_cell *cell, ptrdiff_t b, vec z[4], vec *c, vec *h,
                              float *kept) {
    const float *p = cell->peephole ? cell->peephole + b * 3 * LANES : NULL;
    gates_t a;
    if (cell->plain) {
        a.i = v_sigmoid_of_double(z[0]);
        a.f = v_sigmoid_of_double(z[1]);
        a.g = v_tanh(z[2]);
        a.o = v_sigmoid_of_double(z[3]);
        *c = v_fma(a.f, *c, a.i * a.g);
    } else {
        a = cell_gates(cell, p, z, c);
    }
    *h = a.o * v_tanh(*c);
    v_store(kept, a.i);
    v_store(kept + LANES, a.f);
    v_store(kept + 2 * LANES, a.g);
    v_store(kept + 3 * LANES, a.o);
}

/* dh, dc (of the new state) → dz in place of the gates at kept, and *dc of the old state.
 * c: the new state, c_old: the state before. The gradient of a state that clip_cell holds at its
 * bound is 0. Cells with clip_z do not come here: their gates do not tell where z was clipped. */
INLINE void cell_backward(const ifgo_cell *cell, ptrdiff_t b, vec dh, vec c, vec c_old, vec *dc,
                          float *kept) {
    const vec i = v_load(kept), f = v_load(kept + LANES), g = v_load(kept + 2 * LANES),
              o = v_load(kept + 3 * LANES), t = v_tanh(c);
    const float *p = cell->peephole ? cell->peephole + b * 3 * LANES : NULL;
    const vec two = v_all(2.0f); /* the packed peepholes are halved */
    const vec dz_o = (dh * t) * v_sigmoid_slope(o);
    vec d = v_fma(dh * o, v_tanh_slope(t), *dc);
    if (p) d = v_fma(dz_o * two, v_load(p + 2 * LANES), d);
    if (cell->clip_cell < INFINITY) {
        float at[LANES], inside[LANES];
        v_store_any(at, c);
        for (int u = 0; u < LANES; u++)
            inside[u] = at[u] < cell->clip_cell && at[u] > -cell->clip_cell ? 1.0f : 0.0f;
        d = d * v_load_any(inside);
    }
    vec di = d * g, df = d * c_old;
    if (cell->coupling == IFGO_FORGET_COUPLED) {
        di = di - df;
        df = v_zero();
    }
    if (cell->coupling == IFGO_INPUT_COUPLED) {
        df = df - di;
        di = v_zero();
    }
    const vec dz_i = di * v_sigmoid_slope(i), dz_f = df * v_sigmoid_slope(f);
    *dc = d * f;
    if (p) {
        *dc = v_fma(dz_i * two, v_load(p), *dc);
        *dc = v_fma(dz_f * two, v_load(p + LANES), *dc);
    }
    v_store(kept, dz_i);
    v_store(kept + LANES, dz_f);
    v_store(kept + 2 * LANES, (d * i) * v_tanh_slope(g));
    v_store(kept + 3 * LANES, dz_o);
}

#endif
