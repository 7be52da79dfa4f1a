/* Aligned memory for vectors, and the sizes of the caches that it should fit. */
#ifndef IFGO_MEMORY_H
#define IFGO_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* `count` zeros, aligned to a cache line (to a huge page where large); NULL where there is not
 * enough memory or the size overflows. */
float *ifgo_zeros(ptrdiff_t count);
void ifgo_release(const float *memory);

/* a·b·c·d; −1, which ifgo_zeros() refuses, where that is too large or a factor is negative. */
ptrdiff_t ifgo_product(ptrdiff_t a, ptrdiff_t b, ptrdiff_t c, ptrdiff_t d);

/* A buffer that grows. */
typedef struct {
    float *at;
    ptrdiff_t count;
} ifgo_space;

/* Whether `space` now holds a·b·c·d floats: zeros, or what an earlier call left. */
bool ifgo_hold(ifgo_space *space, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c, ptrdiff_t d);

/* Bytes of weights that stay in one core's own cache from one step to the next. */
ptrdiff_t ifgo_near_bytes(void);

#endif
