"""One training step of a language model, in ifgo's compiled layers and in PyTorch.

Both compute loss and every gradient from the same weights; neither updates them. ifgo packs its
weights anew in each step, as it must after an update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import peers
from ifgo.engine.cells import bias_of, pack
from ifgo.engine.loading import native
from ifgo.model import Model

Call = Callable[[], object]


@dataclass(frozen=True)
class Shape:
    """layers × hidden, batch, steps, embedding width, vocabulary; reach: ratio against torch."""

    title: str
    layers: int
    batch: int
    steps: int
    width: int
    hidden: int
    vocabulary: int
    reach: float

    @property
    def flops(self) -> float:
        """Forward, and twice that backward."""
        inputs = self.width + (self.layers - 1) * self.hidden
        macs = 4 * self.hidden * (inputs + self.layers * self.hidden)
        return 6.0 * self.batch * self.steps * (macs + self.hidden * self.vocabulary)


SHAPES = (
    Shape("train 1×100, V=10k", 1, 20, 35, 100, 100, 10_000, 1.65),
    Shape("train 2×200, V=10k", 2, 20, 35, 200, 200, 10_000, 1.47),
    Shape("train 2×650, V=10k", 2, 20, 35, 650, 650, 10_000, 1.35),
    Shape("train 2×1500, V=10k", 2, 20, 35, 1500, 1500, 10_000, 1.35),
    Shape("train char 512, V=128", 1, 50, 50, 128, 512, 128, 1.35),
)


class Ours:
    """The step in ifgo's layers, time-major (T, B, ·), buffers kept between steps."""

    def __init__(self, shape: Shape, model: Model, table: Any, ids: Any, targets: Any) -> None:
        self.native = native()
        self.table, self.ids, self.targets = table, ids, targets.reshape(-1)
        rows = shape.batch * shape.steps
        self.weights = np.full(rows, 1 / rows, np.float32)
        self.cells = [layer.cell for layer in model.recurrent]
        self.packed = [pack(cell, with_back=True) for cell in self.cells]
        self.tapes = [self.native.Tape() for _ in self.cells]
        self.trainer = self.native.Trainer()
        self.dense: Any = model.layers[-1]
        time_major = (shape.steps, shape.batch)
        self.y = [np.empty((*time_major, shape.hidden), np.float32) for _ in self.cells]
        self.dy = [np.empty((*time_major, shape.hidden), np.float32) for _ in self.cells]
        self.dx = np.empty((*time_major, shape.width), np.float32)
        self.gradients = [
            {
                "weight_ih": np.empty_like(cell.weight_ih),
                "weight_hh": np.empty_like(cell.weight_hh),
                "bias": np.empty(4 * cell.hidden_size, np.float32),
            }
            for cell in self.cells
        ]
        self.d_dense = np.empty_like(self.dense.weight)
        self.d_bias = np.empty(shape.vocabulary, np.float32)
        self.d_table = np.zeros_like(table)
        self.loss = np.empty(rows, np.float32)

    def step(self) -> float:
        """The mean loss; gradients are left in `gradients`, `d_dense`, `d_bias` and `d_table`."""
        value = self.table[self.ids]
        for cell, packed, tape, y in zip(self.cells, self.packed, self.tapes, self.y, strict=True):
            packed.set(cell.weight_ih, cell.weight_hh, bias_of(cell), None, None, None)
            self.native.forward(packed, tape, batch_first(value), batch_first(y), keep=True)
            value = y
        self.native.dense_train(
            self.trainer,
            self.dense.weight,
            None,
            rows(value),
            target=self.targets,
            row_weight=self.weights,
            loss=self.loss,
            dx=rows(self.dy[-1]),
            d_weight=self.d_dense,
            d_bias=self.d_bias,
        )
        for k in reversed(range(len(self.cells))):
            self.native.backward(
                self.packed[k],
                self.tapes[k],
                dy=batch_first(self.dy[k]),
                dx=batch_first(self.dy[k - 1] if k else self.dx),
                **self.gradients[k],
            )
        self.d_table[self.ids.reshape(-1)] = 0
        np.add.at(self.d_table, self.ids.reshape(-1), rows(self.dx))
        return float(self.loss.sum())


def batch_first(array: Any) -> Any:
    """(T, B, ·) as (B, T, ·), the same memory."""
    return array.transpose(1, 0, 2)


def rows(array: Any) -> Any:
    """(T, B, ·) as (T·B, ·)."""
    return array.reshape(-1, array.shape[-1])


def torch_step(model: Model, table: Any, ids: Any, targets: Any) -> Call:
    """The same in PyTorch, float32, one thread."""
    import torch

    torch.set_num_threads(1)
    embedding = torch.nn.Embedding.from_pretrained(torch.from_numpy(table), freeze=False)
    lstm = peers.torch_module(model).train()
    lstm.batch_first = False
    dense: Any = model.layers[-1]
    weight = torch.nn.Parameter(torch.from_numpy(np.array(dense.weight)))
    bias = torch.nn.Parameter(torch.zeros(dense.weight.shape[0]))
    given, wanted = torch.from_numpy(ids), torch.from_numpy(targets).reshape(-1)
    everything = [*embedding.parameters(), *lstm.parameters(), weight, bias]

    def step() -> float:
        for parameter in everything:
            parameter.grad = None
        y, _ = lstm(embedding(given))
        logits = torch.nn.functional.linear(y, weight, bias).reshape(len(wanted), -1)
        loss = torch.nn.functional.cross_entropy(logits, wanted)
        loss.backward()
        return loss.item()

    return step


def training_rows(
    with_torch: bool,
) -> Iterator[tuple[str, dict[str, Call], float, dict[str, float]]]:
    """Every shape; the losses of the contenders are compared first."""
    for shape in SHAPES:
        random = np.random.default_rng(3)
        sizes = [shape.width, *[shape.hidden] * shape.layers]
        model = peers.lstm(sizes, outputs=shape.vocabulary)
        table = random.normal(size=(shape.vocabulary, shape.width)).astype(np.float32)
        ids, targets = random.integers(0, shape.vocabulary, (2, shape.steps, shape.batch))
        contenders: dict[str, Call] = {"ifgo": Ours(shape, model, table, ids, targets).step}
        if with_torch:
            contenders["torch"] = torch_step(model, table, ids, targets)
            losses = [call() for call in contenders.values()]
            if not np.allclose(losses[0], losses[1], rtol=1e-4):
                raise RuntimeError(f"{shape.title}: losses {losses} differ")
        yield shape.title, contenders, shape.flops, {"torch": shape.reach}
