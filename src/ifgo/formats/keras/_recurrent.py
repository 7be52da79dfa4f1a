"""LSTM, CuDNNLSTM, RNN around LSTMCells, and Bidirectional around one of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

from ifgo.activations import SIGMOID, TANH
from ifgo.cell import LSTMCell
from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.formats.keras._config import SELECT_HINT, Node
from ifgo.formats.keras._weights import Store, cell_arrays, snake
from ifgo.layers import Merge, Recurrent, TrainingFacts
from ifgo.text import quote

LSTMS: Final = ("LSTM", "CuDNNLSTM")
FAMILY: Final = (*LSTMS, "RNN", "Bidirectional")

_MERGES: Final[dict[str, Merge]] = {"concat": "concat", "sum": "sum", "mul": "mul", "ave": "ave"}


@dataclass
class Rnn:
    """What a recurrent layer of Keras says of itself beyond its cells.

    cells: nodes of the cells with the path of their arrays inside the layer; several are stacked.
    zero: what a masked step gives is zero, None where the version does not let it be known.
    """

    node: Node
    cells: list[tuple[Node, str]]
    sequences: bool
    state: bool
    go_backwards: bool
    stateful: bool
    zero: bool | None
    time_major: bool


@dataclass
class Built:
    """Recurrent layers in order, and where their arrays lay: "name.forward.weight_ih" → path."""

    layers: list[Recurrent]
    names: dict[str, str]


def is_recurrent(node: Node) -> bool:
    """Whether it is one of FAMILY around LSTMs, by its classes alone."""
    kinds = [node.kind]
    inner: Any = node.values
    for key in ("layer", "cell"):
        deeper: Any = cast("dict[str, Any]", inner).get(key) if isinstance(inner, dict) else None
        if isinstance(deeper, dict) and kinds[-1] in ("RNN", "Bidirectional"):
            entry = cast("dict[str, Any]", deeper)
            kinds.append(str(entry.get("class_name")))
            inner = entry.get("config")
    return kinds[0] in FAMILY and kinds[-1] in (*LSTMS, "LSTMCell", "StackedRNNCells")


def parse(node: Node) -> Rnn:
    """An LSTM, CuDNNLSTM or RNN. Raises UnsupportedError naming another cell."""
    if node.kind in LSTMS:
        cells = [(node, "cell" if node.kind == "LSTM" else "")]
    elif node.kind == "RNN":
        cells = _cells(node.inner("cell"))
    else:
        raise UnsupportedError(
            f"wraps a {quote(node.kind)}", where=node.where, expected="LSTM or RNN of LSTMCells"
        )
    found = Rnn(
        node,
        cells,
        sequences=node.flag("return_sequences"),
        state=node.flag("return_state"),
        go_backwards=node.flag("go_backwards"),
        stateful=node.flag("stateful"),
        zero=node.flag("zero_output_for_mask"),
        time_major=node.flag("time_major"),
    )
    if node.kind == "RNN":
        node.close()
    return found


def _cells(cell: Node) -> list[tuple[Node, str]]:
    if cell.kind == "LSTMCell":
        return [(cell, "cell")]
    if cell.kind != "StackedRNNCells":
        raise UnsupportedError(
            f"has a cell of class {quote(cell.kind)}", where=cell.where, expected="LSTMCell"
        )
    given = cell.raw("cells")
    cell.raw("reverse_state_order")
    cell.close()
    if not isinstance(given, list) or not given:
        raise cell.wrong("cells", given, "a list of cells")
    found: list[tuple[Node, str]] = []
    seen: dict[str, int] = {}
    for entry in cast("list[Any]", given):
        inner = Node.parse(entry, cell.version, cell.where)
        inner.owner, inner.own = cell.owner, cell.own
        if inner.kind != "LSTMCell":
            raise UnsupportedError(
                f"is a cell of class {quote(inner.kind)}", where=inner.where, expected="LSTMCell"
            )
        base = snake(inner.kind)
        number = f"_{seen[base]}" if base in seen else ""
        seen[base] = seen.get(base, 0) + 1
        found.append((inner, f"cell/cells/{base}{number}"))
    return found


def _cell(
    node: Node, store: Store, path: str, base: Node
) -> tuple[LSTMCell, TrainingFacts, dict[str, str]]:
    """The cell that `node` says, with the arrays of layer `base` under `path`."""
    units = node.integer("units", "output_dim")
    bias = True
    gates, inside = SIGMOID, TANH
    if node.kind != "CuDNNLSTM":
        bias = node.flag("use_bias", True)
        inside = node.activation("activation", required=True)
        gates = node.activation("recurrent_activation", "inner_activation", required=True)
    facts = TrainingFacts(
        node.rate("dropout", "dropout_W"), node.rate("recurrent_dropout", "dropout_U")
    )
    node.close()
    arrays, names = cell_arrays(store, base, path, units, bias=bias)
    try:
        return LSTMCell(**arrays, activations=(gates, inside, inside)), facts, names
    except IfgoError as error:
        raise error.located(node.where) from None


def build(node: Node, store: Store) -> tuple[Built, Rnn]:
    """`node` of FAMILY with its arrays. Raises UnsupportedError naming what has no place here."""
    if node.kind == "Bidirectional":
        return _bidirectional(node, store)
    rnn = parse(node)
    built = Built([], {})
    for k, (cell_node, path) in enumerate(rnn.cells):
        name = node.name if len(rnn.cells) == 1 else f"{node.name}_{k}"
        cell, facts, names = _cell(cell_node, store, path, node)
        built.layers.append(
            Recurrent(
                name,
                cell,
                go_backwards=rnn.go_backwards and k == 0,
                zero_masked=bool(rnn.zero),
                stateful=rnn.stateful,
                training=facts,
            )
        )
        built.names |= {f"{name}.forward.{key}": source for key, source in names.items()}
    return built, rnn


def _bidirectional(node: Node, store: Store) -> tuple[Built, Rnn]:
    merge = node.raw("merge_mode", "concat")
    if not isinstance(merge, str) or merge not in _MERGES:
        raise UnsupportedError(
            f"merge_mode is {quote(merge)}",
            where=node.where,
            expected="one of " + ", ".join(map(repr, _MERGES)),
            hint="null gives two tensors, which is no chain",
        )
    node.raw("num_weights")
    inner = node.inner("layer")
    forward = parse(inner)
    backward = forward
    if node.raw("backward_layer") is not None:
        backward = parse(node.inner("backward_layer"))
    same = ("sequences", "state", "stateful", "zero", "time_major")
    for key in same:
        if getattr(forward, key) != getattr(backward, key):
            raise UnsupportedError(
                f"has directions that differ in {key}", where=node.where, expected="the same"
            )
    if forward.go_backwards or (backward is not forward and not backward.go_backwards):
        raise UnsupportedError(
            "has a forward layer that goes backwards, or two of one direction",
            where=node.where,
            expected="go_backwards in the backward layer alone",
        )
    node.close()
    if len(forward.cells) + len(backward.cells) > 2:
        raise UnsupportedError(
            "runs a stack of cells in two directions",
            where=node.where,
            expected="one LSTMCell in each",
            hint=SELECT_HINT,
        )
    cells: dict[str, LSTMCell] = {}
    names: dict[str, str] = {}
    facts: list[TrainingFacts] = []
    for direction, rnn in (("forward", forward), ("backward", backward)):
        cell_node, path = rnn.cells[0]
        path = f"{direction}_layer/{path}".rstrip("/")
        cells[direction], fact, found = _cell(cell_node, store, path, node)
        facts.append(fact)
        names |= {f"{node.name}.{direction}.{key}": source for key, source in found.items()}
    if facts[0] != facts[1]:
        raise UnsupportedError(
            "has directions that differ in dropout", where=node.where, expected="the same rates"
        )
    forward.zero = _zero(node, forward)
    try:
        layer = Recurrent(
            node.name,
            cells["forward"],
            cells["backward"],
            merge=_MERGES[merge],
            zero_masked=bool(forward.zero),
            stateful=forward.stateful,
            training=facts[0],
        )
    except IfgoError as error:
        raise FormatError(error.what, where=node.where, expected=error.expected) from None
    forward.node = node
    return Built([layer], names), forward


def _zero(node: Node, rnn: Rnn) -> bool | None:
    """What a masked step of Bidirectional gives: TensorFlow's Keras and Keras 3 give zeros in a
    sequence whatever the config says; Keras 1 and 2 had no such rule."""
    version = node.version
    if not rnn.sequences:
        return False
    if version.major == 3 or version.recent or (version.tensorflow and version.minor >= 3):
        return True
    if version.major is None or version.tensorflow:
        return None
    return False
