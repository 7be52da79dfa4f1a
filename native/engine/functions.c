/* Every activation of src/ifgo/activations.py in float32 with its derivative, softmax, layer norm.
 *
 * tanh, exp and softplus are those of src/ifgo/reference/float32.py, whose errors are measured over
 * every float32 (bounds.CONTRACTED: a compiler may fuse here). Derivatives: SPEC.md section 10.2. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __x86_64__
#include <xmmintrin.h>
#endif

#include "machine.h"

static inline float power_of_two(int32_t n) {
    const int32_t bits = (n + 127) << 23;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* e^(x − n·ln 2), x near n·ln 2 */
static inline float reduced_exp(float x, int32_t n) {
    const float whole = (float)n;
    const float r = (x - whole * 0.693145751953125f) - whole * 1.42860677e-06f;
    float p = 0.0013814173871651292f;
    p = p * r + 0.008368921466171741f;
    p = p * r + 0.04166840761899948f;
    p = p * r + 0.1666651964187622f;
    p = p * r + 0.4999999403953552f;
    p = p * r + 1.0f;
    return p * r + 1.0f;
}

static inline float exp_of(float given) {
    float x = given > -104.0f ? given : -104.0f;
    x = x < 88.0f ? x : 88.0f;
    const float scaled = x * 1.44269504f;
    const int32_t n = (int32_t)(x < 0.0f ? scaled - 0.5f : scaled + 0.5f);
    const int32_t upper = n / 2;
    const float power = reduced_exp(x, n) * power_of_two(upper) * power_of_two(n - upper);
    return given != given ? given : power;
}

static inline float tanh_of(float x) {
    const float a = fabsf(x), u = a * a;
    float p = 0.016428545117378235f;
    p = p * u + -0.05266720429062843f;
    p = p * u + 0.1332065612077713f;
    p = p * u + -0.333329439163208f;
    const float near = a + (a * u) * p;
    const float doubled = 2.0f * (a < 10.0f ? a : 10.0f);
    const int32_t n = (int32_t)(doubled * 1.44269504f + 0.5f);
    const float far = 1.0f - 2.0f / (reduced_exp(doubled, n) * power_of_two(n) + 1.0f);
    const float beyond = a >= 10.0f ? 1.0f : a; /* NaN stays NaN */
    const float magnitude = a < 0.55f ? near : a < 10.0f ? far : beyond;
    return copysignf(magnitude, x);
}

static inline float sigmoid_of(float x) { return 0.5f + 0.5f * tanh_of(0.5f * x); }

static inline float softplus_of(float x) {
    const float t = exp_of(-fabsf(x)), s = t / (2.0f + t), w = s * s;
    float p = 0.14009429514408112f;
    p = p * w + 0.14000260829925537f;
    p = p * w + 0.20010799169540405f;
    p = p * w + 0.3333320617675781f;
    return (x > 0.0f ? x : 0.0f) + 2.0f * (s + (s * w) * p);
}

static inline float hard_sigmoid_of(float x, float alpha, float beta) {
    const float v = alpha * x + beta, above = v < 0.0f ? 0.0f : v;
    return above > 1.0f ? 1.0f : above;
}

/* Without the cancellation of s·(1 − s) where s is near 1. */
static inline float sigmoid_slope(float x) {
    const float e = exp_of(-fabsf(x)), below = 1.0f + e;
    return e / (below * below);
}

static inline float tanh_slope(float x) { return 4.0f * sigmoid_slope(2.0f * x); }

#define EACH(name, expression)                                                                     \
    case IFGO_ACT_##name:                                                                          \
        INDEPENDENT for (ptrdiff_t j = 0; j < n; j++) {                                            \
            const float v = x[j];                                                                  \
            y[j] = (expression);                                                                   \
        }                                                                                          \
        break;

