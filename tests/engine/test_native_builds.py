"""The engine's C by itself: its tests, sanitizers, and which instructions stand where."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys

import pytest
from native_builds import (
    ROOT,
    build,
    build_once,
    ctest,
    instructions,
    objects,
    run,
    tool,
    visible_symbols,
)

X86 = platform.machine().lower() in ("x86_64", "amd64")
ISAS = {"sse42": set(), "avx2": {"avx"}, "avx512": {"avx", "avx512"}}

needs_x86 = pytest.mark.skipif(not X86, reason="about the instructions of x86-64")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A build as it is installed, but with symbols."""
    return build_once(tmp_path_factory, "plain", IFGO_PYTHON="ON", Python_EXECUTABLE=sys.executable)


@pytest.fixture(scope="module")
def nehalem():
    """The emulator, as a CPU of 2008: SSE4.2 and nothing newer."""
    return (tool("qemu-x86_64", "qemu-user"), "-cpu", "Nehalem")


def test_c_tests(plain):
    ctest(plain)


def test_clang_finds_nothing_to_warn_of(tmp_path):
    ctest(build(tmp_path, CMAKE_C_COMPILER=tool("clang", "clang")))


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_sanitizers(tmp_path, sanitizers):
    ctest(build(tmp_path, IFGO_SANITIZE=sanitizers))


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_sanitizers_on_many_shapes(tmp_path, sanitizers):
    folder = build(tmp_path, IFGO_SANITIZE=sanitizers)
    for seed in range(1, 6):
        assert ", 0 failures" in run(folder / "test_engine", "1000", str(seed))


def test_threads_without_futex(tmp_path):
    """As on systems that have condition variables alone."""
    ctest(build(tmp_path, IFGO_SANITIZE="thread", CMAKE_C_FLAGS="-DIFGO_NO_FUTEX"))


@pytest.mark.skipif(sys.platform != "linux", reason="qemu-user emulates Linux programs")
def test_neon(tmp_path):
    compiler = tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
    folder = build(
        tmp_path,
        CMAKE_SYSTEM_NAME="Linux",
        CMAKE_SYSTEM_PROCESSOR="aarch64",
        CMAKE_C_COMPILER=compiler,
    )
    emulator = (tool("qemu-aarch64", "qemu-user"), "-L", "/usr/aarch64-linux-gnu")
    for path in sorted((ROOT / "native" / "tests").glob("test_*.c")):
        assert "instruction set neon, 0 failures" in run(*emulator, folder / path.stem)


@pytest.mark.skipif(sys.platform != "linux", reason="the list of exports is a linker script")
def test_the_module_exports_its_entry_alone(plain):
    (module,) = plain.glob("_native.*.so")
    lines = run(tool("nm", "binutils"), "--dynamic", "--defined-only", module).splitlines()
    assert [line.split()[-1] for line in lines] == ["PyInit__native"]


@needs_x86
class TestInstructions:
    """No instruction of a newer CPU where an older one may come by."""

    def test_kernels_show_the_linker_their_table_alone(self, plain):
        for isa in ISAS:
            (kernels,) = objects(plain, f"ifgo_kernels_{isa}")
            assert visible_symbols(kernels) == {f"ifgo_kernels_{isa}"}

    def test_kernels_keep_to_their_set(self, plain):
        for isa, allowed in ISAS.items():
            (kernels,) = objects(plain, f"ifgo_kernels_{isa}")
            found = instructions(kernels)
            assert {kind for kind, functions in found.items() if functions} <= allowed, found

    def test_nothing_else_is_newer_than_the_baseline(self, plain):
        engine = [path for path in objects(plain, "ifgo_engine") if path.name != "kernels.c.o"]
        binding = [*objects(plain, "_native"), *objects(plain, "nanobind-static")]
        for path in [*engine, *binding]:
            assert instructions(path) == {"avx": set(), "avx512": set()}, path

    def test_a_leak_is_seen(self, tmp_path):
        """What the three tests above must not miss: a weak function for the newest CPU."""
        source = tmp_path / "leak.c"
        source.write_text(
            "__attribute__((weak)) void twice(float *x)\n"
            "{ for (int k = 0; k < 1024; k++) x[k] *= 2; }\n"
            "static __attribute__((noinline, used)) float half(float x) { return x / 2; }\n"
        )
        flags = ("-O3", "-mavx512f", "-mavx512vl", "-mprefer-vector-width=512")
        run(tool("gcc", "gcc"), *flags, "-c", source, "-o", tmp_path / "leak.o")
        assert visible_symbols(tmp_path / "leak.o") == {"twice"}
        assert instructions(tmp_path / "leak.o") == {"avx": {"twice", "half"}, "avx512": {"twice"}}


@needs_x86
@pytest.mark.skipif(sys.platform != "linux", reason="qemu-user emulates Linux programs")
class TestOldCpu:
    """A CPU without AVX: an instruction too new is a crash here."""

    def test_c_tests(self, plain, nehalem):
        programs = [plain / path.stem for path in (ROOT / "native" / "tests").glob("test_*.c")]
        assert programs
        for program in programs:
            assert "instruction set sse42," in run(*nehalem, program)

    def module(self, plain, nehalem, code, **environment):
        """Run Python with the built module on the emulated CPU."""
        (module,) = plain.glob("_native.*.so")
        package = plain / "package" / "ifgo"
        if not package.exists():
            shutil.copytree(
                ROOT / "src" / "ifgo", package, ignore=shutil.ignore_patterns("_native.*.so")
            )
            shutil.copy(module, package / "engine")
        path = ":".join([str(package.parent), *sys.path])
        return subprocess.run(
            [*nehalem, sys.executable, "-c", code],
            env={"PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_module(self, plain, nehalem):
        code = "from ifgo.engine.loading import native as n; print(n().isa(), n().isas())"
        done = self.module(plain, nehalem, code)
        assert (done.returncode, done.stdout, done.stderr) == (0, "sse42 ['sse42']\n", "")

    def test_an_isa_that_this_cpu_lacks(self, plain, nehalem):
        code = "from ifgo.engine.loading import native; native()"
        done = self.module(plain, nehalem, code, IFGO_ISA="avx512")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            "ifgo.errors.UnsupportedError: IFGO_ISA is 'avx512', which this CPU or its system "
            "cannot run, expected sse42. Unset it to take the widest"
        )
