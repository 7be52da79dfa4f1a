/* Gradients of a program: its instructions in reverse, each undone first, so that memory holds what
 * the instruction read. A gradient of what an instruction wrote belongs to what it read. */
#include <string.h>

#include "machine.h"

ifgo_status ifgo_machine_adjoints(ifgo_machine *m) {
    if (!m->kept) return IFGO_E_PROGRAM;
    memset(m->adjoints, 0, (size_t)m->adjoint_room * sizeof(float));
    return IFGO_OK;
}

float *ifgo_machine_adjoint(ifgo_machine *m, ptrdiff_t buffer) {
    return m->kept && buffer >= 0 && buffer < m->program->text.buffers ? m->adjoint[buffer] : NULL;
}

static float *gradient(const ifgo_machine *m, const ifgo_view *v, ptrdiff_t n) {
    return m->adjoint[v->buffer] + ifgo_place(m, v, n);
}

static void add(float *to, const float *from, ptrdiff_t size) {
    INDEPENDENT for (ptrdiff_t j = 0; j < size; j++) to[j] += from[j];
}

/* dy in work[0], (N, size): into the start, the matrices and their sources. */
static void affine(ifgo_machine *m, const ifgo_instruction *i, const float *dy, ptrdiff_t size) {
    const ifgo_text *t = &m->program->text;
    for (ptrdiff_t n = 0; i->a != -1 && n < m->rows; n++)
        add(gradient(m, t->view + i->a, n), dy + n * size, size);
    for (ptrdiff_t k = i->first; k < i->first + i->terms; k++) {
        const ifgo_view *source = t->view + t->term[k].source;
        const ptrdiff_t inputs = source->size;
        float *dw = m->adjoint[t->term[k].matrix];
        for (ptrdiff_t j = 0; j < size; j++, dw += inputs)
            for (ptrdiff_t n = 0; n < m->rows; n++) {
                const float d = dy[n * size + j], *x = ifgo_value(m, source, n);
                if (d == 0.0f) continue;
                INDEPENDENT for (ptrdiff_t c = 0; c < inputs; c++) dw[c] += d * x[c];
            }
        ifgo_apply(m->program->back[k], m->rows, dy, size, m->work[1], inputs);
        for (ptrdiff_t n = 0; n < m->rows; n++)
            add(gradient(m, source, n), m->work[1] + n * inputs, inputs);
    }
}

/* x normalised to v = (x − mean) / deviation: dx = (w·dy − mean(w·dy) − v·mean(w·dy·v)) / deviation, dw = dy·v. */
static void normalise(const float *x, const float *w, const float *dy, float *dx, float *dw,
                      ptrdiff_t size, float epsilon) {
    double mean, deviation, sum = 0.0, along = 0.0;
    ifgo_spread(x, size, epsilon, &mean, &deviation);
    for (ptrdiff_t j = 0; j < size; j++) {
        const double d = (double)w[j] * dy[j];
        sum += d;
        along += d * ((x[j] - mean) / deviation);
    }
    sum /= (double)size;
    along /= (double)size;
    INDEPENDENT for (ptrdiff_t j = 0; j < size; j++) {
        const double v = (x[j] - mean) / deviation;
        dx[j] += (float)(((double)w[j] * dy[j] - sum - v * along) / deviation);
        dw[j] += (float)(dy[j] * v);
    }
}

static void softmax(const float *x, const float *dy, float *dx, float *y, ptrdiff_t size) {
    float along = 0.0f;
    ifgo_softmax(x, y, size);
    for (ptrdiff_t j = 0; j < size; j++) along += dy[j] * y[j];
    INDEPENDENT for (ptrdiff_t j = 0; j < size; j++) dx[j] += y[j] * (dy[j] - along);
}

#define EACH(expression) INDEPENDENT for (ptrdiff_t j = 0; j < size; j++) expression

