/* Weights in the order in which the kernels read them (kernels.h). */
#ifndef IFGO_PACKING_H
#define IFGO_PACKING_H

#include <stddef.h>

static inline ptrdiff_t ifgo_panels_of(ptrdiff_t size, ptrdiff_t panel) {
    return size / panel + (size % panel != 0);
}

/* packed[panel][k][output of the panel] from weight (outputs, K) */
void ifgo_pack_panels(const float *weight, ptrdiff_t outputs, ptrdiff_t K, ptrdiff_t panel,
                      float *packed);

/* packed[⌈K / panel⌉][row][column of the panel], `height` rows each, from weight (rows, K) */
void ifgo_pack_columns(const float *weight, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t height,
                       ptrdiff_t panel, float *packed);

#endif
