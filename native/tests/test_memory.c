/* Memory and threads: what a step must not do, sizes that overflow, a system without memory or
 * threads. Linked with --wrap, so that allocations of the engine are counted and can fail. */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>

#include "check.h"
#include "ifgo_engine.h"
#include "kernels.h"
#include "pool.h"

static long calls = 0, left = -1; /* allocations so far; how many still succeed, −1: all */
static bool no_threads = false;

static bool fails(void) {
    calls++;
    if (left > 0) left--;
    else return left == 0;
    return false;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void __real_free(void *memory);
int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);
void __wrap_free(void *memory);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

void *__wrap_malloc(size_t size) { return fails() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t count, size_t size) { return fails() ? NULL : __real_calloc(count, size); }
void *__wrap_realloc(void *memory, size_t size) { return fails() ? NULL : __real_realloc(memory, size); }
void *__wrap_aligned_alloc(size_t align, size_t size) {
    return fails() ? NULL : __real_aligned_alloc(align, size);
}
void __wrap_free(void *memory) {
    calls++;
    __real_free(memory);
}
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument) {
    return no_threads ? 11 : __real_pthread_create(thread, attributes, start, argument);
}

enum { I = 7, H = 37, P = 20, N = 6, T = 9, O = 70 };

static ifgo_weights weights(void) {
    return (ifgo_weights){.input = I, .hidden = H, .output = P,
                          .weight_ih = random_floats(4 * H * I, 0.2),
                          .weight_hh = random_floats(4 * H * P, 0.2),
                          .peephole = random_floats(3 * H, 0.2),
                          .weight_hr = random_floats(P * H, 0.2),
                          .clip_z = INFINITY, .clip_cell = INFINITY, .clip_projection = INFINITY};
}

static void free_weights(const ifgo_weights *w) {
    const float *all[] = {w->weight_ih, w->weight_hh, w->peephole, w->weight_hr};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) free((void *)(uintptr_t)all[k]);
}

/* -- No allocation in a step ------------------------------------------------------------------ */

static void steps_allocate_nothing(void) {
    const ifgo_weights w = weights();
    float *dense_weight = random_floats(O * P, 0.2), *x = random_floats(N * T * I, 1);
    float *y = random_floats(N * T * O, 1);
    ifgo_cell *cell;
    ifgo_dense *dense;
    ifgo_stream *stream;
    ifgo_tape *tape;
    CHECK(ifgo_cell_new(&w, 1, &cell) == IFGO_OK);
    CHECK(ifgo_dense_new(P, O, dense_weight, NULL, IFGO_SOFTMAX, &dense) == IFGO_OK);
    CHECK(ifgo_stream_new((ifgo_link[]){{cell, NULL}, {NULL, dense}}, 2, &stream) == IFGO_OK);
    CHECK(ifgo_tape_new(&tape) == IFGO_OK);
    const ptrdiff_t lengths[N] = {3, 9, 0, 9, 1, 5};
    ifgo_batch b = {.rows = N, .steps = T, .lengths = lengths, .keep = 1, .x = x, .x_row = T * I,
                    .x_time = I, .y = y, .y_row = T * P, .y_time = P};
    const ifgo_gradients g = {.dy = y, .dy_row = T * P, .dy_time = P};
    long before = calls;
    for (int k = 0; k < 100; k++) ifgo_stream_run(stream, 1, x, y, 1 + k % 2);
    ifgo_stream_run(stream, N * T, x, y, 2);
    ifgo_stream_reset(stream);
    CHECK(calls == before);
    for (b.threads = 1; b.threads <= 2; b.threads++) {
        CHECK(ifgo_forward(cell, tape, &b) == IFGO_OK);
        CHECK(ifgo_backward(cell, tape, &g) == IFGO_OK);
        before = calls;
        for (int k = 0; k < 10; k++) {
            CHECK(ifgo_forward(cell, tape, &b) == IFGO_OK);
            CHECK(ifgo_backward(cell, tape, &g) == IFGO_OK);
        }
        CHECK(calls == before);
    }
    ifgo_tape_free(tape);
    ifgo_stream_free(stream);
    ifgo_dense_free(dense);
    ifgo_cell_free(cell);
    CHECK(calls > before); /* the count counts */
    free(dense_weight), free(x), free(y);
    free_weights(&w);
}

/* -- Sizes that overflow, memory that runs out ------------------------------------------------ */

