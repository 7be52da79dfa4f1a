/* A pool of threads in lockstep: rank 0, who called, gathers the others at every meeting and sends
 * them on.
 *
 * A wait spins for a moment, for a step is shorter than a wake-up, then sleeps in the kernel: a
 * thread whose core is taken by someone else must not keep other cores busy. Lockstep suffers most
 * from such a thread, so rank 0, whose share is never the smaller one, keeps account of what it
 * waits. Where that is too much, it sends the others away at a meeting, does the rest of the call
 * alone, and calls nobody for PENALTY times as long as it had waited: beside a call on one thread
 * no more than 1/PENALTY is lost, whatever else runs on the machine.
 */
#define _GNU_SOURCE
#include "pool.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>
#if defined __linux__ && !defined IFGO_NO_FUTEX
#define USE_FUTEX 1
#include <linux/futex.h>
#include <sys/syscall.h>
#endif
#ifdef __x86_64__
#include <xmmintrin.h>
#endif

/* Pauses before a clock is read, and between two readings; nanoseconds before a wait sleeps: what
 * it then takes to be woken. */
enum { QUICK = 64, SPIN_NS = 30000, PENALTY = 16 };

int64_t ifgo_team_patience = 100000;
int ifgo_team_parts_after = 0;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void pause_briefly(void) {
#ifdef __x86_64__
    _mm_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

/* -- A number that threads wait for ----------------------------------------------------------- */

typedef struct {
    _Alignas(64) atomic_uint value;
    atomic_uint sleepers;
#ifndef USE_FUTEX
    pthread_mutex_t lock;
    pthread_cond_t changed;
#endif
} signal_t;

static void clear(signal_t *signal) {
    atomic_store(&signal->value, 0);
    atomic_store(&signal->sleepers, 0);
#ifndef USE_FUTEX
    pthread_mutex_init(&signal->lock, NULL);
    pthread_cond_init(&signal->changed, NULL);
#endif
}

static unsigned value_of(signal_t *signal) {
    return atomic_load_explicit(&signal->value, memory_order_acquire);
}

/* Returns once the value is no longer `old`. */
static void wait_beyond(signal_t *signal, unsigned old) {
    for (int64_t until = 0;;) {
        for (int spin = 0; spin < QUICK; spin++) {
            if (value_of(signal) != old) return;
            pause_briefly();
        }
        const int64_t at = now();
        if (until == 0) until = at + SPIN_NS;
        else if (at > until) break;
    }
    atomic_fetch_add(&signal->sleepers, 1);
#ifdef USE_FUTEX
    while (atomic_load(&signal->value) == old)
        syscall(SYS_futex, &signal->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
#else
    pthread_mutex_lock(&signal->lock);
    while (atomic_load(&signal->value) == old) pthread_cond_wait(&signal->changed, &signal->lock);
    pthread_mutex_unlock(&signal->lock);
#endif
    atomic_fetch_sub(&signal->sleepers, 1);
}

/* Wakes who sleeps, after a change of the value. */
static void wake(signal_t *signal) {
    if (!atomic_load(&signal->sleepers)) return;
#ifdef USE_FUTEX
    syscall(SYS_futex, &signal->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
#else
    pthread_mutex_lock(&signal->lock);
    pthread_cond_broadcast(&signal->changed);
    pthread_mutex_unlock(&signal->lock);
#endif
}

static void add_one(signal_t *signal) {
    atomic_fetch_add(&signal->value, 1);
    wake(signal);
}

static bool change(signal_t *signal, unsigned from, unsigned to) {
    if (!atomic_compare_exchange_strong(&signal->value, &from, to)) return false;
    wake(signal);
    return true;
}

/* -- The one team, of whoever holds in_use ---------------------------------------------------- */

/* A worker leaves IDLE and JOINED by what rank 0 says, INVITED by its own joining or where rank 0
 * no longer waits for it, MEMBER when the call is over for it or rank 0 sends it away, AWAY by its
 * own return to IDLE. One that has not come back yet is not invited. */
enum { IDLE, INVITED, JOINED, MEMBER, AWAY };

typedef struct {
    signal_t state;
    ifgo_member member; /* written by rank 0 before it says MEMBER */
} worker_t;

struct ifgo_team {
    signal_t arrived; /* how often workers have come to a meeting */
    signal_t met;     /* how often rank 0 has sent them on */
    _Alignas(64) unsigned expected; /* the value of `arrived` at the next meeting */
    int meetings;                   /* of this call */
    int64_t debt, debt_at;          /* what rank 0 has waited too long, as of then */
    int64_t alone_until;            /* 0: a team may be called */
    void (*work)(void *context, ifgo_member *member);
    void *context;
};

static pthread_mutex_t in_use = PTHREAD_MUTEX_INITIALIZER;
static worker_t workers[IFGO_MAX_THREADS];
static int started; /* threads in being, rank 0 included; 0: nothing is set up */
static ifgo_team the_team;

/* Waiting from `from` to `to` is paid off by four times as long without. */
static void charge(ifgo_team *team, int64_t from, int64_t to) {
    team->debt -= (from - team->debt_at) / 4;
    if (team->debt < 0) team->debt = 0;
    team->debt += to - from;
    team->debt_at = to;
    if (team->debt > ifgo_team_patience) team->alone_until = to + PENALTY * team->debt;
}

static void gather(ifgo_team *team, int size) {
    team->expected += (unsigned)(size - 1);
    for (int spin = 0; spin < QUICK; spin++) {
        if (value_of(&team->arrived) == team->expected) return;
        pause_briefly();
    }
    const int64_t from = now();
    for (unsigned here; (here = value_of(&team->arrived)) != team->expected;)
        wait_beyond(&team->arrived, here);
    charge(team, from, now());
}

bool ifgo_meet(ifgo_member *member) {
    if (member->size == 1) return true;
    ifgo_team *team = member->team;
    if (member->rank > 0) {
        const unsigned round = atomic_load_explicit(&team->met.value, memory_order_relaxed);
        add_one(&team->arrived);
        wait_beyond(&team->met, round);
        return value_of(&workers[member->worker].state) == MEMBER;
    }
    gather(team, member->size);
    if (team->alone_until || ++team->meetings == ifgo_team_parts_after) {
        for (int i = 1; i < started; i++) {
            unsigned state = MEMBER;
            atomic_compare_exchange_strong(&workers[i].state.value, &state, AWAY);
        }
        member->size = 1;
    }
    add_one(&team->met);
    return true;
}

static void take_part(void (*work)(void *, ifgo_member *), void *context, ifgo_member *member) {
    const unsigned before = ifgo_flush_denormals();
    work(context, member);
    ifgo_restore_denormals(before);
}

static void *work_on(void *argument) {
    worker_t *self = argument;
    for (;;) {
        wait_beyond(&self->state, IDLE);
        if (!change(&self->state, INVITED, JOINED)) continue;
        wait_beyond(&self->state, JOINED);
        take_part(the_team.work, the_team.context, &self->member);
        if (change(&self->state, MEMBER, IDLE)) add_one(&the_team.arrived);
        else change(&self->state, AWAY, IDLE);
    }
    return NULL;
}

/* -- Threads: started when first needed, gone in a forked child ------------------------------- */

static void set_up(void) {
    for (int i = 0; i < IFGO_MAX_THREADS; i++) clear(&workers[i].state);
    clear(&the_team.arrived);
    clear(&the_team.met);
    the_team.expected = 0;
    started = 1;
}

#ifndef _WIN32
static void forget_workers(void) {
    pthread_mutex_init(&in_use, NULL);
    started = 0;
}
#endif

/* Starts workers up to `size` threads in all, as far as the system lets us. */
static void start_workers(int size) {
    if (!started) {
#ifndef _WIN32
        static bool watched;
        if (!watched && pthread_atfork(NULL, NULL, forget_workers)) return;
        watched = true;
#endif
        set_up();
    }
    if (started >= size) return;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes)) return;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
#ifndef _WIN32
    sigset_t all, before; /* the program's signals are for the program's threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
#endif
    pthread_t thread;
    while (started < size && !pthread_create(&thread, &attributes, work_on, &workers[started]))
        started++;
#ifndef _WIN32
    pthread_sigmask(SIG_SETMASK, &before, NULL);
#endif
    pthread_attr_destroy(&attributes);
}

/* Calls up to size − 1 idle workers; returns the size of the team that has come. */
static int call_together(ifgo_team *team, int size) {
    int invited = 0, came = 0;
    for (int i = 1; i < started && invited < size - 1; i++)
        invited += change(&workers[i].state, IDLE, INVITED);
    int64_t from = 0, at = 0;
    for (int spin = 1;; spin++) {
        came = 0;
        for (int i = 1; i < started; i++) came += value_of(&workers[i].state) == JOINED;
        if (came == invited || at - from > ifgo_team_patience) break;
        pause_briefly();
        if (spin % QUICK) continue;
        at = now();
        if (from == 0) from = at;
    }
    if (from) charge(team, from, at);
    int next = 1;
    for (int i = 1; i < started; i++) {
        if (change(&workers[i].state, INVITED, IDLE)) continue;
        if (value_of(&workers[i].state) == JOINED) workers[i].member.rank = next++;
    }
    for (int i = 1; i < started; i++) {
        if (value_of(&workers[i].state) != JOINED) continue;
        workers[i].member = (ifgo_member){workers[i].member.rank, next, i, team};
        change(&workers[i].state, JOINED, MEMBER);
    }
    return next;
}

static bool rests(ifgo_team *team) {
    if (!team->alone_until) return false;
    if (now() < team->alone_until) return true;
    team->alone_until = team->debt = 0;
    return false;
}

void ifgo_team_run(int size, void (*work)(void *, ifgo_member *), void *context) {
    ifgo_member self = {0, 1, 0, &the_team};
    if (size > IFGO_MAX_THREADS) size = IFGO_MAX_THREADS;
    if (size <= 1 || pthread_mutex_trylock(&in_use)) {
        take_part(work, context, &self);
        return;
    }
    if (!rests(&the_team)) {
        start_workers(size);
        the_team.work = work;
        the_team.context = context;
        the_team.meetings = 0;
        self.size = call_together(&the_team, size);
    }
    take_part(work, context, &self);
    if (self.size > 1) gather(&the_team, self.size);
    pthread_mutex_unlock(&in_use);
}

/* Cores that this thread may run on. */
static int cores(void) {
#ifdef __linux__
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set)) return CPU_COUNT(&set);
#endif
#ifdef _SC_NPROCESSORS_ONLN
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (online > 0) return online < INT_MAX ? (int)online : INT_MAX;
#endif
    return 1;
}

/* Multiply-adds that are worth a meeting, for each member: beyond, two threads are 1.3 to 2.6 times
 * as fast as one. And those of a call that are worth waking who sleeps. */
static const double FOR_A_MEETING = 1 << 17, FOR_A_CALL = 1 << 23;

int ifgo_threads_worth(double between, double all) {
    if (between < 2 * FOR_A_MEETING || all < FOR_A_CALL) return 1;
    const double most = between / FOR_A_MEETING;
    const int have = cores(), bound = have < IFGO_MAX_THREADS ? have : IFGO_MAX_THREADS;
    return most < bound ? (int)most : bound;
}

int ifgo_threads_for(ptrdiff_t hidden, ptrdiff_t rows, ptrdiff_t steps) {
    const double step = 4.0 * (double)hidden * (double)hidden * (double)rows;
    return ifgo_threads_worth(step, steps ? step * (double)steps : FOR_A_CALL);
}
