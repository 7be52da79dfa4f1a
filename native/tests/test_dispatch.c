/* Dispatch: every instruction set by name, refusals, and the widest by default. */
#include <stdio.h>
#include <string.h>

#include "ifgo_engine.h"
#include "kernels.h"

static int failures = 0;

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            failures++;                                                        \
            printf("%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
        }                                                                      \
    } while (0)

static void refusals_leave_the_choice(void)
{
    CHECK(ifgo_isa() == NULL);
    CHECK(ifgo_isa_choose("sse9") == IFGO_E_ISA_UNKNOWN);
    CHECK(ifgo_isa() == NULL);
    for (size_t k = 0; k < ifgo_isa_count(); k++) {
        if (!ifgo_isa_runs(k)) {
            CHECK(ifgo_isa_choose(ifgo_isa_name(k)) == IFGO_E_ISA_UNSUPPORTED);
            CHECK(ifgo_isa() == NULL);
        }
    }
}

static void each_by_name(void)
{
    int lanes = 0;
    for (size_t k = 0; k < ifgo_isa_count(); k++) {
        if (!ifgo_isa_runs(k)) continue;
        CHECK(ifgo_isa_choose(ifgo_isa_name(k)) == IFGO_OK);
        CHECK(strcmp(ifgo_isa(), ifgo_isa_name(k)) == 0);
        CHECK(ifgo_kernels_in_use->lanes > lanes);
        lanes = ifgo_kernels_in_use->lanes;
    }
    CHECK(lanes > 0); /* something runs here */
    CHECK(ifgo_isa_choose("") == IFGO_OK);
    CHECK(ifgo_kernels_in_use->lanes == lanes);
    CHECK(ifgo_isa_choose(NULL) == IFGO_OK);
    CHECK(ifgo_kernels_in_use->lanes == lanes);
}

int main(void)
{
    CHECK(ifgo_isa_name(ifgo_isa_count()) == NULL);
    CHECK(!ifgo_isa_runs(ifgo_isa_count()));
    refusals_leave_the_choice();
    each_by_name();
    printf("instruction set %s, %d failures\n", ifgo_isa(), failures);
    return failures != 0;
}
