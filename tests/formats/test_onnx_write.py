"""Writing ONNX: what comes back is the same, ONNX Runtime runs it, the rest is said or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_cases import (
    ACTIVATION,
    assert_same,
    assert_same_arrays,
    cell_bound,
    float32_bound,
    graph,
    node,
    random_cell,
    random_recurrent,
    run_onnx,
    structure,
    tokens_or_features,
)

from ifgo.activations import LINEAR, SIGMOID, SOFTMAX, TANH, Activation
from ifgo.cell import LayerNorm, LSTMCell, MatrixNorm
from ifgo.errors import UnsupportedError
from ifgo.formats import Report
from ifgo.formats import onnx as room
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
    Model,
    Output,
    StateInput,
    StateSlot,
    TokenInput,
)
from ifgo.reference import truth


def numbers(rng: np.random.Generator, *shape: int) -> Any:
    return (rng.uniform(-1, 1, shape) / (shape[-1] + 1)).astype(np.float32)


def random_model(seed: int) -> Model:
    """A chain of anything ONNX holds exactly, with the names that reading gives."""
    rng = np.random.default_rng(seed)
    axes = str(rng.choice(["BT", "TB", "T"]))
    layers: list[Layer] = []
    if rng.random() < 0.3:
        size = int(rng.integers(1, 4))
        entry: Any = TokenInput(7, "ids", axes)  # type: ignore[arg-type]
        layers.append(Embedding("embedding", numbers(rng, 7, size)))
    else:
        size = int(rng.integers(1, 4))
        entry = FeatureInput(size, "x", axes)  # type: ignore[arg-type]
    if rng.random() < 0.3:
        layers.append(Scale("scale", numbers(rng, size) + np.float32(1), numbers(rng, size)))
    recurrent: list[str] = []

    def lstm(width: int) -> int:
        made = random_recurrent(rng, f"lstm{len(recurrent)}", width, int(rng.integers(1, 5)))
        layers.append(made)
        recurrent.append(made.name)
        return made.output_size(width)

    for _ in range(int(rng.integers(1, 4))):
        size = lstm(size)
    if rng.random() < 0.3:
        stats = (numbers(rng, size), numbers(rng, size) + np.float32(1))
        layers.append(
            BatchNorm("batch_norm", *stats, numbers(rng, size), numbers(rng, size), 0.125)
        )
    ends_in_time = True
    if rng.random() < 0.4:
        of = "state" if isinstance(layers[-1], Recurrent) and rng.random() < 0.7 else "sequence"
        layers.append(LastStep("last", of))  # type: ignore[arg-type]
        ends_in_time = False
        choice = int(rng.integers(0, 3))
        if choice == 1:
            layers.append(HiddenAsSequence("hidden_as_sequence"))
            size, ends_in_time = lstm(1), True
        elif choice == 2:
            layers.append(RepeatVector("repeat", 3))
            size, ends_in_time = lstm(size), True
    if rng.random() < 0.3:
        layers.append(ActivationLayer("activation", Activation("softsign")))
    if rng.random() < 0.6:
        bias = numbers(rng, 3) if rng.random() < 0.7 else None
        functions = [LINEAR, SIGMOID, SOFTMAX, Activation("leaky_relu", 0.25)]
        layers.append(
            Dense("dense", numbers(rng, 3, size), bias, functions[int(rng.integers(0, 4))])
        )
    role = "sequence" if ends_in_time else "last"
    if role == "last" and axes != "T":
        outputs = [Output("last", "y")]
    else:
        outputs = [Output(role, "y", axes=axes)]  # type: ignore[arg-type]
    hidden = {layer.hidden_size for layer in layers if isinstance(layer, Recurrent)}
    names = tuple(recurrent) if len(hidden) == 1 else recurrent[:1]
    of_states = "T" if axes == "T" else "BT"
    if rng.random() < 0.5:
        outputs.append(Output("h_n", "h", tuple(names), of_states))
    if rng.random() < 0.5:
        outputs.append(Output("c_n", "c", tuple(names), of_states))
    return Model((entry,), tuple(layers), tuple(outputs))


def expected(model: Model, result: truth.Result) -> list[Any]:
    """The outputs as the file lays them out."""
    keys = {layer.name: k for k, layer in enumerate(model.recurrent)}
    found: list[Any] = []
    for output in model.outputs:
        if output.layers:
            parts = [result.state[f"{output.role[0]}{keys[name]}"] for name in output.layers]
            value = np.concatenate(parts)
            found.append(value[:, 0] if output.axes == "T" else value)
        elif output.role == "last":
            found.append(result.y[0] if output.axes == "T" else result.y)
        elif output.axes == "T":
            found.append(result.y[0])
        else:
            found.append(result.y.swapaxes(0, 1) if output.axes == "TB" else result.y)
    return found


def feed(model: Model, x: Any) -> Any:
    """(B, T, ·) in the axes of the source."""
    if model.input.axes == "TB":
        return np.ascontiguousarray(x.swapaxes(0, 1))
    return x[0] if model.input.axes == "T" else x


@pytest.mark.parametrize("seed", range(120))
def test_round_trip_and_runtime(seed: int, tmp_path: Path) -> None:
    """The same structure and bits come back; ONNX Runtime computes what truth does."""
    model = random_model(seed)
    path = tmp_path / "m.onnx"
    report = room.write(model, path)
    assert report.exact, report
    assert list(report.kept) == list(model.arrays)
    assert_same(room.read(path), model)
    rng = np.random.default_rng(seed)
    x = tokens_or_features(model, rng, 1 if model.input.axes == "T" else 2, 4)
    result = truth.forward(model, x)
    bounds = {"c_n": cell_bound(model, result, x), "h_n": cell_bound(model, result, x)}
    bound = float32_bound(model, result, x)
    for output, have, want in zip(
        model.outputs,
        run_onnx(path, **{model.input.name: feed(model, x)}),
        expected(model, result),
        strict=True,
    ):
        assert have.shape == want.shape
        assert np.abs(have - want).max() <= bounds.get(output.role, bound)


def test_activation_error() -> None:
    """What the bounds assume of the runtime's sigmoid and tanh."""
    import onnxruntime

    x = np.linspace(-30, 30, 2**18, dtype=np.float32)
    for op, function in (("Sigmoid", SIGMOID), ("Tanh", TANH)):
        made = graph([node(op, "x", "y")], {"x": ["N"]}, {"y": ["N"]})
        session = onnxruntime.InferenceSession(
            made.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        have = session.run(None, {"x": x})[0]
        assert np.abs(have - truth.activate(function, x.astype(np.float64))).max() <= ACTIVATION


def test_deterministic(tmp_path: Path) -> None:
    model = random_model(3)
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    room.write(model, first)
    room.write(model, second)
    assert first.read_bytes() == second.read_bytes()


def test_what_the_file_says(tmp_path: Path) -> None:
    """Opset, ir_version, producer, open batch and time, int64 tokens."""
    model = Model(
        (TokenInput(5, "ids"), LengthsInput("n")),
        (Embedding("e", np.ones((5, 3), np.float32)), lstm("l", 3, 4)),
    )
    room.write(model, tmp_path / "m.onnx")
    made = onnx.load(tmp_path / "m.onnx")
    assert made.ir_version == 8
    assert [(o.domain, o.version) for o in made.opset_import] == [("", 17)]
    assert made.producer_name == "ifgo"
    types = [(i.name, i.type.tensor_type.elem_type) for i in made.graph.input]
    assert types == [("ids", TensorProto.INT64), ("n", TensorProto.INT32)]
    shapes = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*made.graph.input, *made.graph.output)
    ]
    assert shapes == [["B", "T"], ["B"], ["B", "T", 4]]
    lstm_node = next(n for n in made.graph.node if n.op_type == "LSTM")
    assert list(lstm_node.output)[1:] == []


