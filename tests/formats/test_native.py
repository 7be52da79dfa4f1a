"""The native file: every Model comes back bit for bit, and every damage is refused by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from native_cases import identical, small
from random_models import models

from ifgo import formats, layers, limits
from ifgo.errors import UnsupportedError, UsageError
from ifgo.formats import _native_codec, native
from ifgo.model import (
    Dense,
    Dropout,
    FeatureInput,
    Flatten,
    LastStep,
    Layer,
    LSTMCell,
    Masking,
    Model,
    Provenance,
    Recurrent,
    RepeatVector,
)


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
    ("layer", "field", "value", "message"),
    [
        (Masking("m"), "value", "0", "layers[0].value is '0', expected a number"),
        (Masking("m"), "value", True, "layers[0].value is True, expected a number"),
        (
            Masking("m"),
            "value",
            2**53 + 1,
            "layers[0].value is 9007199254740993, expected a number",
        ),
        (Flatten("f", 1), "steps", 1.0, "layers[0].steps is 1.0, expected a whole number"),
        (
            LastStep("s"),
            "of",
            "first",
            "layers[0].of is 'first', expected one of 'sequence', 'state'",
        ),
    ],
)
def test_values_of_another_type_are_refused(
    tmp_path: Path, layer: Layer, field: str, value: Any, message: str
) -> None:
    """A layer refuses them itself, so they are forced into one here."""
    path = tmp_path / "m.ifgo"
    model = Model((FeatureInput(1),), (layer,))
    object.__setattr__(layer, field, value)
    assert refused_write(model, path) == f"{path}: {message}"


def test_a_description_that_could_not_be_read_again_is_refused(tmp_path: Path) -> None:
    provenance = Provenance(notes=("x" * limits.DEFAULTS.json_bytes,))
    model = Model((FeatureInput(1),), (Dropout("d", 0.5),), provenance=provenance)
    message = refused_write(model, tmp_path / "m.ifgo")
    assert message.startswith(f"{tmp_path / 'm.ifgo'}: the description would take ")
    assert message.endswith(f" bytes, expected at most {limits.DEFAULTS.json_bytes}")


def test_a_null_description_is_refused(tmp_path: Path) -> None:
    tensor = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = f'{{"__metadata__":null,"ifgo":{tensor}}}'.encode()
    path = tmp_path / "m.ifgo"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UnsupportedError):
        formats.load(path, "native")
