"""The pieces of work that are timed: each with its contenders, its floor, and what we reach for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from benchmarks import peers
from benchmarks.machine import Ceilings
from benchmarks.training import training_rows
from ifgo.engine import Session, Stream

Call = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One line of the table. unit: pieces of work per call; reach: peer → wanted ratio."""

    title: str
    contenders: dict[str, Call]
    unit: int = 1
    floor: float = 0.0
    reach: dict[str, float] = field(default_factory=dict[str, float])


def step_floor(ceilings: Ceilings, hidden: int, inputs: int = 1) -> float:
    """Least seconds of one step of one sequence: every weight read once."""
    weights = 4 * hidden * (hidden + inputs)
    return ceilings.floor(flops=2.0 * weights, weights=4 * weights)


def per_call(ceilings: Ceilings, names: list[str]) -> Iterator[Row]:
    """One step of one sequence per Python call."""
    wanted = {16: (450, 80), 64: (110, 21), 128: (44, 9), 256: (30, 4)}
    for hidden, (torch, ort) in wanted.items():
        model = peers.lstm([1, hidden])
        stream = Stream(model, threads=1)
        x, out = np.ones(1, np.float32), np.empty(hidden, np.float32)
        stream.bind(x, out)
        repeat = 100 if hidden <= 64 else 20

        def many(call: Call, repeat: int = repeat) -> Call:
            def run() -> None:
                for _ in range(repeat):
                    call()

            return run

        def step(
            f: Callable[..., object] = stream.step,
            x: object = x,
            out: object = out,
            repeat: int = repeat,
        ) -> None:
            for _ in range(repeat):
                f(x, out)

        contenders = {"ifgo step": step, "ifgo tick": many(stream.tick)}
        batch = x.reshape(1, 1, 1)
        contenders |= {n: many(peers.forward(n, model, batch, 1)) for n in names}
        reach = {"torch": torch, "onnxruntime": ort}
        floor = step_floor(ceilings, hidden)
        yield Row(f"one call per step, H={hidden}", contenders, repeat, floor, reach)


def inside_call(ceilings: Ceilings, names: list[str]) -> Iterator[Row]:
    """128 steps of one sequence in one call."""
    wanted = {8: 6, 16: 6.4, 32: 3.4, 64: 2.2, 128: 1.4, 512: 1.65}
    for hidden, ort in wanted.items():
        model = peers.lstm([1, hidden])
        x = np.random.default_rng(1).normal(size=(1, 128, 1)).astype(np.float32)
        contenders = {"ifgo": whole(model, x)}
        contenders |= {n: peers.forward(n, model, x, 1) for n in names}
        floor = step_floor(ceilings, hidden)
        title = f"128 steps in one call, H={hidden}, per step"
        yield Row(title, contenders, 128, floor, {"onnxruntime": ort})


def whole(model: peers.Model, x: np.ndarray, threads: int = 1) -> Call:
    """One sequence through a Stream from its initial state."""
    stream = Stream(model, threads=threads)
    out = np.empty((x.shape[1], model.output_size), np.float32)

    def run() -> None:
        stream.reset()
        stream.run(x[0], out)

    return run


def stacked(ceilings: Ceilings, names: list[str]) -> Iterator[Row]:
    """The anomaly detector's shape: three small layers and one output."""
    model = peers.lstm([1, 16, 16, 16], outputs=1)
    x = np.random.default_rng(1).normal(size=(1, 128, 1)).astype(np.float32)
    contenders = {"ifgo": whole(model, x)}
    contenders |= {n: peers.forward(n, model, x, 1) for n in names if n != "jax"}
    floor = ceilings.floor(flops=128 * 2.0 * model.macs)
    reach = {"onnxruntime": 4.5, "torch": 14.0}
    yield Row("1→16→16→16→1, 128 samples", contenders, 1, floor, reach)


def batched(ceilings: Ceilings, names: list[str]) -> Iterator[Row]:
    """Batches, per time step."""
    for hidden in (128, 512, 1024):
        for batch in (32, 256):
            steps = max(4, (20 << 9) // (hidden * batch // 32))
            model = peers.lstm([hidden, hidden])
            x = np.random.default_rng(1).normal(size=(batch, steps, hidden)).astype(np.float32)
            session = Session(model, threads=1)
            state = {f"{part}0": np.zeros((1, batch, hidden), np.float32) for part in "hc"}
            contenders: dict[str, Call] = {
                "ifgo": lambda s=session, x=x, state=state: s.compute(x, state, None)
            }
            contenders |= {n: peers.forward(n, model, x, 1) for n in names}
            floor = ceilings.floor(flops=2.0 * batch * model.macs)
            reach = dict.fromkeys(names, 1.25)
            title = f"batch {batch}, I=H={hidden}, per step"
            yield Row(title, contenders, steps, floor, reach)


def two_cores(ceilings: Ceilings, names: list[str]) -> Iterator[Row]:
    """Two threads against one, which stands in the peer's place."""
    x1 = np.random.default_rng(1).normal(size=(1, 128, 1)).astype(np.float32)
    for hidden in (256, 384, 512, 1024):
        model = peers.lstm([1, hidden])
        contenders = {"ifgo": whole(model, x1, 2), "one thread": whole(model, x1, 1)}
        floor = step_floor(ceilings, hidden) / 2
        reach = {"one thread": 3.0 if hidden == 512 else 1.6}
        yield Row(f"2 threads, one sequence, H={hidden}, per step", contenders, 128, floor, reach)
    for hidden in (256, 512):
        model = peers.lstm([hidden, hidden])
        x = np.random.default_rng(1).normal(size=(32, 20, hidden)).astype(np.float32)
        state = {f"{part}0": np.zeros((1, 32, hidden), np.float32) for part in "hc"}
        both = {n: Session(model, threads=n) for n in (2, 1)}
        contenders = {
            "ifgo": lambda s=both[2], x=x, state=state: s.compute(x, state, None),
            "one thread": lambda s=both[1], x=x, state=state: s.compute(x, state, None),
        }
        floor = ceilings.floor(flops=2.0 * 32 * model.macs) / 2
        title = f"2 threads, batch 32, I=H={hidden}, per step"
        yield Row(title, contenders, 20, floor, {"one thread": 1.6})


def training(ceilings: Ceilings, names: list[str]) -> Iterator[Row]:
    """Embedding, LSTM layers, vocabulary softmax: forward and backward."""
    for title, contenders, flops, reach in training_rows("torch" in names):
        yield Row(title, contenders, 1, ceilings.floor(flops=flops), reach)


WORK = {
    "per-call": per_call,
    "inside-call": inside_call,
    "stacked": stacked,
    "batched": batched,
    "training": training,
    "two-cores": two_cores,
}
