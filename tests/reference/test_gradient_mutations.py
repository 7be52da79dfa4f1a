"""The comparison with differences notices every term of the backward that is dropped or changed."""

from __future__ import annotations

import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradient_cases import ROUNDING, Problem, agree, along, differentiate, parts, towards
from gradient_models import (
    BATCH,
    HIDDEN,
    INPUTS,
    MODELS,
    STEPS,
    batch_norm,
    cell,
    chain,
    lstm,
    made,
    norm,
)

from ifgo.model import Dropout, Recurrent, TrainingFacts
from ifgo.reference import _derivatives, _gradient_cell, _gradient_layers, gradient

CELL = [
    ("dh * clip_slope(step.h_raw, cell.clip_projection)", "dh"),
    ('arrays["weight_hr"] += dh_raw.T @ step.m', 'arrays["weight_hr"] += dh.T @ step.m'),
    ('arrays["bias_hr"] += dh_raw.sum(axis=0)', "pass"),
    ("dm = dh_raw @ float64(cell.weight_hr)", "dm = dh @ float64(cell.weight_hr)"),
    ("slope(activation, z) * clip_slope(z, cell.clip_z)", "slope(activation, z)"),
    ("arrays[name][rows] += dz.sum(axis=0)", "arrays[name][rows] = dz.sum(axis=0)"),
    ("(d - mean - value * along)", "(d - mean)"),
    ("(d - mean - value * along)", "(d - value * along)"),
    ("(dz * value).sum(axis=0)", "dz.sum(axis=0)"),
    ("return dv[row] * float64(cell.peephole[PEEPHOLE_ROWS[row]])", "return np.zeros_like(seen)"),
    ("+= (dv[row] * seen).sum(axis=0)", "+= dv[row].sum(axis=0)"),
    ("dc = dc + dm * step.o * slope(shown_act, step.c_new)", "dc = dc + dm * step.o"),
    ("dc = dc + dm * step.o * slope(shown_act, step.c_new)",
     "dc = dm * step.o * slope(shown_act, step.c_new)"),
    ("dc = dc + gate_backward(O, dm * step.shown, step.c_new)",
     "gate_backward(O, dm * step.shown, step.c_new)"),
    ("gate_backward(O, dm * step.shown, step.c_new)", "gate_backward(O, dm * step.shown, step.c)"),
    ("dc = dc * clip_slope(step.c_raw, cell.clip_cell)", "pass"),
    ("di, df = di - df, np.zeros_like(df)", "di, df = di, np.zeros_like(df)"),
    ("di, df = di - df, np.zeros_like(df)", "di, df = di - df, df"),
    ("di, df = np.zeros_like(di), df - di", "di, df = np.zeros_like(di), df"),
    ("dc * step.g, dc * step.c, dc * step.i", "dc * step.g, dc * step.c_new, dc * step.i"),
    ("dc_before = dc * step.f", "dc_before = np.zeros_like(dc)"),
    ("dc_before = dc_before + gate_backward(I, di, step.c)", "gate_backward(I, di, step.c)"),
    ("dc_before = dc_before + gate_backward(F, df, step.c)", "gate_backward(F, df, step.c)"),
    ('arrays[f"{name}.scale"] += (total * done.value).sum(axis=0)', "pass"),
    ("total * float64(norm.scale))", "total)"),
    ('arrays["weight_ih"] += dproduct_x.T @ step.x', 'arrays["weight_ih"] += total.T @ step.x'),
    ('arrays["weight_hh"] += dproduct_h.T @ step.h', 'arrays["weight_hh"] += total.T @ step.h'),
    ("dh_before = dproduct_h @ float64(cell.weight_hh)", "dh_before = np.zeros_like(dh)"),
    ("dx = dx * plan.input_factors[:, t]", "pass"),
    ("dh_before = dh_before * plan.hidden_factors[:, t]", "pass"),
    ("inside & counts if plan.zero_masked else inside", "inside"),
    ("np.where(shown, dy[:, t], 0.0)", "dy[:, t]"),
    ("np.where(counts, dh + drepeated, 0.0)", "np.where(counts, dh, 0.0)"),
    ("drepeated = np.where(counts, 0.0, drepeated)", "drepeated = np.zeros_like(drepeated)"),
    ("np.where(counts, dh_step, dh), np.where(counts, dc_step, dc)",
     "np.where(counts, dh_step, 0.0), np.where(counts, dc_step, 0.0)"),
]  # fmt: skip

LAYERS = [
    ("d[..., :channels] += dy[..., :channels]", "pass"),
    ("lambda back, dy: dy * kept[..., None]", "lambda back, dy: dy * 0"),
    ("(x * kept, lambda back, dy: dy * kept)", "(x * kept, _same)"),
    ("lambda back, dy: dy.sum(axis=1)", "lambda back, dy: dy[:, 0]"),
    ("+= _flat(dz).T @ _flat(x)", "+= _flat(dy).T @ _flat(x)"),
    ("return dz @ float64(layer.weight)", "return dy @ float64(layer.weight)"),
    ('"{path}.factor"] += _flat(dy * x)', '"{path}.factor"] += _flat(dy)'),
    (
        'np.add.at(back.arrays[f"{path}.weight"], tokens, dy)',
        'back.arrays[f"{path}.weight"][tokens] = dy',
    ),
    ("back.last = dy", "pass"),
    ("d[rows, at] = np.where(some, dy, 0.0)", "d[rows, at] = dy"),
    ("d[rows, at] = np.where(some, dy, 0.0)", "d[rows, -1] = np.where(some, dy, 0.0)"),
    ("np.where(nonempty, dh, 0.0)", "dh"),
    ("np.take_along_axis(dx, turned[:, :, None], axis=1) if layer.go_backwards else dx", "dx"),
    ("[d * parts[1], d * parts[0]]", "[d * parts[0], d * parts[1]]"),
    ("[d / 2, d / 2]", "[d, d]"),
    ("dy if kept is None else dy * kept\n", "dy\n"),
    ("dx += dx_one", "dx = dx_one"),
    ("dvalue = dvalue * float64(layer.weight)", "pass"),
]

