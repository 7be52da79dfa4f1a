// _native.Stream, written against Python's C API: a step of a small LSTM takes 50 ns, so the call
// may not take 200. Whatever is wrong with an argument is handed to the method _refuse(), which
// ifgo.engine.Stream has, to be worded and raised.
#include "module.h"

#include <cmath>
#include <cstring>
#include <new>
#include <vector>

namespace {

struct Stream {
    PyObject_HEAD
    ifgo_stream *stream;
    PyObject *links; // a tuple, which keeps the layers alive
    ptrdiff_t input, output;
    int threads;
    bool brief, busy, bound;
    Py_buffer x, y; // of tick()
};

enum { BRIEF = 1 << 15 }; // multiply-adds below which releasing the GIL costs more than it gives

PyObject *refuse(Stream *self, PyObject *x, PyObject *out, const char *what)
{
    if (PyErr_Occurred()) PyErr_Clear();
    PyObject *none = PyObject_CallMethod((PyObject *)self, "_refuse", "OOs", x, out ? out : Py_None,
                                         what);
    if (none) {
        Py_DECREF(none);
        PyErr_SetString(PyExc_ValueError, what);
    }
    return nullptr;
}

bool is_float(const Py_buffer &view)
{
    const char *format = view.format ? view.format : "B";
    if (*format == '@' || *format == '=' || *format == '<') format++;
    return view.itemsize == 4 && std::strcmp(format, "f") == 0;
}

bool finite(const float *x, ptrdiff_t count)
{
    float sum = 0;
    for (ptrdiff_t k = 0; k < count; k++) sum += x[k] * 0.0f;
    return sum == 0.0f;
}

// Takes a view of `count` floats, contiguous.
bool take(PyObject *array, Py_buffer *view, ptrdiff_t count, int flags)
{
    if (PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags)) return false;
    if (is_float(*view) && view->len == count * 4 && (uintptr_t)view->buf % 4 == 0) return true;
    PyBuffer_Release(view);
    return false;
}

void compute(Stream *self, ptrdiff_t steps, const float *x, float *y)
{
    self->busy = true;
    if (self->brief && steps == 1) {
        ifgo_stream_run(self->stream, 1, x, y, 1);
    } else {
        Py_BEGIN_ALLOW_THREADS
        ifgo_stream_run(self->stream, steps, x, y, self->threads);
        Py_END_ALLOW_THREADS
    }
    self->busy = false;
}

PyObject *run_views(Stream *self, PyObject *x, PyObject *out, ptrdiff_t steps)
{
    Py_buffer from, to;
    const char *wrong = nullptr;
    if (!self->stream) return refuse(self, x, out, "stream");
    if (self->busy) return refuse(self, x, out, "busy");
    if (!take(x, &from, steps * self->input, 0)) return refuse(self, x, out, "x");
    if (!take(out, &to, steps * self->output, PyBUF_WRITABLE)) {
        PyBuffer_Release(&from);
        return refuse(self, x, out, "out");
    }
    if (!finite((const float *)from.buf, steps * self->input)) wrong = "finite";
    else compute(self, steps, (const float *)from.buf, (float *)to.buf);
    PyBuffer_Release(&from);
    PyBuffer_Release(&to);
    if (wrong) return refuse(self, x, out, wrong);
    Py_INCREF(out);
    return out;
}

// step(x, out) → out; _refuse() is told of every other number of arguments.
PyObject *step(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Stream *self = (Stream *)object;
    if (count == 2 && args[1] != Py_None) return run_views(self, args[0], args[1], 1);
    if (count != 1 && count != 2) {
        PyErr_Format(PyExc_TypeError, "step takes x and out, %zd arguments given", count);
        return nullptr;
    }
    PyObject *out = PyObject_CallMethod(object, "_new_output", nullptr);
    if (!out) return nullptr;
    PyObject *result = run_views(self, args[0], out, 1);
    Py_DECREF(out);
    return result;
}

// run(x, out, steps) → out
PyObject *run(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_Format(PyExc_TypeError, "run takes x, out and steps, %zd arguments given", count);
        return nullptr;
    }
    const Py_ssize_t steps = PyNumber_AsSsize_t(args[2], PyExc_OverflowError);
    if (steps == -1 && PyErr_Occurred()) return nullptr;
    Stream *self = (Stream *)object;
    if (steps < 0 || (self->input && steps > PY_SSIZE_T_MAX / 4 / self->input) ||
        (self->output && steps > PY_SSIZE_T_MAX / 4 / self->output))
        return refuse(self, args[0], args[1], "steps");
    return run_views(self, args[0], args[1], steps);
}

void unbind(Stream *self)
{
    if (!self->bound) return;
    PyBuffer_Release(&self->x);
    PyBuffer_Release(&self->y);
    self->bound = false;
}

// bind(x, out): what tick() reads and writes from now on
PyObject *bind(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Stream *self = (Stream *)object;
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "bind takes x and out, %zd arguments given", count);
        return nullptr;
    }
    Py_buffer from, to;
    if (!take(args[0], &from, self->input, 0)) return refuse(self, args[0], args[1], "x");
    if (!take(args[1], &to, self->output, PyBUF_WRITABLE)) {
        PyBuffer_Release(&from);
        return refuse(self, args[0], args[1], "out");
    }
    unbind(self);
    self->x = from, self->y = to, self->bound = true;
    Py_RETURN_NONE;
}

