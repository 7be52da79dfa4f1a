"""LiteRT runs the files: each step within the local bound of float64, options one at a time."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_bounds import float32_bound
from presence import missing
from tflite_cases import (
    NONE,
    RELU,
    RELU6,
    TANH,
    Cell,
    Runtime,
    bidirectional_file,
    draw_cell,
    forward,
    lstm_file,
    place,
    run,
    save,
    sizes,
)

from ifgo import formats
from ifgo.errors import IfgoError
from ifgo.formats.tflite.build import FlatFile
from ifgo.formats.tflite.file import schema
from ifgo.formats.tflite.guard import OPTIONS
from ifgo.model import Dense, FeatureInput, LastStep, Model, Recurrent
from ifgo.reference import truth
from ifgo.verification.bounds import ActivationErrors, cell_bounds

pytestmark = pytest.mark.peers

LITERT = ActivationErrors(tanh=3.6e-7, sigmoid=2.1e-7)
"""The rational forms of Eigen, which its LSTM kernel uses; test_how_far_its_activations_are_off
holds it to them."""


@pytest.fixture(autouse=True)
def litert() -> None:
    if importlib.util.find_spec("ai_edge_litert") is None:
        missing("ai-edge-litert", "pip install -c constraints.txt '.[peers]'")


def check_steps(path: Path, model: Model, states: list[int], *, time_major: bool = False) -> None:
    """Each step from the state that the runtime itself holds; then all of them in one call."""
    cell = model.recurrent[0].cell
    xs = np.random.default_rng(1).uniform(-1, 1, (8, cell.input_size)).astype("f")
    runtime = Runtime(path, (1, 1, cell.input_size))
    h, c = (runtime.tensor(k) for k in states)
    assert not h.any()
    assert not c.any()
    found: list[Any] = []
    for row in xs:
        now = truth.step(cell, row[None], h, c)
        bound = cell_bounds(cell, row[None].astype(float), h.astype(float), c, now, LITERT)
        y = runtime(row[None, None])[0]
        h, c = (runtime.tensor(k) for k in states)
        assert (np.abs(h - now.h) <= bound["h"]).all()
        assert (np.abs(c - now.c) <= bound["c"]).all()
        assert bound["h"].max() < 1e-3
        np.testing.assert_array_equal(y, h)
        found.append(h[0])
    whole = run(path, xs[:, None] if time_major else xs[None])
    np.testing.assert_array_equal(whole.reshape(8, -1), np.stack(found))


@pytest.mark.parametrize("cifg", [False, True])
@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("outputs", [0, 2, 4])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("activation", [TANH, RELU])
def test_every_kind_of_cell(
    tmp_path: Path, cifg: bool, peephole: bool, outputs: int, norm: bool, activation: int
) -> None:
    """With bounds that meet; what we write of it too."""
    cell = draw_cell(
        4, cifg=cifg, peephole=peephole, outputs=outputs, norm=norm, proj_bias=cifg, scale=0.8
    )
    clips = {"CellClip": 0.375, "ProjClip": 0.25 if outputs else 0.0}
    flat, x, y, states = lstm_file(cell, activation=activation, time_major=norm, **clips)
    model = formats.load(save(flat, tmp_path / "a.tflite", x, y))
    check_steps(tmp_path / "a.tflite", model, states, time_major=norm)
    formats.save(model, tmp_path / "b.tflite")
    again = formats.load(tmp_path / "b.tflite")
    for name, array in model.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    assert replace(again.recurrent[0].cell, **_arrays(model)).coupling == (
        "i=1-f" if cifg else None
    )
    order = (slice(None), None) if norm else (None, slice(None))
    xs = np.random.default_rng(2).uniform(-1, 1, (8, 3)).astype("f")[order]
    np.testing.assert_array_equal(run(tmp_path / "a.tflite", xs), run(tmp_path / "b.tflite", xs))


def _arrays(model: Model) -> dict[str, Any]:
    return {"weight_ih": model.recurrent[0].cell.weight_ih}


@pytest.mark.parametrize("activation", [TANH, RELU])
def test_two_directions(tmp_path: Path, activation: int) -> None:
    """Each is held to a unidirectional operator of its own, which the steps above judge."""
    one, two = (draw_cell(k, peephole=True) for k in (1, 2))
    flat, x, y = bidirectional_file(one, two, activation=activation, CellClip=0.375)
    path = save(flat, tmp_path / "a.tflite", x, y)
    model = formats.load(path)
    xs = np.random.default_rng(2).uniform(-1, 1, (1, 8, 3)).astype("f")
    parts: list[Any] = []
    for cell, turn in ((one, slice(None)), (two, slice(None, None, -1))):
        own, x, y, _ = lstm_file(cell, activation=activation, CellClip=0.375)
        alone = save(own, tmp_path / "one.tflite", x, y)
        parts.append(run(alone, np.ascontiguousarray(xs[:, turn]))[:, turn])
        single = formats.load(alone).run(np.ascontiguousarray(xs[:, turn]), on="exact")[0][:, turn]
        ours = model.run(xs, on="exact")[0]
        half = ours[..., :4] if cell is one else ours[..., 4:]
        np.testing.assert_array_equal(half, single)
    np.testing.assert_array_equal(run(path, xs), np.concatenate(parts, axis=-1))
    formats.save(model, tmp_path / "b.tflite")
    np.testing.assert_array_equal(run(tmp_path / "b.tflite", xs), run(path, xs))


def two_operators(path: Path, joined: str, *, reversed_back: bool = True) -> Path:
    """A forward operator and one between two REVERSE_V2, joined by `joined`."""
    flat = FlatFile(schema())
    x = flat.tensor("x", (1, 6, 3))
    axis = flat.integers("axis", 1)
    turned = flat.operator("REVERSE_V2", (x, axis), flat.tensor("turned", (1, 6, 3)))
    ends: list[int] = []
    for k, entry in enumerate((x, turned)):
        places, _ = place(flat, entry, draw_cell(k + 1), f"{k}.")
        y = flat.tensor(f"y{k}", (1, 6, 4))
        table = "UnidirectionalSequenceLSTMOptions"
        flat.operator(
            "UNIDIRECTIONAL_SEQUENCE_LSTM", tuple(places), y, table, FusedActivationFunction=TANH
        )
        ends.append(y)
    if reversed_back:
        back = flat.tensor("back", (1, 6, 4))
        ends[1] = flat.operator("REVERSE_V2", (ends[1], axis), back)
    if joined == "last":
        lists = [
            flat.integers(f"s{k}", *v) for k, v in enumerate([(0, -1, 0), (0, 0, 0), (1,) * 3])
        ]
        for k, end in enumerate(ends):
            ends[k] = flat.operator(
                "STRIDED_SLICE",
                (end, *lists),
                flat.tensor(f"last{k}", (1, 4)),
                "StridedSliceOptions",
                BeginMask=5,
                EndMask=7,
                ShrinkAxisMask=2,
            )
    kind = "ADD" if joined == "ADD" else "CONCATENATION"
    shape = {"ADD": (1, 6, 4), "CONCATENATION": (1, 6, 8), "last": (1, 8)}[joined]
    table, options = {
        "ADD": ("AddOptions", {}),
        "CONCATENATION": ("ConcatenationOptions", {"Axis": -1}),
    }[kind]
    out = flat.operator(kind, tuple(ends), flat.tensor("out", shape), table, **options)
    return save(flat, path, x, out)


@pytest.mark.parametrize("joined", ["CONCATENATION", "ADD", "last"])
def test_two_operators_as_two_directions(tmp_path: Path, joined: str) -> None:
    """As TensorFlow 2 wrote Bidirectional; each operator itself is judged above."""
    path = two_operators(tmp_path / "a.tflite", joined, reversed_back=joined != "last")
    model = formats.load(path)
    layer = model.recurrent[0]
    assert (len(model.recurrent), layer.directions, layer.stateful) == (1, 2, True)
    assert layer.merge == ("sum" if joined == "ADD" else "concat")
    xs = np.random.default_rng(2).uniform(-1, 1, (1, 6, 3)).astype("f")
    ours = truth.forward(model, xs)
    assert np.abs(ours.y - run(path, xs)).max() <= float32_bound(model, ours, xs)


@pytest.mark.parametrize(("joined", "turn"), [("CONCATENATION", False), ("ADD", False)])
def test_directions_that_do_not_meet(tmp_path: Path, joined: str, turn: bool) -> None:
    path = two_operators(tmp_path / "a.tflite", joined, reversed_back=turn)
    says = {
        "CONCATENATION": "node 'CONCATENATION #3': joins tensors of sizes 6 and 6 along axis 1, "
        "expected both in the order of time",
        "ADD": "node 'ADD #3': adds two signals, expected the output of some layers plus their own "
        "input (a residual), or a bias. Take the LSTM layers alone with --select NAME (select= in "
        "Python), see ifgo inspect --lstms",
    }
    with pytest.raises(IfgoError) as caught:
        formats.load(path)
    assert str(caught.value) == f"{path}: {says[joined]}"


def test_how_far_its_activations_are_off(tmp_path: Path) -> None:
    """c is tanh(x) where i = 1 and f = 0, h is sigmoid(x) where relu lets c = 1 pass."""
    grid = np.concatenate([np.linspace(-20, 20, 1501), np.linspace(-1, 1, 1501)]).astype("f")
    far, nothing, one = (np.full(1, k, "f") for k in (100, 0, 1))
    zero = np.zeros((1, 1), "f")
    wanted: dict[int, Any] = {TANH: np.tanh, RELU: lambda v: 1 / (1 + np.exp(-v))}
    for activation, true in wanted.items():
        tanh = activation == TANH
        cell: Cell = {f"R_{gate}": zero for gate in "ifco"}
        cell |= {"W_i": zero, "W_f": zero, "W_c": zero + tanh, "W_o": zero + (not tanh)}
        cell |= {"b_i": far, "b_f": -far, "b_c": nothing if tanh else one}
        cell["b_o"] = far if tanh else nothing
        flat, x, y, states = lstm_file(cell, activation=activation)
        runtime = Runtime(save(flat, tmp_path / "a.tflite", x, y), (1, 1, 1))
        off = 0.0
        for value in grid:
            runtime(np.full((1, 1, 1), value, "f"))
            have = runtime.tensor(states[1 if tanh else 0])[0, 0]
            off = max(off, abs(float(have) - float(true(float(value)))))
        assert off <= (LITERT.tanh if tanh else LITERT.sigmoid)


CHANGES: dict[str, Any] = {
    "FusedActivationFunction": [NONE, RELU, 2, RELU6, 5],
    "CellClip": [0.125, -1.0],
    "ProjClip": [0.125, -1.0],
    "TimeMajor": [True],
    "AsymmetricQuantizeInputs": [True],
    "DiagonalRecurrentTensors": [True],
}


def test_every_option_is_changed_here() -> None:
    assert set(CHANGES) == set(OPTIONS["UnidirectionalSequenceLSTMOptions"])


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("outputs", [0, 2])
def test_one_option_at_a_time(tmp_path: Path, name: str, outputs: int) -> None:
    """The same numbers as the runtime's, or a refusal."""
    cell = draw_cell(5, outputs=outputs)
    for value in CHANGES[name]:
        options = {"FusedActivationFunction": TANH, name: value}
        activation = options.pop("FusedActivationFunction")
        time_major = bool(options.pop("TimeMajor", False))
        flat, x, y, _ = lstm_file(cell, activation=activation, time_major=time_major, **options)
        _agrees(save(flat, tmp_path / "a.tflite", x, y), time_major)


