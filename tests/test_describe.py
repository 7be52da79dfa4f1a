"""A model in words: the table that print shows, whole, and the facts that --json prints."""

from __future__ import annotations

import json

import numpy as np
import pytest
from core_cases import cell, chain, dense, lstm, weights
from test_layers import TABLE

from ifgo.activations import SIGMOID, SOFTMAX
from ifgo.describe import describe, table
from ifgo.model import (
    Dense,
    Dropout,
    Embedding,
    FeatureInput,
    HiddenAsSequence,
    LastStep,
    Layer,
    LengthsInput,
    Model,
    Output,
    Provenance,
    Recurrent,
    RepeatVector,
    Residual,
    TokenInput,
)

STACKED = chain(lstm("lstm0", 2, 16), lstm("lstm1", 16, 8), dense("head", 8, 1))

SEED = chain(
    lstm("layer0", 1, 16),
    LastStep("last0"),
    HiddenAsSequence("units0"),
    lstm("layer1", 1, 4),
    LastStep("last1"),
    Dense("out", weights(1, 1, 4), None, SIGMOID),
    size=1,
)

TOKENS = Model(
    (TokenInput(5000, "words"),),
    (
        Embedding("embed", weights(1, 5000, 8), mask_zero=True),
        Recurrent("encoder[0]", cell(8, 6), cell(8, 6), "sum"),
        LastStep("last", "state"),
        Dense("classes", weights(2, 4, 6), weights(3, 4), SOFTMAX),
    ),
)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            STACKED,
            """
 layer   kind    output       parameters   MACs/step   notes
 ────────────────────────────────────────────────────────────────
 x       input   (B, T, 2)                             features 2
 lstm0   lstm    (B, T, 16)        1,280       1,152
 lstm1   lstm    (B, T, 8)           832         768
 head    dense   (B, T, 1)             9           8

2,121 parameters, 1,928 MACs per step
streamable: one step per call""",
        ),
        (
            SEED,
            """
 layer    kind                 output       parameters   MACs/step   notes
 ──────────────────────────────────────────────────────────────────────────────
 x        input                (B, T, 1)                             features 1
 layer0   lstm                 (B, T, 16)        1,216       1,088
 last0    last_step            (B, 16)
 units0   hidden_as_sequence   (B, T, 1)
 layer1   lstm                 (B, T, 4)           112          80
 last1    last_step            (B, 4)
 out      dense                (B, 1)                4           4   sigmoid

1,332 parameters, 1,172 MACs per step (layers after a replayed hidden vector step once per unit)
not streamable, layer units0: it replays a whole hidden vector as a sequence""",
        ),
        (
            TOKENS,
            """
 layer        kind        output      parameters   MACs/step   notes
 ────────────────────────────────────────────────────────────────────────────────────────
 words        input       (B, T)                               tokens of 5000
 embed        embedding   (B, T, 8)       40,000               vocabulary 5000, mask_zero
 encoder[0]   lstm        (B, T, 6)          768         672   bidirectional sum
 last         last_step   (B, 6)                               final state
 classes      dense       (B, 4)              28          24   softmax

40,796 parameters, 696 MACs per step
not streamable, layer encoder[0]: its backward direction starts at the last step""",
        ),
    ],
    ids=["stacked", "seed", "tokens"],
)
def test_table(model: Model, text: str) -> None:
    assert "\n" + str(model) == text
    assert table(model) == str(model)


def test_names_from_files_reach_no_terminal_and_no_markup() -> None:
    model = chain(Recurrent("a\x1b[2Jb\n[red]", None, cell()))
    text = str(model)
    assert "a\\x1b[2Jb\\n[red]" in text
    assert text.endswith(
        "not streamable, layer a\\x1b[2Jb\\n[red]: its backward direction starts at the last step"
    )
    assert all(char.isprintable() or char == "\n" for char in text)


