"""What only JSON models can suffer: lying sizes, deep and wide trees, numbers that are none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from corpus import MARK, NAMES, Format, Mutant

Tree = dict[str, Any]
MEBI = 2**20


def _draw(*shape: int) -> Any:
    return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype("f").tolist()


def _rtneural() -> Tree:
    lstm = {"type": "lstm", "activation": "tanh", "shape": [None, None, 2]}
    dense = {"type": "dense", "activation": "", "shape": [None, None, 1]}
    lstm["weights"] = [_draw(3, 8), _draw(2, 8), _draw(8)]
    dense["weights"] = [_draw(2, 1), _draw(1)]
    metadata = {"name": "amp", "author": "someone", "esr": 0.5}
    return {
        "in_shape": [None, None, 3],
        "in_skip": 1,
        "layers": [lstm, dense],
        "metadata": metadata,
    }


def _guitarml() -> Tree:
    data = {"model": "SimpleRNN", "input_size": 3, "skip": 1, "output_size": 1}
    data |= {"unit_type": "LSTM", "num_layers": 1, "hidden_size": 2, "bias_fl": True}
    tensors = {"rec.weight_ih_l0": _draw(8, 3), "rec.weight_hh_l0": _draw(8, 2)}
    tensors |= {"rec.bias_ih_l0": _draw(8), "rec.bias_hh_l0": _draw(8)}
    tensors |= {"lin.weight": _draw(1, 2), "lin.bias": _draw(1)}
    return {"model_data": data, "state_dict": tensors}


def _nam() -> Tree:
    return {
        "version": "0.5.4",
        "metadata": {"name": "pedal", "modeled_by": "someone", "training": {"data": {}}},
        "architecture": "LSTM",
        "config": {"input_size": 3, "hidden_size": 2, "num_layers": 1},
        "weights": _draw(4 * 2 * (3 + 2) + 6 * 2 + 2 + 1),
        "sample_rate": 48000,
    }


TREES: dict[str, tuple[str, Callable[[], Tree]]] = {
    "rtneural": ("m.aidax", _rtneural),
    "guitarml": ("m.json", _guitarml),
    "nam": ("m.nam", _nam),
}
"""Format → the name of its file, and an intact model."""

HUGE = (2**31 - 1, 2**63, 10**400, -1, 0, 1.5, 1e308, True, None, "3", [], {}, [2**40] * 9)
"""Instead of a size."""

SIZES: dict[str, tuple[tuple[Any, ...], ...]] = {
    "rtneural": (("in_shape", 2), ("in_skip",), ("layers", 0, "shape", 2), ("layers", 1, "shape")),
    "guitarml": tuple(("model_data", key) for key in ("input_size", "hidden_size", "num_layers")),
    "nam": tuple(("config", key) for key in ("input_size", "hidden_size", "num_layers")),
}

WEIGHTS: dict[str, tuple[Any, ...]] = {
    "rtneural": ("layers", 0, "weights", 2),
    "guitarml": ("state_dict", "rec.bias_ih_l0"),
    "nam": ("weights",),
}
"""Where a flat list of numbers stands."""

TOKENS = {
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "1e400": "1e400",
    "1e39": "1e39",
    "10**4000": "9" * 4001,
    "a million digits": "9" * MEBI,
    "a million decimals": "0." + "9" * MEBI,
    "a list": "[0.5]",
    "lists in lists": "[" * 50_000 + "]" * 50_000,
    "a string": '"0.5"',
    "an object": "{}",
    "null": "null",
    "true": "true",
    "hexadecimal": "0x10",
    "a comma": "0,5",
    "two million numbers": ",".join(["0.5"] * (2 * MEBI)),
    "a million lists": ",".join(["[]"] * MEBI),
    "a million objects": ",".join(["{}"] * MEBI),
    "a million strings": ",".join(['""'] * MEBI),
    "a long string": '"' + "s" * 2**23 + '"',
    "a string of escapes": '"' + "\\u0100" * MEBI + '"',
}
"""Instead of the first number."""


def _write(form: str, tree: Tree, token: str = "") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        text = json.dumps(tree).replace('"TOKEN"', token)
        (folder / TREES[form][0]).write_text(text, encoding="utf-8", errors="surrogatepass")
        return folder / TREES[form][0]

    return write


def _set(tree: Tree, path: tuple[Any, ...], value: Any) -> Tree:
    owner: Any = tree
    for part in path[:-1]:
        owner = owner[part]
    owner[path[-1]] = value
    return tree


def _wide(tree: Tree, form: str) -> Tree:
    """Entries without end where there are a few."""
    if form == "rtneural":
        tree["layers"] *= 3000
    elif form == "guitarml":
        tree["state_dict"] |= {f"rec.weight_ih_l{k}": [] for k in range(60_000)}
    else:
        tree["metadata"] = {f"k{k}": {"v": "v" * 40} for k in range(30_000)}
    return tree


def crafted(form: str) -> Iterator[Mutant]:
    """Sizes, tokens, wide and deep trees, and names wherever there is text."""
    make = TREES[form][1]
    for path in SIZES[form]:
        for value in HUGE:
            yield Mutant(f"{path[-1]} {str(value)[:20]}", _write(form, _set(make(), path, value)))
    for name, token in TOKENS.items():
        yield Mutant(
            f"number: {name}", _write(form, _set(make(), (*WEIGHTS[form], 0), "TOKEN"), token)
        )
    yield Mutant("entries without end", _write(form, _wide(make(), form)))
    yield Mutant("keys without end", _write(form, make() | {f"k{k}": 0 for k in range(300_000)}))
    for name, text in NAMES.items():
        yield Mutant(f"key: {name}", _write(form, make() | {text: 0}))
        assert MARK in text


def named(form: str, folder: Path, name: str) -> Path:
    """The intact model with `name` in every place that takes one."""
    tree = TREES[form][1]()
    if "metadata" in tree:
        tree["metadata"] = {name: name, "name": name, "deep": {name: name}}
    return _write(form, tree)(folder)


def _format(form: str) -> Format:
    return Format(form, _write(form, TREES[form][1]()), lambda: crafted(form))


RTNEURAL, GUITARML, NAM = map(_format, TREES)
