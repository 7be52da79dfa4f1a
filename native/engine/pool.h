/* Teams of threads that run one call together. */
#ifndef IFGO_POOL_H
#define IFGO_POOL_H

#include "kernels.h"

enum { IFGO_MAX_THREADS = 64 };

/* Calls work(context, member) on `size` threads, this one among them, and returns when all are
 * done. Where the threads are busy with another call, or cannot be started, this thread is a team
 * of one: results do not depend on the size of the team. Denormals are flushed to zero inside. */
void ifgo_team_run(int size, void (*work)(void *context, const ifgo_member *member), void *context);

/* The floating-point control word with denormals flushed, as it was before. */
unsigned ifgo_flush_denormals(void);
void ifgo_restore_denormals(unsigned before);

#endif