def test_long_words_fold_inside_their_column() -> None:
    text = table(chain(Dropout("n" * 90, 0.5)), width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert text.count("n") >= 90


def test_facts() -> None:
    assert describe(STACKED) == {
        "input": {"name": "x", "kind": "features", "size": 2, "source_axes": "BT"},
        "layers": [
            {
                "name": "lstm0",
                "kind": "lstm",
                "input_size": 2,
                "output_size": 16,
                "hidden_size": 16,
                "output": "(B, T, 16)",
                "parameters": 1280,
                "macs": 1152,
                "dtype": "float32",
                "time": "step→step",
                "detail": "",
            },
            {
                "name": "lstm1",
                "kind": "lstm",
                "input_size": 16,
                "output_size": 8,
                "hidden_size": 8,
                "output": "(B, T, 8)",
                "parameters": 832,
                "macs": 768,
                "dtype": "float32",
                "time": "step→step",
                "detail": "",
            },
            {
                "name": "head",
                "kind": "dense",
                "input_size": 8,
                "output_size": 1,
                "hidden_size": None,
                "output": "(B, T, 1)",
                "parameters": 9,
                "macs": 8,
                "dtype": "float32",
                "time": "step→step",
                "detail": "",
            },
        ],
        "state_inputs": [],
        "outputs": [{"name": "y", "role": "sequence"}],
        "parameters": 2121,
        "macs_per_step": 1928,
        "streamable": True,
        "not_streamable_because": None,
        "framework": "ifgo",
        "notes": [],
    }


def test_facts_of_tokens_outputs_and_provenance() -> None:
    model = Model(
        (TokenInput(5000, "words", "TB"), LengthsInput()),
        TOKENS.layers,
        (Output("last", "scores"), Output("h_n", "state", ("encoder[0]",))),
        Provenance("onnx", "1.17", "m.onnx", ("folded a Squeeze",)),
    )
    facts = describe(model)
    assert facts["input"] == {
        "name": "words",
        "kind": "tokens",
        "size": 5000,
        "source_axes": "TB",
    }
    assert facts["outputs"] == [
        {"name": "scores", "role": "last"},
        {"name": "state", "role": "h_n", "states": ["encoder[0].h"], "layout": None},
    ]
    assert (facts["framework"], facts["notes"]) == ("onnx", ["folded a Squeeze"])
    assert [layer["output"] for layer in facts["layers"]] == [
        "(B, T, 8)",
        "(B, T, 6)",
        "(B, 6)",
        "(B, 4)",
    ]
    why = "layer encoder[0]: its backward direction starts at the last step"
    assert facts["not_streamable_because"] == why


def around(layer: Layer, size: int) -> Model:
    """A model in which `layer` may stand: tokens before an embedding, a vector before a replay."""
    before: tuple[Layer, ...] = ()
    if layer.signature.startswith("vector"):
        before = (LastStep("before"),)
    if isinstance(layer, LastStep) and layer.of == "state":
        before = (lstm("before", size, size),)
    if isinstance(layer, Recurrent) and layer.initial.kind == "input":
        layer = Recurrent(layer.name, layer.forward)
    if isinstance(layer, Embedding):
        return Model((TokenInput(layer.vocabulary),), (layer,))
    return Model((FeatureInput(size),), (*before, layer))


@pytest.mark.parametrize(
    ("layer", "size"), [row[:2] for row in TABLE], ids=[row[0].kind for row in TABLE]
)
def test_facts_of_every_kind_are_json(layer: Layer, size: int) -> None:
    model = around(layer, size)
    facts = describe(model)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    row = facts["layers"][-1]
    assert (row["kind"], row["input_size"]) == (layer.kind, size)
    assert row["parameters"] == sum(array.size for array in layer.arrays.values())
    assert str(model).splitlines()[0].split() == [
        "layer",
        "kind",
        "output",
        "parameters",
        "MACs/step",
        "notes",
    ]


def test_numbers_of_numpy_are_json_too() -> None:
    repeat = RepeatVector("again", np.int64(3))  # type: ignore[arg-type]
    skip = Residual("skip", (dense("in", 2, 2),), np.int64(1))  # type: ignore[arg-type]
    model = Model((FeatureInput(np.int32(2)),), (skip, LastStep("last"), repeat))  # type: ignore[arg-type]
    assert json.loads(json.dumps(describe(model)))["input"]["size"] == 2


def test_mixed_dtypes_are_all_named() -> None:
    layer = Dense("d", weights(1, 2, 2), weights(2, 2).astype(np.float64))
    assert describe(chain(layer))["layers"][0]["dtype"] == "float32/float64"