DERIVATIVES = [
    ("return e / (1 + e) ** 2", "return e / (1 + e)"),
    ("return 4 * _sigmoid_slope(2 * x)", "return 2 * _sigmoid_slope(2 * x)"),
    ("a * b * _tanh_slope(b * x)", "a * _tanh_slope(b * x)"),
    ("np.where(x > 0, 1.0, a * np.exp(np.minimum(x, 0)))", "np.where(x > 0, 1.0, a)"),
    ("1 / (1 + np.abs(x)) ** 2", "1 / (1 + np.abs(x))"),
    ("(dy * y).sum(axis=-1, keepdims=True)", "0"),
    ("- (dy * y)", "- (dy)"),
    ("slopes = 0.5 / divisor", "slopes = 1 / divisor"),
    ("np.divide(0.5, root", "np.divide(1.0, root"),
    ("return direct + through,", "return direct,"),
    ("+ dmean / len(dvalue)", ""),
    ("dvariance * 2 / done.freedom", "dvariance * 2 / len(dvalue)"),
]

EVERY = [
    (module, old, new)
    for module, rows in (
        (_gradient_cell, CELL),
        (_gradient_layers, LAYERS),
        (_derivatives, DERIVATIVES),
    )
    for old, new in rows
]


def mutated(module: types.ModuleType, old: str, new: str) -> types.ModuleType:
    source = Path(str(module.__file__)).read_text()
    assert source.count(old) == 1, old
    changed = types.ModuleType(module.__name__)
    exec(compile(source.replace(old, new), f"{module.__name__} mutated", "exec"), vars(changed))
    return changed


def install(monkeypatch: pytest.MonkeyPatch, name: str, changed: types.ModuleType) -> None:
    """In every module that took something from it by name."""
    if name == _gradient_cell.__name__:
        monkeypatch.setattr(_gradient_layers, "cells", changed)
        return
    for user in (_gradient_cell, _gradient_layers, gradient):
        for public, value in vars(changed).items():
            mine = getattr(value, "__module__", None) == name and not public.startswith("__")
            if mine and public in vars(user):
                monkeypatch.setattr(user, public, value)


def training() -> list[Problem]:
    rng = np.random.default_rng(9)
    facts = TrainingFacts(0.5, 0.5, 0.5)
    dropped = chain(Recurrent("r", cell(), training=facts), Dropout("d", 0.5))
    factors = {
        "r.input": rng.integers(0, 2, (1, BATCH, STEPS, INPUTS)) * 2.0,
        "r.recurrent": rng.integers(0, 2, (1, BATCH, STEPS, HIDDEN)) * 2.0,
        "r.output": rng.integers(0, 2, (BATCH, STEPS, HIDDEN)) * 2.0,
        "d": rng.integers(0, 2, (BATCH, STEPS, HIDDEN)) * 2.0,
    }
    normed = chain(batch_norm(), lstm(input_norm=norm()))
    how = dict.fromkeys(gradient.norms(normed), "unbiased")
    return [
        made(dropped, 1, training={"dropout": factors}),
        made(normed, 2, training={"batch_statistics": how}),
    ]


@dataclass(frozen=True)
class Known:
    """Differences of truth for one problem: part → direction, the derivative along it, its floor.

    They do not know of the backward, so all mutations share them.
    """

    problem: Problem
    parts: dict[str, tuple[Any, float, float]]


def measure(one: Problem) -> Known:
    known: dict[str, tuple[Any, float, float]] = {}
    floor = ROUNDING * one.size()
    for name, (array, found) in parts(one, differentiate(one)).items():
        direction = towards(found, one.rng)
        measured, smooth = along(one, array, direction)
        if smooth:
            known[name] = direction, measured, floor
    return Known(one, known)


@pytest.fixture(scope="module")
def known() -> list[Known]:
    """Of every option, with lengths and masks and without, and of training."""
    mask = np.array([[1, 1, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]], dtype=bool)
    found: list[Known] = []
    for name, model in MODELS.items():
        steps = 2 if name.endswith("_gates") else STEPS
        options: dict[str, Any] = {"lengths": np.array([3, 4, 0]), "mask": mask}
        found += [measure(made(model, len(name), steps))]
        found += [measure(made(model, len(name), **options))] if steps == STEPS else []
    return found + [measure(one) for one in training()]


def noticed(known: list[Known]) -> bool:
    """Whether any derivative is not the measured one."""
    for one in known:
        every = parts(one.problem, differentiate(one.problem))
        for name, (direction, measured, floor) in one.parts.items():
            if not agree(float((every[name][1] * direction).sum()), measured, floor):
                return True
    return False


def test_nothing_is_noticed_where_nothing_is_wrong(known: list[Known]) -> None:
    assert not noticed(known)


@pytest.mark.parametrize(("module", "old", "new"), EVERY)
def test_a_wrong_term_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    known: list[Known],
    module: types.ModuleType,
    old: str,
    new: str,
) -> None:
    install(monkeypatch, module.__name__, mutated(module, old, new))
    assert noticed(known)
