"""Models as PyTorch state_dicts: what is kept, folded, lost on request or refused."""

from __future__ import annotations

import builtins
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from ifgo import formats
from ifgo.activations import RELU, SIGMOID, TANH, Activation
from ifgo.errors import ToolError, UnsupportedError
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    InitialState,
    LastStep,
    Layer,
    Masking,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
    TrainingFacts,
)
from ifgo.model import (
    FeatureInput,
    LengthsInput,
    LSTMCell,
    Model,
    Output,
    StateInput,
    StateSlot,
    TokenInput,
)

INSTEAD = "Write an .ifgo file, which holds every model"


def draw(*shape: int, dtype: Any = "f") -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def cell(inputs: int, hidden: int = 4, dtype: Any = "f", **more: Any) -> LSTMCell:
    width = more["weight_hr"].shape[0] if "weight_hr" in more else hidden
    parts: dict[str, Any] = {
        "weight_ih": draw(4 * hidden, inputs, dtype=dtype),
        "weight_hh": draw(4 * hidden, width, dtype=dtype),
        "bias_ih": draw(4 * hidden, dtype=dtype),
        "bias_hh": draw(4 * hidden, dtype=dtype),
    }
    return LSTMCell(**parts | more)


def chain(*layers: Layer, size: int = 3) -> Model:
    return Model((FeatureInput(size),), layers)


def keys(path: Path) -> set[str]:
    with safe_open(str(path), "numpy") as file:
        return set(file.keys())


def words(path: Path) -> str | None:
    with safe_open(str(path), "numpy") as file:
        return file.metadata().get("ifgo_layers")


def lossless(folder: Path, model: Model) -> Path:
    """Written exactly, and read as the same kinds and bits; the path."""
    path = folder / "m.safetensors"
    assert formats.save(model, path).exact
    again = formats.load(path)
    assert [layer.kind for layer in again.layers] == [layer.kind for layer in model.layers]
    for ours, theirs in zip(model.arrays.values(), again.arrays.values(), strict=True):
        assert (ours.dtype, ours.tobytes()) == (theirs.dtype, theirs.tobytes())
    x: Any = np.ones((2, 5, model.input_size), "f")
    if isinstance(model.input, TokenInput):
        x = np.ones((2, 5), np.int32)
    assert model.run(x, on="truth")[0].tobytes() == again.run(x, on="truth")[0].tobytes()
    return path


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ml_dtypes.bfloat16])
def test_dtypes(tmp_path: Path, dtype: Any) -> None:
    path = lossless(tmp_path, chain(Recurrent("a", cell(3, dtype=dtype))))
    assert keys(path) == {f"{n}_{s}_l0" for n in ("weight", "bias") for s in ("ih", "hh")}
    assert words(path) is None


def test_layers_that_one_module_holds_are_one(tmp_path: Path) -> None:
    stack = [Recurrent(f"rec_l{k}", cell(3 if k == 0 else 4)) for k in range(3)]
    path = lossless(tmp_path, chain(*stack))
    assert {key.rpartition("_l")[2] for key in keys(path)} == {"0", "1", "2"}
    assert [layer.name for layer in formats.load(path).layers] == ["lstm_l0", "lstm_l1", "lstm_l2"]


@pytest.mark.parametrize(
    "second",
    [
        Recurrent("rec_l1", cell(4, 5)),
        Recurrent("rec_l1", cell(4, bias_ih=None, bias_hh=None)),
        Recurrent("rec_l1", cell(4), cell(4)),
        Recurrent("rec_l1", cell(4, weight_hr=draw(2, 4))),
        Recurrent("other_l1", cell(4)),
    ],
)
def test_layers_that_differ_are_modules_of_their_own(tmp_path: Path, second: Recurrent) -> None:
    path = lossless(tmp_path, chain(Recurrent("rec_l0", cell(3)), second))
    assert words(path) == f"rec_l0,{second.name}"


def test_every_word_of_a_chain(tmp_path: Path) -> None:
    layers = (
        Embedding("embed", draw(9, 3)),
        Dropout("drop", 0.1),
        Recurrent("rec", cell(3), cell(3)),
        BatchNorm("bn", draw(8), draw(8) ** 2, draw(8), draw(8), 1e-3),
        BatchNorm("bn/2", draw(8), draw(8) ** 2, epsilon=1e-5),
        ActivationLayer("act", Activation("hard_sigmoid", 0.2, 0.5)),
        LastStep("last"),
        Dense("mid", draw(6, 8), None, Activation("leaky_relu", 0.1)),
        RepeatVector("repeat", 3),
        Recurrent("rec2", cell(6)),
        LastStep("final", "state"),
        HiddenAsSequence("hidden"),
        Flatten("flat", 4),
        Dense("lin", draw(2, 4), draw(2), SIGMOID),
    )
    model = Model((TokenInput(9),), layers)
    path = lossless(tmp_path, model)
    assert words(path) == (
        "embed:embedding:dropout(0.1),rec,bn:batch_norm(0.001),"
        "bn_2:batch_norm(1e-05):hard_sigmoid(0.2,0.5):last,mid:leaky_relu(0.1):repeat_vector(3),"
        "rec2:state:hidden_as_sequence:flatten(4),lin:sigmoid"
    )


def test_a_first_dense_without_bias_and_a_first_step(tmp_path: Path) -> None:
    rec = Recurrent("rec", cell(3))
    assert words(lossless(tmp_path, chain(Dense("d", draw(3, 3)), rec))) == "d:dense,rec"
    assert words(lossless(tmp_path, chain(ActivationLayer("a", RELU), rec))) == ":relu,rec"


