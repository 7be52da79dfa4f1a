// ifgo.engine._native: with stream.cc the one place that knows Python. Arguments come checked and
// worded from src/ifgo/engine/; what would break memory is checked here once more. The work is done
// in C with the GIL released.
#include "module.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace nb = nanobind;

namespace {

std::vector<std::string> isas(bool runnable_only)
{
    std::vector<std::string> names;
    for (size_t k = 0; k < ifgo_isa_count(); ++k) {
        if (!runnable_only || ifgo_isa_runs(k)) names.emplace_back(ifgo_isa_name(k));
    }
    return names;
}

void check(ifgo_status status)
{
    if (status == IFGO_E_MEMORY) throw std::bad_alloc();
    if (status != IFGO_OK) throw std::runtime_error("the engine refused a call");
}

template <size_t N>
using Input = nb::ndarray<const float, nb::ndim<N>, nb::device::cpu>;
template <size_t N>
using Output = nb::ndarray<float, nb::ndim<N>, nb::device::cpu>;
template <size_t N>
using MaybeInput = std::optional<Input<N>>;
template <size_t N>
using MaybeOutput = std::optional<Output<N>>;

void expect(bool holds, const char *what)
{
    if (!holds) throw nb::value_error(what);
}

// The data of a contiguous array of exactly these sizes.
template <class Array>
auto whole(const Array &array, std::initializer_list<ptrdiff_t> sizes, const char *what)
{
    ptrdiff_t stride = 1;
    size_t axis = array.ndim();
    expect(axis == sizes.size(), what);
    for (auto size = sizes.end(); size != sizes.begin();) {
        --size, --axis;
        expect((ptrdiff_t)array.shape(axis) == *size, what);
        expect(*size <= 1 || array.stride(axis) == stride, what);
        stride *= *size;
    }
    return array.data();
}

template <class Array>
auto whole(const std::optional<Array> &array, std::initializer_list<ptrdiff_t> sizes,
           const char *what) -> decltype(array->data())
{
    return array ? whole(*array, sizes, what) : nullptr;
}

struct Cell {
    ifgo_cell *cell = nullptr;
    ptrdiff_t input, hidden, output;

    static ifgo_weights weights(Input<2> weight_ih, Input<2> weight_hh, MaybeInput<1> bias,
                                MaybeInput<2> peephole, MaybeInput<2> weight_hr,
                                MaybeInput<1> bias_hr)
    {
        ifgo_weights w{};
        w.input = (ptrdiff_t)weight_ih.shape(1);
        w.hidden = (ptrdiff_t)weight_ih.shape(0) / 4;
        w.output = (ptrdiff_t)weight_hh.shape(1);
        w.weight_ih = whole(weight_ih, {4 * w.hidden, w.input}, "weight_ih");
        w.weight_hh = whole(weight_hh, {4 * w.hidden, w.output}, "weight_hh");
        w.bias = whole(bias, {4 * w.hidden}, "bias");
        w.peephole = whole(peephole, {3, w.hidden}, "peephole");
        w.weight_hr = whole(weight_hr, {w.output, w.hidden}, "weight_hr");
        w.bias_hr = whole(bias_hr, {w.output}, "bias_hr");
        expect(w.weight_hr || w.output == w.hidden, "weight_hh");
        return w;
    }

    Cell(Input<2> weight_ih, Input<2> weight_hh, MaybeInput<1> bias, MaybeInput<2> peephole,
         MaybeInput<2> weight_hr, MaybeInput<1> bias_hr, float clip_z, float clip_cell,
         float clip_projection, int coupling, bool with_back)
    {
        ifgo_weights w = weights(weight_ih, weight_hh, bias, peephole, weight_hr, bias_hr);
        w.clip_z = clip_z;
        w.clip_cell = clip_cell;
        w.clip_projection = clip_projection;
        w.coupling = coupling;
        input = w.input, hidden = w.hidden, output = w.output;
        nb::gil_scoped_release free;
        check(ifgo_cell_new(&w, with_back, &cell));
    }
    ~Cell() { ifgo_cell_free(cell); }
    Cell(const Cell &) = delete;

