"""The native file: every Model comes back bit for bit, and every damage is refused by name."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as to_safetensors

from ifgo import formats, layers, limits
from ifgo.activations import GATE_ACTIVATIONS, PARAMETERS
from ifgo.errors import FormatError, IfgoError, ModelError, UnsupportedError, UsageError
from ifgo.formats import _native_codec, native
from ifgo.model import (
    Activation,
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    FeatureInput,
    Flatten,
    HiddenAsSequence,
    InitialState,
    LastStep,
    Layer,
    LayerNorm,
    LengthsInput,
    LSTMCell,
    Masking,
    MatrixNorm,
    Model,
    Output,
    Provenance,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
    StateInput,
    StateSlot,
    TokenInput,
    TrainingFacts,
)

DTYPES = [np.dtype(t) for t in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)]
ODD_VALUES = (0.0, -0.0, 5e-324, -1e-40, 6e-8, 1 / 3, -1.5, 1e-38, 65504.0)
"""Zeros of both signs, denormals of every dtype, values that no narrow dtype holds."""


def identical(have: Any, want: Any, place: str = "model") -> None:
    """Asserts the same classes, the same array bits and dtypes, the same float bits."""
    assert type(have) is type(want), place
    if dataclasses.is_dataclass(want):
        for field in dataclasses.fields(want):
            name = field.name
            identical(getattr(have, name), getattr(want, name), f"{place}.{name}")
    elif isinstance(want, np.ndarray):
        assert (have.dtype, have.shape) == (want.dtype, want.shape), place
        assert have.tobytes() == want.tobytes(), place
    elif isinstance(want, tuple):
        assert len(have) == len(want), place
        for i, (a, b) in enumerate(zip(have, want, strict=True)):
            identical(a, b, f"{place}[{i}]")
    elif isinstance(want, float):
        assert struct.pack("<d", have) == struct.pack("<d", want), place
    else:
        assert have == want, place


# -- models of every kind -----------------------------------------------------------------------


@st.composite
def array(draw: st.DrawFn, *shape: int, positive: bool = False) -> np.ndarray[Any, Any]:
    dtype = draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = np.where(
        rng.random(shape) < 0.3, rng.choice(ODD_VALUES, shape), rng.standard_normal(shape)
    )
    return (np.abs(values) if positive else values).astype(dtype)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


bounds = st.floats(min_value=0, max_value=1e300, exclude_min=True)
rates = st.floats(min_value=0, max_value=1, exclude_max=True)
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def activations(draw: st.DrawFn, names: tuple[str, ...]) -> Activation:
    name = draw(st.sampled_from(names))
    return Activation(name, **{parameter: draw(finite) for parameter in PARAMETERS[name]})


@st.composite
def cells(draw: st.DrawFn, size: int, hidden: int, projected: int | None) -> LSTMCell:
    rows, out = 4 * hidden, projected or hidden
    matrix_norm = st.builds(
        MatrixNorm,
        array(rows),
        array(rows),
        array(rows, positive=True),
        bounds,
        st.booleans(),
    )
    norm = draw(st.sampled_from(["none", "layer", "matrix"]))
    return LSTMCell(
        draw(array(rows, size)),
        draw(array(rows, out)),
        draw(maybe(array(rows))),
        draw(maybe(array(rows))),
        draw(array(out, hidden)) if projected else None,
        draw(maybe(array(out))) if projected else None,
        draw(maybe(array(3, hidden))),
        activations=(
            draw(activations(GATE_ACTIVATIONS)),
            draw(activations(GATE_ACTIVATIONS)),
            draw(activations(GATE_ACTIVATIONS)),
        ),
        clip_z=draw(maybe(bounds)),
        clip_cell=draw(maybe(bounds)),
        clip_projection=draw(maybe(bounds)) if projected else None,
        coupling=draw(st.sampled_from([None, "f=1-i", "i=1-f"])),
        forget_bias=draw(finite),
        layer_norm=LayerNorm(draw(array(4, hidden)), draw(bounds)) if norm == "layer" else None,
        input_norm=draw(maybe(matrix_norm)) if norm == "matrix" else None,
        hidden_norm=draw(maybe(matrix_norm)) if norm == "matrix" else None,
    )


@st.composite
def recurrents(draw: st.DrawFn, name: str, size: int) -> Recurrent:
    hidden = draw(st.integers(1, 3))
    projected = draw(maybe(st.integers(1, hidden)))
    forward = draw(maybe(cells(size, hidden, projected)))
    backward = (
        draw(cells(size, hidden, projected)) if forward is None or draw(st.booleans()) else None
    )
    directions = (forward is not None) + (backward is not None)
    constant = st.builds(
        InitialState,
        st.just("constant"),
        array(directions, projected or hidden),
        array(directions, hidden),
    )
    return Recurrent(
        name,
        forward,
        backward,
        merge=draw(st.sampled_from(["concat", "sum", "mul", "ave"])),
        go_backwards=backward is None and draw(st.booleans()),
        zero_masked=draw(st.booleans()),
        stateful=draw(st.booleans()),
        initial=draw(st.just(InitialState()) | st.just(InitialState("input")) | constant),
        training=TrainingFacts(draw(rates), draw(rates), draw(rates)),
    )


@st.composite
def step_layers(draw: st.DrawFn, name: str, size: int, depth: int = 0) -> Layer:
    """A layer that keeps the sequence, or works on a vector where it is no Recurrent."""
    kind = draw(st.integers(0, 5 if depth > 1 else 6))
    if kind == 0:
        outputs = draw(st.integers(1, 3))
        act = draw(activations(tuple(PARAMETERS)))
        return Dense(name, draw(array(outputs, size)), draw(maybe(array(outputs))), act)
    if kind == 1:
        return ActivationLayer(name, draw(activations(tuple(PARAMETERS))))
    if kind == 2:
        return Dropout(name, draw(rates))
    if kind == 3:
        variance = draw(array(size, positive=True))
        weight, bias = draw(maybe(array(size))), draw(maybe(array(size)))
        return BatchNorm(name, draw(array(size)), variance, weight, bias, draw(bounds))
    if kind == 4:
        return Scale(name, draw(array(size)), draw(array(size)))
    if kind == 5:
        return Masking(name, draw(st.floats()))
    inner: list[Layer] = []
    width = size
    for i in range(draw(st.integers(1, 2))):
        recurrent = draw(st.booleans())
        build = recurrents if recurrent else step_layers
        more = {} if recurrent else {"depth": depth + 1}
        inner.append(draw(build(f"{name}.{i}", width, **more)))
        width = inner[-1].output_size(width)
    return Residual(name, tuple(inner), draw(st.integers(1, min(size, width))))


@st.composite
def models(draw: st.DrawFn) -> Model:
    names = iter(
        draw(st.lists(st.text(min_size=1, max_size=8), min_size=6, max_size=6, unique=True))
    )
    axes = st.sampled_from(["BT", "TB", "T"])
    chain: list[Layer] = []
    entry: FeatureInput | TokenInput
    if draw(st.booleans()):
        rows, size = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        entry = TokenInput(rows, draw(st.text()), draw(axes))
        chain.append(Embedding(next(names), draw(array(rows, size)), draw(st.booleans())))
    else:
        size = draw(st.integers(1, 3))
        entry = FeatureInput(size, draw(st.text()), draw(axes))
    vector = False
    for name in list(names)[: draw(st.integers(0 if chain else 1, 4))]:
        after_recurrent = bool(chain) and isinstance(chain[-1], Recurrent)
        layer: Layer
        if vector:
            turns = st.just(HiddenAsSequence(name)) | st.builds(
                RepeatVector, st.just(name), st.integers(1, 5)
            )
            layer = draw(turns | step_layers(name, size, depth=2))
        else:
            of = st.sampled_from(["sequence", "state"] if after_recurrent else ["sequence"])
            ends = st.builds(LastStep, st.just(name), of) | st.builds(
                Flatten, st.just(name), st.integers(1, 3)
            )
            layer = draw(recurrents(name, size) | step_layers(name, size) | ends)
        if layer.signature.endswith("vector"):
            vector = True
        elif layer.signature.startswith("vector"):
            vector = False
        size = layer.output_size(size)
        chain.append(layer)
    asked = [r for r in walked(chain) if r.initial.kind == "input"]
    inputs: list[Any] = [entry]
    if draw(st.booleans()):
        inputs.append(LengthsInput(draw(st.text())))
    for part in ("h", "c"):
        if asked:
            slots = tuple(StateSlot(r.name, part) for r in asked)  # type: ignore[arg-type]
            inputs.append(StateInput(draw(st.text()), slots))
    outputs = [Output("last" if vector else "sequence", draw(st.text()), (), draw(axes))]
    if recurrent := [r.name for r in walked(chain)]:
        outputs.append(Output(draw(st.sampled_from(["h_n", "c_n"])), "state", tuple(recurrent)))
    names_map = draw(st.dictionaries(st.text(), st.text(), max_size=2))
    notes = tuple(draw(st.lists(st.text(), max_size=2)))
    provenance = Provenance(draw(st.text()), draw(st.text()), draw(st.text()), notes, names_map)
    return Model(tuple(inputs), tuple(chain), tuple(outputs), provenance)


def walked(chain: Any) -> list[Recurrent]:
    found: list[Recurrent] = []
    for layer in chain:
        if isinstance(layer, Residual):
            found += walked(layer.layers)
        elif isinstance(layer, Recurrent):
            found.append(layer)
    return found


def small() -> Model:
    """One of each thing the refusals below point at."""
    rng = np.random.default_rng(7)

    def weights(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    cell = LSTMCell(weights(8, 3), weights(8, 2), weights(8), clip_z=50.0)
    inner = Residual("skip", (Dense("inner", weights(2, 2)),), 1)
    chain = (Recurrent("lstm", cell), inner, Dense("head", weights(1, 2), weights(1)))
    return Model((FeatureInput(3),), chain, provenance=Provenance("onnx", "1.17", "m.onnx"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.ifgo"
    native.write(small(), path)
    return path


# -- what comes back ----------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(model=models())
def test_any_model_comes_back_bit_for_bit(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "model.ifgo"
    report = formats.save(model, path)
    assert report.exact
    assert native.sniff(path)
    identical(formats.load(path), model)
    first = path.read_bytes()
    native.write(native.read(path), path)
    assert path.read_bytes() == first


def test_every_layer_class_is_in_the_table() -> None:
    found = {
        cls for cls in vars(layers).values() if isinstance(cls, type) and issubclass(cls, Layer)
    }
    assert found - {Layer} == {c for c in _native_codec.CLASSES.values() if issubclass(c, Layer)}


def test_numpy_scalars_and_whole_numbers_become_the_declared_type(tmp_path: Path) -> None:
    weight = np.ones((4, 1), np.float32)
    cell = LSTMCell(weight, weight, clip_z=np.float32(0.1), forget_bias=1)  # type: ignore[arg-type]
    repeat = RepeatVector("repeat", np.int64(3))  # type: ignore[arg-type]
    recurrent = Recurrent("lstm", cell, stateful=np.True_)  # type: ignore[arg-type]
    model = Model((FeatureInput(1),), (recurrent, LastStep("last"), repeat))
    native.write(model, tmp_path / "m.ifgo")
    lstm, _, again = native.read(tmp_path / "m.ifgo").layers
    assert isinstance(lstm, Recurrent)
    assert isinstance(again, RepeatVector)
    assert (lstm.cell.clip_z, lstm.cell.forget_bias) == (float(np.float32(0.1)), 1.0)
    assert (type(lstm.cell.clip_z), type(lstm.cell.forget_bias)) == (float, float)
    assert (again.steps, type(again.steps), lstm.stateful) == (3, int, True)


def test_big_endian_arrays_keep_their_values(tmp_path: Path) -> None:
    weight = np.array([[1.5], [-2.25]], ">f8")
    native.write(Model((FeatureInput(1),), (Dense("d", weight),)), tmp_path / "m.ifgo")
    found = native.read(tmp_path / "m.ifgo").arrays["d.weight"]
    assert (found.dtype, found.tolist()) == (np.dtype("<f8"), [[1.5], [-2.25]])


def test_report_names_every_layer(tmp_path: Path) -> None:
    report = native.write(small(), tmp_path / "m.ifgo")
    assert report.kept == ("lstm (lstm)", "skip (residual)", "head (dense)")
    assert (report.folded, report.lost) == ((), ())


def test_a_failed_write_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UsageError) as caught:
        native.write(Model((FeatureInput(1),), (Dropout("d", 0.5),)), file)
    assert str(caught.value) == (
        f"{file}: cannot be written (No space left on device). "
        "Check that the folder exists and is writable"
    )
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


# -- what is not written ------------------------------------------------------------------------


def refused_write(model: Model, path: Path) -> str:
    with pytest.raises(UnsupportedError) as caught:
        native.write(model, path)
    assert not path.exists()
    return str(caught.value)


def test_other_dtypes_are_refused(tmp_path: Path) -> None:
    model = Model((FeatureInput(1),), (Dense("d", np.ones((1, 1), np.longdouble)),))
    assert refused_write(model, tmp_path / "m.ifgo") == (
        f"{tmp_path / 'm.ifgo'}: layers[0].weight has dtype {np.dtype(np.longdouble)}, "
        "expected one of float16, float32, float64, bfloat16"
    )


def test_layer_classes_of_others_are_refused(tmp_path: Path) -> None:
    class Mine(Dropout):
        pass

    message = refused_write(Model((FeatureInput(1),), (Mine("d", 0.1),)), tmp_path / "m.ifgo")
    assert "layers[0] is a " in message
    assert "Mine, expected one of ifgo's own Model, FeatureInput, " in message


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Masking("m", "0"), "layers[0].value is '0', expected a number"),  # type: ignore[arg-type]
        (Masking("m", True), "layers[0].value is True, expected a number"),
        (Masking("m", 2**53 + 1), "layers[0].value is 9007199254740993, expected a number"),
        (Flatten("f", 1.0), "layers[0].steps is 1.0, expected a whole number"),  # type: ignore[arg-type]
        (
            LastStep("s", "first"),  # type: ignore[arg-type]
            "layers[0].of is 'first', expected one of 'sequence', 'state'",
        ),
    ],
)
def test_values_of_another_type_are_refused(tmp_path: Path, layer: Layer, message: str) -> None:
    path = tmp_path / "m.ifgo"
    assert refused_write(Model((FeatureInput(1),), (layer,)), path) == f"{path}: {message}"


def test_a_description_that_could_not_be_read_again_is_refused(tmp_path: Path) -> None:
    provenance = Provenance(notes=("x" * limits.MAX_JSON_BYTES,))
    model = Model((FeatureInput(1),), (Dropout("d", 0.5),), provenance=provenance)
    message = refused_write(model, tmp_path / "m.ifgo")
    assert message.startswith(f"{tmp_path / 'm.ifgo'}: the description would take ")
    assert message.endswith(f" bytes, expected at most {limits.MAX_JSON_BYTES}")


# -- what is not read ---------------------------------------------------------------------------


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def whole(header: dict[str, Any] | str, payload: bytes) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + payload


def signed(model: Any, version: Any = 1) -> str:
    """A description whose checksum is right, whatever the model says."""
    text = json.dumps(model, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"version": version, "sha256": digest, "model": model})


def describe(path: Path, model: Any) -> None:
    """Replaces the model in the description and signs it."""
    header, payload = parts(path.read_bytes())
    header["__metadata__"]["ifgo"] = signed(model)
    path.write_bytes(whole(header, payload))


def edit(path: Path, change: Any) -> None:
    """Changes the model in the description in place and signs it again."""
    model = json.loads(parts(path.read_bytes())[0]["__metadata__"]["ifgo"])["model"]
    change(model)
    describe(path, model)


def refused(path: Path, error: type[IfgoError] = FormatError) -> str:
    with pytest.raises(error) as caught:
        native.read(path)
    prefix = f"{path}: "
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


def test_every_truncation_is_refused(file: Path) -> None:
    data = file.read_bytes()
    for size in range(len(data)):
        file.write_bytes(data[:size])
        refused(file)


def test_truncation_says_where_the_file_ends(file: Path) -> None:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    hint = "The file was changed or cut short after it was written; fetch or write it again"
    expected = "expected a safetensors file: header length, header, tensors. " + hint
    file.write_bytes(data[:100])
    message = refused(file)
    assert message == f"ends after 100 bytes, inside a header of {length} bytes, {expected}"
    file.write_bytes(data[:3])
    assert refused(file) == f"ends after 3 bytes, {expected}"
    file.write_bytes(data[:-1])
    assert refused(file) == (
        "is no whole safetensors file (Error while deserializing: incomplete metadata, "
        f"file not fully covered). {hint}"
    )


def test_bytes_after_the_tensors_are_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")
    assert refused(file).startswith("is no whole safetensors file")


def test_every_flipped_bit_is_refused(file: Path) -> None:
    """Every bit of the header, one bit of each byte of the tensors."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for position in range(len(data)):
        for bit in range(8) if position < 8 + length else [position % 8]:
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            file.write_bytes(changed)
            with pytest.raises((FormatError, UnsupportedError)):
                native.read(file)


