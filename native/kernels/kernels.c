/* The kernels of one instruction set: CMakeLists.txt compiles this file once for each, with that
 * set's flags and its name as IFGO_ISA (kernels.h says what may stand here). */
#include <math.h>

#include "backward.h"
#include "dense.h"
#include "head.h"
#include "kernels.h"
#include "packing.h"
#include "sequence.h"
#include "step.h"

#define IFGO_JOINED(prefix, isa) prefix##isa
#define IFGO_SUFFIXED(prefix, isa) IFGO_JOINED(prefix, isa)
#define IFGO_QUOTED(isa) #isa
#define IFGO_STRING(isa) IFGO_QUOTED(isa)

extern const ifgo_kernels IFGO_SUFFIXED(ifgo_kernels_, IFGO_ISA);

const ifgo_kernels IFGO_SUFFIXED(ifgo_kernels_, IFGO_ISA) = {
    .isa = IFGO_STRING(IFGO_ISA),
    .lanes = LANES,
    .pack = pack_rows_as_columns,
    .run = run,
    .dense = dense,
    .forward = forward,
    .backward = backward,
    .head = head,
};
