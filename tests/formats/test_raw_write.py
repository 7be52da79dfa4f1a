"""Writing raw folders: what is folded, lost by permission, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from raw_cases import cell, chain, described, same, weights

from ifgo import limits
from ifgo.errors import IfgoError, UnsupportedError, UsageError
from ifgo.formats import raw
from ifgo.model import (
    Activation,
    Dense,
    Dropout,
    Embedding,
    FeatureInput,
    InitialState,
    Layer,
    LengthsInput,
    LSTMCell,
    Masking,
    Model,
    Recurrent,
    Residual,
    StateInput,
    StateSlot,
    TokenInput,
    TrainingFacts,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return described(tmp_path)


def refused_write(
    model: Model, folder: Path, error: type[IfgoError] = UnsupportedError, **options: Any
) -> str:
    before = sorted(folder.iterdir()) if folder.is_dir() else None
    with pytest.raises(error) as caught:
        raw.write(model, folder, **options)
    assert (sorted(folder.iterdir()) if folder.is_dir() else None) == before
    assert str(caught.value).startswith(f"{folder}: ")
    return str(caught.value).removeprefix(f"{folder}: ")


CANNOT = "raw tensors cannot hold "
NATIVE = ". Write an .ifgo file, which holds every model"
ALLOW = ". Permit it with --allow-lossy {}, or write an .ifgo file, which holds every model"


def lstm(**more: Any) -> Recurrent:
    rules = {key: more.pop(key) for key in list(more) if key in LSTMCell.__dataclass_fields__}
    return Recurrent("lstm", more.pop("forward", cell(**rules)), **more)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lstm(backward=cell()), "layer lstm: backward"),
        (Recurrent("lstm", None, cell()), "layer lstm: backward; layer lstm: no forward direction"),
        (lstm(go_backwards=True), "layer lstm: go_backwards"),
        (lstm(peephole=weights(3, 2)), "layer lstm: peephole"),
        (
            Recurrent("lstm", LSTMCell(weights(8, 3), weights(8, 1), weight_hr=weights(1, 2))),
            "layer lstm: weight_hr",
        ),
        (lstm(clip_z=50.0), "layer lstm: clip_z 50.0"),
        (lstm(clip_cell=3.0), "layer lstm: clip_cell 3.0"),
        (lstm(coupling="f=1-i"), "layer lstm: coupling f=1-i"),
        (
            lstm(activations=(Activation("hard_sigmoid", 0.2, 0.5),) + (Activation("tanh"),) * 2),
            "layer lstm: activations hard_sigmoid(0.2, 0.5)/tanh/tanh",
        ),
        (
            lstm(initial=InitialState("constant", weights(1, 2), weights(1, 2))),
            "layer lstm: initial state of kind constant",
        ),
        (Masking("m"), "layer m: masking; a model without weights"),
        (
            Residual("skip", (Dense("in", weights(3, 3)),), 1),
            "layer skip: residual",
        ),
        (Dropout("d", 0.5), "a model without weights"),
        (
            Dense("\ud800", weights(1, 3)),
            "name '\\ud800', which is no Unicode text",
        ),
        (
            Dense("d", np.full((1, 3), 1e39)),
            "layer d: weight, beyond float32",
        ),
    ],
)
@pytest.mark.parametrize("allow_lossy", [False, True])
def test_what_raw_cannot_hold(tmp_path: Path, layer: Layer, reason: str, allow_lossy: bool) -> None:
    message = refused_write(chain(layer), tmp_path / "n", allow_lossy=allow_lossy)
    assert message == CANNOT + reason + NATIVE


def test_inputs_that_raw_cannot_hold(tmp_path: Path) -> None:
    tokens = Model((TokenInput(4, "ids"),), (Embedding("e", weights(4, 3)), lstm()))
    assert refused_write(tokens, tmp_path / "n") == (
        f"{CANNOT}TokenInput 'ids'; layer e: embedding{NATIVE}"
    )
    slots = (StateSlot("lstm", "h"), StateSlot("lstm", "c"))
    stateful = Model(
        (FeatureInput(3), StateInput("s", slots)), (lstm(initial=InitialState("input")),)
    )
    assert refused_write(stateful, tmp_path / "n") == (
        f"{CANNOT}StateInput 's'; layer lstm: initial state of kind input{NATIVE}"
    )


def test_all_reasons_stand_in_one_message(tmp_path: Path) -> None:
    model = Model(
        (FeatureInput(3), LengthsInput("len")),
        (lstm(backward=cell(), clip_z=1.0, stateful=True), Masking("m")),
    )
    assert refused_write(model, tmp_path / "n") == (
        f"{CANNOT}layer lstm: backward; layer lstm: clip_z 1.0; layer m: masking; "
        f"lengths input 'len'; layer lstm: stateful{NATIVE}"
    )


def losable() -> Model:
    facts = TrainingFacts(0.1, 0.2, 0.0)
    layer = lstm(stateful=True, zero_masked=True, merge="sum", training=facts)
    return Model((FeatureInput(3), LengthsInput("len")), (layer,))


def test_losses_are_refused_or_named(tmp_path: Path) -> None:
    reasons = [
        "lengths input 'len'",
        "layer lstm: merge sum",
        "layer lstm: zero_masked",
        "layer lstm: stateful",
        "layer lstm: training",
    ]
    losses = "lengths,merge,zero_masked,stateful,training"
    assert refused_write(losable(), tmp_path / "n") == CANNOT + "; ".join(reasons) + ALLOW.format(
        losses
    )
    report = raw.write(losable(), tmp_path / "n", allow_lossy=True)
    assert report.lost == tuple(reasons)
    same(raw.read(tmp_path / "n"), chain(lstm()))


def test_report_says_where_everything_went(tmp_path: Path) -> None:
    model = chain(lstm(), Dropout("drop", 0.5), Dense("head", weights(1, 2), weights(1)))
    report = raw.write(model, tmp_path / "n")
    assert report.kept == (
        "lstm (lstm): tensor_W_1_2, tensor_R_1_2, tensor_B_1_2",
        "drop (dropout): model.toml",
        "head (dense): tensor_W_2_1, tensor_B_2_1",
    )
    assert report.exact


@pytest.mark.parametrize(
    ("layout", "biases", "absent"),
    [
        ("A", "bias_ih", "bias_hh"),
        ("A", "bias_hh", "bias_ih"),
        ("A", "none", "bias_ih and bias_hh"),
        ("B", "none", "bias_ih"),
    ],
)
def test_absent_biases_are_zeros_that_stay_absent(
    tmp_path: Path, layout: str, biases: str, absent: str
) -> None:
    model = chain(Recurrent("lstm", cell(biases=biases)))
    report = raw.write(model, tmp_path / "n", layout=layout)
    assert report.kept[0] == f"lstm (lstm): no {absent}; zeros in B, and model.toml says so"
    assert report.exact
    same(raw.read(tmp_path / "n"), model)


def test_layout_b_adds_two_biases(tmp_path: Path) -> None:
    one, tiny = np.ones(4, "f4"), np.full(4, 2**-24, "f4")
    made = LSTMCell(weights(4, 3), weights(4, 1), one, tiny)
    report = raw.write(chain(Recurrent("lstm", made)), tmp_path / "n", layout="B")
    assert report.folded == ("lstm (lstm): bias_ih + bias_hh in one float32, off by up to 0.5 ulp",)
    assert not report.exact
    found = raw.read(tmp_path / "n").recurrent[0].cell
    assert found.bias_hh is None
    assert found.bias_ih is not None
    assert found.bias_ih.tolist() == [1.0] * 4


def test_biases_whose_sum_is_beyond_float32_are_refused(tmp_path: Path) -> None:
    big = np.full(4, 3e38, "f4")
    model = chain(Recurrent("lstm", LSTMCell(weights(4, 3), weights(4, 1), big, big)))
    assert refused_write(model, tmp_path / "n", layout="B") == (
        f"{CANNOT}layer lstm: bias_ih + bias_hh, beyond float32{NATIVE}"
    )


@pytest.mark.parametrize(
    ("layout", "biases", "target"),
    [
        ("A", "both", "bias_ih"),
        ("A", "bias_hh", "bias_hh"),
        ("A", "none", "bias_ih"),
        ("B", "both", "bias_ih"),
        ("B", "none", "bias_ih"),
    ],
)
def test_a_forget_bias_is_refused_or_lost(
    tmp_path: Path, layout: str, biases: str, target: str
) -> None:
    made = cell(biases=biases, forget_bias=1.0)
    model = chain(Recurrent("lstm", made))
    assert refused_write(model, tmp_path / "n", layout=layout) == (
        f"{CANNOT}layer lstm: forget_bias 1{ALLOW.format('forget_bias')}"
    )
    report = raw.write(model, tmp_path / "n", layout=layout, allow_lossy=True)
    (lost,) = report.lost
    assert lost.startswith(f"layer lstm: forget_bias 1 + {target} in one float32, off by up to ")
    found = raw.read(tmp_path / "n").recurrent[0].cell
    zero = np.zeros(8, "f4")
    want = {"bias_ih": made.bias_ih, "bias_hh": made.bias_hh}
    if layout == "B" and biases == "both":
        want = {"bias_ih": made.bias_ih + made.bias_hh, "bias_hh": None}  # type: ignore[operator]
    raised = (zero if want[target] is None else want[target]) + np.repeat([0, 1, 0, 0], 2)
    want[target] = raised.astype("f4")
    assert found.forget_bias == 0
    for name, values in want.items():
        have = getattr(found, name)
        assert (have is None) == (values is None)
        assert values is None or have.tobytes() == values.tobytes()


def as_dtype(dtype: Any) -> Model:
    return chain(Dense("d", np.array([[0.5, -0.0, 0.25]]).astype(dtype)))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, np.longdouble])
def test_dtypes_whose_values_are_float32_are_folded(tmp_path: Path, dtype: Any) -> None:
    report = raw.write(as_dtype(dtype), tmp_path / "n")
    assert report.folded == (f"d: {np.dtype(dtype).name} weight as float32, same values",)
    same(raw.read(tmp_path / "n"), as_dtype(np.float32))


def test_float64_values_are_refused_or_rounded(tmp_path: Path) -> None:
    weight = np.array([[0.1, 1 + 2**-24, 0.5]])
    reason = "layer d: float64 weight, in float32 off by up to 0.5 ulp"
    assert refused_write(
        chain(Dense("d", weight)), tmp_path / "n"
    ) == CANNOT + reason + ALLOW.format("dtype")
    report = raw.write(chain(Dense("d", weight)), tmp_path / "n", allow_lossy=True)
    assert report.lost == (reason,)
    same(raw.read(tmp_path / "n"), chain(Dense("d", weight.astype("f4"))))


def test_big_endian_float32_is_float32(tmp_path: Path) -> None:
    model = chain(Dense("d", weights(2, 3).astype(">f4")))
    assert raw.write(model, tmp_path / "n").exact
    assert raw.read(tmp_path / "n").arrays["d.weight"].tobytes() == weights(2, 3).tobytes()


def test_options_of_writing_that_are_none(tmp_path: Path) -> None:
    assert refused_write(chain(lstm()), tmp_path / "n", UsageError, layout="C") == (
        "option layout is 'C', expected one of 'A', 'B'"
    )
    assert refused_write(chain(lstm()), tmp_path / "n", UsageError, encoding="npy") == (
        "option encoding is 'npy', expected one of 'txt', 'bin'"
    )


def test_tensors_of_another_model_are_not_mixed_in(tmp_path: Path) -> None:
    folder = tmp_path / "n"
    raw.write(chain(lstm(), Dense("d", weights(1, 2))), folder)
    assert refused_write(chain(lstm()), folder, UsageError) == (
        "already holds tensor_W_2_1.bin, which is no part of this model, expected a folder without "
        "other tensors. Remove them, or write to another folder"
    )
    message = refused_write(
        chain(lstm(), Dense("d", weights(1, 2))), folder, UsageError, encoding="txt"
    )
    assert message.startswith("already holds tensor_B_1_2.bin, which is no part of this model")


def test_text_that_could_not_be_read_again_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(text_bytes=20))
    message = refused_write(chain(Dense("d", weights(3, 3))), tmp_path / "n", encoding="txt")
    assert message.startswith("tensor_W_1_3.txt would have ")
    assert message.endswith(" bytes, expected at most 20. Write it with encoding bin")
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(text_numbers=8))
    message = refused_write(chain(Dense("d", weights(3, 3))), tmp_path / "n", encoding="txt")
    assert message == (
        "tensor_W_1_3 has 9 values, expected at most 8 in a text. Write it with encoding bin"
    )
    two = chain(Dense("d", weights(2, 3)), Dense("e", weights(2, 2)))
    assert refused_write(two, tmp_path / "n", encoding="txt") == (
        "its tensors have 10 values, expected at most 8 in the texts of a folder. "
        "Write it with encoding bin"
    )
    raw.write(chain(Dense("d", weights(3, 3))), tmp_path / "n", encoding="bin")


def test_a_failed_write_leaves_the_old_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = chain(lstm(), Dense("d", weights(1, 2, seed=9)))
    original, written = Path.write_bytes, list[str]()

    def fails_late(self: Path, data: bytes) -> int:
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        written.append(self.name)
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", fails_late)
    with pytest.raises(UsageError) as caught:
        raw.write(model, folder)
    assert str(caught.value) == (
        f"{folder}: cannot be written (No space left on device). "
        "Check that the folder exists and is writable"
    )
    monkeypatch.undo()
    assert len(written) == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n").write_text("mine")
    with pytest.raises(UsageError) as caught:
        raw.write(chain(lstm()), tmp_path / "n")
    assert "cannot be written (File exists)" in str(caught.value)
    assert (tmp_path / "n").read_text() == "mine"
