/* The kernels of one instruction set: CMakeLists.txt compiles this file once for each, with that
 * set's flags and its name as IFGO_ISA (kernels.h says what may stand here). */
#include "kernels.h"

#define IFGO_JOINED(prefix, isa) prefix##isa
#define IFGO_SUFFIXED(prefix, isa) IFGO_JOINED(prefix, isa)
#define IFGO_QUOTED(isa) #isa
#define IFGO_STRING(isa) IFGO_QUOTED(isa)

#if defined __AVX512F__
enum { LANES = 16 };
#elif defined __AVX__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

extern const ifgo_kernels IFGO_SUFFIXED(ifgo_kernels_, IFGO_ISA);

const ifgo_kernels IFGO_SUFFIXED(ifgo_kernels_, IFGO_ISA) = {
    .isa = IFGO_STRING(IFGO_ISA),
    .lanes = LANES,
};
