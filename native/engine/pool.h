/* Teams of threads that run one call together. */
#ifndef IFGO_POOL_H
#define IFGO_POOL_H

#ifdef __x86_64__
#include <xmmintrin.h>
#endif

#include "kernels.h"

enum { IFGO_MAX_THREADS = 64, IFGO_FLUSH = 0x8040 /* FTZ and DAZ of MXCSR */ };

/* Calls work(context, member) on up to `size` threads, this one among them as rank 0, and returns
 * when all are done. Where the threads are busy with another call, cannot be started or do not come
 * in time, this thread is a team of one: results do not depend on the size of the team. Denormals
 * are flushed to zero inside. */
void ifgo_team_run(int size, void (*work)(void *context, ifgo_member *member), void *context);

/* Nanoseconds of waiting, over and above a quarter of the time, that rank 0 bears before it goes on
 * alone; and, where not 0, the number of meetings after which it does so in any case. For tests. */
extern int64_t ifgo_team_patience;
extern int ifgo_team_parts_after;

/* Threads that are worth it, of the cores that this thread may run on, for so many multiply-adds
 * from one meeting to the next and in all. */
int ifgo_threads_worth(double between, double all);

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