def test_names_that_keys_cannot_have(tmp_path: Path) -> None:
    layers = (Recurrent("a.b:c,d", cell(3)), Dense("a_b_c_d", draw(2, 4), draw(2)))
    path = lossless(tmp_path, chain(*layers))
    assert words(path) == "a_b_c_d,a_b_c_d_2"


@pytest.mark.parametrize("key", ["bias_ih", "bias_hh"])
def test_one_bias_gets_zeros_beside_it(tmp_path: Path, key: str) -> None:
    model = chain(Recurrent("a", cell(3, **{key: None})))
    path = tmp_path / "m.safetensors"
    report = formats.save(model, path)
    assert report.folded == (f"a (lstm): no {key}, which PyTorch wants: zeros",)
    again = formats.load(path)
    assert not again.arrays[f"lstm.forward.{key}"].any()
    x = np.ones((1, 5, 3), "f")
    assert model.run(x, on="exact")[0].tobytes() == again.run(x, on="exact")[0].tobytes()


def test_a_forget_bias_is_added_once(tmp_path: Path) -> None:
    model = chain(Recurrent("a", cell(3, forget_bias=1.0)))
    path = tmp_path / "m.safetensors"
    with pytest.raises(UnsupportedError) as caught:
        formats.save(model, path)
    assert str(caught.value) == (
        f"{path}: a state_dict cannot hold layer a: forget_bias 1. Permit it with --allow-lossy "
        "forget_bias, or write an .ifgo file, which holds every model"
    )
    report = formats.save(model, path, allow_lossy=True)
    (lost,) = report.lost
    assert lost.startswith(
        "layer a: forget_bias 1 + bias_ih, rounded once in float32, off by up to 0."
    )
    bias = model.arrays["a.forward.bias_ih"].copy()
    bias[4:8] += np.float32(1)
    assert formats.load(path).arrays["lstm.forward.bias_ih"].tobytes() == bias.tobytes()


def test_all_that_is_refused_stands_in_one_message(tmp_path: Path) -> None:
    odd = cell(
        3,
        peephole=draw(3, 4),
        clip_z=3.0,
        clip_cell=2.0,
        coupling="f=1-i",
        activations=(SIGMOID, RELU, TANH),
    )
    layers = (
        Masking("mask"),
        Recurrent("odd", odd, initial=InitialState("constant", draw(1, 4), draw(1, 4))),
        Recurrent("back", None, cell(4)),
        Recurrent("sum", cell(4), cell(4), merge="sum"),
        Recurrent("proj", cell(4, weight_hr=draw(4, 4), bias_hr=draw(4))),
        Residual("res", (Recurrent("in", cell(4)),), 4),
        Scale("scale", draw(4), draw(4)),
    )
    path = tmp_path / "m.safetensors"
    with pytest.raises(UnsupportedError) as caught:
        formats.save(chain(*layers), path, allow_lossy=True)
    assert str(caught.value) == (
        f"{path}: a state_dict cannot hold layer mask: masking; layer odd: initial state of kind "
        "constant; layer odd: peephole; layer odd: clip_z 3.0; layer odd: clip_cell 2.0; layer "
        "odd: coupling f=1-i; layer odd: activations sigmoid/relu/tanh; layer back: no forward "
        "direction; layer sum: merge sum; layer proj: bias_hr; layer proj: a projection to 4, "
        "which PyTorch wants below hidden_size 4; layer res: residual; layer scale: scale. "
        + INSTEAD
    )
    assert not path.exists()


def test_what_nn_lstm_has_without_words_is_lost_only_if_allowed(tmp_path: Path) -> None:
    start = InitialState("input")
    layer = Recurrent(
        "a", cell(3), initial=start, stateful=True, training=TrainingFacts(output=0.5)
    )
    slots = (StateSlot("a", "h"), StateSlot("a", "c"))
    inputs = (FeatureInput(3), LengthsInput("n"), StateInput("s", slots))
    model = Model(inputs, (layer,), (Output("sequence"), Output("h_n", "h", ("a",))))
    path = tmp_path / "m.safetensors"
    with pytest.raises(UnsupportedError) as caught:
        formats.save(model, path)
    said = (
        "LengthsInput 'n' as an input of its own; StateInput 's' as an input of its own; output "
        "'h' of role h_n; layer a: stateful; layer a: training"
    )
    assert str(caught.value).startswith(f"{path}: a state_dict cannot hold ")
    assert str(caught.value).endswith(
        "Permit it with --allow-lossy lengths,states,outputs,stateful,training, or write an .ifgo "
        "file, which holds every model"
    )
    report = formats.save(model, path, allow_lossy=True)
    assert [text.split(" True")[0].split(" Train")[0] for text in report.lost] == said.split("; ")


def test_a_pt_file_needs_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def absent(name: str, *args: Any, **more: Any) -> Any:
        if name == "torch":
            raise ImportError(name)
        return load(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ToolError) as caught:
        formats.save(chain(Recurrent("a", cell(3))), tmp_path / "m.pt")
    assert str(caught.value) == (
        f"{tmp_path / 'm.pt'}: PyTorch writes its own files, and is not installed. Install it: pip "
        "install 'ifgo[torch]'; or write a .safetensors file, which needs no PyTorch"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.peers
def test_the_writers_agree(tmp_path: Path) -> None:
    model = chain(Recurrent("a", cell(3), cell(3)), LastStep("l"), Dense("d", draw(2, 8), draw(2)))
    lossless(tmp_path, model)
    formats.save(model, tmp_path / "m.pt")
    found = [formats.load(tmp_path / name) for name in ("m.pt", "m.safetensors")]
    assert [a.tobytes() for a in found[0].arrays.values()] == [
        a.tobytes() for a in found[1].arrays.values()
    ]
    assert found[0].layers[1] == found[1].layers[1] == replace(model.layers[1], name="a_last")