void ifgo_activate(ptrdiff_t activation, const float *x, float *y, ptrdiff_t n, float alpha,
                   float beta) {
    switch (activation) {
        EACH(SIGMOID, sigmoid_of(v))
        EACH(TANH, tanh_of(v))
        EACH(RELU, v < 0.0f ? 0.0f : v)
        EACH(LINEAR, v)
        EACH(HARD_SIGMOID, hard_sigmoid_of(v, alpha, beta))
        EACH(LEAKY_RELU, v < 0.0f ? alpha * v : v)
        EACH(THRESHOLDED_RELU, v <= alpha ? 0.0f : v)
        EACH(ELU, v < 0.0f ? alpha * (exp_of(v) - 1.0f) : v)
        EACH(SCALED_TANH, alpha * tanh_of(beta * v))
        EACH(AFFINE, alpha * v + beta)
        EACH(SOFTSIGN, v / (1.0f + fabsf(v)))
        EACH(SOFTPLUS, softplus_of(v))
    default: break;
    }
}

#undef EACH
#define EACH(name, expression)                                                                     \
    case IFGO_ACT_##name:                                                                          \
        INDEPENDENT for (ptrdiff_t j = 0; j < n; j++) {                                            \
            const float v = x[j];                                                                  \
            dx[j] += dy[j] * (expression);                                                         \
        }                                                                                          \
        break;

void ifgo_activate_back(ptrdiff_t activation, const float *x, const float *dy, float *dx,
                        ptrdiff_t n, float alpha, float beta) {
    switch (activation) {
        EACH(SIGMOID, sigmoid_slope(v))
        EACH(TANH, tanh_slope(v))
        EACH(RELU, v > 0.0f ? 1.0f : 0.0f)
        EACH(LINEAR, v == v ? 1.0f : v)
        EACH(HARD_SIGMOID, alpha * v + beta > 0.0f && alpha * v + beta < 1.0f ? alpha : 0.0f)
        EACH(LEAKY_RELU, v > 0.0f ? 1.0f : alpha)
        EACH(THRESHOLDED_RELU, v > alpha ? 1.0f : 0.0f)
        EACH(ELU, v > 0.0f ? 1.0f : alpha * exp_of(v < 0.0f ? v : 0.0f))
        EACH(SCALED_TANH, alpha * beta * tanh_slope(beta * v))
        EACH(AFFINE, v == v ? alpha : v)
        EACH(SOFTSIGN, 1.0f / ((1.0f + fabsf(v)) * (1.0f + fabsf(v))))
        EACH(SOFTPLUS, sigmoid_of(v))
    default: break;
    }
}

void ifgo_softmax(const float *x, float *y, ptrdiff_t n) {
    float top = x[0], sum = 0.0f;
    for (ptrdiff_t j = 1; j < n; j++) top = x[j] > top ? x[j] : top;
    INDEPENDENT for (ptrdiff_t j = 0; j < n; j++) y[j] = exp_of(x[j] - top);
    for (ptrdiff_t j = 0; j < n; j++) sum += y[j];
    INDEPENDENT for (ptrdiff_t j = 0; j < n; j++) y[j] /= sum;
}

void ifgo_spread(const float *x, ptrdiff_t n, float epsilon, double *mean, double *deviation) {
    double sum = 0.0, squares = 0.0;
    for (ptrdiff_t j = 0; j < n; j++) sum += x[j];
    *mean = sum / (double)n;
    for (ptrdiff_t j = 0; j < n; j++) squares += (x[j] - *mean) * (x[j] - *mean);
    *deviation = sqrt(squares / (double)n + epsilon);
}

enum { FLUSH = 0x8040 }; /* FTZ and DAZ of MXCSR */

unsigned ifgo_enter(void) {
#ifdef __x86_64__
    const unsigned before = _mm_getcsr();
    if (before & FLUSH) _mm_setcsr(before & ~(unsigned)FLUSH);
    return before;
#else
    return 0;
#endif
}

void ifgo_leave(unsigned before) {
#ifdef __x86_64__
    if (before & FLUSH) _mm_setcsr(before);
#else
    (void)before;
#endif
}
