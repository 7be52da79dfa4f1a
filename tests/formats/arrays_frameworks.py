"""What frameworks compute of the arrays that they dump, each by its own documented equations.

Nothing here knows ifgo or a gate order: arrays are drawn in the framework's shapes, and outputs are
computed in float64 as its own code or documentation writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]
N, H = 3, 5
"""Inputs and units."""


@dataclass(frozen=True)
class Framework:
    """shapes: of each array; run: outputs (T, ·) of x (T, N). layers: how many there are."""

    shapes: Mapping[str, tuple[int, ...]]
    run: Callable[[Arrays, Any], Any]
    layers: int = 1

    def arrays(self, rng: np.random.Generator) -> dict[str, Any]:
        """Random numbers in those shapes."""
        return {name: rng.normal(0, 0.5, shape).astype("f") for name, shape in self.shapes.items()}


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def over(x: Any, step: Callable[[Any, Any, Any], Any], h: Any = None, c: Any = None) -> Any:
    """The outputs of `step(x, h, c) -> (h, c)`, from zero unless h and c are given."""
    h, c = (np.zeros(H) if start is None else np.asarray(start, float) for start in (h, c))
    out: list[Any] = []
    for row in np.asarray(x, float):
        h, c = step(row, h, c)
        out.append(h)
    return np.array(out)


def plain(i: Any, f: Any, g: Any, o: Any, c: Any) -> Any:
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def flax(a: Arrays, x: Any) -> Any:
    def z(gate: str, row: Any, h: Any) -> Any:
        at = f"params/cell/{{}}{gate}/{{}}"
        kernels = row @ a[at.format("i", "kernel")] + h @ a[at.format("h", "kernel")]
        return kernels + a[at.format("h", "bias")]

    return over(x, lambda row, h, c: plain(*(z(gate, row, h) for gate in "ifgo"), c))


def haiku(a: Arrays, x: Any) -> Any:
    def step(row: Any, h: Any, c: Any) -> Any:
        gated = np.concatenate([row, h]) @ a["lstm/linear/w"] + a["lstm/linear/b"]
        i, g, f, o = np.split(gated, 4)
        return plain(i, f + 1, g, o, c)

    return over(x, step)


def mxnet(a: Arrays, x: Any, key: str) -> Any:
    def step(row: Any, h: Any, c: Any) -> Any:
        i2h = a[f"{key}i2h_weight"] @ row + a[f"{key}i2h_bias"]
        h2h = a[f"{key}h2h_weight"] @ h + a[f"{key}h2h_bias"]
        in_gate, forget, transform, out = np.split(i2h + h2h, 4)
        return plain(in_gate, forget, transform, out, c)

    return over(x, step)


def both_ways(run: Callable[[Any, str], Any], x: Any, forward: str, backward: str) -> Any:
    return np.concatenate([run(x, forward), run(x[::-1], backward)[::-1]], axis=1)


def mxnet_bidirectional(a: Arrays, x: Any) -> Any:
    for k in range(2):
        x = both_ways(lambda x, key: mxnet(a, x, key), x, f"lstm0_l{k}_", f"lstm0_r{k}_")
    return x


def chainer(a: Arrays, x: Any) -> Any:
    def step(row: Any, h: Any, c: Any) -> Any:
        lstm_in = row @ a["l1/upward/W"].T + a["l1/upward/b"] + h @ a["l1/lateral/W"].T
        r = lstm_in.reshape(len(lstm_in) // 4, 4)
        a_, i, f, o = (r[:, k] for k in range(4))
        return plain(i, f, a_, o, c)

    return over(x, step)


def chainer_nstep(a: Arrays, x: Any) -> Any:
    for n in range(2):
        w = [np.asarray(a[f"rnn/{n}/w{k}"]) for k in range(8)]
        b = [np.asarray(a[f"rnn/{n}/b{k}"]) for k in range(8)]

        def step(row: Any, h: Any, c: Any, w: Any = w, b: Any = b) -> Any:
            z = [w[k] @ row + b[k] + w[k + 4] @ h + b[k + 4] for k in range(4)]
            return plain(z[0], z[1], z[2], z[3], c)

        x = over(x, step)
    return x


GATES = ("ingate", "forgetgate", "cell", "outgate")


def lasagne_layer(p: list[Any], x: Any) -> Any:
    """p: W_in, W_hid and b of ingate, forgetgate, cell, outgate; peepholes; cell_init, hid_init."""
    peep_in, peep_forget, peep_out, cell_init, hid_init = p[12:]

    def step(row: Any, hid: Any, cell: Any) -> Any:
        z = [row @ p[k] + hid @ p[k + 1] + p[k + 2] for k in (0, 3, 6, 9)]
        ingate = sigmoid(z[0] + cell * peep_in)
        forgetgate = sigmoid(z[1] + cell * peep_forget)
        cell = forgetgate * cell + ingate * np.tanh(z[2])
        outgate = sigmoid(z[3] + cell * peep_out)
        return outgate * np.tanh(cell), cell

    return over(x, step, hid_init[0], cell_init[0])


def lasagne_names() -> list[str]:
    gates = [f"{part}{gate}" for gate in GATES for part in ("W_in_to_", "W_hid_to_", "b_")]
    return [*gates, *(f"W_cell_to_{gate}" for gate in GATES if gate != "cell")]


def lasagne(a: Arrays, x: Any) -> Any:
    return lasagne_layer([a[name] for name in (*lasagne_names(), "cell_init", "hid_init")], x)


def lasagne_shapes(inputs: int) -> list[tuple[int, ...]]:
    return [(inputs, H), (H, H), (H,)] * 4 + [(H,)] * 3 + [(1, H)] * 2


def lasagne_stack(a: Arrays, x: Any) -> Any:
    for n in (0, 17):
        x = lasagne_layer([a[f"arr_{n + k}"] for k in range(17)], x)
    return x


def mlx(a: Arrays, x: Any) -> Any:
    def step(row: Any, h: Any, c: Any) -> Any:
        return plain(*np.split(row @ a["Wx"].T + a["bias"] + h @ a["Wh"].T, 4), c)

    return over(x, step)


def matlab(a: Arrays, x: Any) -> Any:
    def step(row: Any, h: Any, c: Any) -> Any:
        x_, h_ = row[:, None], h[:, None]
        z = a["InputWeights"] @ x_ + a["RecurrentWeights"] @ h_ + a["Bias"]
        i, f, g, o = (z[k * H : (k + 1) * H, 0] for k in range(4))
        return plain(i, f, g, o, c)

    return over(x, step)


def cntk(a: Arrays, x: Any) -> Any:
    def step(row: Any, h: Any, c: Any) -> Any:
        proj4 = a["lstm/b"] + row @ a["lstm/W"] + h @ a["lstm/H"]
        it, bit, ft, ot = (proj4[k * H : (k + 1) * H] for k in range(4))
        c = sigmoid(ft) * c + sigmoid(it) * np.tanh(bit)
        return sigmoid(ot) * np.tanh(c), c

    return over(x, step)


def theano_tutorial(a: Arrays, x: Any) -> Any:
    def step(row: Any, h: Any, c: Any) -> Any:
        preact = h @ a["lstm_U"] + (row @ a["lstm_W"] + a["lstm_b"])
        i, f, o, g = (preact[k * H : (k + 1) * H] for k in range(4))
        return plain(i, f, g, o, c)

    return over(x, step)


def burn(a: Arrays, x: Any) -> Any:
    def z(gate: str, row: Any, h: Any) -> Any:
        found = 0.0
        for kind, values in (("input", row), ("hidden", h)):
            at = f"lstm.{gate}_gate.{kind}_transform."
            found = found + values @ a[at + "weight"] + a[at + "bias"]
        return found

    gates = ("input", "forget", "cell", "output")
    return over(x, lambda row, h, c: plain(*(z(gate, row, h) for gate in gates), c))


def torch_cell(a: Arrays, x: Any) -> Any:
    def step(row: Any, h: Any, c: Any) -> Any:
        z = a["weight_ih"] @ row + a["bias_ih"] + a["weight_hh"] @ h + a["bias_hh"]
        return plain(*np.split(z, 4), c)

    return over(x, step)


def keras_bidirectional(a: Arrays, x: Any) -> Any:
    def run(x: Any, first: str) -> Any:
        kernel, recurrent, bias = (a[f"arr_{int(first) + k}"] for k in range(3))

        def step(row: Any, h: Any, c: Any) -> Any:
            i, f, g, o = np.split(row @ kernel + h @ recurrent + bias, 4)
            return plain(i, f, g, o, c)

        return over(x, step)

    for n in (0, 6):
        x = both_ways(run, x, str(n), str(n + 3))
    return x


def tf1(a: Arrays, x: Any, scope: str) -> Any:
    def step(row: Any, h: Any, c: Any) -> Any:
        z = np.concatenate([row, h]) @ a[f"{scope}/kernel"] + a[f"{scope}/bias"]
        i, j, f, o = np.split(z, 4)
        return plain(i, f + 1.0, j, o, c)

    return over(x, step)


def tf1_projected(a: Arrays, x: Any) -> Any:
    at = "rnn/lstm_cell/"

    def step(row: Any, m: Any, c: Any) -> Any:
        z = np.concatenate([row, m]) @ a[at + "kernel"] + a[at + "bias"]
        i, j, f, o = np.split(z, 4)
        forget = sigmoid(f + 1.0 + a[at + "w_f_diag"] * c)
        c = forget * c + sigmoid(i + a[at + "w_i_diag"] * c) * np.tanh(j)
        m = sigmoid(o + a[at + "w_o_diag"] * c) * np.tanh(c)
        return m @ a[at + "projection/kernel"], c

    return over(x, step, np.zeros(2))


def pair(name: str, inputs: int, *, rows: bool) -> dict[str, tuple[int, ...]]:
    """Two matrices and a bias, named by a pattern of three."""
    first, second, bias = name.split()
    shapes = {first: (inputs, 4 * H), second: (H, 4 * H)}
    return {k: s[::-1] if rows else s for k, s in shapes.items()} | {bias: (4 * H,)}


def mxnet_shapes(key: str, inputs: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{key}i2h_weight": (4 * H, inputs),
        f"{key}h2h_weight": (4 * H, H),
        f"{key}i2h_bias": (4 * H,),
        f"{key}h2h_bias": (4 * H,),
    }


def nstep_shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for n, inputs in enumerate((N, H)):
        for k in range(8):
            found[f"rnn/{n}/w{k}"] = (H, inputs if k < 4 else H)
            found[f"rnn/{n}/b{k}"] = (H,)
    return found


def keras_shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for n, inputs in ((0, N), (3, N), (6, 2 * H), (9, 2 * H)):
        found |= pair(f"arr_{n} arr_{n + 1} arr_{n + 2}", inputs, rows=False)
    return found


SCOPE = "bidirectional_rnn/{}/basic_lstm_cell"
DENSE = {
    f"params/cell/{side}{gate}/kernel": (N if side == "i" else H, H)
    for side in "ih"
    for gate in "ifgo"
}
BURN = {
    f"lstm.{gate}_gate.{kind}_transform.{part}": ((width, H) if part == "weight" else (H,))
    for gate in ("input", "forget", "output", "cell")
    for kind, width in (("input", N), ("hidden", H))
    for part in ("weight", "bias")
}

FRAMEWORKS = {
    "flax": Framework(DENSE | {f"params/cell/h{gate}/bias": (H,) for gate in "ifgo"}, flax),
    "haiku": Framework({"lstm/linear/w": (N + H, 4 * H), "lstm/linear/b": (4 * H,)}, haiku),
    "mxnet_gluon": Framework(
        mxnet_shapes("lstm0_l0_", N) | mxnet_shapes("lstm0_l1_", H),
        lambda a, x: mxnet(a, mxnet(a, x, "lstm0_l0_"), "lstm0_l1_"),
        2,
    ),
    "mxnet_gluon_bidirectional": Framework(
        mxnet_shapes("lstm0_l0_", N)
        | mxnet_shapes("lstm0_r0_", N)
        | mxnet_shapes("lstm0_l1_", 2 * H)
        | mxnet_shapes("lstm0_r1_", 2 * H),
        mxnet_bidirectional,
        2,
    ),
    "mxnet_cell": Framework(mxnet_shapes("lstm_", N), lambda a, x: mxnet(a, x, "lstm_")),
    "chainer": Framework(pair("l1/upward/W l1/lateral/W l1/upward/b", N, rows=True), chainer),
    "chainer_nstep": Framework(nstep_shapes(), chainer_nstep, 2),
    "lasagne": Framework(
        dict(
            zip((*lasagne_names(), "cell_init", "hid_init"), lasagne_shapes(N), strict=True),
        ),
        lasagne,
    ),
    "lasagne_get_all_param_values": Framework(
        {f"arr_{k}": s for k, s in enumerate([*lasagne_shapes(N), *lasagne_shapes(H)])},
        lasagne_stack,
        2,
    ),
    "mlx": Framework(pair("Wx Wh bias", N, rows=True), mlx),
    "matlab": Framework(
        pair("InputWeights RecurrentWeights Bias", N, rows=True) | {"Bias": (4 * H, 1)}, matlab
    ),
    "cntk": Framework(pair("lstm/W lstm/H lstm/b", N, rows=False), cntk),
    "theano_tutorial": Framework(
        pair("lstm_W lstm_U lstm_b", N, rows=False)
        | {"Wemb": (9, N), "U": (H, 2), "b": (2,), "train_err": (), "history_errs": (4, 2)},
        theano_tutorial,
    ),
    "burn": Framework(BURN, burn),
    "pytorch_cell": Framework(
        pair("weight_ih weight_hh bias_ih", N, rows=True) | {"bias_hh": (4 * H,)}, torch_cell
    ),
    "keras_get_weights_bidirectional": Framework(keras_shapes(), keras_bidirectional, 2),
    "tf1_bidirectional": Framework(
        {
            f"{SCOPE.format(way)}/{part}": shape
            for way in ("fw", "bw")
            for part, shape in (("kernel", (N + H, 4 * H)), ("bias", (4 * H,)))
        },
        lambda a, x: both_ways(
            lambda x, scope: tf1(a, x, scope), x, SCOPE.format("fw"), SCOPE.format("bw")
        ),
    ),
    "tf1_lstm_peepholes_projection": Framework(
        {"rnn/lstm_cell/kernel": (N + 2, 4 * H), "rnn/lstm_cell/bias": (4 * H,)}
        | {f"rnn/lstm_cell/w_{gate}_diag": (H,) for gate in "ifo"}
        | {"rnn/lstm_cell/projection/kernel": (H, 2)},
        tf1_projected,
    ),
}