static void huge_sizes_are_refused(void) {
    const ifgo_weights small = weights();
    const ptrdiff_t most = PTRDIFF_MAX, sizes[] = {most, most - 64, most / 2, (ptrdiff_t)1 << 41};
    float *data = random_floats(4, 1);
    ifgo_cell *cell = NULL, *one = NULL;
    ifgo_dense *dense = NULL;
    ifgo_stream *stream = NULL;
    ifgo_trainer *trainer;
    ifgo_tape *tape;
    CHECK(ifgo_cell_new(&small, 1, &one) == IFGO_OK);
    CHECK(ifgo_tape_new(&tape) == IFGO_OK && ifgo_trainer_new(&trainer) == IFGO_OK);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        for (int which = 1; which < 8; which++) {
            const ptrdiff_t a = which & 1 ? sizes[k] : (ptrdiff_t)1 << 40;
            const ptrdiff_t b = which & 2 ? sizes[k] : (ptrdiff_t)1 << 40;
            const ptrdiff_t c = which & 4 ? sizes[k] : (ptrdiff_t)1 << 40;
            ifgo_weights w = small;
            w.input = a, w.hidden = b, w.output = c;
            CHECK(ifgo_cell_new(&w, 1, &cell) == IFGO_E_MEMORY);
            CHECK(ifgo_dense_new(a, b, data, NULL, IFGO_LINEAR, &dense) == IFGO_E_MEMORY);
            const ifgo_batch batch = {.rows = a, .steps = b, .keep = which & 4, .x = data};
            CHECK(ifgo_forward(one, tape, &batch) == IFGO_E_MEMORY);
            CHECK(ifgo_backward(one, tape, &(ifgo_gradients){0}) == IFGO_E_TAPE);
            const ifgo_dense_training call = {.rows = a, .input = b, .output = c, .x = data};
            CHECK(ifgo_dense_train(trainer, &call) == IFGO_E_MEMORY);
        }
    CHECK(ifgo_stream_new(NULL, most, &stream) == IFGO_E_MEMORY);
    CHECK(ifgo_stream_new(NULL, -1, &stream) == IFGO_E_MEMORY);
    CHECK(!cell && !dense && !stream);
    ifgo_tape_free(tape);
    ifgo_trainer_free(trainer);
    ifgo_cell_free(one);
    free(data);
    free_weights(&small);
}

/* Makes, runs and frees everything, up to what fails. */
static ifgo_status everything(const ifgo_weights *w, const float *x, float *y, float *h,
                              ifgo_tape *tape, ifgo_trainer *trainer) {
    ifgo_cell *cell = NULL;
    ifgo_dense *dense = NULL;
    ifgo_stream *stream = NULL;
    static const int64_t target[N];
    const ifgo_batch b = {.rows = N, .steps = T, .keep = 1, .threads = 2, .x = x, .x_row = T * I,
                          .x_time = I, .y = y, .y_row = T * P, .y_time = P, .h_n = h};
    const ifgo_gradients g = {.dh_n = h, .dh0 = h};
    const ifgo_dense_training call = {.rows = N, .input = I, .output = H, .threads = 2,
                                      .weight = w->weight_ih, .x = x, .x_row = I, .target = target,
                                      .row_weight = x};
    ifgo_status status = ifgo_cell_new(w, 1, &cell);
    if (!status) status = ifgo_dense_new(I, O, w->weight_ih, NULL, IFGO_TANH, &dense);
    if (!status) status = ifgo_stream_new(&(ifgo_link){cell, NULL}, 1, &stream);
    if (!status) status = ifgo_forward(cell, tape, &b);
    if (!status) status = ifgo_backward(cell, tape, &g);
    if (!status) status = ifgo_dense_train(trainer, &call);
    ifgo_stream_free(stream);
    ifgo_dense_free(dense);
    ifgo_cell_free(cell);
    return status;
}

