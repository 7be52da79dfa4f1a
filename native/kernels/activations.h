/* tanh, sigmoid and exp over vectors, each forward beside its backward.
 *
 * tanh is the odd rational of degree 13/6 with the argument bounded where float32 tanh has reached
 * 1 within its error (the coefficients that Eigen and XLA made public). It is kept as a fraction,
 * so that a cell divides once for several gates. Measured over every float32: at most 4.2e-7 off
 * tanh, and 2.3e-7 off the sigmoid (tests/engine/test_engine_activations.py).
 */
#ifndef IFGO_ACTIVATIONS_H
#define IFGO_ACTIVATIONS_H

#include "vector.h"

#define TANH_BOUND 7.90531110763549805f

/* tanh(x) = n/d with d in [0.0048, 0.91]. */
INLINE void tanh_fraction(vec x, vec *n, vec *d) {
    x = v_bound(x, TANH_BOUND);
    const vec x2 = x * x, x4 = x2 * x2, x8 = x4 * x4;
    const vec p01 = v_fma(v_all(6.37261928875436e-04f), x2, v_all(4.89352455891786e-03f));
    const vec p23 = v_fma(v_all(5.12229709037114e-08f), x2, v_all(1.48572235717979e-05f));
    const vec p45 = v_fma(v_all(2.00018790482477e-13f), x2, v_all(-8.60467152213735e-11f));
    const vec q01 = v_fma(v_all(2.26843463243900e-03f), x2, v_all(4.89352518554385e-03f));
    const vec q23 = v_fma(v_all(1.19825839466702e-06f), x2, v_all(1.18534705686654e-04f));
    const vec p456 = v_fma(v_all(-2.76076847742355e-16f), x4, p45);
    const vec p0123 = v_fma(p23, x4, p01);
    *d = v_fma(q23, x4, q01);
    *n = v_fma(p456, x8, p0123) * x;
}

INLINE vec v_tanh(vec x) {
    vec n, d;
    tanh_fraction(x, &n, &d);
    return n * v_inverse(d);
}

/* sigmoid(2x): the packed rows of i, f and o hold halves. */
INLINE vec v_sigmoid_of_double(vec x) { return v_fma(v_tanh(x), v_all(0.5f), v_all(0.5f)); }

INLINE vec v_sigmoid(vec x) { return v_sigmoid_of_double(x * v_all(0.5f)); }

/* d/dz of y = tanh(z) and of y = sigmoid(z), in terms of y. */
INLINE vec v_tanh_slope(vec y) { return v_fnma(y, y, v_all(1.0f)); }
INLINE vec v_sigmoid_slope(vec y) { return y * (v_all(1.0f) - y); }

/* exp(x) within 2 ulp for x in [-87, 88.3]; beyond, the value at the end. */
INLINE vec v_exp(vec x) {
    x = v_max(v_all(-87.0f), v_min(v_all(88.3f), x));
    const vec n = v_round(x * v_all(1.44269504088896341f));
    const vec r = v_fnma(n, v_all(-2.12194440e-4f), v_fnma(n, v_all(0.693359375f), x));
    const vec r2 = r * r;
    const vec a = v_fma(v_all(1.9875691500e-4f), r, v_all(1.3981999507e-3f));
    const vec b = v_fma(v_all(8.3334519073e-3f), r, v_all(4.1665795894e-2f));
    const vec c = v_fma(v_all(1.6666665459e-1f), r, v_all(5.0000001201e-1f));
    const vec p = v_fma(v_fma(a, r2, b), r2, c);
    return v_scale(v_fma(p, r2, r + v_all(1.0f)), n);
}

#endif
