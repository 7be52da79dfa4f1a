/* A chain of layers, one step at a time, its state inside. */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "memory.h"
#include "packing.h"
#include "pool.h"

typedef struct {
    ifgo_link link;
    ifgo_state state;
    ptrdiff_t input, output;
    ptrdiff_t width_h, width_c;
    float *out; /* [IFGO_RUN_CHUNK][output], what the next layer reads */
} station_t;

struct ifgo_stream {
    ptrdiff_t count;
    int threads; /* that it is worth */
    float *scratch;
    station_t at[];
};

/* `size` in whole panels; cells and layers of that size exist, so that it fits. */
static ptrdiff_t whole(ptrdiff_t size) {
    const ptrdiff_t panel = 4 * ifgo_kernels_in_use->lanes;
    return ifgo_panels_of(size, panel) * panel;
}

ifgo_status ifgo_stream_new(const ifgo_link *links, ptrdiff_t count, ifgo_stream **made) {
    const size_t most = (PTRDIFF_MAX - sizeof(ifgo_stream)) / sizeof(station_t);
    if (count < 0 || (size_t)count > most) return IFGO_E_MEMORY;
    ifgo_stream *stream = calloc(1, sizeof *stream + (size_t)count * sizeof *stream->at);
    if (!stream) return IFGO_E_MEMORY;
    stream->count = count;
    stream->threads = 1;
    ptrdiff_t widest = 1;
    bool short_of = false;
    for (ptrdiff_t i = 0; i < count; i++) {
        station_t *station = &stream->at[i];
        const ifgo_cell *cell = links[i].cell;
        station->link = links[i];
        station->input = cell ? cell->input : links[i].dense->input;
        station->output = cell ? cell->output : links[i].dense->output;
        short_of |= !(station->out = ifgo_zeros(ifgo_product(IFGO_RUN_CHUNK, station->output, 1, 1)));
        if (!cell) continue;
        station->width_h = whole(cell->output);
        station->width_c = whole(cell->hidden);
        short_of |= !(station->state.h[0] = ifgo_zeros(station->width_h));
        short_of |= !(station->state.h[1] = ifgo_zeros(station->width_h));
        short_of |= !(station->state.c = ifgo_zeros(station->width_c));
        short_of |= !(station->state.m = ifgo_zeros(station->width_c));
        const ptrdiff_t gates = cell->blocks * 4 * ifgo_kernels_in_use->lanes;
        if (gates > widest) widest = gates;
        const int threads = ifgo_threads_for(cell->hidden, 1, 0);
        if (threads > stream->threads) stream->threads = threads;
    }
    short_of |= !(stream->scratch = ifgo_zeros(ifgo_product(IFGO_RUN_CHUNK, widest, 1, 1)));
    if (short_of) {
        ifgo_stream_free(stream);
        return IFGO_E_MEMORY;
    }
    *made = stream;
    return IFGO_OK;
}

void ifgo_stream_free(ifgo_stream *stream) {
    if (!stream) return;
    for (ptrdiff_t i = 0; i < stream->count; i++) {
        const ifgo_state *s = &stream->at[i].state;
        ifgo_release(s->h[0]);
        ifgo_release(s->h[1]);
        ifgo_release(s->c);
        ifgo_release(s->m);
        ifgo_release(stream->at[i].out);
    }
    ifgo_release(stream->scratch);
    free(stream);
}

typedef struct {
    ifgo_stream *stream;
    ptrdiff_t steps;
    const float *x;
    float *y;
} call_t;

/* A chunk of steps through one layer after the other, so that a layer's weights are read again
 * while they are near. */
static void stream_part(void *context, ifgo_member *member) {
    const call_t *call = context;
    ifgo_stream *stream = call->stream;
    const ifgo_kernels *kernels = ifgo_kernels_in_use;
    for (ptrdiff_t t = 0; t < call->steps; t += IFGO_RUN_CHUNK) {
        const ptrdiff_t left = call->steps - t;
        const ptrdiff_t steps = left < IFGO_RUN_CHUNK ? left : IFGO_RUN_CHUNK;
        const float *x = call->x + t * stream->at[0].input;
        for (ptrdiff_t i = 0; i < stream->count; i++) {
            station_t *station = &stream->at[i];
            const bool last = i + 1 == stream->count;
            float *y = last ? call->y + t * station->output : station->out;
            const bool stays =
                station->link.cell
                    ? kernels->run(station->link.cell, &station->state, steps, x, station->input, y,
                                   station->output, stream->scratch, member)
                    : kernels->dense(station->link.dense, steps, x, station->input, y,
                                     station->output, member);
            if (!stays) return;
            if (last && left == steps) break; /* the call's end is a meeting too */
            if (!ifgo_meet(member)) return;
            x = y;
        }
    }
}

/* One step on this thread: what a call costs beyond the kernels is kept to a few nanoseconds. */
static void stream_step(ifgo_stream *stream, const float *x, float *y) {
    const ifgo_kernels *kernels = ifgo_kernels_in_use;
    ifgo_member alone = {0, 1, 0, NULL};
    const unsigned before = ifgo_flush_denormals();
    const station_t *last = &stream->at[stream->count - 1];
    for (station_t *station = stream->at; station <= last; station++) {
        float *out = station == last ? y : station->out;
        if (station->link.cell)
            kernels->run(station->link.cell, &station->state, 1, x, 0, out, 0, stream->scratch,
                         &alone);
        else kernels->dense(station->link.dense, 1, x, 0, out, 0, &alone);
        x = out;
    }
    ifgo_restore_denormals(before);
}

void ifgo_stream_run(ifgo_stream *stream, ptrdiff_t steps, const float *x, float *y, int threads) {
    if (threads == 0) threads = stream->threads;
    if (steps == 1 && threads == 1) {
        stream_step(stream, x, y);
        return;
    }
    call_t call = {stream, steps, x, y};
    ifgo_team_run(threads, stream_part, &call);
}

void ifgo_stream_get(const ifgo_stream *stream, ptrdiff_t index, float *h, float *c) {
    const station_t *station = &stream->at[index];
    const ifgo_state *s = &station->state;
    memcpy(h, s->h[s->turn], (size_t)station->link.cell->output * sizeof *h);
    memcpy(c, s->c, (size_t)station->link.cell->hidden * sizeof *c);
}

void ifgo_stream_set(ifgo_stream *stream, ptrdiff_t index, const float *h, const float *c) {
    station_t *station = &stream->at[index];
    ifgo_state *s = &station->state;
    memcpy(s->h[s->turn], h, (size_t)station->link.cell->output * sizeof *h);
    memcpy(s->c, c, (size_t)station->link.cell->hidden * sizeof *c);
}

void ifgo_stream_reset(ifgo_stream *stream) {
    for (ptrdiff_t i = 0; i < stream->count; i++) {
        station_t *station = &stream->at[i];
        if (!station->link.cell) continue;
        for (int side = 0; side < 2; side++)
            memset(station->state.h[side], 0, (size_t)station->width_h * sizeof(float));
        memset(station->state.c, 0, (size_t)station->width_c * sizeof(float));
    }
}
