#!/bin/sh
# Builds the compiled engine into src/ifgo/engine/, so that PYTHONPATH=src has it.
#
#   tools/build_native.sh [CMAKE OPTION]...      such as -DIFGO_WERROR=ON
#
# PYTHON  the interpreter to build for, which has nanobind; otherwise .venv/bin/python
# CC, CXX the compilers; otherwise those that CMake finds
set -eu
cd "${0%/*}/.."
python=$("${PYTHON:-.venv/bin/python}" -c 'import sys; print(sys.executable)')
build=build/native/$("$python" -c 'import sys; print(sys.implementation.cache_tag)')
PATH=$(dirname "$python"):$PATH # where pip puts cmake and ninja

compiler=${CXX:-c++}
for tool in cmake:CMake "${compiler%% *}:a C++ compiler"; do
    command -v "${tool%%:*}" >/dev/null || {
        echo "The compiled engine needs ${tool#*:}: ${tool%%:*} is not on PATH. Install it:" \
            "apt-get install cmake g++, or xcode-select --install and pip install cmake" >&2
        exit 1
    }
done
[ -e "$build/CMakeCache.txt" ] || ! command -v ninja >/dev/null || set -- -G Ninja "$@"

# What a step prints is shown where it fails.
quietly() {
    "$@" >"$build/log" 2>&1 || {
        cat "$build/log" >&2
        exit 1
    }
}
mkdir -p "$build"
quietly cmake -S . -B "$build" -DPython_EXECUTABLE="$python" "$@"
quietly cmake --build "$build" --parallel
rm -f src/ifgo/engine/_native.*.so src/ifgo/engine/_native.*.pyd
cp "$build"/_native.* src/ifgo/engine/