def lstm(name: str, i: int, h: int, seed: int = 0, **options: Any) -> Recurrent:
    cells = options.pop("cell", {})
    return Recurrent(name, random_cell(np.random.default_rng(seed), i, h, **cells), **options)


def model_of(*layers: Layer, size: int = 3, **inputs: Any) -> Model:
    return Model((FeatureInput(size), *inputs.get("more", ())), layers, inputs.get("outputs", ()))


def test_lengths_and_states(tmp_path: Path) -> None:
    """Two layers, packed h, packed c, lengths, in an order of inputs of their own."""
    slots = [("b", "c"), ("a", "c")], [("a", "h"), ("b", "h")]
    inputs = (
        FeatureInput(3, "x", "TB"),
        StateInput("cells", tuple(StateSlot(*pair) for pair in slots[0])),  # type: ignore[arg-type]
        LengthsInput("n"),
        StateInput("hidden", tuple(StateSlot(*pair) for pair in slots[1])),  # type: ignore[arg-type]
    )
    rng = np.random.default_rng(0)
    first = Recurrent(
        "a", random_cell(rng, 3, 4), random_cell(rng, 3, 4), initial=InitialState("input")
    )
    second = Recurrent("b", None, random_cell(rng, 8, 4), initial=InitialState("input"))
    model = Model(
        inputs,
        (first, second, LastStep("last", "state"), Dense("d", numbers(rng, 2, 4), None)),
        (Output("last", "y"), Output("c_n", "c", ("b",))),
    )
    path = tmp_path / "m.onnx"
    assert room.write(model, path).exact
    back = room.read(path)
    assert [i.name for i in back.inputs] == ["x", "cells", "n", "hidden"]
    assert [(s.layer, s.part) for s in back.inputs[1].slots] == [("lstm1", "c"), ("lstm0", "c")]  # type: ignore[union-attr]
    x = rng.uniform(-1, 1, (3, 5, 3)).astype(np.float32)
    c = rng.uniform(-1, 1, (3, 3, 4)).astype(np.float32)
    h = rng.uniform(-1, 1, (3, 3, 4)).astype(np.float32)
    lengths = np.array([5, 1, 3], np.int32)
    y, c_n = run_onnx(path, x=feed(model, x), cells=c, hidden=h, n=lengths)
    state = {"c1": c[:1], "c0": c[1:], "h0": h[:2], "h1": h[2:]}
    for same in (model, back):
        result = truth.forward(same, x, state, lengths)
        assert np.abs(y - result.y).max() <= float32_bound(same, result, x)
        assert np.abs(c_n - result.state["c1"]).max() <= cell_bound(same, result, x)