def test_a_flipped_bit_in_a_tensor_names_it(file: Path) -> None:
    data = bytearray(file.read_bytes())
    header, payload = parts(bytes(data))
    for name, entry in header.items():
        if name != "__metadata__":
            changed = bytearray(payload)
            changed[entry["data_offsets"][0]] ^= 0x10
            file.write_bytes(whole(header, bytes(changed)))
            assert refused(file) == (
                f"tensor {name!r} does not match its checksum. The file was changed or cut short "
                "after it was written; fetch or write it again"
            )
    assert {"layers[0].forward.weight_ih", "layers[1].layers[0].weight", "layers[2].bias"} < set(
        header
    )


def test_a_tensor_of_another_shape_is_refused(file: Path) -> None:
    header, payload = parts(file.read_bytes())
    header["layers[0].forward.weight_ih"]["shape"] = [3, 8]
    file.write_bytes(whole(header, payload))
    assert refused(file).startswith("tensor 'layers[0].forward.weight_ih' does not match its")


def test_a_changed_description_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"50.0", b"51.0"))
    assert refused(file).startswith("the description does not match its checksum. The file was")


def test_a_header_above_the_bound_is_refused(file: Path) -> None:
    size = limits.MAX_JSON_BYTES + 1
    file.write_bytes(size.to_bytes(8, "little") + b" " * size)
    assert refused(file) == f"its header has {size} bytes, expected at most {size - 1}"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("[1]", "the header is no JSON object, expected an object in braces"),
        ('{"a":1,"b":2,"a":3}', "the header has two keys 'a', expected each key once"),
        ('{"a":NaN}', "the header holds NaN, expected finite numbers"),
        ("[" * 100_000, "the header nests too deep"),
        ('{"a":' * 100_000, "the header nests too deep"),
        (
            "{'a'}",
            "the header is no JSON (Expecting property name enclosed in double quotes: line 1 "
            "column 2 (char 1)). The file was changed or cut short after it was written; fetch "
            "or write it again",
        ),
        ('{"a":' + "9" * 5000 + "}", "the header is no JSON (Exceeds the limit (4300 digits)"),
    ],
)
def test_broken_headers_are_refused(file: Path, header: str, message: str) -> None:
    file.write_bytes(whole(header, b""))
    assert refused(file).startswith(message)