@pytest.mark.parametrize("place", range(1, 24))
def test_one_input_less(tmp_path: Path, place: int) -> None:
    """An operator whose inputs are all there, with one left out."""
    cell = draw_cell(6, outputs=2, peephole=True, norm=True, proj_bias=True)
    flat, x, y, _ = lstm_file(cell)
    operator = flat.operators[0]
    inputs = list(operator.inputs)
    inputs[place] = -1
    flat.operators[0] = replace(operator, inputs=tuple(inputs))
    _agrees(save(flat, tmp_path / "a.tflite", x, y), False)


def _agrees(path: Path, time_major: bool) -> None:
    try:
        model = formats.load(path)
    except IfgoError:
        return
    xs = np.random.default_rng(2).uniform(-1, 1, (8, 3)).astype("f")
    have = run(path, xs[:, None] if time_major else xs[None]).reshape(8, -1)
    want = model.run(xs, on="truth")[0]
    # Weights below 0.6 and 4 units keep the net contractive: eight local errors at most.
    cell = model.recurrent[0].cell
    now = truth.step(cell, xs, np.zeros((8, cell.output_size)), np.zeros((8, cell.hidden_size)))
    zeros = np.zeros((8, cell.output_size)), np.zeros((8, cell.hidden_size))
    bound = cell_bounds(cell, xs.astype(float), *zeros, now, LITERT)
    assert np.abs(have - want).max() <= 8 * max(bound["h"].max(), bound["c"].max())