def test_unbatched_states(tmp_path: Path) -> None:
    inputs = (
        FeatureInput(3, "x", "T"),
        StateInput("h", (StateSlot("lstm0", "h"),)),
        StateInput("c", (StateSlot("lstm0", "c"),)),
    )
    layer = lstm("lstm0", 3, 4, initial=InitialState("input"))
    outputs = (Output("sequence", "y", axes="T"), Output("h_n", "hn", ("lstm0",), "T"))
    model = Model(inputs, (layer,), outputs)
    path = tmp_path / "m.onnx"
    assert room.write(model, path).exact
    assert_same(room.read(path), model)
    shapes = [i.type.tensor_type.shape.dim for i in onnx.load(path).graph.input]
    assert [len(dims) for dims in shapes] == [2, 2, 2]


@pytest.mark.parametrize("channels", [1, 2])
def test_residual(channels: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inner = (lstm("lstm0", 2, 4), Dense("dense", numbers(rng, channels, 4), numbers(rng, channels)))
    model = model_of(Residual("residual", inner, channels), size=2)
    path = tmp_path / "m.onnx"
    assert room.write(model, path).exact
    assert_same(room.read(path), model)
    x = rng.uniform(-1, 1, (2, 4, 2)).astype(np.float32)
    result = truth.forward(model, x)
    assert np.abs(run_onnx(path, x=x)[0] - result.y).max() <= float32_bound(model, result, x)


def test_flatten_fixes_the_time(tmp_path: Path) -> None:
    model = model_of(lstm("lstm0", 3, 4), Flatten("flatten", 5))
    path = tmp_path / "m.onnx"
    assert room.write(model, path).exact
    back = room.read(path)
    assert structure(back) == structure(model)
    assert back.provenance.notes == ("the file fixes time 5 for input x; ifgo does not",)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 5, 3)).astype(np.float32)
    result = truth.forward(model, x)
    assert np.abs(run_onnx(path, x=x)[0] - result.y).max() <= float32_bound(model, result, x)