def test_lying_offsets_are_refused(file: Path) -> None:
    header, payload = parts(file.read_bytes())
    begin, end = header["layers[2].bias"]["data_offsets"]
    for lie in ([begin, end + 4], [begin + 4, end], [end, begin], [begin, 2**63], [-4, 0]):
        header["layers[2].bias"]["data_offsets"] = lie
        file.write_bytes(whole(header, payload))
        assert refused(file).startswith("is no whole safetensors file")


def test_tensors_alone_are_refused(file: Path) -> None:
    for metadata in (None, {"format": "pt"}):
        file.write_bytes(to_safetensors({"a": np.ones(3), "b": np.ones(2)}, metadata))
        assert not native.sniff(file)
        assert refused(file, UnsupportedError) == (
            "holds 2 tensors but no model description, expected a file that ifgo wrote. Tensors "
            "alone do not say what to compute; convert the model from its framework"
        )


def test_newer_versions_are_refused(file: Path) -> None:
    header, payload = parts(file.read_bytes())
    header["__metadata__"]["ifgo"] = json.dumps({"version": 2, "new": "things"})
    file.write_bytes(whole(header, payload))
    assert refused(file, UnsupportedError) == (
        "is written in version 2 of the native format, expected version 1, all that this ifgo "
        "reads. Install a newer ifgo"
    )