    void set(Input<2> weight_ih, Input<2> weight_hh, MaybeInput<1> bias, MaybeInput<2> peephole,
             MaybeInput<2> weight_hr, MaybeInput<1> bias_hr)
    {
        const ifgo_weights w = weights(weight_ih, weight_hh, bias, peephole, weight_hr, bias_hr);
        expect(w.input == input && w.hidden == hidden && w.output == output, "sizes");
        nb::gil_scoped_release free;
        ifgo_cell_set(cell, &w);
    }
};

struct Dense {
    ifgo_dense *dense = nullptr;
    ptrdiff_t input, output;

    Dense(Input<2> weight, MaybeInput<1> bias, int activation)
    {
        output = (ptrdiff_t)weight.shape(0), input = (ptrdiff_t)weight.shape(1);
        const float *w = whole(weight, {output, input}, "weight");
        const float *b = whole(bias, {output}, "bias");
        nb::gil_scoped_release free;
        check(ifgo_dense_new(input, output, w, b, activation, &dense));
    }
    ~Dense() { ifgo_dense_free(dense); }
    Dense(const Dense &) = delete;

    void run(Input<2> x, Output<2> y, int threads)
    {
        const ptrdiff_t rows = (ptrdiff_t)x.shape(0);
        const float *from = whole(x, {rows, input}, "x");
        float *to = whole(y, {rows, output}, "y");
        nb::gil_scoped_release free;
        ifgo_dense_run(dense, rows, from, input, to, output, threads);
    }
};

struct Trainer {
    ifgo_trainer *trainer = nullptr;
    Trainer() { check(ifgo_trainer_new(&trainer)); }
    ~Trainer() { ifgo_trainer_free(trainer); }
    Trainer(const Trainer &) = delete;
};

void dense_train(Trainer &trainer, Input<2> weight, MaybeInput<1> bias, Input<2> x,
                 MaybeInput<2> dy,
                 std::optional<nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig>> target,
                 MaybeInput<1> row_weight, MaybeOutput<1> loss, MaybeOutput<2> dx,
                 MaybeOutput<2> d_weight, MaybeOutput<1> d_bias, int threads)
{
    ifgo_dense_training c{};
    c.rows = (ptrdiff_t)x.shape(0), c.input = (ptrdiff_t)x.shape(1);
    c.output = (ptrdiff_t)weight.shape(0), c.threads = threads;
    c.x_row = c.dx_row = c.input, c.dy_row = c.output;
    c.weight = whole(weight, {c.output, c.input}, "weight");
    c.bias = whole(bias, {c.output}, "bias");
    c.x = whole(x, {c.rows, c.input}, "x");
    c.dy = whole(dy, {c.rows, c.output}, "dy");
    c.row_weight = whole(row_weight, {c.rows}, "row_weight");
    c.loss = whole(loss, {c.rows}, "loss");
    c.dx = whole(dx, {c.rows, c.input}, "dx");
    c.d_weight = whole(d_weight, {c.output, c.input}, "d_weight");
    c.d_bias = whole(d_bias, {c.output}, "d_bias");
    if (!c.dy) {
        expect(target && row_weight && (ptrdiff_t)target->shape(0) == c.rows, "target");
        c.target = target->data();
        for (ptrdiff_t n = 0; n < c.rows; n++)
            expect(c.target[n] >= 0 && c.target[n] < c.output, "target");
    }
    nb::gil_scoped_release free;
    check(ifgo_dense_train(trainer.trainer, &c));
}

struct Tape {
    ifgo_tape *tape = nullptr;
    ptrdiff_t rows = 0, steps = 0;
    bool kept = false;
    Tape() { check(ifgo_tape_new(&tape)); }
    ~Tape() { ifgo_tape_free(tape); }
    Tape(const Tape &) = delete;
};

// Rows and times of (N, T, F) with the features of a step side by side.
template <class Array>
void strided(const Array &array, ptrdiff_t rows, ptrdiff_t steps, ptrdiff_t features,
             const char *what)
{
    expect((ptrdiff_t)array.shape(0) == rows && (ptrdiff_t)array.shape(1) == steps &&
               (ptrdiff_t)array.shape(2) == features &&
               (features <= 1 || array.stride(2) == 1),
           what);
}

void forward(const Cell &cell, Tape &tape, Input<3> x, MaybeOutput<3> y, bool reverse, bool keep,
             int threads, std::optional<nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig>> lengths,
             MaybeInput<2> h0, MaybeInput<2> c0, MaybeOutput<2> h_n, MaybeOutput<2> c_n)
{
    ifgo_batch b{};
    b.rows = (ptrdiff_t)x.shape(0), b.steps = (ptrdiff_t)x.shape(1);
    strided(x, b.rows, b.steps, cell.input, "x");
    b.x = x.data(), b.x_row = x.stride(0), b.x_time = x.stride(1);
    if (y) {
        strided(*y, b.rows, b.steps, cell.output, "y");
        b.y = y->data(), b.y_row = y->stride(0), b.y_time = y->stride(1);
    }
    static_assert(sizeof(ptrdiff_t) == sizeof(int64_t), "lengths are passed as they are");
    if (lengths) {
        expect((ptrdiff_t)lengths->shape(0) == b.rows, "lengths");
        b.lengths = (const ptrdiff_t *)lengths->data();
        for (ptrdiff_t n = 0; n < b.rows; n++)
            expect(b.lengths[n] >= 0 && b.lengths[n] <= b.steps, "lengths");
    }
    b.reverse = reverse, b.keep = keep, b.threads = threads;
    b.h0 = whole(h0, {b.rows, cell.output}, "h0");
    b.c0 = whole(c0, {b.rows, cell.hidden}, "c0");
    b.h_n = whole(h_n, {b.rows, cell.output}, "h_n");
    b.c_n = whole(c_n, {b.rows, cell.hidden}, "c_n");
    tape.rows = b.rows, tape.steps = b.steps, tape.kept = keep;
    nb::gil_scoped_release free;
    check(ifgo_forward(cell.cell, tape.tape, &b));
}

void backward(const Cell &cell, Tape &tape, int threads, MaybeInput<3> dy, MaybeInput<2> dh_n,
              MaybeInput<2> dc_n, MaybeOutput<3> dx, bool add_dx, MaybeOutput<2> dh0,
              MaybeOutput<2> dc0, MaybeOutput<2> weight_ih, MaybeOutput<2> weight_hh,
              MaybeOutput<1> bias, MaybeOutput<2> peephole, MaybeOutput<2> weight_hr,
              MaybeOutput<1> bias_hr)
{
    (void)threads;
    expect(tape.kept, "tape");
    const ptrdiff_t I = cell.input, H = cell.hidden, P = cell.output;
    ifgo_gradients g{};
    if (dy) {
        strided(*dy, tape.rows, tape.steps, P, "dy");
        g.dy = dy->data(), g.dy_row = dy->stride(0), g.dy_time = dy->stride(1);
    }
    if (dx) {
        strided(*dx, tape.rows, tape.steps, I, "dx");
        g.dx = dx->data(), g.dx_row = dx->stride(0), g.dx_time = dx->stride(1);
    }
    g.add_dx = add_dx;
    g.dh_n = whole(dh_n, {tape.rows, P}, "dh_n");
    g.dc_n = whole(dc_n, {tape.rows, H}, "dc_n");
    g.dh0 = whole(dh0, {tape.rows, P}, "dh0");
    g.dc0 = whole(dc0, {tape.rows, H}, "dc0");
    g.d_weight_ih = whole(weight_ih, {4 * H, I}, "weight_ih");
    g.d_weight_hh = whole(weight_hh, {4 * H, P}, "weight_hh");
    g.d_bias = whole(bias, {4 * H}, "bias");
    g.d_peephole = whole(peephole, {3, H}, "peephole");
    g.d_weight_hr = whole(weight_hr, {P, H}, "weight_hr");
    g.d_bias_hr = whole(bias_hr, {P}, "bias_hr");
    tape.kept = false; // z holds dz now
    nb::gil_scoped_release free;
    check(ifgo_backward(cell.cell, tape.tape, &g));
}

}  // namespace

