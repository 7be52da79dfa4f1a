/* Programs: copied, checked once, their matrices packed. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"
#include "memory.h"

static bool within(ptrdiff_t index, ptrdiff_t count) { return index >= 0 && index < count; }

static bool product(ptrdiff_t a, ptrdiff_t b, ptrdiff_t *result) {
    return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, result);
}

static bool sound_buffer(const ifgo_text *t, const ifgo_buffer *b) {
    ptrdiff_t size;
    if (b->width < 1 || b->rows < -1 || !b->rows || !within(b->storage, IFGO_WEIGHT + 1))
        return false;
    if (b->storage != IFGO_WEIGHT) return true;
    return b->rows > 0 && product(b->rows, b->width, &size) && b->data >= 0 &&
           b->data <= t->weights && size <= t->weights - b->data;
}

/* Whether view `index` exists and holds `size` values (−1: any number). */
static bool sound_view(const ifgo_text *t, ptrdiff_t index, ptrdiff_t size) {
    if (!within(index, t->views)) return false;
    const ifgo_view *v = t->view + index;
    if (!within(v->buffer, t->buffers) || v->offset < 0 || v->stride < 0 || v->size < 1)
        return false;
    return size == -1 || v->size == size;
}

static bool is_weight(const ifgo_text *t, ptrdiff_t view) {
    return t->buffer[t->view[view].buffer].storage == IFGO_WEIGHT;
}

static bool sound_terms(const ifgo_text *t, const ifgo_instruction *i, ptrdiff_t outputs) {
    if (i->first < 0 || i->terms < 1 || i->first > t->terms || i->terms > t->terms - i->first)
        return false;
    for (ptrdiff_t k = i->first; k < i->first + i->terms; k++) {
        const ifgo_term *term = t->term + k;
        if (!within(term->matrix, t->buffers)) return false;
        const ifgo_buffer *matrix = t->buffer + term->matrix;
        if (matrix->storage != IFGO_WEIGHT || matrix->rows != outputs) return false;
        if (!sound_view(t, term->source, matrix->width)) return false;
        if (t->view[term->source].buffer == t->view[i->result].buffer) return false;
    }
    return true;
}

static bool sound_instruction(const ifgo_text *t, const ifgo_instruction *i) {
    if (!within(i->op, IFGO_OPS) || !sound_view(t, i->result, -1) || is_weight(t, i->result) ||
        t->view[i->result].mirrored)
        return false;
    const ptrdiff_t size = t->view[i->result].size;
    switch (i->op) {
    case IFGO_OP_COPY:
    case IFGO_OP_SOFTMAX: return sound_view(t, i->a, size);
    case IFGO_OP_ADD:
    case IFGO_OP_SUB:
    case IFGO_OP_MUL: return sound_view(t, i->a, size) && sound_view(t, i->b, size);
    case IFGO_OP_NORMALISE:
        return sound_view(t, i->a, size) && sound_view(t, i->b, size) && is_weight(t, i->b);
    case IFGO_OP_CLIP: return sound_view(t, i->a, size) && sound_view(t, i->b, 1);
    case IFGO_OP_SELECT:
        return sound_view(t, i->a, size) && sound_view(t, i->b, size) &&
               sound_view(t, i->condition, 1);
    case IFGO_OP_ACTIVATE: return sound_view(t, i->a, size) && within(i->activation, IFGO_ACTS);
    case IFGO_OP_AFFINE:
        return (i->a == -1 || sound_view(t, i->a, size)) && sound_terms(t, i, size);
    case IFGO_OP_GATHER:
        return sound_view(t, i->a, 1) && i->terms == 1 && within(i->first, t->terms) &&
               within(t->term[i->first].matrix, t->buffers) &&
               t->buffer[t->term[i->first].matrix].storage == IFGO_WEIGHT &&
               t->buffer[t->term[i->first].matrix].width == size;
    case IFGO_OP_DIFFERS: return size == 1 && sound_view(t, i->a, -1);
    default: return size == 1 && t->lengths; /* IFGO_OP_INSIDE */
    }
}

static bool sound(const ifgo_text *t) {
    for (ptrdiff_t k = 0; k < t->buffers; k++)
        if (!sound_buffer(t, t->buffer + k)) return false;
    for (ptrdiff_t k = 0; k < t->instructions; k++)
        if (!sound_instruction(t, t->instruction + k)) return false;
    for (ptrdiff_t k = 0; k < t->sweeps; k++) {
        const ifgo_sweep *s = t->sweep + k;
        if (s->count < -1 || s->first < 0 || s->instructions < 0 || s->first > t->instructions ||
            s->instructions > t->instructions - s->first)
            return false;
    }
    return true;
}

