/* What one instruction set offers: the table that kernels.c fills once for each of them.
 *
 * kernels.c is compiled once per instruction set, with that set's compiler flags. Nothing in it but
 * its table may have external linkage: the linker keeps one copy of an inline or weak function, and
 * if that were the AVX-512 one, it would run on every CPU.
 */
#ifndef IFGO_KERNELS_H
#define IFGO_KERNELS_H

typedef struct ifgo_kernels {
    const char *isa; /* the name that IFGO_ISA takes */
    int lanes;       /* floats in one native vector */
} ifgo_kernels;

/* The table in use, NULL until ifgo_isa_choose() has found one (native/engine/dispatch.c). */
extern const ifgo_kernels *ifgo_kernels_in_use;

#endif
