/* Rows of weights into columns of a panel: a transposition, LANES × LANES values at a time. */
#ifndef IFGO_KERNEL_PACKING_H
#define IFGO_KERNEL_PACKING_H

#include "vector.h"

#if LANES == 16
/* In place: row[r][k] ↔ row[k][r]. */
INLINE void v_transpose(vec row[LANES]) {
    vec pairs[LANES], fours[LANES], eights[LANES];
    for (int i = 0; i < LANES; i += 2) {
        pairs[i] = _mm512_unpacklo_ps(row[i], row[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(row[i], row[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int half = 0; half < 2; half++) {
            const __m512d a = _mm512_castps_pd(pairs[i + half]);
            const __m512d b = _mm512_castps_pd(pairs[i + half + 2]);
            fours[i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            fours[i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    for (int i = 0; i < LANES; i += 8)
        for (int k = 0; k < 4; k++) {
            eights[i + k] = _mm512_shuffle_f32x4(fours[i + k], fours[i + k + 4], 0x88);
            eights[i + k + 4] = _mm512_shuffle_f32x4(fours[i + k], fours[i + k + 4], 0xDD);
        }
    for (int k = 0; k < 8; k++) {
        row[k] = _mm512_shuffle_f32x4(eights[k], eights[k + 8], 0x88);
        row[k + 8] = _mm512_shuffle_f32x4(eights[k], eights[k + 8], 0xDD);
    }
}
#endif

/* to[k][r] = scale · rows[r][k], r < count ≤ LANES; rows `stride` floats apart, k a panel apart. */
static void pack_rows_as_columns(const float *rows, ptrdiff_t stride, ptrdiff_t count, ptrdiff_t K,
                                 float scale, float *to) {
    ptrdiff_t k = 0;
#if LANES == 16
    for (; count == LANES && k + LANES <= K; k += LANES) {
        vec square[LANES];
#pragma GCC unroll 16
        for (int r = 0; r < LANES; r++)
            square[r] = v_load_any(rows + r * stride + k) * v_all(scale);
        v_transpose(square);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) v_store(to + (k + i) * PANEL, square[i]);
    }
#endif
    for (; k < K; k++)
        for (ptrdiff_t r = 0; r < count; r++) to[k * PANEL + r] = scale * rows[r * stride + k];
}

#endif