/* One block with a copy of every array of the text. */
static bool copy_text(ifgo_program *p, const ifgo_text *from) {
    const size_t sizes[] = {(size_t)from->buffers * sizeof *from->buffer,
                            (size_t)from->views * sizeof *from->view,
                            (size_t)from->instructions * sizeof *from->instruction,
                            (size_t)from->terms * sizeof *from->term,
                            (size_t)from->sweeps * sizeof *from->sweep,
                            (size_t)from->instructions * 2 * sizeof *from->parameters};
    const void *const sources[] = {from->buffer, from->view,  from->instruction,
                                   from->term,   from->sweep, from->parameters};
    const void *copies[6];
    size_t total = 1;
    for (int k = 0; k < 6; k++) total += sizes[k];
    char *to = p->arrays = malloc(total);
    p->weights = ifgo_zeros(from->weights);
    if (!to || !p->weights) return false;
    for (int k = 0; k < 6; k++) {
        if (sizes[k]) memcpy(to, sources[k], sizes[k]);
        copies[k] = to;
        to += sizes[k];
    }
    if (from->weights) memcpy(p->weights, from->weight, (size_t)from->weights * sizeof(float));
    p->text = *from;
    p->text.buffer = copies[0];
    p->text.view = copies[1];
    p->text.instruction = copies[2];
    p->text.term = copies[3];
    p->text.sweep = copies[4];
    p->text.parameters = copies[5];
    p->text.weight = p->weights;
    return true;
}

static ifgo_status pack(ifgo_program *p, const ifgo_instruction *i, ptrdiff_t k) {
    const ifgo_text *t = &p->text;
    const ifgo_buffer *matrix = t->buffer + t->term[k].matrix;
    const ptrdiff_t outputs = matrix->rows, inputs = matrix->width;
    const float *weight = p->weights + matrix->data, *bias = NULL;
    if (k == i->first && i->a != -1 && is_weight(t, i->a)) {
        const ifgo_view *start = t->view + i->a;
        const ifgo_buffer *held = t->buffer + start->buffer;
        if (start->stride || start->offset + start->size > held->rows * held->width)
            return IFGO_E_PROGRAM;
        bias = p->weights + held->data + start->offset;
    }
    ifgo_status status = ifgo_dense_new(inputs, outputs, weight, bias, IFGO_LINEAR, p->dense + k);
    if (status != IFGO_OK || !p->with_back) return status;
    float *turned = ifgo_zeros(inputs * outputs);
    if (!turned) return IFGO_E_MEMORY;
    for (ptrdiff_t j = 0; j < outputs; j++)
        for (ptrdiff_t c = 0; c < inputs; c++) turned[c * outputs + j] = weight[j * inputs + c];
    status = ifgo_dense_new(outputs, inputs, turned, NULL, IFGO_LINEAR, p->back + k);
    ifgo_release(turned);
    return status;
}

ifgo_status ifgo_program_new(const ifgo_text *text, int with_back, ifgo_program **made) {
    if (!sound(text)) return IFGO_E_PROGRAM;
    ifgo_program *p = calloc(1, sizeof *p);
    if (!p) return IFGO_E_MEMORY;
    p->with_back = with_back;
    p->dense = calloc((size_t)text->terms + 1, sizeof *p->dense);
    p->back = calloc((size_t)text->terms + 1, sizeof *p->back);
    ifgo_status status = p->dense && p->back && copy_text(p, text) ? IFGO_OK : IFGO_E_MEMORY;
    for (ptrdiff_t k = 0; status == IFGO_OK && k < text->views; k++)
        if (text->view[k].size > p->widest) p->widest = text->view[k].size;
    for (ptrdiff_t k = 0; status == IFGO_OK && k < text->instructions; k++) {
        const ifgo_instruction *i = p->text.instruction + k;
        for (ptrdiff_t j = 0; i->op == IFGO_OP_AFFINE && status == IFGO_OK && j < i->terms; j++)
            if (!p->dense[i->first + j]) status = pack(p, i, i->first + j);
    }
    if (status != IFGO_OK) {
        ifgo_program_free(p);
        return status;
    }
    *made = p;
    return IFGO_OK;
}

void ifgo_program_free(ifgo_program *p) {
    if (!p) return;
    for (ptrdiff_t k = 0; k < p->text.terms; k++) {
        ifgo_dense_free(p->dense[k]);
        ifgo_dense_free(p->back[k]);
    }
    free(p->dense);
    free(p->back);
    free(p->arrays);
    ifgo_release(p->weights);
    free(p);
}
