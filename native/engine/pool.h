/* Teams of threads that run one call together. */
#ifndef IFGO_POOL_H
#define IFGO_POOL_H

#ifdef __x86_64__
#include <xmmintrin.h>
#endif

#include "kernels.h"

enum { IFGO_MAX_THREADS = 64, IFGO_FLUSH = 0x8040 /* FTZ and DAZ of MXCSR */ };

/* Calls work(context, member) on `size` threads, this one among them, and returns when all are
 * done. Where the threads are busy with another call, or cannot be started, this thread is a team
 * of one: results do not depend on the size of the team. Denormals are flushed to zero inside. */
void ifgo_team_run(int size, void (*work)(void *context, const ifgo_member *member), void *context);

/* Flushes denormals to zero from here on; what it was before goes to ifgo_restore_denormals(). */
static inline unsigned ifgo_flush_denormals(void) {
#ifdef __x86_64__
    const unsigned before = _mm_getcsr();
    if ((before & IFGO_FLUSH) != IFGO_FLUSH) _mm_setcsr(before | IFGO_FLUSH);
    return before;
#else
    return 0;
#endif
}

static inline void ifgo_restore_denormals(unsigned before) {
#ifdef __x86_64__
    if ((before & IFGO_FLUSH) != IFGO_FLUSH) _mm_setcsr(before);
#else
    (void)before;
#endif
}

#endif
