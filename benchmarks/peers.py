"""The same LSTM in every engine that is installed here: one function per piece of work.

Each is given weights in ifgo's own form and returns a call without arguments. A peer that is not
installed is absent from the table, and named below it.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import ifgo
from ifgo.layers import Dense, Recurrent
from ifgo.model import FeatureInput, LSTMCell, Model

Call = Callable[[], object]
NAMES = ("torch", "onnxruntime", "openvino", "jax")


def installed() -> list[str]:
    """The peers that can be imported."""
    return [name for name in NAMES if importlib.util.find_spec(name) is not None]


def lstm(sizes: list[int], outputs: int = 0, seed: int = 0) -> Model:
    """A stack of LSTM layers, sizes[0] inputs wide, with a Dense of `outputs` behind it."""
    random = np.random.default_rng(seed)
    layers: list[Any] = []
    for k, (inputs, hidden) in enumerate(pairwise(sizes)):
        bound = hidden**-0.5

        def draw(*shape: int, bound: float = bound) -> Any:
            return random.uniform(-bound, bound, shape).astype(np.float32)

        rows = 4 * hidden
        cell = LSTMCell(draw(rows, inputs), draw(rows, hidden), draw(rows), draw(rows))
        layers.append(Recurrent(f"lstm{k}", cell))
    if outputs:
        layers.append(Dense("dense", random.normal(size=(outputs, sizes[-1])).astype(np.float32)))
    return Model((FeatureInput(sizes[0]),), tuple(layers))


def torch_module(model: Model) -> Any:
    """nn.LSTM with the weights of `model`, without its Dense."""
    import torch

    cells = [layer.cell for layer in model.recurrent]
    module = torch.nn.LSTM(cells[0].input_size, cells[0].hidden_size, len(cells), batch_first=True)
    with torch.no_grad():
        for k, cell in enumerate(cells):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(module, f"{name}_l{k}").copy_(
                    torch.from_numpy(np.array(getattr(cell, name)))
                )
    return module.eval()


def forward(peer: str, model: Model, x: Any, threads: int) -> Call:
    """`model` on x (B, T, I) from a zero state, in one call of `peer`."""
    return globals()[f"_{peer}"](model, x, threads)


def _torch(model: Model, x: Any, threads: int) -> Call:
    import torch

    torch.set_num_threads(threads)
    module, given = torch_module(model), torch.from_numpy(x)
    dense = next((layer for layer in model.layers if isinstance(layer, Dense)), None)
    weight = None if dense is None else torch.from_numpy(np.array(dense.weight))

    def call() -> object:
        with torch.inference_mode():
            y, _ = module(given)
            return y if weight is None else torch.nn.functional.linear(y, weight)

    return call


def _onnx_file(model: Model, folder: str) -> Path:
    path = Path(folder) / "model.onnx"
    ifgo.save(model, path)
    return path


def _onnxruntime(model: Model, x: Any, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = _onnx_file(model, folder)
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, given)


def _openvino(model: Model, x: Any, threads: int) -> Call:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    with tempfile.TemporaryDirectory() as folder:
        network = core.read_model(_onnx_file(model, folder))
        network.reshape(list(x.shape))
        compiled = core.compile_model(network, "CPU", settings)
    request = compiled.create_infer_request()
    return lambda: request.infer([x])


def _jax(model: Model, x: Any, threads: int) -> Call:
    import jax
    from jax import numpy as jnp

    cells = [
        tuple(jnp.asarray(array) for array in (c.weight_ih.T, c.weight_hh.T, c.bias_ih + c.bias_hh))
        for c in (layer.cell for layer in model.recurrent)
    ]

    def layer(given: Any, weights: Any) -> Any:
        weight_ih, weight_hh, bias = weights
        hidden = weight_hh.shape[0]

        def step(carry: Any, z: Any) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(z + h @ weight_hh, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros((given.shape[1], hidden))
        return jax.lax.scan(step, (zero, zero), given @ weight_ih + bias)[1]

    @jax.jit
    def network(given: Any) -> Any:
        for weights in cells:
            given = layer(given, weights)
        return given

    given = jnp.asarray(x.transpose(1, 0, 2))
    return lambda: network(given).block_until_ready()
