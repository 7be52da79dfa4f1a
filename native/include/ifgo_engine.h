/* The engine's C interface. It knows no Python; native/python/ is the one caller that does.
 *
 * Every function is safe to call from any thread once ifgo_engine_load() has returned.
 */
#ifndef IFGO_ENGINE_H
#define IFGO_ENGINE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ifgo_status {
    IFGO_OK = 0,
    IFGO_E_ISA_UNKNOWN,     /* no kernels of that name are built in */
    IFGO_E_ISA_UNSUPPORTED  /* they are built in, but this CPU or its system cannot run them */
} ifgo_status;

/* The instruction sets built in, from the narrowest to the widest vectors. */
size_t ifgo_isa_count(void);
const char *ifgo_isa_name(size_t index); /* NULL where index is too large */
int ifgo_isa_runs(size_t index);         /* whether this CPU and its system can run it */

/* Chooses the kernels of the instruction set `name`, or the widest that run here where `name` is
 * NULL or empty. A name that is refused leaves the choice as it was: none, if there was none. */
ifgo_status ifgo_isa_choose(const char *name);

/* The instruction set in use; NULL where none is. */
const char *ifgo_isa(void);

/* ifgo_isa_choose() of the environment variable IFGO_ISA. Called once, when the engine is loaded. */
ifgo_status ifgo_engine_load(void);

#ifdef __cplusplus
}
#endif

#endif
