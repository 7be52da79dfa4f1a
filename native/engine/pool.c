/* A wait spins for a moment, for a step is shorter than a wake-up, then sleeps in the kernel: a
 * member whose core is taken by someone else must not keep the others' cores busy. */
#define _GNU_SOURCE
#include "pool.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#endif
#ifdef __x86_64__
#include <xmmintrin.h>
#endif

enum { SPINS = 2000 };

typedef struct {
    _Alignas(64) atomic_uint value;
    atomic_int sleepers;
} signal_t;

static void pause_briefly(void) {
#ifdef __x86_64__
    _mm_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

/* Returns once the value is no longer `old`. */
static void wait_beyond(signal_t *signal, unsigned old) {
    for (int spin = 0; spin < SPINS; spin++) {
        if (atomic_load_explicit(&signal->value, memory_order_acquire) != old) return;
        pause_briefly();
    }
    atomic_fetch_add(&signal->sleepers, 1);
    while (atomic_load(&signal->value) == old) {
#ifdef __linux__
        syscall(SYS_futex, &signal->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
#else
        sched_yield();
#endif
    }
    atomic_fetch_sub(&signal->sleepers, 1);
}

static void advance(signal_t *signal) {
    atomic_fetch_add(&signal->value, 1);
#ifdef __linux__
    if (atomic_load(&signal->sleepers))
        syscall(SYS_futex, &signal->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
#endif
}

struct ifgo_team {
    signal_t met;
    _Alignas(64) atomic_int arrived;
    int size;
    void (*work)(void *context, const ifgo_member *member);
    void *context;
};

void ifgo_meet(const ifgo_member *member) {
    if (member->size == 1) return;
    ifgo_team *team = member->team;
    const unsigned round = atomic_load_explicit(&team->met.value, memory_order_relaxed);
    if (atomic_fetch_add(&team->arrived, 1) + 1 == team->size) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        advance(&team->met);
    } else {
        wait_beyond(&team->met, round);
    }
}

static void take_part(ifgo_team *team, int rank) {
    const ifgo_member member = {rank, team->size, team};
    const unsigned before = ifgo_flush_denormals();
    team->work(team->context, &member);
    ifgo_restore_denormals(before);
}

/* -- The workers: started when first needed, gone in a forked child ---------------------------- */

typedef struct {
    signal_t start;
    int rank;
} worker_t;

static pthread_mutex_t in_use = PTHREAD_MUTEX_INITIALIZER;
static worker_t workers[IFGO_MAX_THREADS];
static int started = 1; /* this thread is number 0 */
static ifgo_team the_team;

static void *work_on(void *argument) {
    worker_t *self = argument;
    for (unsigned seen = 0;; seen++) {
        wait_beyond(&self->start, seen);
        take_part(&the_team, self->rank);
        ifgo_meet(&(ifgo_member){self->rank, the_team.size, &the_team});
    }
    return NULL;
}

static void forget_workers(void) {
    started = 1;
    for (int i = 0; i < IFGO_MAX_THREADS; i++) {
        atomic_store(&workers[i].start.value, 0);
        atomic_store(&workers[i].start.sleepers, 0);
    }
    pthread_mutex_init(&in_use, NULL);
}

/* Starts workers up to `size`; returns how many threads there are. Called with in_use held. */
static int start_workers(int size) {
    static int watched;
    if (!watched) watched = !pthread_atfork(NULL, NULL, forget_workers);
    for (; started < size; started++) {
        pthread_attr_t attributes;
        pthread_t thread;
        workers[started].rank = started;
        if (pthread_attr_init(&attributes)) break;
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        const int failed = pthread_create(&thread, &attributes, work_on, &workers[started]);
        pthread_attr_destroy(&attributes);
        if (failed) break;
    }
    return started;
}

void ifgo_team_run(int size, void (*work)(void *, const ifgo_member *), void *context) {
    if (size > IFGO_MAX_THREADS) size = IFGO_MAX_THREADS;
    if (size <= 1 || pthread_mutex_trylock(&in_use)) {
        ifgo_team alone = {.size = 1, .work = work, .context = context};
        take_part(&alone, 0);
        return;
    }
    const int have = start_workers(size);
    the_team.size = size < have ? size : have;
    the_team.work = work;
    the_team.context = context;
    for (int i = 1; i < the_team.size; i++) advance(&workers[i].start);
    take_part(&the_team, 0);
    ifgo_meet(&(ifgo_member){0, the_team.size, &the_team});
    pthread_mutex_unlock(&in_use);
}
