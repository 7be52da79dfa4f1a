/* Which instruction set the engine computes with: the widest that this CPU and its system run, or
 * the one that IFGO_ISA names. */
#include <stdlib.h>
#include <string.h>

#include "ifgo_engine.h"
#include "kernels.h"

#if defined __x86_64__ || defined _M_X64

#include <cpuid.h>
#include <stdint.h>

/* The register states that the system saves at a context switch (XCR0); 0 without XSAVE. */
static uint64_t saved_states(uint32_t leaf1_ecx)
{
    uint32_t low, high;
    if (!(leaf1_ecx & bit_OSXSAVE)) return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

enum { AVX_STATES = 0x06, AVX512_STATES = 0xE6 };

static const uint32_t sse42_leaf1 = bit_SSE4_2 | bit_POPCNT;
static const uint32_t avx2_leaf1 = bit_AVX | bit_FMA;
static const uint32_t avx2_leaf7 = bit_AVX2 | bit_BMI2;
static const uint32_t avx512_leaf7 = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;

static int has(uint32_t found, uint32_t wanted)
{
    return (found & wanted) == wanted;
}

/* 0 nothing, 1 SSE4.2, 2 AVX2, 3 AVX-512, with all that the flags in CMakeLists.txt let the
 * compiler use; each includes those below. */
static int level(void)
{
    uint32_t a, b, c1, b7, c, d;
    if (!__get_cpuid(1, &a, &b, &c1, &d) || !has(c1, sse42_leaf1)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c, &d)) return 1;
    const uint64_t states = saved_states(c1);
    if ((states & AVX_STATES) != AVX_STATES || !has(c1, avx2_leaf1) || !has(b7, avx2_leaf7)) {
        return 1;
    }
    if ((states & AVX512_STATES) != AVX512_STATES || !has(b7, avx512_leaf7)) return 2;
    return 3;
}

extern const ifgo_kernels ifgo_kernels_sse42, ifgo_kernels_avx2, ifgo_kernels_avx512;
static const ifgo_kernels *const tables[] = {
    &ifgo_kernels_sse42, &ifgo_kernels_avx2, &ifgo_kernels_avx512};

static int runs(size_t index)
{
    return (int)index < level();
}

#elif defined __aarch64__

extern const ifgo_kernels ifgo_kernels_neon;
static const ifgo_kernels *const tables[] = {&ifgo_kernels_neon};

static int runs(size_t index)
{
    (void)index; /* NEON is part of every AArch64 */
    return 1;
}

#else

extern const ifgo_kernels ifgo_kernels_generic;
static const ifgo_kernels *const tables[] = {&ifgo_kernels_generic};

static int runs(size_t index)
{
    (void)index;
    return 1;
}

#endif

const ifgo_kernels *ifgo_kernels_in_use = NULL;

size_t ifgo_isa_count(void)
{
    return sizeof tables / sizeof *tables;
}

const char *ifgo_isa_name(size_t index)
{
    return index < ifgo_isa_count() ? tables[index]->isa : NULL;
}

int ifgo_isa_runs(size_t index)
{
    return index < ifgo_isa_count() && runs(index);
}

ifgo_status ifgo_isa_choose(const char *name)
{
    ifgo_status refusal = IFGO_E_ISA_UNKNOWN;
    for (size_t k = ifgo_isa_count(); k-- > 0;) {
        if (name != NULL && *name != '\0' && strcmp(name, tables[k]->isa) != 0) continue;
        if (runs(k)) {
            ifgo_kernels_in_use = tables[k];
            return IFGO_OK;
        }
        refusal = IFGO_E_ISA_UNSUPPORTED;
    }
    return refusal;
}

const char *ifgo_isa(void)
{
    return ifgo_kernels_in_use != NULL ? ifgo_kernels_in_use->isa : NULL;
}

ifgo_status ifgo_engine_load(void)
{
    return ifgo_isa_choose(getenv("IFGO_ISA"));
}