@pytest.mark.parametrize("version", [0, "1", None, True, 1.0])
def test_versions_that_are_none_are_refused(file: Path, version: Any) -> None:
    header, payload = parts(file.read_bytes())
    header["__metadata__"]["ifgo"] = json.dumps({"version": version})
    file.write_bytes(whole(header, payload))
    assert refused(file) == f"its version is {version!r}, expected a whole number from 1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version":1,"model":{}}', "the description has model, version, expected version, "),
        ('{"version":1,"version":1}', "the description has two keys 'version', expected each key"),
        ("[" * 5000, "the description nests too deep"),
        ("{", "the description is no JSON (Expecting property name enclosed in double quotes"),
    ],
)
def test_broken_descriptions_are_refused(file: Path, text: str, message: str) -> None:
    header, payload = parts(file.read_bytes())
    header["__metadata__"]["ifgo"] = text
    file.write_bytes(whole(header, payload))
    assert refused(file).startswith(message)


def test_a_tensor_that_is_missing_is_refused(file: Path) -> None:
    header, payload = parts(file.read_bytes())
    header["layers[9].bias"] = header.pop("layers[2].bias")
    file.write_bytes(whole(header, payload))
    assert refused(file).startswith("tensor 'layers[2].bias' is missing. The file was changed")


