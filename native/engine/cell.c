/* Packs weights into the order in which the kernels read them (kernels.h). */
#include <math.h>
#include <stdlib.h>

#include "kernels.h"
#include "memory.h"
#include "packing.h"

/* packed[k][gate][lane] of one block from rows of gates, those of i, f and o halved. */
static void pack_block(const float *weight, ptrdiff_t hidden, ptrdiff_t columns, ptrdiff_t block,
                       ptrdiff_t lanes, float *packed) {
    const ptrdiff_t first = block * lanes, left = hidden - first, units = left < lanes ? left : lanes;
    for (ptrdiff_t gate = 0; gate < 4; gate++)
        ifgo_kernels_in_use->pack(weight + (gate * hidden + first) * columns, columns, units,
                                  columns, gate == 2 ? 1.0f : 0.5f, packed + gate * lanes);
}

/* packed[panel][block][gate][lane][column of the panel] */
static void pack_back(const float *weight, ptrdiff_t hidden, ptrdiff_t columns, ptrdiff_t blocks,
                      ptrdiff_t lanes, float *packed) {
    const ptrdiff_t panel = 4 * lanes;
    for (ptrdiff_t gate = 0; gate < 4; gate++)
        for (ptrdiff_t unit = 0; unit < hidden; unit++) {
            const float *row = weight + (gate * hidden + unit) * columns;
            const ptrdiff_t at = unit / lanes * panel + gate * lanes + unit % lanes;
            for (ptrdiff_t k = 0; k < columns; k += panel) {
                float *to = packed + (k / panel * blocks * panel + at) * panel;
                const ptrdiff_t left = columns - k, count = left < panel ? left : panel;
                for (ptrdiff_t j = 0; j < count; j++) to[j] = row[k + j];
            }
        }
}

static float *of(const float *packed) { return (float *)(uintptr_t)packed; }

void ifgo_cell_set(ifgo_cell *cell, const ifgo_weights *w) {
    const ptrdiff_t lanes = ifgo_kernels_in_use->lanes, panel = 4 * lanes;
    const ptrdiff_t H = cell->hidden, I = cell->input, P = cell->output;
    for (ptrdiff_t b = 0; b < cell->blocks; b++) {
        pack_block(w->weight_ih, H, I, b, lanes, of(cell->wx) + b * I * panel);
        pack_block(w->weight_hh, H, P, b, lanes, of(cell->wh) + b * cell->depth * panel);
        if (w->bias) pack_block(w->bias, H, 1, b, lanes, of(cell->bias) + b * panel);
    }
    for (ptrdiff_t row = 0; w->peephole && row < 3; row++)
        for (ptrdiff_t u = 0; u < H; u++)
            of(cell->peephole)[(u / lanes * 3 + row) * lanes + u % lanes] =
                0.5f * w->peephole[row * H + u];
    if (w->weight_hr) ifgo_pack_panels(w->weight_hr, P, H, panel, of(cell->projection));
    for (ptrdiff_t p = 0; w->bias_hr && p < P; p++) of(cell->projection_bias)[p] = w->bias_hr[p];
    if (!cell->wh_back) return;
    pack_back(w->weight_ih, H, I, cell->blocks, lanes, of(cell->wx_back));
    pack_back(w->weight_hh, H, P, cell->blocks, lanes, of(cell->wh_back));
    for (ptrdiff_t p = 0; w->weight_hr && p < P; p++) /* [panel of H][P][column] */
        for (ptrdiff_t u = 0; u < H; u++)
            of(cell->projection_back)[(u / panel * P + p) * panel + u % panel] =
                w->weight_hr[p * H + u];
}

ifgo_status ifgo_cell_new(const ifgo_weights *w, int with_back, ifgo_cell **made) {
    const ptrdiff_t lanes = ifgo_kernels_in_use->lanes, panel = 4 * lanes;
    const ptrdiff_t H = w->hidden, I = w->input, P = w->output;
    ifgo_cell *cell = calloc(1, sizeof *cell);
    if (!cell) return IFGO_E_MEMORY;
    cell->input = I;
    cell->hidden = H;
    cell->output = P;
    cell->blocks = ifgo_panels_of(H, lanes);
    cell->depth = ifgo_product(ifgo_panels_of(P, 4), 4, 1, 1);
    cell->clip_z = w->clip_z;
    cell->clip_cell = w->clip_cell;
    cell->clip_projection = w->clip_projection;
    cell->coupling = w->coupling;
    cell->plain = !w->peephole && w->clip_z == INFINITY && w->clip_cell == INFINITY &&
                  w->coupling == IFGO_UNCOUPLED;
    const ptrdiff_t blocks = cell->blocks, outputs = ifgo_panels_of(P, panel);
    bool short_of = false;
#define MAKE(field, a, b, c, d)                                                                    \
    short_of = short_of || !(cell->field = ifgo_zeros(ifgo_product(a, b, c, d)))
    MAKE(wx, blocks, panel, I, 1);
    MAKE(wh, blocks, panel, cell->depth, 1);
    MAKE(bias, blocks, panel, 1, 1);
    if (w->peephole) MAKE(peephole, blocks, 3, lanes, 1);
    if (w->weight_hr) {
        MAKE(projection, outputs, panel, H, 1);
        MAKE(projection_bias, outputs, panel, 1, 1);
    }
    if (with_back) {
        MAKE(wx_back, ifgo_panels_of(I, panel), panel, blocks, panel);
        MAKE(wh_back, outputs, panel, blocks, panel);
        if (w->weight_hr) MAKE(projection_back, ifgo_panels_of(H, panel), panel, P, 1);
    }
#undef MAKE
    if (short_of) {
        ifgo_cell_free(cell);
        return IFGO_E_MEMORY;
    }
    ifgo_cell_set(cell, w);
    *made = cell;
    return IFGO_OK;
}

void ifgo_cell_free(ifgo_cell *cell) {
    if (!cell) return;
    const float *const all[] = {cell->wx,         cell->wh,      cell->bias,
                                cell->peephole,   cell->projection, cell->projection_bias,
                                cell->wx_back,    cell->wh_back, cell->projection_back};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) ifgo_release(all[i]);
    free(cell);
}
