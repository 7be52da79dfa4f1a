/* What the C tests share: failures that are counted and told, and random numbers. */
#ifndef IFGO_CHECK_H
#define IFGO_CHECK_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            printf("%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                   \
        }                                                                                          \
    } while (0)

static uint64_t seed = 0x9E3779B97F4A7C15u;

static inline uint64_t next_random(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

/* From 0 to n − 1. */
static inline ptrdiff_t below(ptrdiff_t n) { return (ptrdiff_t)(next_random() >> 11) % n; }

/* n values in (−bound, bound), in memory of exactly that size. */
static inline float *random_floats(ptrdiff_t n, double bound) {
    float *made = malloc((size_t)(n ? n : 1) * sizeof *made);
    if (!made) abort();
    for (ptrdiff_t i = 0; i < n; i++)
        made[i] = (float)(bound * ((double)(next_random() >> 11) / 4503599627370496.0 - 1.0));
    return made;
}

#endif