def test_a_tensor_that_nothing_uses_is_refused(file: Path) -> None:
    edit(file, lambda model: model["layers"][2].update(bias=None))
    assert refused(file) == (
        "the model does not use tensor 'layers[2].bias', expected no other tensors"
    )


def test_a_tensor_of_integers_is_refused(file: Path) -> None:
    header, payload = parts(file.read_bytes())
    entry = header["layers[2].bias"]
    entry["dtype"] = "I32"
    begin, end = entry["data_offsets"]
    digest = hashlib.sha256(b"I32 [1]\n" + payload[begin:end]).hexdigest()
    file.write_bytes(whole(header, payload))
    edit(file, lambda model: model["layers"][2].update(bias=digest))
    assert refused(file) == (
        "tensor 'layers[2].bias' has dtype I32, expected one of F16, F32, F64, BF16"
    )


LAYERS = ", ".join(name for name, c in _native_codec.CLASSES.items() if issubclass(c, Layer))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m["layers"][1].update({"class": "Path"}),
            f"layers[1].class is 'Path', expected one of {LAYERS}. "
            "A newer ifgo may have written it",
        ),
        (
            lambda m: m["layers"][1].update({"class": "Model"}),
            f"layers[1].class is 'Model', expected one of {LAYERS}. "
            "A newer ifgo may have written it",
        ),
        (
            lambda m: m["layers"][1].update({"class": ["Dense"]}),
            f"layers[1].class is ['Dense'], expected one of {LAYERS}. "
            "A newer ifgo may have written it",
        ),
        (
            lambda m: m["layers"][1]["layers"][0].update(rate=0.5),
            "layers[1].layers[0].rate is a field that Dense does not have, expected one of "
            "name, weight, bias, activation",
        ),
        (
            lambda m: m["layers"][0]["forward"].pop("peephole"),
            "layers[0].forward.peephole is missing, expected every field of LSTMCell",
        ),
        (
            lambda m: m["layers"][0]["forward"].update(clip_z="50"),
            "layers[0].forward.clip_z is '50', expected a number or null",
        ),
        (
            lambda m: m["layers"][0]["forward"].update(clip_z=50),
            "layers[0].forward.clip_z is 50, expected a number or null",
        ),
        (
            lambda m: m["layers"][0]["forward"].update(forget_bias=None),
            "layers[0].forward.forget_bias is None, expected a number",
        ),
        (
            lambda m: m["layers"][0]["forward"].update(weight_ih=[1.0]),
            "layers[0].forward.weight_ih is [1.0], expected the checksum of a tensor",
        ),
        (
            lambda m: m["layers"][0]["forward"].update(coupling="f=i"),
            "layers[0].forward.coupling is 'f=i', expected one of 'f=1-i', 'i=1-f' or null",
        ),
        (
            lambda m: m["layers"][0]["forward"]["activations"].pop(),
            "layers[0].forward.activations is [{'alpha': None, 'beta': None, 'class': "
            "'Activation', 'name': 'sigmoid'}, {'alpha': None, 'beta': None, 'class': "
            "'Activation', 'name': 'tanh'}], expected a list of 3",
        ),
        (
            lambda m: m["layers"][0].update(stateful=1),
            "layers[0].stateful is 1, expected true or false",
        ),
        (lambda m: m.update(layers={}), "layers is {}, expected a list"),
        (
            lambda m: m["inputs"][0].update(size=True),
            "inputs[0].size is True, expected a whole number",
        ),
        (lambda m: m["inputs"][0].update(name=3), "inputs[0].name is 3, expected a string"),
        (
            lambda m: m["provenance"].update(names=[]),
            "provenance.names is [], expected an object of strings",
        ),
        (
            lambda m: m["provenance"].update(names={"a": 1}),
            "provenance.names['a'] is 1, expected a string",
        ),
    ],
)
def test_descriptions_of_something_else_are_refused(file: Path, change: Any, message: str) -> None:
    edit(file, change)
    assert refused(file) == message


