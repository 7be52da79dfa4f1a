/* Vectors of the native width of one instruction set: the only file that names intrinsics.
 *
 * Included by kernels.c alone, which is compiled once per instruction set. Everything here has
 * internal linkage, so that no instruction of one set leaks into code that another set runs.
 * The width must be the machine's own: compilers lower wider generic vectors to slow code.
 */
#ifndef IFGO_VECTOR_H
#define IFGO_VECTOR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__) && defined(__AVX512DQ__)

#include <immintrin.h>
#define LANES 16
#define ROWS 6 /* rows of a register tile of ROWS × 4 vectors */
typedef __m512 vec;
INLINE vec v_all(float x) { return _mm512_set1_ps(x); }
INLINE vec v_load(const float *p) { return _mm512_load_ps(p); }
INLINE vec v_load_any(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, vec x) { _mm512_store_ps(p, x); }
INLINE void v_store_any(float *p, vec x) { _mm512_storeu_ps(p, x); }
INLINE vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec v_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); }
/* Of a NaN in b, v_max and v_min make a NaN; of one in a they may make b. */
INLINE vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
INLINE vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); }
INLINE vec v_round(vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vec v_scale(vec x, vec n) { return _mm512_scalef_ps(x, n); }
INLINE vec v_estimate(vec d) { return _mm512_rcp14_ps(d); }
INLINE float v_sum(vec x) { return _mm512_reduce_add_ps(x); }
INLINE float v_top(vec x) { return _mm512_reduce_max_ps(x); }
INLINE __mmask16 v_part(ptrdiff_t n) { return (__mmask16)((1u << n) - 1u); }
INLINE vec v_load_part(const float *p, ptrdiff_t n) { return _mm512_maskz_loadu_ps(v_part(n), p); }
INLINE void v_store_part(float *p, vec x, ptrdiff_t n) { _mm512_mask_storeu_ps(p, v_part(n), x); }

#else

#if defined(__AVX2__)

#include <immintrin.h>
#define LANES 8
#define ROWS 3
typedef __m256 vec;
typedef int32_t vec_int __attribute__((vector_size(32)));
INLINE vec v_all(float x) { return _mm256_set1_ps(x); }
INLINE vec v_load(const float *p) { return _mm256_load_ps(p); }
INLINE vec v_load_any(const float *p) { return _mm256_loadu_ps(p); }
INLINE void v_store(float *p, vec x) { _mm256_store_ps(p, x); }
INLINE void v_store_any(float *p, vec x) { _mm256_storeu_ps(p, x); }
INLINE vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vec v_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); }
INLINE vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
INLINE vec v_min(vec a, vec b) { return _mm256_min_ps(a, b); }
INLINE vec v_estimate(vec d) { return _mm256_rcp_ps(d); }
INLINE vec v_round(vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vec_int v_integer(vec x) { return (vec_int)_mm256_cvtps_epi32(x); }

#elif defined(__SSE4_1__)

#include <smmintrin.h>
#define LANES 4
#define ROWS 2
typedef __m128 vec;
typedef int32_t vec_int __attribute__((vector_size(16)));
INLINE vec v_all(float x) { return _mm_set1_ps(x); }
INLINE vec v_load(const float *p) { return _mm_load_ps(p); }
INLINE vec v_load_any(const float *p) { return _mm_loadu_ps(p); }
INLINE void v_store(float *p, vec x) { _mm_store_ps(p, x); }
INLINE void v_store_any(float *p, vec x) { _mm_storeu_ps(p, x); }
INLINE vec v_fma(vec a, vec b, vec c) { return a * b + c; }
INLINE vec v_fnma(vec a, vec b, vec c) { return c - a * b; }
INLINE vec v_max(vec a, vec b) { return _mm_max_ps(a, b); }
INLINE vec v_min(vec a, vec b) { return _mm_min_ps(a, b); }
INLINE vec v_estimate(vec d) { return _mm_rcp_ps(d); }
INLINE vec v_round(vec x) { return _mm_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vec_int v_integer(vec x) { return (vec_int)_mm_cvtps_epi32(x); }

#elif defined(__ARM_NEON) && defined(__aarch64__)

#include <arm_neon.h>
#define LANES 4
#define ROWS 4
typedef float32x4_t vec;
typedef int32x4_t vec_int;
INLINE vec v_all(float x) { return vdupq_n_f32(x); }
INLINE vec v_load(const float *p) { return vld1q_f32(p); }
INLINE vec v_load_any(const float *p) { return vld1q_f32(p); }
INLINE void v_store(float *p, vec x) { vst1q_f32(p, x); }
INLINE void v_store_any(float *p, vec x) { vst1q_f32(p, x); }
INLINE vec v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
INLINE vec v_fnma(vec a, vec b, vec c) { return vfmsq_f32(c, a, b); }
INLINE vec v_max(vec a, vec b) { return vmaxq_f32(a, b); }
INLINE vec v_min(vec a, vec b) { return vminq_f32(a, b); }
INLINE vec v_estimate(vec d) { return vdivq_f32(vdupq_n_f32(1.0f), d); }
INLINE vec v_round(vec x) { return vrndnq_f32(x); }
INLINE vec_int v_integer(vec x) { return vcvtnq_s32_f32(x); }

#else /* any other machine: vectors of the compiler, four wide */

#include <math.h>
#define LANES 4
#define ROWS 2
typedef float vec __attribute__((vector_size(16)));
typedef int32_t vec_int __attribute__((vector_size(16)));
INLINE vec v_all(float x) { return (vec){x, x, x, x}; }
INLINE vec v_load_any(const float *p) { vec x; memcpy(&x, p, sizeof x); return x; }
INLINE vec v_load(const float *p) { return v_load_any(p); }
INLINE void v_store_any(float *p, vec x) { memcpy(p, &x, sizeof x); }
INLINE void v_store(float *p, vec x) { v_store_any(p, x); }
INLINE vec v_fma(vec a, vec b, vec c) { return a * b + c; }
INLINE vec v_fnma(vec a, vec b, vec c) { return c - a * b; }
INLINE vec v_max(vec a, vec b) { for (int i = 0; i < 4; i++) a[i] = a[i] > b[i] ? a[i] : b[i]; return a; }
INLINE vec v_min(vec a, vec b) { for (int i = 0; i < 4; i++) a[i] = a[i] < b[i] ? a[i] : b[i]; return a; }
INLINE vec v_estimate(vec d) { return v_all(1.0f) / d; }
INLINE vec v_round(vec x) { for (int i = 0; i < 4; i++) x[i] = rintf(x[i]); return x; }
INLINE vec_int v_integer(vec x) { return (vec_int){(int32_t)x[0], (int32_t)x[1], (int32_t)x[2], (int32_t)x[3]}; }

#endif

/* x · 2^n for integral n with a normal result. */
INLINE vec v_scale(vec x, vec n) { return x * (vec)((v_integer(n) + 127) << 23); }
INLINE float v_sum(vec x) {
    float part[LANES], sum = 0;
    memcpy(part, &x, sizeof part);
    for (int i = 0; i < LANES; i++) sum += part[i];
    return sum;
}
INLINE float v_top(vec x) {
    float part[LANES], top;
    memcpy(part, &x, sizeof part);
    top = part[0];
    for (int i = 1; i < LANES; i++) top = part[i] > top ? part[i] : top;
    return top;
}
INLINE vec v_load_part(const float *p, ptrdiff_t n) {
    float part[LANES] = {0};
    vec x;
    memcpy(part, p, (size_t)n * sizeof *p);
    memcpy(&x, part, sizeof x);
    return x;
}
INLINE void v_store_part(float *p, vec x, ptrdiff_t n) {
    float part[LANES];
    memcpy(part, &x, sizeof part);
    memcpy(p, part, (size_t)n * sizeof *p);
}

#endif

#define PANEL (4 * LANES) /* columns of a packed panel: one block of units with its four gates */

INLINE vec v_zero(void) { return v_all(0.0f); }

/* x, but within [-b, b]; a NaN stays one. */
INLINE vec v_bound(vec x, float b) { return v_min(v_all(b), v_max(v_all(-b), x)); }

/* 1/d within 2 ulp, for d in the normal range. */
INLINE vec v_inverse(vec d) {
    const vec r = v_estimate(d);
    return v_fma(v_fnma(d, r, v_all(1.0f)), r, r);
}

/* The first n of LANES values: all of them without a mask. */
INLINE void v_store_first(float *p, vec x, ptrdiff_t n) {
    if (n >= LANES) v_store_any(p, x);
    else v_store_part(p, x, n);
}
INLINE vec v_load_first(const float *p, ptrdiff_t n) {
    return n >= LANES ? v_load_any(p) : v_load_part(p, n);
}

#endif
