"""What model.h promises beyond the numbers: symbols, sizes, statuses, self-protection, errors."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c99_cases import RANDOM, STREAM, TOKENS, WHOLE, cell, draw, write
from presence import missing

from ifgo.deployment import deploy
from ifgo.model import (
    FeatureInput,
    InitialState,
    LengthsInput,
    Model,
    Recurrent,
    StateInput,
    StateSlot,
)
from ifgo.targets import c99


def compile_and_run(
    folder: Path, body: str, *, cc: str, flags: tuple[str, ...] = (), link: tuple[str, ...] = ()
) -> str:
    """Compile model.c and a main() of `body`, run it, return stdout."""
    text = '#include <math.h>\n#include <stdio.h>\n#include <string.h>\n#include "model.h"\n'
    (folder / "t.c").write_text(text + "int main(void) {\n" + body + "\nreturn 0;\n}\n")
    for name in ("t", "model"):
        command = [cc, "-std=c99", "-O2", *flags, "-c", f"{name}.c", "-o", f"{name}.o"]
        subprocess.run(command, cwd=folder, check=True)
    subprocess.run([cc, *flags, *link, "t.o", "model.o", "-o", "t", "-lm"], cwd=folder, check=True)
    return subprocess.run([folder / "t"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("model", [STREAM, WHOLE, TOKENS], ids=["stream", "whole", "tokens"])
def test_object_needs_nothing_and_exports_only_its_prefix(
    model: Model, compiler: str, tmp_path: Path
) -> None:
    write(model, tmp_path, name="ecg", max_steps=20)
    command = [compiler, "-std=c99", "-Os", "-ffreestanding", "-c", "model.c", "-o", "m.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    table = subprocess.run(["nm", "m.o"], cwd=tmp_path, capture_output=True, text=True, check=True)
    rows = [line.split()[-2:] for line in table.stdout.splitlines()]
    undefined = {name for kind, name in rows if kind == "U"}
    assert undefined <= {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}
    exported = {name for kind, name in rows if kind.isupper() and kind != "U"}
    assert exported
    assert all(name.startswith("ecg_") for name in exported)
    assert not any(kind in "dDbBcC" for kind, _ in rows), "no writable globals"


@pytest.mark.parametrize("model", [STREAM, WHOLE, TOKENS], ids=["stream", "whole", "tokens"])
def test_header_can_be_included_from_cpp(model: Model, cpp: str, tmp_path: Path) -> None:
    write(model, tmp_path, max_steps=20)
    (tmp_path / "t.cpp").write_text('#include "model.h"\n#include "model.h"\nmodel_state s;\n')
    command = [
        "g++",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-DIFGO_SELFTEST",
        "-fsyntax-only",
    ]
    subprocess.run([*command, "t.cpp"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("model", [STREAM, WHOLE, TOKENS], ids=["stream", "whole", "tokens"])
def test_header_states_true_sizes(model: Model, cc: str, tmp_path: Path) -> None:
    emitted = write(model, tmp_path, max_steps=20)
    header = emitted.files["model.h"]
    lines = re.findall(r"\* (flash|RAM|scratch|MACs) +(\d+)", header)
    said = {key: int(value) for key, value in lines}
    out = compile_and_run(tmp_path, 'printf("%zu\\n", sizeof(model_state));', cc=cc)
    assert said["RAM"] == int(out)
    product, _ = emitted.files["model.c"].split("#ifdef IFGO_SELFTEST")
    arrays = re.findall(r"static const float \w+\[(\d+)\]", product)
    assert said["flash"] == 4 * sum(map(int, arrays))
    assert said["MACs"] == model.macs
    if not model.streamable:
        floats = int(re.findall(r"MODEL_SCRATCH_SIZE (\d+)u", header)[0])
        assert said["scratch"] == 4 * floats


def test_selftest_passes_and_notices_one_changed_weight(compiler: str, tmp_path: Path) -> None:
    emitted = write(STREAM, tmp_path)
    body = 'static model_state s; model_init(&s); printf("%d", model_selftest(&s));'
    flags = ("-DIFGO_SELFTEST",)
    assert compile_and_run(tmp_path, body, cc=compiler, flags=flags) == "0"
    source = emitted.files["model.c"]
    first = re.search(r"w0\[\d+\] = \{\s+(\S+?)f,", source)
    assert first is not None
    changed = f"{float(first[1]) * (1 + 1e-3):.9g}"
    assert changed != first[1]
    (tmp_path / "model.c").write_text(source.replace(first[1] + "f,", changed + "f,", 1))
    assert compile_and_run(tmp_path, body, cc=compiler, flags=flags) == "6"


@pytest.mark.parametrize(
    "flag",
    [
        "-ffast-math",
        "-Ofast",
        "-fassociative-math -fno-signed-zeros -fno-trapping-math",
        "-ffinite-math-only",
    ],
)
def test_unsafe_flags_are_a_compile_error(flag: str, cc: str, tmp_path: Path) -> None:
    write(STREAM, tmp_path)
    command = [cc, "-std=c99", "-O2", *flag.split(), "-c", "model.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "must be compiled without -ffast-math" in done.stderr


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("gcc", "-fassociative-math"),
        ("gcc", "-ffp-contract=fast"),
        ("clang", "-fassociative-math -fno-signed-zeros"),
    ],
)
def test_flags_without_a_macro_change_no_bit(name: str, flags: str, tmp_path: Path) -> None:
    """Each alone, with every instruction this machine has."""
    if shutil.which(name) is None:
        missing(name, f"apt install {name}")
    write(STREAM, tmp_path)
    body = 'static model_state s; printf("%d", model_init(&s) + model_selftest(&s));'
    options = ("-DIFGO_SELFTEST", "-O2", "-march=native", *flags.split())
    assert compile_and_run(tmp_path, body, cc=name, flags=options) == "0"


def test_a_build_that_fuses_is_noticed_by_init(tmp_path: Path) -> None:
    """clang takes -ffp-contract=fast over every pragma."""
    if shutil.which("clang") is None:
        missing("clang", "apt install clang")
    if "fma" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU has no fused multiply-add")
    write(STREAM, tmp_path)
    body = 'static model_state s; printf("%d", model_init(&s));'
    flags = ("-O2", "-mfma", "-ffp-contract=fast")
    assert compile_and_run(tmp_path, body, cc="clang", flags=flags) == "7"


def test_a_link_that_flushes_denormals_is_noticed_by_init(tmp_path: Path) -> None:
    write(STREAM, tmp_path)
    body = 'static model_state s; printf("%d", model_init(&s));'
    assert compile_and_run(tmp_path, body, cc="gcc") == "0"
    assert compile_and_run(tmp_path, body, cc="gcc", link=("-ffast-math",)) == "5"


def test_statuses_leave_the_state_untouched(cc: str, tmp_path: Path) -> None:
    write(STREAM, tmp_path)
    body = """
    static model_state s, before;
    float x[3] = {0.1f, 0.2f, 0.3f}, y[3], z[MODEL_STATE_SIZE] = {0};
    model_init(&s);
    model_step(&s, x, y);
    before = s;
    x[1] = NAN; printf("%d ", model_step(&s, x, y));
    x[1] = INFINITY; printf("%d ", model_step(&s, x, y));
    printf("%d ", model_step(NULL, x, y));
    printf("%d ", model_step(&s, NULL, y));
    printf("%d ", model_step(&s, x, NULL));
    z[2] = -INFINITY; printf("%d ", model_set_state(&s, z));
    printf("%d ", model_set_state(&s, NULL));
    printf("%d ", model_get_state(&s, NULL));
    printf("%d %d ", model_init(NULL), model_reset(NULL));
    printf("%d", memcmp(&s, &before, sizeof s));
    """
    assert compile_and_run(tmp_path, body, cc=cc) == "2 2 1 1 1 2 1 1 1 1 0"


def test_tokens_and_lengths_are_checked(cc: str, tmp_path: Path) -> None:
    write(TOKENS, tmp_path)
    body = """
    static model_state s; int32_t x = 8; float y[5];
    model_init(&s);
    printf("%d ", model_step(&s, &x, y));
    x = 9; printf("%d ", model_step(&s, &x, y));
    x = -1; printf("%d", model_step(&s, &x, y));
    """
    assert compile_and_run(tmp_path, body, cc=cc) == "0 3 3"
    write(WHOLE, tmp_path, max_steps=4)
    body = """
    static model_state s; float x[15] = {0}, y[10], m[MODEL_SCRATCH_SIZE];
    model_init(&s);
    printf("%d %d ", model_sequence(&s, x, 4, y, m), model_sequence(&s, x, 5, y, m));
    printf("%d %d", model_sequence(&s, x, 0, y, m), model_sequence(&s, x, 1, y, NULL));
    """
    assert compile_and_run(tmp_path, body, cc=cc) == "0 4 4 1"


LENGTHS = Model(
    (
        FeatureInput(1),
        LengthsInput(),
        StateInput("h", (StateSlot("a", "h"),)),
        StateInput("c", (StateSlot("a", "c"),)),
    ),
    (Recurrent("a", cell(1, 2), cell(1, 2), merge="sum", initial=InitialState("input")),),
)


def test_a_c_caller_gives_lengths_and_initial_states(cc: str, tmp_path: Path) -> None:
    """h forward, h backward, c forward, c backward: eight floats; y has two per step."""
    write(LENGTHS, tmp_path, max_steps=3)
    body = """
    static model_state s; float y[6], m[MODEL_SCRATCH_SIZE];
    const float x[3] = {0.5f, -1.0f, 2.0f};
    const float in[8] = {0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f, 0.7f, 0.8f};
    size_t length, j;
    model_init(&s);
    for (length = 0; length <= 4; ++length) {
        model_set_state(&s, in);
        printf("%d ", model_padded(&s, x, 3, length, y, m));
        for (j = 0; j < 6; ++j) printf("%.9g ", y[j]);
    }
    """
    words = compile_and_run(tmp_path, body, cc=cc).split()
    rows = np.array(words, dtype=np.float32).reshape(5, 7)
    assert rows[:, 0].tolist() == [0, 0, 0, 0, 4]
    given = np.arange(1, 9, dtype=np.float32) / np.float32(10)
    start = {"h0": given[:4].reshape(2, 1, 2), "c0": given[4:].reshape(2, 1, 2)}
    x = np.array([[0.5], [-1.0], [2.0]], dtype=np.float32)
    for length in range(4):
        y, _ = LENGTHS.run(x, start, lengths=[length], on="exact")
        assert (rows[length, 1:] == y.reshape(-1)).all()


def test_a_streamable_model_counts_its_length_in_calls(tmp_path: Path) -> None:
    model = Model((FeatureInput(3), LengthsInput()), STREAM.layers)
    emitted = write(model, tmp_path)
    assert emitted.program.streamable
    said = "The length of a sequence is how often model_step is called for it."
    assert said in emitted.files["model.h"]
    assert said not in write(STREAM, tmp_path).files["model.h"]
    assert "model_padded" in write(STREAM, tmp_path, lengths=True).files["model.h"]


def test_reset_restores_the_initial_state_constants_included(cc: str, tmp_path: Path) -> None:
    constants = InitialState("constant", draw(1, 2), draw(1, 2))
    model = Model((FeatureInput(1),), (Recurrent("a", cell(1, 2), initial=constants),))
    write(model, tmp_path)
    body = """
    static model_state s; float x = 1.0f, y[2], first[4], again[4];
    model_init(&s); model_get_state(&s, first); model_step(&s, &x, y);
    model_reset(&s); model_get_state(&s, again);
    printf("%d ", memcmp(first, again, sizeof first));
    printf("%.9g %.9g %.9g %.9g", first[0], first[1], first[2], first[3]);
    """
    same, *values = compile_and_run(tmp_path, body, cc=cc).split()
    assert same == "0"
    assert constants.h is not None
    assert constants.c is not None
    want = np.concatenate([constants.h[0], constants.c[0]])
    assert (np.array(values, dtype=np.float32) == want).all()


@pytest.mark.parametrize("model", [STREAM, WHOLE, TOKENS], ids=["stream", "whole", "tokens"])
def test_sanitizers_find_nothing(model: Model, compiler: str, tmp_path: Path) -> None:
    flags = ("-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    built = c99.build(model, tmp_path, compiler=compiler, flags=flags, max_steps=7)
    size = model.input_size
    x = RANDOM.integers(0, 9, (2, 7)) if model is TOKENS else draw(2, 7, size)
    from ifgo import states

    y, _, _ = built.run(x, states.initial(model, 2, np.float32))
    assert np.isfinite(y).all()


@pytest.mark.parametrize("weights", ["embedded", "files"])
def test_deployed_main_prints_the_interpreters_numbers(
    weights: str, compiler: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = deploy(STREAM, out, main=True, name="net", weights=weights)
    assert {"model.h", "model.c", "main.c"} <= set(done.files)
    command = [compiler, "-std=c99", "-O2", *c99.STRICT_FLAGS, "-o", "main", "main.c", "model.c"]
    subprocess.run(command, cwd=out, check=True)
    x = draw(6, 3)
    (tmp_path / "x.txt").write_text("\n".join(" ".join(map(str, row)) for row in x.tolist()))
    arguments = ["weights"] if weights == "files" else []
    ran = subprocess.run(
        ["./main", *arguments, tmp_path / "x.txt"],
        cwd=out,
        capture_output=True,
        text=True,
        check=True,
    )
    y, _ = STREAM.run(x, on="exact")
    assert (np.array(ran.stdout.split(), dtype=np.float32) == y).all()


def test_main_with_weight_files_names_what_is_wrong_with_them(cc: str, tmp_path: Path) -> None:
    deploy(STREAM, tmp_path, main=True, weights="files")
    subprocess.run([cc, "-std=c99", "-o", "main", "main.c", "model.c"], cwd=tmp_path, check=True)
    (tmp_path / "x.txt").write_text("1 2 3")

    def run() -> tuple[int, str]:
        command = ["./main", "weights", "x.txt"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    assert run()[0] == 0
    tensor = tmp_path / "weights" / "tensor_R_1_5.bin"
    whole = tensor.read_bytes()
    tensor.write_bytes(whole[:-4])
    assert run() == (4, "main: weights/tensor_R_1_5.bin has 99 values, expected 100\n")
    tensor.write_bytes(whole[:-1])
    assert run() == (4, "main: weights/tensor_R_1_5.bin: value 100 is no number\n")
    tensor.unlink()
    code, text = run()
    assert code == 4
    assert "weights/tensor_R_1_5.txt: No such file" in text
