// Program and Machine: the general path (ifgo_engine.h). ifgo.engine.general writes the tables; what
// would break memory is checked in C when they are taken over.
#include "module.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <new>
#include <optional>
#include <utility>
#include <vector>

namespace nb = nanobind;

namespace {

template <size_t N>
using Table = nb::ndarray<const int64_t, nb::ndim<N>, nb::device::cpu, nb::c_contig>;
template <size_t N>
using Values = nb::ndarray<const float, nb::ndim<N>, nb::device::cpu, nb::c_contig>;
using Result = nb::ndarray<float, nb::ndim<2>, nb::device::cpu, nb::c_contig>;
using Given = std::vector<std::pair<ptrdiff_t, Values<2>>>;
using Wanted = std::vector<std::pair<ptrdiff_t, Result>>;

static_assert(sizeof(ptrdiff_t) == sizeof(int64_t), "tables are passed as they are");

void check(ifgo_status status)
{
    if (status == IFGO_E_MEMORY) throw std::bad_alloc();
    if (status == IFGO_E_TOKEN) throw nb::value_error("token");
    if (status != IFGO_OK) throw nb::value_error("program");
}

// The rows of a table as the struct that they stand for.
template <class Row>
const Row *rows(const Table<2> &table, ptrdiff_t &count)
{
    if (table.shape(1) * sizeof(int64_t) != sizeof(Row)) throw nb::value_error("table");
    count = (ptrdiff_t)table.shape(0);
    return reinterpret_cast<const Row *>(table.data());
}

struct Program {
    ifgo_program *program = nullptr;
    ptrdiff_t weights;
    bool with_back;

    Program(Table<2> buffers, Table<2> views, Table<2> instructions, Values<2> parameters,
            Table<2> terms, Table<2> sweeps, Values<1> values, bool lengths, bool back)
        : weights((ptrdiff_t)values.shape(0)), with_back(back)
    {
        ifgo_text text{};
        text.buffer = rows<ifgo_buffer>(buffers, text.buffers);
        text.view = rows<ifgo_view>(views, text.views);
        text.instruction = rows<ifgo_instruction>(instructions, text.instructions);
        text.term = rows<ifgo_term>(terms, text.terms);
        text.sweep = rows<ifgo_sweep>(sweeps, text.sweeps);
        if ((ptrdiff_t)parameters.shape(0) != text.instructions || parameters.shape(1) != 2)
            throw nb::value_error("parameters");
        text.parameters = parameters.data();
        text.weight = values.data();
        text.weights = weights;
        text.lengths = lengths;
        nb::gil_scoped_release free;
        check(ifgo_program_new(&text, back, &program));
    }
    ~Program() { ifgo_program_free(program); }
    Program(const Program &) = delete;
};

struct Machine {
    ifgo_machine *machine = nullptr;

    explicit Machine(const Program &program) { check(ifgo_machine_new(program.program, &machine)); }
    ~Machine() { ifgo_machine_free(machine); }
    Machine(const Machine &) = delete;

    // Where the values, or the gradients, of a buffer lie.
    template <class Array>
    float *place(ptrdiff_t buffer, const Array &array, bool gradient)
    {
        float *at = gradient ? ifgo_machine_adjoint(machine, buffer)
                             : ifgo_machine_buffer(machine, buffer);
        if (!at) throw nb::value_error("buffer");
        if ((ptrdiff_t)array.size() != ifgo_machine_floats(machine, buffer))
            throw nb::value_error("array");
        return at;
    }

    void put(const Given &given, bool gradient)
    {
        for (const auto &[buffer, array] : given) {
            float *at = place(buffer, array, gradient);
            std::copy(array.data(), array.data() + array.size(), at);
        }
    }

    void take(Wanted &wanted, bool gradient)
    {
        for (auto &[buffer, array] : wanted) {
            const float *at = place(buffer, array, gradient);
            std::copy(at, at + array.size(), array.data());
        }
    }

    void run(ptrdiff_t batch, ptrdiff_t steps, std::optional<Table<1>> lengths, bool keep,
             const Given &given, Wanted wanted)
    {
        const ptrdiff_t *counts = nullptr;
        if (lengths) {
            if ((ptrdiff_t)lengths->shape(0) != batch) throw nb::value_error("lengths");
            counts = reinterpret_cast<const ptrdiff_t *>(lengths->data());
            for (ptrdiff_t n = 0; n < batch; n++)
                if (counts[n] < 0 || counts[n] > steps) throw nb::value_error("lengths");
        }
        nb::gil_scoped_release free;
        check(ifgo_machine_size(machine, batch, steps, keep));
        put(given, false);
        check(ifgo_machine_run(machine, counts, true));
        take(wanted, false);
        kept.assign(counts, counts ? counts + batch : counts);
    }

    void back(const Given &given, Wanted wanted)
    {
        nb::gil_scoped_release free;
        check(ifgo_machine_adjoints(machine));
        put(given, true);
        gradients(wanted);
    }

    std::vector<ptrdiff_t> kept; // lengths of the run that back() follows

  private:
    void gradients(Wanted &wanted)
    {
        // Places are looked up first: the gradients count as used up once they are made.
        std::vector<const float *> from;
        for (auto &[buffer, array] : wanted) from.push_back(place(buffer, array, true));
        ifgo_machine_back(machine, kept.empty() ? nullptr : kept.data());
        for (size_t k = 0; k < wanted.size(); k++) {
            Result &array = wanted[k].second;
            std::copy(from[k], from[k] + array.size(), array.data());
        }
    }
};

}  // namespace

const ifgo_program *ifgo_program_of(PyObject *object)
{
    const nb::handle handle(object);
    return nb::isinstance<Program>(handle) ? nb::cast<Program &>(handle).program : nullptr;
}

void ifgo_bind_programs(nb::module_ &m)
{
    nb::class_<Program>(m, "Program")
        .def(nb::init<Table<2>, Table<2>, Table<2>, Values<2>, Table<2>, Table<2>, Values<1>, bool,
                      bool>(),
             nb::arg("buffers"), nb::arg("views"), nb::arg("instructions"), nb::arg("parameters"),
             nb::arg("terms"), nb::arg("sweeps"), nb::arg("weights"), nb::arg("lengths"),
             nb::arg("with_back"));
    nb::class_<Machine>(m, "Machine")
        .def(nb::init<const Program &>(), nb::arg("program"), nb::keep_alive<1, 2>())
        .def("run", &Machine::run, nb::arg("rows"), nb::arg("steps"), nb::arg("lengths").none(),
             nb::arg("keep"), nb::arg("given"), nb::arg("wanted"))
        .def("back", &Machine::back, nb::arg("given"), nb::arg("wanted"));
}