def test_names_that_collide_or_say_nothing(tmp_path: Path) -> None:
    """Layers named as tensors are, spaces in names, an output named as the input is."""
    model = Model(
        (FeatureInput(3, "transpose"),),
        (lstm("identity", 3, 4), Dense("a dense; layer", np.ones((2, 4), np.float32))),
        (Output("sequence", "transpose"), Output("sequence", "lstm")),
    )
    path = tmp_path / "m.onnx"
    room.write(model, path)
    assert_same_arrays_by_order(room.read(path), model)
    assert (
        len(run_onnx(path, **{onnx.load(path).graph.input[0].name: np.zeros((1, 2, 3), "f")})) == 2
    )


def assert_same_arrays_by_order(have: Model, want: Model) -> None:
    pairs = zip(have.arrays.values(), want.arrays.values(), strict=True)
    assert all(a.tobytes() == b.tobytes() for a, b in pairs)


# -- folded -----------------------------------------------------------------------------------

BOTH = Activation("hard_sigmoid", 1 / 6, 0.5)


def with_cell(**changes: Any) -> Model:
    layer = lstm("l", 3, 4)
    assert layer.forward is not None
    return model_of(replace(layer, forward=replace(layer.forward, **changes)))


def two_directions(**changes: Any) -> Model:
    rng = np.random.default_rng(0)
    forward, backward = random_cell(rng, 3, 4), random_cell(rng, 3, 4)
    return model_of(Recurrent("l", forward, replace(backward, **changes)))


ROUNDED = "is rounded to float32 (0.33 ulp)"
FOLDED: dict[str, tuple[Model, tuple[str, ...]]] = {
    "one bias": (with_cell(bias_hh=None), ("layer l: no bias_hh is written as zeros",)),
    "biases of one direction": (
        two_directions(bias_ih=None, bias_hh=None),
        (
            "layer l, backward: no bias_ih is written as zeros",
            "layer l, backward: no bias_hh is written as zeros",
        ),
    ),
    "peephole of one direction": (
        two_directions(peephole=np.ones((3, 4), np.float32)),
        ("layer l, forward: no peephole is written as zeros",),
    ),
    "alpha": (
        with_cell(activations=(BOTH, TANH, TANH)),
        (f"layer l: alpha of hard_sigmoid 0.16666666666666666 {ROUNDED}",),
    ),
    "clip": (
        with_cell(clip_z=0.1),
        ("layer l: clip_z 0.1 is rounded to float32 (0.2 ulp)",),
    ),
    "dropout": (
        model_of(lstm("l", 3, 4), Dropout("d", 0.5)),
        ("layer d: dropout 0.5 is left out, it does nothing at inference",),
    ),
    "dropout inside": (
        model_of(lstm("l", 3, 4, training=TrainingFacts(input=0.5))),
        ("layer l: training dropout is left out, it does nothing at inference",),
    ),
    "linear": (
        model_of(lstm("l", 3, 4), ActivationLayer("a", LINEAR)),
        ("layer a: the linear activation is left out",),
    ),
    "zero state": (
        model_of(
            lstm(
                "l",
                3,
                4,
                initial=InitialState("constant", np.zeros((1, 4), "f"), np.zeros((1, 4), "f")),
            )
        ),
        ("layer l: the constant initial state is zero and left out",),
    ),
    "zero_masked": (
        model_of(lstm("l", 3, 4, zero_masked=True)),
        ("layer l: zero_masked is left out, nothing masks steps",),
    ),
    "batch norm": (
        model_of(lstm("l", 3, 4), BatchNorm("n", np.zeros(4, "f"), np.ones(4, "f"), epsilon=0.125)),
        ("layer n: no weight is written as ones", "layer n: no bias is written as zeros"),
    ),
}


@pytest.mark.parametrize("name", list(FOLDED))
def test_folded_is_reported(name: str, tmp_path: Path) -> None:
    """Said in the report, and the numbers stay: truth of what comes back is within rounding."""
    model, folded = FOLDED[name]
    path = tmp_path / "m.onnx"
    report = room.write(model, path)
    assert report == Report(tuple(model.arrays), folded, ())
    assert not report.exact
    x = np.random.default_rng(0).uniform(-1, 1, (2, 4, 3)).astype(np.float32)
    here, back = truth.forward(model, x), truth.forward(room.read(path), x)
    assert np.abs(here.y - back.y).max() <= float32_bound(model, here, x)


