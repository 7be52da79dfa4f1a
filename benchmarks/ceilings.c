/* What one core of this machine can do at most: multiply-adds per second, and bytes read per
 * second from working sets of several sizes. Prints one JSON object. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined __AVX512F__
enum { LANES = 16 };
#elif defined __AVX__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

/* The compiler may not drop what it cannot see used; the value stays in its register. */
#ifdef __x86_64__
#define KEEP(x) __asm__ volatile("" : "+v"(x))
#else
#define KEEP(x) __asm__ volatile("" : "+w"(x))
#endif
typedef float vec __attribute__((vector_size(LANES * 4)));

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double multiply_adds(void) {
    enum { CHAINS = 12, ROUNDS = 200000 };
    vec sum[CHAINS], factor = {0}, other = {0};
    double best = 1e9;
    for (int i = 0; i < CHAINS; i++) sum[i] = factor;
    for (int attempt = 0; attempt < 20; attempt++) {
        const double start = now();
        for (int round = 0; round < ROUNDS; round++) {
#pragma GCC unroll 12
            for (int i = 0; i < CHAINS; i++) sum[i] += factor * other;
            KEEP(factor);
        }
        const double took = now() - start;
        if (took < best) best = took;
    }
    volatile float keep = 0;
    for (int i = 0; i < CHAINS; i++) keep += sum[i][0];
    return 2.0 * CHAINS * LANES * ROUNDS / best;
}

static double read_rate(size_t bytes) {
    vec *data = aligned_alloc(64, bytes);
    memset(data, 0, bytes);
    const size_t count = bytes / sizeof *data;
    const int repeat = (int)((64u << 20) / bytes) + 1;
    double best = 1e9;
    vec sum[8];
    memset(sum, 0, sizeof sum);
    for (int attempt = 0; attempt < 12; attempt++) {
        const double start = now();
        for (int r = 0; r < repeat; r++) {
            for (size_t k = 0; k + 8 <= count; k += 8)
#pragma GCC unroll 8
                for (int i = 0; i < 8; i++) sum[i] += data[k + (size_t)i];
            __asm__ volatile("" ::: "memory");
        }
        const double took = (now() - start) / repeat;
        if (took < best) best = took;
    }
    volatile float keep = 0;
    for (int i = 0; i < 8; i++) keep += sum[i][0];
    free(data);
    return (double)bytes / best;
}

int main(void) {
    static const size_t kib[] = {16, 32, 128, 256, 512, 768, 1024, 2048, 4096, 8192, 32768};
    printf("{\"flops\": %.4g, \"read\": {", multiply_adds());
    for (size_t i = 0; i < sizeof kib / sizeof *kib; i++)
        printf("%s\"%zu\": %.4g", i ? ", " : "", kib[i] << 10, read_rate(kib[i] << 10));
    printf("}}\n");
    return 0;
}