def test_a_description_of_no_model_is_refused(file: Path) -> None:
    describe(file, [])
    assert refused(file) == "the model is [], expected an object"
    describe(file, {})
    hint = "A newer ifgo may have written it"
    assert refused(file) == f"class is None, expected one of Model. {hint}"
    describe(file, {"class": "Dense"})
    assert refused(file) == f"class is 'Dense', expected one of Model. {hint}"


def test_parts_that_do_not_fit_name_their_place(file: Path) -> None:
    edit(file, lambda model: model["layers"][0]["forward"].update(clip_z=-1.0))
    assert refused(file, ModelError) == (
        "layers[0].forward: clip_z is -1.0, expected a finite number above 0, or None"
    )
    edit(file, lambda model: model["inputs"][0].update(size=4))
    edit(file, lambda model: model["layers"][0]["forward"].update(clip_z=None))
    assert refused(file, ModelError) == "layer lstm: receives 4 features, expected 3"


def test_nested_residuals_are_bounded(file: Path) -> None:
    def nest(model: Any) -> None:
        layer = model["layers"][1]
        for i in range(limits.MAX_LAYERS + 8):
            layer = {"class": "Residual", "name": str(i), "layers": [layer], "channels": 1}
        model["layers"][1] = layer

    edit(file, nest)
    assert refused(file) == "the model description nests too deep, expected at most 64"


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_descriptions_raise_only_our_errors(file: Path, data: st.DataObject) -> None:
    """One random place of the description becomes something else, signed as if it were meant."""
    native.write(small(), file)
    junk = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.just([])
        | st.just({})
    )

    def change(model: Any) -> None:
        node: Any = model
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = data.draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and node[key] and data.draw(st.integers(0, 9)):
                node = node[key]
                continue
            if data.draw(st.booleans()):
                node[key] = data.draw(junk)
            else:
                del node[key]
            return

    edit(file, change)
    with contextlib.suppress(IfgoError):
        native.read(file)


def test_files_that_are_none(tmp_path: Path) -> None:
    assert not native.sniff(tmp_path)
    assert not native.sniff(tmp_path / "absent")
    assert refused(tmp_path / "absent", UsageError) == "no such file. Check the path"
    assert refused(tmp_path, UsageError) == "is a folder, expected a file"
    for content in (
        b"",
        b"\x08\0\0",
        b"hello, this is text",
        b"\x02\0\0\0\0\0\0\0{}",
        os.urandom(64),
    ):
        (tmp_path / "other").write_bytes(content)
        assert not native.sniff(tmp_path / "other")
