/* Runs a program, one instruction after the other over the rows of a batch. */
#include "machine.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

/* -- memory ----------------------------------------------------------------------------------- */

ifgo_status ifgo_machine_new(const ifgo_program *program, ifgo_machine **made) {
    const size_t count = (size_t)program->text.buffers + 1;
    ifgo_machine *m = calloc(1, sizeof *m);
    if (!m) return IFGO_E_MEMORY;
    m->program = program;
    m->at = calloc(count, sizeof *m->at);
    m->adjoint = calloc(count, sizeof *m->adjoint);
    m->row = calloc(count, sizeof *m->row);
    if (!m->at || !m->adjoint || !m->row) {
        ifgo_machine_free(m);
        return IFGO_E_MEMORY;
    }
    *made = m;
    return IFGO_OK;
}

void ifgo_machine_free(ifgo_machine *m) {
    if (!m) return;
    ifgo_release(m->memory);
    ifgo_release(m->tape);
    ifgo_release(m->adjoints);
    free(m->at);
    free(m->adjoint);
    free(m->row);
    free(m);
}

/* *sum += a·b·c, where that stays within bounds. */
static bool add(ptrdiff_t *sum, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c) {
    return !__builtin_mul_overflow(a, b, &a) && !__builtin_mul_overflow(a, c, &a) &&
           !__builtin_add_overflow(*sum, a, sum) && *sum <= IFGO_MACHINE_FLOATS;
}

static ptrdiff_t rows_of(const ifgo_buffer *b, ptrdiff_t steps) {
    return b->rows == -1 ? steps : b->rows;
}

/* Whether a view stays within its buffer in every step of a sweep. */
static bool inside(const ifgo_text *t, ptrdiff_t index, ptrdiff_t count, ptrdiff_t steps) {
    if (index == -1) return true;
    const ifgo_view *v = t->view + index;
    const ifgo_buffer *b = t->buffer + v->buffer;
    ptrdiff_t end = v->offset, room = 0;
    return add(&end, v->stride, count > 0 ? count - 1 : 0, 1) && add(&end, v->size, 1, 1) &&
           add(&room, rows_of(b, steps), b->width, 1) && end <= room;
}

/* Floats of the tape for one row; −1: a view leaves its buffer, −2: too many. */
static ptrdiff_t tape_of(const ifgo_text *t, ptrdiff_t steps) {
    ptrdiff_t total = 0;
    for (ptrdiff_t k = 0; k < t->sweeps; k++) {
        const ifgo_sweep *s = t->sweep + k;
        const ptrdiff_t count = s->count == -1 ? steps : s->count;
        for (ptrdiff_t j = s->first; j < s->first + s->instructions; j++) {
            const ifgo_instruction *i = t->instruction + j;
            const bool affine = i->op == IFGO_OP_AFFINE;
            if (!inside(t, i->result, count, steps)) return -1;
            if (i->op != IFGO_OP_INSIDE && !inside(t, i->a, count, steps)) return -1;
            if (!inside(t, i->b, count, steps) || !inside(t, i->condition, count, steps)) return -1;
            for (ptrdiff_t n = i->first; affine && n < i->first + i->terms; n++)
                if (!inside(t, t->term[n].source, count, steps)) return -1;
            if (!add(&total, t->view[i->result].size, count, 1)) return -2;
        }
    }
    return total;
}

static bool grow(float **memory, ptrdiff_t *room, ptrdiff_t wanted) {
    if (*memory && *room >= wanted) return true;
    ifgo_release(*memory);
    *memory = ifgo_zeros(wanted);
    *room = *memory ? wanted : 0;
    return *memory != NULL;
}

