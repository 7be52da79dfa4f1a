"""A graph of another format as the ONNX reader's walk takes it (see onnx.walk).

A format whose files are graphs translates each operator into nodes with the meaning of ONNX, and
each recurrent operator into a node that comes with its layer. Moves, folding, layers, selection and
messages are then those of one walk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from ifgo.errors import FormatError, IfgoError
from ifgo.formats.onnx.file import Graph, GraphInput, Node
from ifgo.layers import Recurrent

OPSET: Final = 21
"""Whose meaning the nodes have."""


@dataclass(frozen=True)
class ArrayGraph(Graph):
    """A graph whose constants are arrays."""

    arrays: dict[str, NDArray[Any]] = field(repr=False, kw_only=True)

    def is_constant(self, name: str) -> bool:
        """Whether a constant has this name."""
        return name in self.arrays

    def constant(self, name: str) -> NDArray[Any]:
        """The constant `name`."""
        return self.arrays[name]


class GraphBuilder:
    """Nodes and constants collected in order."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.arrays: dict[str, NDArray[Any]] = {}
        self._count = 0

    def fresh(self, hint: str) -> str:
        """A name that no tensor of a file has: it begins with a space."""
        self._count += 1
        return f" {hint}{self._count}"

    def constant(self, data: Any) -> str:
        """The name of a new constant."""
        name = self.fresh("constant")
        self.arrays[name] = np.asarray(data)
        return name

    def integers(self, *values: int) -> str:
        """The name of a new constant vector of int64."""
        return self.constant(np.array(values, np.int64))

    def add(
        self,
        op: str,
        inputs: tuple[str, ...],
        outputs: str | tuple[str, ...] = "",
        *,
        name: str,
        kind: str = "",
        layer: Recurrent | None = None,
        sources: dict[str, str] | None = None,
        **attributes: Any,
    ) -> str:
        """One node. Returns its first output, new where not given, "" where it has none.

        name: what messages call it, "KIND #position" unless kind is given, which is the operator
        of the file. Raises FormatError on an attribute beyond 64-bit integers.
        """
        made = (outputs or self.fresh(op),) if isinstance(outputs, str) else outputs
        try:
            stored = {key: helper.make_attribute(key, value) for key, value in attributes.items()}
        except (ValueError, TypeError, OverflowError):
            raise FormatError(
                "has an attribute that is no 64-bit integer or float32", where=f"node {name!r}"
            ) from None
        self.nodes.append(
            Node(
                op,
                name,
                len(self.nodes),
                inputs,
                made,
                stored,
                layer=layer,
                sources=sources or {},
                kind=kind or _kind(name),
            )
        )
        return made[0] if made else ""

    def refuse(
        self,
        op: str,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        error: IfgoError,
        name: str,
        kind: str,
    ) -> None:
        """A node that raises `error` where it is needed."""
        made = Node(op, name, len(self.nodes), inputs, outputs, {}, refusal=error, kind=kind)
        self.nodes.append(made)

    def graph(
        self,
        inputs: list[GraphInput],
        outputs: tuple[str, ...],
        *,
        framework: str,
        producer: str,
        path: Path,
    ) -> ArrayGraph:
        """All of it."""
        return ArrayGraph(
            nodes=tuple(self.nodes),
            inputs={entry.name: entry for entry in inputs},
            outputs=outputs,
            opset=OPSET,
            producer=producer,
            folder=path.parent,
            _tensors={},
            framework=framework,
            arrays=self.arrays,
        )


def _kind(name: str) -> str:
    return name.rsplit(" #", 1)[0]
