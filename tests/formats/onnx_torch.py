"""Modules exported by torch, and how what is read of them is compared."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_bounds import cell_bound, float32_bound
from onnx_cases import assert_same, run_onnx
from presence import IN_CI

from ifgo.formats import onnx as room
from ifgo.layers import Dense, Recurrent
from ifgo.model import Model
from ifgo.reference import truth

if importlib.util.find_spec("torch") is None and not IN_CI:  # in CI the import below fails
    pytest.skip("torch is not installed (pip install '.[peers]')", allow_module_level=True)

import torch

nn = torch.nn

INPUT, HIDDEN, OUTPUT, BATCH, STEPS = 3, 4, 2, 2, 6
EXPORTERS = ["script-open", "script-frozen", "dynamo"]
"""dynamo freezes T whatever one asks for: nn.LSTM specialises it in torch.export."""


def shrink(module: Any) -> None:
    """Weights so small that a bound over all steps says something; ready for inference."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.5)
    module.eval()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters warn and print about themselves."""
    import logging

    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def export(
    module: Any, args: tuple[Any, ...], path: Path, exporter: str, batch_first: bool = True
) -> None:
    """`module` as an ONNX file; open: batch and time of the first input, batch of the states."""
    shrink(module)
    with quiet():
        if exporter == "dynamo":
            torch.onnx.export(module, args, path, dynamo=True, verbose=False, external_data=False)
            return
        names = ["x", "h_0", "c_0"][: len(args)]
        axes: dict[str, dict[int, str]] = {}
        if exporter == "script-open":
            rank = args[0].ndim
            whole = rank == (3 if args[0].is_floating_point() else 2)
            b, t = (0, 1) if batch_first else (1, 0)
            axes["x"] = {b: "B", t: "T"} if whole else {0: "T"}
            for name in names[1:]:
                axes[name] = {1: "B"}
        torch.onnx.export(module, args, path, dynamo=False, input_names=names, dynamic_axes=axes)


def lstm_bits(module: Any, model: Model) -> None:
    """Every nn.LSTM parameter, bit for bit, in the order of its layers and directions."""
    layers = [layer for layer in model.layers if isinstance(layer, Recurrent)]
    assert len(layers) == module.num_layers
    state = module.state_dict()
    for k, layer in enumerate(layers):
        assert layer.directions == (2 if module.bidirectional else 1)
        for direction, cell in layer.cells.items():
            suffix = "_reverse" if direction == "backward" else ""
            for field in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                have, key = getattr(cell, field), f"{field}_l{k}{suffix}"
                if key not in state:
                    assert have is None
                else:
                    assert have.tobytes() == state[key].numpy().tobytes(), key


def dense_bits(module: Any, layer: Any) -> None:
    assert isinstance(layer, Dense)
    assert layer.weight.tobytes() == module.weight.detach().numpy().tobytes()
    assert layer.bias is not None
    assert layer.bias.tobytes() == module.bias.detach().numpy().tobytes()


def given(shape: tuple[int, ...], seed: int = 0) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32))


def compare(module: Any, args: tuple[Any, ...], path: Path, model: Model, tmp_path: Path) -> None:
    """truth and torch agree within the bound; the file we write gives what the original gives."""
    x = args[0].numpy()
    entry = model.input
    ours = {"BT": x, "TB": np.swapaxes(x, 0, 1), "T": x[None]}[entry.axes]
    state: dict[str, Any] = {}
    for part, packed in zip("hc", args[1:], strict=False):
        rows = 0
        for k, layer in enumerate(model.recurrent):
            state[f"{part}{k}"] = packed.numpy()[rows : rows + layer.directions]
            rows += layer.directions
    result = truth.forward(model, ours, state or None)
    bounds = dict.fromkeys(("sequence", "last", "h_n"), float32_bound(model, result, ours))
    bounds["c_n"] = cell_bound(model, result, ours)
    with torch.no_grad():
        found = module(*args)
    flat = [found] if torch.is_tensor(found) else [found[0], *found[1]]
    want = {"sequence": result.y, "last": result.y}
    for output in model.outputs:
        if output.layers:
            part, keys = output.role[0], range(len(model.recurrent))
            want[output.role] = np.concatenate([result.state[f"{part}{k}"] for k in keys])
    written = tmp_path / "written.onnx"
    assert room.write(model, written).exact
    assert_same(room.read(written), model)
    names = ["x", "h_0", "c_0"]
    original = run_onnx(path, **feeds(path, names, args))
    again = run_onnx(written, **feeds(written, names, args))
    assert len(flat) == len(model.outputs) == len(original) == len(again)
    for output, theirs, first, second in zip(model.outputs, flat, original, again, strict=True):
        expected = want[output.role]
        if output.role == "sequence" and output.axes == "TB":
            expected = np.swapaxes(expected, 0, 1)
        for have in (theirs.numpy(), first, second):
            assert have.size == expected.size
            assert np.abs(have.reshape(expected.shape) - expected).max() <= bounds[output.role]


def feeds(path: Path, names: list[str], args: tuple[Any, ...]) -> dict[str, Any]:
    import onnx

    declared = [entry.name for entry in onnx.load(path).graph.input]
    return {name: arg.numpy() for name, arg in zip(declared, args, strict=True)}