ifgo_link ifgo_link_of(PyObject *object)
{
    const nb::handle handle(object);
    ifgo_link link{};
    if (nb::isinstance<Cell>(handle)) link.cell = nb::cast<Cell &>(handle).cell;
    else if (nb::isinstance<Dense>(handle)) link.dense = nb::cast<Dense &>(handle).dense;
    return link;
}

ptrdiff_t ifgo_size_of(PyObject *object, bool output)
{
    const nb::handle handle(object);
    if (nb::isinstance<Cell>(handle)) {
        const Cell &cell = nb::cast<Cell &>(handle);
        return output ? cell.output : cell.input;
    }
    const Dense &dense = nb::cast<Dense &>(handle);
    return output ? dense.output : dense.input;
}

ptrdiff_t ifgo_hidden_of(PyObject *cell) { return nb::cast<Cell &>(nb::handle(cell)).hidden; }

NB_MODULE(_native, m)
{
    // A refusal leaves isa() at None: ifgo.engine words it when the engine is first used.
    const char *wanted = std::getenv("IFGO_ISA");
    ifgo_engine_load();
    m.attr("wanted_isa") =
        nb::steal(PyUnicode_DecodeFSDefault(wanted != nullptr ? wanted : ""));
    m.attr("__version__") = IFGO_VERSION;
    m.def("isa", &ifgo_isa);
    m.def("isas", [] { return isas(true); });
    m.def("built_isas", [] { return isas(false); });
    nb::class_<Cell>(m, "Cell")
        .def(nb::init<Input<2>, Input<2>, MaybeInput<1>, MaybeInput<2>, MaybeInput<2>,
                      MaybeInput<1>, float, float, float, int, bool>(),
             nb::arg("weight_ih"), nb::arg("weight_hh"), nb::arg("bias").none(),
             nb::arg("peephole").none(), nb::arg("weight_hr").none(), nb::arg("bias_hr").none(),
             nb::arg("clip_z"), nb::arg("clip_cell"), nb::arg("clip_projection"),
             nb::arg("coupling"), nb::arg("with_back"))
        .def("set", &Cell::set, nb::arg("weight_ih"), nb::arg("weight_hh"),
             nb::arg("bias").none(), nb::arg("peephole").none(), nb::arg("weight_hr").none(),
             nb::arg("bias_hr").none());
    nb::class_<Dense>(m, "Dense")
        .def(nb::init<Input<2>, MaybeInput<1>, int>(), nb::arg("weight"), nb::arg("bias").none(),
             nb::arg("activation"))
        .def("run", &Dense::run, nb::arg("x"), nb::arg("y"), nb::arg("threads") = 1);
    nb::class_<Trainer>(m, "Trainer").def(nb::init<>());
    m.def("dense_train", &dense_train, nb::arg("trainer"), nb::arg("weight"),
          nb::arg("bias").none(), nb::arg("x"), nb::kw_only(), nb::arg("dy").none() = nb::none(),
          nb::arg("target").none() = nb::none(), nb::arg("row_weight").none() = nb::none(),
          nb::arg("loss").none() = nb::none(), nb::arg("dx").none() = nb::none(),
          nb::arg("d_weight").none() = nb::none(), nb::arg("d_bias").none() = nb::none(),
          nb::arg("threads") = 1);
    nb::class_<Tape>(m, "Tape").def(nb::init<>());
    m.def("forward", &forward, nb::arg("cell"), nb::arg("tape"), nb::arg("x"), nb::arg("y").none(),
          nb::kw_only(), nb::arg("reverse") = false, nb::arg("keep") = false,
          nb::arg("threads") = 1, nb::arg("lengths").none() = nb::none(),
          nb::arg("h0").none() = nb::none(), nb::arg("c0").none() = nb::none(),
          nb::arg("h_n").none() = nb::none(), nb::arg("c_n").none() = nb::none());
    m.def("backward", &backward, nb::arg("cell"), nb::arg("tape"), nb::kw_only(),
          nb::arg("threads") = 1, nb::arg("dy").none() = nb::none(),
          nb::arg("dh_n").none() = nb::none(), nb::arg("dc_n").none() = nb::none(),
          nb::arg("dx").none() = nb::none(), nb::arg("add_dx") = false,
          nb::arg("dh0").none() = nb::none(), nb::arg("dc0").none() = nb::none(),
          nb::arg("weight_ih").none() = nb::none(), nb::arg("weight_hh").none() = nb::none(),
          nb::arg("bias").none() = nb::none(), nb::arg("peephole").none() = nb::none(),
          nb::arg("weight_hr").none() = nb::none(), nb::arg("bias_hr").none() = nb::none());
    ifgo_bind_programs(m);
    m.attr("Stream") = nb::steal(ifgo_stream_type());
}