ifgo_status ifgo_machine_size(ifgo_machine *m, ptrdiff_t rows, ptrdiff_t steps, int keep) {
    const ifgo_text *t = &m->program->text;
    if (keep && !m->program->with_back) return IFGO_E_PROGRAM;
    if (rows == m->rows && steps == m->steps && keep <= m->keep) return IFGO_OK;
    if (rows < 1 || steps < 1) return IFGO_E_PROGRAM;
    m->rows = m->steps = 0;
    m->kept = 0;
    ptrdiff_t each = 0, total = 0, tape = tape_of(t, steps), whole = 0;
    if (tape == -1) return IFGO_E_PROGRAM;
    for (ptrdiff_t k = 0; k < t->buffers; k++) {
        const ifgo_buffer *b = t->buffer + k;
        if (b->storage != IFGO_WEIGHT && !add(&each, rows_of(b, steps), b->width, 1))
            return IFGO_E_MEMORY;
    }
    if (!add(&total, each, rows, 1) || !add(&total, 3, rows, m->program->widest) || tape == -2 ||
        !add(&whole, tape, rows, 1) || !add(&whole, total, 2, 1))
        return IFGO_E_MEMORY;
    if (!grow(&m->memory, &m->room, total)) return IFGO_E_MEMORY;
    if (keep && !grow(&m->tape, &m->tape_room, tape * rows)) return IFGO_E_MEMORY;
    if (keep && !grow(&m->adjoints, &m->adjoint_room, each * rows + t->weights))
        return IFGO_E_MEMORY;
    memset(m->memory, 0, (size_t)total * sizeof(float));
    float *value = m->memory, *adjoint = m->adjoints;
    for (ptrdiff_t k = 0; k < t->buffers; k++) {
        const ifgo_buffer *b = t->buffer + k;
        if (b->storage == IFGO_WEIGHT) {
            m->at[k] = m->program->weights + b->data;
            if (keep) m->adjoint[k] = m->adjoints + each * rows + b->data;
            continue;
        }
        m->row[k] = rows_of(b, steps) * b->width;
        m->at[k] = value;
        value += m->row[k] * rows;
        m->adjoint[k] = adjoint;
        if (keep) adjoint += m->row[k] * rows;
    }
    for (int k = 0; k < 3; k++, value += rows * m->program->widest) m->work[k] = value;
    m->rows = rows;
    m->steps = steps;
    m->keep = keep;
    return IFGO_OK;
}

float *ifgo_machine_buffer(ifgo_machine *m, ptrdiff_t buffer) {
    const ifgo_text *t = &m->program->text;
    if (!m->rows || buffer < 0 || buffer >= t->buffers) return NULL;
    return t->buffer[buffer].storage == IFGO_WEIGHT ? NULL : m->at[buffer];
}

ptrdiff_t ifgo_machine_floats(const ifgo_machine *m, ptrdiff_t buffer) {
    const ifgo_buffer *b = m->program->text.buffer + buffer;
    return b->storage == IFGO_WEIGHT ? b->rows * b->width : m->row[buffer] * m->rows;
}

/* -- instructions ----------------------------------------------------------------------------- */

const float *ifgo_rows(const ifgo_machine *m, const ifgo_view *v, float *work, ptrdiff_t *row) {
    *row = m->row[v->buffer];
    if (!v->mirrored || !m->by_row) return ifgo_value(m, v, 0);
    *row = v->size;
    for (ptrdiff_t n = 0; n < m->rows; n++)
        memcpy(work + n * v->size, ifgo_value(m, v, n), (size_t)v->size * sizeof(float));
    return work;
}

static void affine(ifgo_machine *m, const ifgo_instruction *i) {
    const ifgo_text *t = &m->program->text;
    const ifgo_view *result = t->view + i->result;
    const ptrdiff_t size = result->size, y_row = m->row[result->buffer];
    float *y = ifgo_value(m, result, 0);
    const ifgo_view *start = i->a == -1 ? NULL : t->view + i->a;
    const bool packed = !start || t->buffer[start->buffer].storage == IFGO_WEIGHT;
    for (ptrdiff_t n = 0; !packed && n < m->rows; n++)
        memmove(y + n * y_row, ifgo_value(m, start, n), (size_t)size * sizeof(float));
    for (ptrdiff_t k = 0; k < i->terms; k++) {
        ptrdiff_t x_row;
        const float *x = ifgo_rows(m, t->view + t->term[i->first + k].source, m->work[1], &x_row);
        const ifgo_dense *dense = m->program->dense[i->first + k];
        if (k == 0 && packed) {
            ifgo_apply(dense, m->rows, x, x_row, y, y_row);
            continue;
        }
        ifgo_apply(dense, m->rows, x, x_row, m->work[0], size);
        for (ptrdiff_t n = 0; n < m->rows; n++) {
            float *to = y + n * y_row;
            const float *more = m->work[0] + n * size;
            INDEPENDENT for (ptrdiff_t j = 0; j < size; j++) to[j] += more[j];
        }
    }
}

static bool gather(const ifgo_machine *m, const ifgo_instruction *i) {
    const ifgo_text *t = &m->program->text;
    const ptrdiff_t table = t->term[i->first].matrix;
    const ifgo_buffer *held = t->buffer + table;
    for (ptrdiff_t n = 0; n < m->rows; n++) {
        const float token = *ifgo_value(m, t->view + i->a, n);
        if (!(token >= 0.0f && token < (float)held->rows)) return false;
        const float *row = m->at[table] + (ptrdiff_t)token * held->width;
        memcpy(ifgo_value(m, t->view + i->result, n), row, (size_t)held->width * sizeof(float));
    }
    return true;
}

#define EACH(name, expression)                                                                     \
    case IFGO_OP_##name:                                                                           \
        INDEPENDENT for (ptrdiff_t j = 0; j < size; j++) r[j] = (expression);                      \
        break;

