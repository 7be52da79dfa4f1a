// ifgo.engine._native: the one place that knows Python. Arguments are checked here, the work is
// done in C with the GIL released, and errors are worded in src/ifgo/engine/.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "ifgo_engine.h"

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

}  // namespace

NB_MODULE(_native, m)
{
    // A refusal leaves isa() at None: ifgo.engine words it when the engine is first used.
    ifgo_engine_load();
    m.attr("__version__") = IFGO_VERSION;
    m.def("isa", &ifgo_isa);
    m.def("isas", [] { return isas(true); });
    m.def("built_isas", [] { return isas(false); });
}