# -- lossy ------------------------------------------------------------------------------------

HINT = ". --allow-lossy writes it as said in brackets"
LOSSY: dict[str, tuple[Model, str]] = {
    "forget bias": (
        with_cell(forget_bias=1.0),
        "layer l: forget_bias 1 (is added to bias_ih, rounded once)",
    ),
    "forget bias without bias": (
        with_cell(forget_bias=1.0, bias_ih=None, bias_hh=None),
        "layer l: forget_bias 1 (is added to bias_ih, rounded once)",
    ),
    "coupling": (
        with_cell(coupling="i=1-f", peephole=np.full((3, 4), 0.25, np.float32), forget_bias=0.5),
        "layer l: coupling i=1-f (becomes a gate of its own with the negated weights of f); "
        "layer l: forget_bias 0.5 (is added to bias_ih, rounded once)",
    ),
    "stateful": (
        model_of(lstm("l", 3, 4, stateful=True)),
        "layer l: stateful (give the states as inputs instead)",
    ),
}


@pytest.mark.parametrize("name", list(LOSSY))
def test_lossy_needs_a_word(name: str, tmp_path: Path) -> None:
    model, reason = LOSSY[name]
    path = tmp_path / "m.onnx"
    with pytest.raises(UnsupportedError) as caught:
        room.write(model, path)
    assert str(caught.value) == f"{path}: ONNX cannot hold: {reason}{HINT}"
    assert not path.exists()
    report = room.write(model, path, allow_lossy=True)
    assert "; ".join(report.lost) == reason
    assert not report.exact
    x = np.random.default_rng(0).uniform(-1, 1, (2, 4, 3)).astype(np.float32)
    here, back = truth.forward(model, x), truth.forward(room.read(path), x)
    bound = float32_bound(model, here, x)
    assert np.abs(here.y - back.y).max() <= bound
    assert np.abs(run_onnx(path, x=x)[0] - here.y).max() <= 2 * bound  # rounded once more
    if name == "stateful":
        assert_same_arrays_by_order(room.read(path), model)


# -- refused ----------------------------------------------------------------------------------


def norm() -> MatrixNorm:
    return MatrixNorm(np.ones(16, "f"), np.zeros(16, "f"), np.ones(16, "f"), 1e-5, True)


def projected() -> Model:
    rng = np.random.default_rng(0)
    cell = LSTMCell(
        numbers(rng, 16, 3),
        numbers(rng, 16, 2),
        weight_hr=numbers(rng, 2, 4),
        clip_projection=1.0,
    )
    return model_of(Recurrent("l", cell))


def of_several_types() -> Model:
    dense = Dense("d", np.ones((2, 4), np.float64))
    return model_of(lstm("l", 3, 4), dense)


def merged(merge: Any) -> Model:
    rng = np.random.default_rng(0)
    return model_of(Recurrent("l", random_cell(rng, 3, 4), random_cell(rng, 3, 4), merge))


def different_widths() -> Model:
    outputs = (Output("sequence"), Output("h_n", "h", ("a", "b")))
    return model_of(lstm("a", 3, 4), lstm("b", 4, 5), outputs=outputs)


def wide_residual() -> Model:
    return model_of(Residual("r", (lstm("l", 3, 4),), 2))


def nested_residual() -> Model:
    inner = Residual("inner", (lstm("l", 4, 4),), 4)
    return model_of(Residual("outer", (inner,), 4), size=4)


def row_of_lengths() -> Model:
    return model_of(lstm("l", 3, 4), LastStep("last"), more=(LengthsInput(),))