PyObject *tick(PyObject *object, PyObject *)
{
    Stream *self = (Stream *)object;
    if (!self->bound) return refuse(self, Py_None, Py_None, "bind");
    if (self->busy) return refuse(self, Py_None, Py_None, "busy");
    const float *x = (const float *)self->x.buf;
    if (!finite(x, self->input)) return refuse(self, Py_None, Py_None, "finite");
    compute(self, 1, x, (float *)self->y.buf);
    Py_RETURN_NONE;
}

PyObject *reset(PyObject *object, PyObject *)
{
    Stream *self = (Stream *)object;
    if (self->stream) ifgo_stream_reset(self->stream);
    Py_RETURN_NONE;
}

// state_io(index, h, c, write): state of link `index` from or into two buffers
PyObject *state_io(PyObject *object, PyObject *args)
{
    Stream *self = (Stream *)object;
    Py_ssize_t index;
    PyObject *h, *c;
    int write;
    if (!PyArg_ParseTuple(args, "nOOp", &index, &h, &c, &write)) return nullptr;
    if (!self->links || index < 0 || index >= PyTuple_GET_SIZE(self->links) ||
        !ifgo_link_of(PyTuple_GET_ITEM(self->links, index)).cell)
        return refuse(self, h, c, "index");
    Py_buffer a, b;
    PyObject *link = PyTuple_GET_ITEM(self->links, index);
    const int flags = write ? 0 : PyBUF_WRITABLE;
    if (!take(h, &a, ifgo_size_of(link, true), flags)) return refuse(self, h, c, "h");
    if (PyObject_GetBuffer(c, &b, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags)) {
        PyBuffer_Release(&a);
        return refuse(self, h, c, "c");
    }
    const bool fits = is_float(b) && b.len == 4 * ifgo_hidden_of(link);
    if (fits && write)
        ifgo_stream_set(self->stream, index, (const float *)a.buf, (const float *)b.buf);
    else if (fits) ifgo_stream_get(self->stream, index, (float *)a.buf, (float *)b.buf);
    PyBuffer_Release(&a);
    PyBuffer_Release(&b);
    if (!fits) return refuse(self, h, c, "c");
    Py_RETURN_NONE;
}

// Stream(links, threads, work): work is the multiply-adds of a step
int init(PyObject *object, PyObject *args, PyObject *)
{
    Stream *self = (Stream *)object;
    PyObject *links;
    Py_ssize_t work;
    int threads;
    if (self->stream) {
        PyErr_SetString(PyExc_ValueError, "a stream is made once");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "O!in", &PyTuple_Type, &links, &threads, &work)) return -1;
    std::vector<ifgo_link> all;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(links); i++) {
        PyObject *item = PyTuple_GET_ITEM(links, i);
        const ifgo_link link = ifgo_link_of(item);
        const bool known = link.cell || link.dense;
        if (!known || (i && ifgo_size_of(PyTuple_GET_ITEM(links, i - 1), true) !=
                                ifgo_size_of(item, false))) {
            PyErr_SetString(PyExc_ValueError, "links are Cells and Denses that fit");
            return -1;
        }
        all.push_back(link);
    }
    if (all.empty()) {
        PyErr_SetString(PyExc_ValueError, "a stream has a layer");
        return -1;
    }
    if (ifgo_stream_new(all.data(), (ptrdiff_t)all.size(), &self->stream) != IFGO_OK) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF(links);
    self->links = links;
    self->input = ifgo_size_of(PyTuple_GET_ITEM(links, 0), false);
    self->output = ifgo_size_of(PyTuple_GET_ITEM(links, PyTuple_GET_SIZE(links) - 1), true);
    self->threads = threads;
    self->brief = work < BRIEF;
    return 0;
}

void dealloc(PyObject *object)
{
    Stream *self = (Stream *)object;
    PyTypeObject *type = Py_TYPE(object);
    unbind(self);
    ifgo_stream_free(self->stream);
    Py_XDECREF(self->links);
    type->tp_free(object);
    Py_DECREF(type);
}

PyMethodDef methods[] = {
    {"step", (PyCFunction)(void (*)(void))step, METH_FASTCALL, nullptr},
    {"run", (PyCFunction)(void (*)(void))run, METH_FASTCALL, nullptr},
    {"bind", (PyCFunction)(void (*)(void))bind, METH_FASTCALL, nullptr},
    {"tick", tick, METH_NOARGS, nullptr},
    {"reset", reset, METH_NOARGS, nullptr},
    {"state_io", state_io, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot slots[] = {
    {Py_tp_init, (void *)init},
    {Py_tp_new, (void *)PyType_GenericNew},
    {Py_tp_dealloc, (void *)dealloc},
    {Py_tp_methods, (void *)methods},
    {0, nullptr},
};

PyType_Spec spec = {"ifgo.engine._native.Stream", sizeof(Stream), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};

}  // namespace

PyObject *ifgo_stream_type() { return PyType_FromSpec(&spec); }