/* Every allocation fails once: the call says so, and the same objects then do their work. */
static void memory_runs_out(void) {
    const ifgo_weights w = weights();
    float *x = random_floats(N * T * I, 1), *y = random_floats(N * T * P, 1), *h = random_floats(N * P, 1);
    for (long limit = 0;; limit++) {
        ifgo_tape *tape = NULL;
        ifgo_trainer *trainer = NULL;
        CHECK(ifgo_tape_new(&tape) == IFGO_OK && ifgo_trainer_new(&trainer) == IFGO_OK);
        left = limit;
        const ifgo_status status = everything(&w, x, y, h, tape, trainer);
        left = -1;
        CHECK(status == IFGO_OK || status == IFGO_E_MEMORY);
        CHECK(everything(&w, x, y, h, tape, trainer) == IFGO_OK);
        ifgo_tape_free(tape);
        ifgo_trainer_free(trainer);
        if (status == IFGO_OK) {
            CHECK(limit > 20);
            break;
        }
    }
    free(x), free(y), free(h);
    free_weights(&w);
}

/* -- Threads and denormals -------------------------------------------------------------------- */

static void look(void *context, ifgo_member *member) {
    volatile float tiny = 1e-39f;
    int *seen = context;
    seen[member->rank] = member->size;
#ifdef __x86_64__
    CHECK(tiny * 1.0f == 0.0f);
#else
    (void)tiny;
#endif
}

static int team_of(int size) {
    int seen[IFGO_MAX_THREADS] = {0}, count = 0;
    ifgo_team_run(size, look, seen);
    for (int k = 0; k < IFGO_MAX_THREADS; k++) count += seen[k] != 0;
    CHECK(seen[0] == count);
    return count;
}

static void *call_often(void *unused) {
    for (int k = 0; k < 200; k++) CHECK(team_of(3) >= 1);
    return unused;
}

static void teams(void) {
    no_threads = true;
    CHECK(team_of(2) == 1);
    no_threads = false;
    CHECK(team_of(2) == 2);
    CHECK(team_of(4) == 4);
    CHECK(team_of(1000) == IFGO_MAX_THREADS);
    pthread_t others[3]; /* whoever finds the threads taken goes alone */
    for (int k = 0; k < 3; k++) CHECK(!pthread_create(&others[k], NULL, call_often, NULL));
    for (int k = 0; k < 3; k++) CHECK(!pthread_join(others[k], NULL));
}

#ifdef __x86_64__
/* Modes are after a call what they were before, and so are the flags of exceptions, but where
 * nothing had to be changed. */
static void modes_are_restored(void) {
    const ifgo_weights w = weights();
    float *x = random_floats(N * T * I, 1e-38), *y = random_floats(N * T * P, 1);
    const unsigned modes[] = {0x1F80, 0x1F80 | 0x8000, 0x1F80 | 0x0040, 0x1F80 | 0x8040, 0x7F80};
    const unsigned ours = _mm_getcsr();
    for (size_t k = 0; k < sizeof modes / sizeof *modes; k++) {
        ifgo_cell *cell;
        ifgo_stream *stream;
        ifgo_tape *tape = NULL;
        CHECK(ifgo_cell_new(&w, 0, &cell) == IFGO_OK && ifgo_tape_new(&tape) == IFGO_OK);
        CHECK(ifgo_stream_new(&(ifgo_link){cell, NULL}, 1, &stream) == IFGO_OK);
        for (int threads = 1; threads <= 2; threads++) {
            const ifgo_batch b = {.rows = N, .steps = T, .threads = threads, .x = x,
                                  .x_row = T * I, .x_time = I};
            _mm_setcsr(modes[k]);
            ifgo_stream_run(stream, 1, x, y, threads);
            ifgo_stream_run(stream, T, x, y, threads);
            CHECK(ifgo_forward(cell, tape, &b) == IFGO_OK);
            left = 0; /* an error changes nothing either */
            CHECK(ifgo_cell_new(&w, 0, &(ifgo_cell *){NULL}) == IFGO_E_MEMORY);
            left = -1;
            const unsigned after = _mm_getcsr(), flags = (modes[k] & 0x8040) == 0x8040 ? 0x3F : 0;
            CHECK((after & ~flags) == (modes[k] & ~flags));
        }
        _mm_setcsr(ours);
        ifgo_stream_free(stream);
        ifgo_tape_free(tape);
        ifgo_cell_free(cell);
    }
    free(x), free(y);
    free_weights(&w);
}
#endif

int main(void) {
    CHECK(ifgo_engine_load() == IFGO_OK);
    ifgo_team_patience = INT64_MAX / 32;
    teams();
    steps_allocate_nothing();
    huge_sizes_are_refused();
    memory_runs_out();
#ifdef __x86_64__
    modes_are_restored();
#endif
    printf("instruction set %s, %d failures\n", ifgo_isa(), failures);
    return failures != 0;
}
