#!/bin/sh
# Builds the compiled engine into src/ifgo/engine/, so that PYTHONPATH=src has it.
#
#   tools/build_native.sh [CMAKE OPTION]...      such as -DIFGO_WERROR=ON
#
# PYTHON  the interpreter to build for, which has nanobind; otherwise .venv/bin/python
# CC, CXX the compilers; otherwise those that CMake finds
set -eu
cd "${0%/*}/.."
python=${PYTHON:-.venv/bin/python}
bin=$(dirname "$("$python" -c 'import sys; print(sys.executable)')")
PATH=$bin:$PATH # where pip puts cmake and ninja
generator=
! command -v ninja >/dev/null || generator=Ninja
cmake -S . -B build/native ${generator:+-G "$generator"} --log-level=NOTICE \
    -DPython_EXECUTABLE="$("$python" -c 'import sys; print(sys.executable)')" "$@" >/dev/null
cmake --build build/native --parallel >build/native/build.log || {
    cat build/native/build.log >&2
    exit 1
}
rm -f src/ifgo/engine/_native.*.so src/ifgo/engine/_native.*.pyd
cp build/native/_native.* src/ifgo/engine/