static void pointwise(ifgo_machine *m, const ifgo_instruction *i, const float *parameters,
                      const float *dy, ptrdiff_t size) {
    const ifgo_text *t = &m->program->text;
    for (ptrdiff_t n = 0; n < m->rows; n++, dy += size) {
        const ifgo_view *first = i->a == -1 ? NULL : t->view + i->a;
        const ifgo_view *second = i->b == -1 ? NULL : t->view + i->b;
        const float *a = first ? ifgo_value(m, first, n) : NULL;
        const float *b = second ? ifgo_value(m, second, n) : NULL;
        float *da = first ? gradient(m, first, n) : NULL;
        float *db = second ? gradient(m, second, n) : NULL;
        switch (i->op) {
        case IFGO_OP_COPY: add(da, dy, size); break;
        case IFGO_OP_ADD:
            add(da, dy, size);
            add(db, dy, size);
            break;
        case IFGO_OP_SUB:
            add(da, dy, size);
            EACH(db[j] -= dy[j]);
            break;
        case IFGO_OP_MUL:
            EACH(da[j] += dy[j] * b[j]);
            EACH(db[j] += dy[j] * a[j]);
            break;
        case IFGO_OP_CLIP: EACH(da[j] += a[j] < *b && a[j] > -*b ? dy[j] : 0.0f); break;
        case IFGO_OP_SELECT:
            add(*ifgo_value(m, t->view + i->condition, n) != 0.0f ? da : db, dy, size);
            break;
        case IFGO_OP_ACTIVATE:
            ifgo_activate_back(i->activation, a, dy, da, size, parameters[0], parameters[1]);
            break;
        case IFGO_OP_GATHER: {
            const ptrdiff_t table = t->term[i->first].matrix;
            add(m->adjoint[table] + (ptrdiff_t)*a * t->buffer[table].width, dy, size);
            break;
        }
        case IFGO_OP_SOFTMAX: softmax(a, dy, da, m->work[1], size); break;
        case IFGO_OP_NORMALISE:
            normalise(a, b, dy, da, db, size, parameters[0]);
            break;
        default: break; /* IFGO_OP_DIFFERS, IFGO_OP_INSIDE: steps */
        }
    }
}

static void undo(ifgo_machine *m, const ifgo_view *result) {
    const size_t bytes = (size_t)result->size * sizeof(float);
    m->top -= result->size * m->rows;
    for (ptrdiff_t n = 0; n < m->rows; n++) {
        memcpy(ifgo_value(m, result, n), m->top + n * result->size, bytes);
        float *d = gradient(m, result, n);
        memcpy(m->work[0] + n * result->size, d, bytes);
        memset(d, 0, bytes);
    }
}

static void sweep(ifgo_machine *m, const ifgo_sweep *s) {
    const ifgo_text *t = &m->program->text;
    m->count = s->count == -1 ? m->steps : s->count;
    m->by_row = s->count == -1 && t->lengths;
    for (ptrdiff_t k = m->count; k-- > 0;) {
        m->step = s->reverse ? m->count - 1 - k : k;
        for (ptrdiff_t j = s->first + s->instructions; j-- > s->first;) {
            const ifgo_instruction *i = t->instruction + j;
            const ifgo_view *result = t->view + i->result;
            undo(m, result);
            if (i->op == IFGO_OP_AFFINE) affine(m, i, m->work[0], result->size);
            else pointwise(m, i, t->parameters + 2 * j, m->work[0], result->size);
        }
    }
}

void ifgo_machine_back(ifgo_machine *m, const ptrdiff_t *lengths) {
    const ifgo_text *t = &m->program->text;
    if (!m->kept || (t->lengths && !lengths)) return;
    m->kept = 0;
    m->lengths = lengths;
    const unsigned before = ifgo_enter();
    for (ptrdiff_t k = t->sweeps; k-- > 0;) sweep(m, t->sweep + k);
    ifgo_leave(before);
}