def test_a_network_that_we_write(tmp_path: Path) -> None:
    """Two layers, the last step, a dense layer with softmax; the file leaves time open."""
    rng = np.random.default_rng(7)
    first, second = (_layer(f"lstm{k}", k, inputs) for k, inputs in enumerate((3, 4)))
    weight, bias = rng.uniform(-1, 1, (5, 4)).astype("f"), rng.uniform(-1, 1, 5).astype("f")
    from ifgo.activations import SOFTMAX

    layers = (first, second, LastStep("last"), Dense("dense", weight, bias, SOFTMAX))
    model = Model((FeatureInput(3),), layers)
    report = formats.save(model, tmp_path / "a.tflite")
    assert report.folded == tuple(
        f"lstm{k} (lstm): stateful, for TFLite keeps state between calls" for k in range(2)
    )
    again = formats.load(tmp_path / "a.tflite")
    for steps in (1, 5, 9):
        xs = rng.uniform(-1, 1, (1, steps, 3)).astype("f")
        np.testing.assert_array_equal(again.run(xs, on="exact")[0], model.run(xs, on="exact")[0])
        have, want = run(tmp_path / "a.tflite", xs), model.run(xs, on="truth")[0]
        assert np.abs(have - want).max() <= 4 * max(
            np.abs(model.run(xs, on="exact")[0] - want).max(), 6e-8
        )


def _layer(name: str, seed: int, inputs: int) -> Recurrent:
    from ifgo.cell import LSTMCell

    cell = draw_cell(seed, inputs)
    assert sizes(cell) == (inputs, 4, 4)
    parts = (np.concatenate([cell[f"{k}_{g}"] for g in "ifco"]) for k in "WRb")
    return Recurrent(name, LSTMCell(*parts))


def test_the_states_persist_between_calls(tmp_path: Path) -> None:
    """Why the layers are read as stateful."""
    cell = draw_cell(8)
    flat, x, y, _ = lstm_file(cell)
    runtime = Runtime(save(flat, tmp_path / "a.tflite", x, y), (1, 1, 3))
    xs = np.random.default_rng(2).uniform(-1, 1, (2, 3)).astype("f")
    halves = [runtime(row[None, None]) for row in xs]
    assert np.abs(halves[1][0, 0] - forward(cell, xs)[1]).max() < 1e-6
    assert np.abs(halves[1][0, 0] - forward(cell, xs[1:])[0]).max() > 1e-3