REFUSED: dict[str, tuple[Model, str]] = {
    "projection": (projected(), "layer l: a projection (proj_size); layer l: clip_projection"),
    "clip_cell": (with_cell(clip_cell=1.0), "layer l: clip_cell"),
    "layer norm": (with_cell(layer_norm=LayerNorm(np.ones((4, 4), "f"))), "layer l: layer norm"),
    "batch norm": (
        with_cell(input_norm=norm(), hidden_norm=norm()),
        "layer l: batch norm inside the cell",
    ),
    "coupling": (
        with_cell(coupling="i=1-f", activations=(BOTH, TANH, TANH)),
        "layer l: coupling i=1-f with hard_sigmoid(0.166667, 0.5) gates",
    ),
    "masking": (model_of(Masking("m"), lstm("l", 3, 4)), "layer m: masking"),
    "mask_zero": (
        Model((TokenInput(5),), (Embedding("e", np.ones((5, 3), "f"), True), lstm("l", 3, 4))),
        "layer e: mask_zero",
    ),
    "go_backwards": (model_of(lstm("l", 3, 4, go_backwards=True)), "layer l: go_backwards"),
    "sum": (merged("sum"), "layer l: merge sum"),
    "mul": (merged("mul"), "layer l: merge mul"),
    "ave": (merged("ave"), "layer l: merge ave"),
    "types": (of_several_types(), "arrays of several types (float32, float64)"),
    "widths": (different_widths(), "output h: states of different widths in one tensor"),
    "residual": (wide_residual(), "layer r: a residual over 2 of 4 features"),
    "nested residual": (nested_residual(), "layer outer: a residual inside a residual"),
    "scaled_tanh": (
        model_of(lstm("l", 3, 4), ActivationLayer("a", Activation("scaled_tanh", 0.5, 0.5))),
        "layer a: activation scaled_tanh(0.5, 0.5) outside a cell",
    ),
    "affine": (
        model_of(
            lstm("l", 3, 4), Dense("d", np.ones((2, 4), "f"), None, Activation("affine", 2, 1))
        ),
        "layer d: activation affine(2, 1) outside a cell",
    ),
    "clips": (two_directions(clip_z=0.5), "layer l: clip_z differs between its directions"),
    "couplings": (
        two_directions(coupling="f=1-i"),
        "layer l: coupling differs between its directions",
    ),
    "last row": (
        row_of_lengths(),
        "layer last: the last row inside each length (of='state' can be held)",
    ),
    "huge clip": (with_cell(clip_z=1e300), "layer l: clip_z 1e+300 (attributes are float32)"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_by_name(name: str, tmp_path: Path) -> None:
    model, reason = REFUSED[name]
    path = tmp_path / "m.onnx"
    for lossy in (False, True):
        with pytest.raises(UnsupportedError) as caught:
            room.write(model, path, allow_lossy=lossy)
        assert str(caught.value) == f"{path}: ONNX cannot hold: {reason}"
        assert list(tmp_path.iterdir()) == []


def test_everything_refused_in_one_message(tmp_path: Path) -> None:
    layers = (
        Masking("m"),
        lstm("a", 3, 4, go_backwards=True, cell={"clip_cell": 1.0, "forget_bias": 1.0}),
    )
    with pytest.raises(UnsupportedError) as caught:
        room.write(model_of(*layers), tmp_path / "m.onnx")
    assert str(caught.value).endswith(
        "ONNX cannot hold: layer m: masking; layer a: go_backwards; layer a: clip_cell; "
        "layer a: forget_bias 1 (is added to bias_ih, rounded once)"
    )


def test_more_weights_than_one_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ifgo.formats import _onnx_holds

    monkeypatch.setattr(_onnx_holds, "MAX_BYTES", 100)
    with pytest.raises(UnsupportedError) as caught:
        room.write(model_of(lstm("l", 3, 4)), tmp_path / "m.onnx")
    assert str(caught.value).endswith("ONNX cannot hold: 576 bytes of weights (one file holds 100)")


def test_float64_is_said(tmp_path: Path) -> None:
    model = model_of(lstm("lstm0", 3, 4)).astype(np.float64)
    report = room.write(model, tmp_path / "m.onnx")
    assert report.kept[-1] == "float64 (ONNX Runtime's LSTM takes float32 alone)"
    assert report.exact
    assert_same_arrays(room.read(tmp_path / "m.onnx"), model)
    with pytest.raises(Exception, match="LSTM"):
        run_onnx(tmp_path / "m.onnx", x=np.zeros((1, 2, 3)))


def test_read_of_write_of_a_file(tmp_path: Path) -> None:
    """Provenance names the file and its writer."""
    room.write(random_model(1), tmp_path / "m.onnx")
    provenance = room.read(tmp_path / "m.onnx").provenance
    assert provenance.framework == "onnx"
    assert provenance.version.startswith("ifgo ")
