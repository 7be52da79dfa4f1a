#include "memory.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif
#include <unistd.h>

enum { LINE = 64, HUGE_PAGE = 1 << 21 };

float *ifgo_zeros(ptrdiff_t count) {
    const size_t most = PTRDIFF_MAX / sizeof(float) - HUGE_PAGE;
    if (count < 0 || (size_t)count > most) return NULL;
    const size_t wanted = (count ? (size_t)count : 1) * sizeof(float);
    const size_t align = wanted >= HUGE_PAGE ? HUGE_PAGE : LINE;
    const size_t bytes = (wanted + align - 1) / align * align;
    float *memory = aligned_alloc(align, bytes);
    if (!memory) return NULL;
#ifdef __linux__
    if (bytes >= HUGE_PAGE) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    memset(memory, 0, bytes);
    return memory;
}

void ifgo_release(const float *memory) { free((void *)(uintptr_t)memory); }

ptrdiff_t ifgo_product(ptrdiff_t a, ptrdiff_t b, ptrdiff_t c, ptrdiff_t d) {
    ptrdiff_t count;
    if (a < 0 || b < 0 || c < 0 || d < 0 || __builtin_mul_overflow(a, b, &count) ||
        __builtin_mul_overflow(count, c, &count) || __builtin_mul_overflow(count, d, &count))
        return -1;
    return count;
}

bool ifgo_hold(ifgo_space *space, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c, ptrdiff_t d) {
    const ptrdiff_t count = ifgo_product(a, b, c, d);
    if (count < 0) return false;
    if (count <= space->count) return true;
    ifgo_release(space->at);
    space->count = 0;
    space->at = ifgo_zeros(count);
    if (!space->at) return false;
    space->count = count;
    return true;
}

ptrdiff_t ifgo_near_bytes(void) {
    static atomic_long known; /* asking takes a file or a trap into the hypervisor */
    long size = atomic_load_explicit(&known, memory_order_relaxed);
    if (size) return (ptrdiff_t)size;
#ifdef _SC_LEVEL2_CACHE_SIZE
    size = sysconf(_SC_LEVEL2_CACHE_SIZE) / 8 * 5; /* the rest is for states and inputs */
#endif
    if (size <= 0) size = 640 << 10;
    atomic_store_explicit(&known, size, memory_order_relaxed);
    return (ptrdiff_t)size;
}
