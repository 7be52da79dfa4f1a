"""One LSTM node of an ONNX file on its own in ONNX Runtime: single steps, and gate by gate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ifgo.activations import Activation
from ifgo.model import LSTMCell, Recurrent
from ifgo.verification import bounds, onnx_graph
from ifgo.verification.findings import Errors
from ifgo.verification.foreign import Probe, Runner, Whole
from ifgo.verification.local import step_errors
from ifgo.verification.onnx_graph import Node, Ran


def runner(node: Node, ran: Ran, gates: tuple[Activation, ...] = ()) -> Runner:
    """The node alone, its weights constants; `gates` (f, g, h: affine) instead of its own
    activations. Raises UnsupportedError where ONNX Runtime refuses it."""
    count, _, width = node.weights["W"].shape
    hidden = node.weights["R"].shape[2]
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    own = [a for a in proto.attribute if a.name != "layout"]
    if gates:
        own = [a for a in own if not a.name.startswith("activation")]
        own += [
            helper.make_attribute("activations", ["Affine"] * 3 * count),
            helper.make_attribute("activation_alpha", [gate.alpha for gate in gates] * count),
            helper.make_attribute("activation_beta", [gate.beta for gate in gates] * count),
        ]
    del proto.attribute[:], proto.input[:], proto.output[:]
    proto.attribute.extend(own)
    w = {key: key if key in node.weights else "" for key in "WRBP"}
    proto.input.extend(["X", w["W"], w["R"], w["B"], "", "h", "c", w["P"]])
    proto.output.extend(["Y", "Y_h", "Y_c"])
    shapes: dict[str, list[int | str]] = {
        "X": ["T", "B", width],
        "h": [count, "B", hidden],
        "c": [count, "B", hidden],
    }
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in proto.output]
    weights = [numpy_helper.from_array(array, key) for key, array in node.weights.items()]
    graph = helper.make_graph([proto], "cell", inputs, outputs, initializer=weights)
    runtime = onnx_graph.session(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", ran.opset)], ir_version=ran.ir_version
        )
    )

    def run(x: NDArray[Any], h: NDArray[Any], c: NDArray[Any]) -> Whole:
        fed = {"X": np.swapaxes(x, 0, 1), "h": h, "c": c}
        fed = {key: np.ascontiguousarray(array, np.float32) for key, array in fed.items()}
        y, h_n, c_n = runtime.run(["Y", "Y_h", "Y_c"], fed)
        return Whole(x, np.moveaxis(y, 2, 0), h_n, c_n)

    return run


_SAME, _ONE, _ZERO = (Activation("affine", a, b) for a, b in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)))


def probe(layer: Recurrent, node: Node, ran: Ran) -> Probe:
    """Looks at the sums of the gates one by one: the node again, its own weights, activations that
    let one gate through (f·c + i·g with gates that are linear, or 1, or 0)."""

    def alone(
        cell: LSTMCell,
        given: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
        position: int,
        activations: tuple[Activation, Activation, Activation],
    ) -> dict[str, Errors]:
        batch, steps = given[0].shape[:2]
        x, h, c = (a.reshape(batch * steps, 1, -1) for a in given)
        h, c = (np.repeat(a.swapaxes(0, 1), layer.directions, axis=0) for a in (h, c))
        out = runner(node, ran, activations)(x, h, c)
        got = {
            part: a[position].reshape(batch, steps, -1)
            for part, a in (("h", out.h_n), ("c", out.c_n))
        }
        changed = replace(cell, activations=activations)
        return step_errors(changed, *given, got, bounds.ONNXRUNTIME)

    def look(
        cell: LSTMCell, x: NDArray[Any], h: NDArray[Any], c: NDArray[Any], position: int
    ) -> dict[str, Errors]:
        peephole = cell.peephole is not None
        one, none = (c, c) if peephole else (np.ones_like(c), np.zeros_like(c))
        f = alone(cell, (x, h, one), position, (_SAME, _ZERO, _ONE))["c"]
        both = alone(cell, (x, h, none), position, (_SAME, _ONE, _ONE))
        i, o = both["c"], both["h"]
        g = alone(cell, (x, h, np.zeros_like(c)), position, (_ONE, _SAME, _ONE))["c"]
        if peephole:  # c is then part of what is seen: f may spoil i, and both may spoil o
            o = _except(o, i.wrong)
            i = _except(i, f.wrong)
        found = {"z_i": i, "z_f": f, "z_g": g, "z_o": o}
        if cell.coupling is not None:
            del found["z_f"]
        return found

    return look


def _except(errors: Errors, spoiled: NDArray[np.bool_]) -> Errors:
    difference = np.where(spoiled, 0.0, errors.difference)
    return Errors(difference, errors.bound, errors.wrong & ~spoiled)