/* What works on each row alone. */
static void pointwise(ifgo_machine *m, const ifgo_instruction *i, const float *parameters) {
    const ifgo_text *t = &m->program->text;
    const ifgo_view *result = t->view + i->result;
    const ptrdiff_t size = result->size;
    for (ptrdiff_t n = 0; n < m->rows; n++) {
        float *r = ifgo_value(m, result, n);
        const float *a = i->a == -1 ? NULL : ifgo_value(m, t->view + i->a, n);
        const float *b = i->b == -1 ? NULL : ifgo_value(m, t->view + i->b, n);
        switch (i->op) {
            EACH(ADD, a[j] + b[j])
            EACH(SUB, a[j] - b[j])
            EACH(MUL, a[j] * b[j])
            EACH(CLIP, a[j] > *b ? *b : a[j] < -*b ? -*b : a[j])
        case IFGO_OP_COPY: memmove(r, a, (size_t)size * sizeof(float)); break;
        case IFGO_OP_SELECT:
            memmove(r, *ifgo_value(m, t->view + i->condition, n) != 0.0f ? a : b,
                    (size_t)size * sizeof(float));
            break;
        case IFGO_OP_ACTIVATE:
            ifgo_activate(i->activation, a, r, size, parameters[0], parameters[1]);
            break;
        case IFGO_OP_SOFTMAX: ifgo_softmax(a, r, size); break;
        case IFGO_OP_DIFFERS: {
            bool seen = false;
            for (ptrdiff_t j = 0; j < t->view[i->a].size; j++) seen |= a[j] != parameters[0];
            *r = seen ? 1.0f : 0.0f;
            break;
        }
        case IFGO_OP_INSIDE: *r = m->step < m->lengths[n] ? 1.0f : 0.0f; break;
        default: { /* IFGO_OP_NORMALISE */
            double mean, deviation;
            ifgo_spread(a, size, parameters[0], &mean, &deviation);
            INDEPENDENT for (ptrdiff_t j = 0; j < size; j++)
                r[j] = (float)((a[j] - mean) / deviation * b[j]);
        }
        }
    }
}

/* The values that an instruction is about to overwrite. */
static void keep(ifgo_machine *m, const ifgo_view *result) {
    for (ptrdiff_t n = 0; n < m->rows; n++, m->top += result->size)
        memcpy(m->top, ifgo_value(m, result, n), (size_t)result->size * sizeof(float));
}

static bool sweep(ifgo_machine *m, const ifgo_sweep *s) {
    const ifgo_text *t = &m->program->text;
    m->count = s->count == -1 ? m->steps : s->count;
    m->by_row = s->count == -1 && t->lengths;
    for (ptrdiff_t k = 0; k < m->count; k++) {
        m->step = s->reverse ? m->count - 1 - k : k;
        for (ptrdiff_t j = s->first; j < s->first + s->instructions; j++) {
            const ifgo_instruction *i = t->instruction + j;
            if (m->keep) keep(m, t->view + i->result);
            if (i->op == IFGO_OP_AFFINE) affine(m, i);
            else if (i->op != IFGO_OP_GATHER) pointwise(m, i, t->parameters + 2 * j);
            else if (!gather(m, i)) return false;
        }
    }
    return true;
}

ifgo_status ifgo_machine_run(ifgo_machine *m, const ptrdiff_t *lengths, int fresh) {
    const ifgo_text *t = &m->program->text;
    if (!m->rows || (t->lengths && !lengths)) return IFGO_E_PROGRAM;
    for (ptrdiff_t k = 0; fresh && k < t->buffers; k++)
        if (t->buffer[k].storage == IFGO_CARRY)
            memset(m->at[k], 0, (size_t)(m->row[k] * m->rows) * sizeof(float));
    const unsigned before = ifgo_enter();
    m->lengths = lengths;
    m->top = m->tape;
    bool fits = true;
    for (ptrdiff_t k = 0; fits && k < t->sweeps; k++) fits = sweep(m, t->sweep + k);
    ifgo_leave(before);
    m->kept = fits && m->keep;
    return fits ? IFGO_OK : IFGO_E_TOKEN;
}

ifgo_status ifgo_machine_stream(ifgo_machine *m, ptrdiff_t input, ptrdiff_t output, ptrdiff_t steps,
                                const float *x, float *y) {
    const ptrdiff_t inputs = m->row[input], outputs = m->row[output];
    for (ptrdiff_t t = 0; t < steps; t++) {
        memcpy(m->at[input], x + t * inputs, (size_t)inputs * sizeof(float));
        const ifgo_status status = ifgo_machine_run(m, NULL, 0);
        if (status != IFGO_OK) return status;
        memcpy(y + t * outputs, m->at[output], (size_t)outputs * sizeof(float));
    }
    return IFGO_OK;
}
