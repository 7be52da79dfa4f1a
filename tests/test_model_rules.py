"""The model as a whole: what follows from its chain, and every chain that it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from core_cases import cell, chain, dense, lstm, ones, refused, weights
from raising import raising

from ifgo import limits
from ifgo.activations import TANH
from ifgo.errors import ModelError, UnsupportedError, UsageError
from ifgo.model import (
    ActivationLayer,
    Dense,
    Dropout,
    Embedding,
    FeatureInput,
    Flatten,
    HiddenAsSequence,
    InitialState,
    LastStep,
    Layer,
    LengthsInput,
    Masking,
    Model,
    Output,
    Provenance,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
    StateInput,
    StateSlot,
    TokenInput,
    require_streamable,
    walk,
)

X = FeatureInput(2)
BOTH = Recurrent("bi", cell(), cell())
FED = InitialState("input")


# -- what follows from the chain ------------------------------------------------------------------


def test_sizes_run_down_the_chain() -> None:
    model = chain(lstm(), Dropout("drop", 0.5), dense("head", 3, 5))
    assert (model.input_size, model.sizes(), model.output_size) == (2, [3, 3, 5], 5)
    assert (model.parameters, model.macs) == (12 * 5 + 24 + 3 * 5 + 5, 60 + 15)


@pytest.mark.parametrize(
    ("layers", "role"),
    [
        ((lstm(),), "sequence"),
        ((lstm(), LastStep("last")), "last"),
        ((lstm(), LastStep("last"), dense()), "last"),
        ((lstm(), LastStep("last"), RepeatVector("again", 2)), "sequence"),
        ((lstm(), LastStep("last"), HiddenAsSequence("again"), dense("d", 1)), "sequence"),
        ((Flatten("flat", 3),), "last"),
    ],
)
def test_the_output_is_the_end_of_the_chain(layers: tuple[Layer, ...], role: str) -> None:
    model = chain(*layers)
    assert model.outputs == (Output(role),)  # type: ignore[arg-type]
    assert model.ends_in_vector == (role == "last")


def test_recurrent_layers_are_counted_through_residuals() -> None:
    inner = Residual("skip", (lstm("b"), Residual("deep", (lstm("c", 3, 2),), 2)), 2)
    model = chain(lstm("a", 2, 2), inner, lstm("d"))
    assert [layer.name for layer in model.recurrent] == ["a", "b", "c", "d"]
    assert [layer.name for layer in walk(model.layers)] == ["a", "skip", "b", "deep", "c", "d"]
    assert "skip.deep.c.forward.weight_ih" in model.arrays
    assert model.parameters == sum(array.size for array in model.arrays.values())


def test_streamable_or_why_not() -> None:
    assert chain(lstm(), LastStep("last"), dense()).streamable
    model = chain(BOTH)
    assert not model.streamable
    why = "layer bi: its backward direction starts at the last step"
    assert model.not_streamable_because == why
    with refused(
        UnsupportedError,
        f"the model cannot run one step per call: {why}. "
        "Give it whole sequences instead (run, or the emitted `sequence` function)",
    ):
        require_streamable(model)
    require_streamable(chain(lstm()))


def test_tokens() -> None:
    model = Model((TokenInput(7),), (Embedding("embed", ones(7, 2)), lstm()))
    assert (model.input_size, model.sizes()) == (1, [2, 3])


def test_lists_do_for_tuples() -> None:
    model = Model([X], [lstm(), dense()])  # type: ignore[arg-type]
    assert (type(model.inputs), type(model.layers), type(model.outputs)) == (tuple, tuple, tuple)


def test_states_as_inputs_and_outputs() -> None:
    model = Model(
        (
            X,
            LengthsInput(),
            StateInput("h0", (StateSlot("a", "h"), StateSlot("b", "h"))),
            StateInput("c0", (StateSlot("b", "c"), StateSlot("a", "c"))),
        ),
        (lstm("a", initial=FED), lstm("b", 3, initial=FED)),
        (Output("sequence"), Output("h_n", "h", ("a", "b")), Output("c_n", "c", ("b",))),
    )
    assert [output.role for output in model.outputs] == ["sequence", "h_n", "c_n"]


def test_another_dtype() -> None:
    model = chain(lstm(), Residual("skip", (dense("in", 3, 3),), 3)).astype("float64")
    assert {array.dtype.name for array in model.arrays.values()} == {"float64"}
    with refused(
        UsageError, "dtype 'int8' holds no weights, expected float64, float32, float16 or bfloat16"
    ):
        model.astype("int8")
    big = chain(Scale("s", np.array([1e39, 1.0]), ones(2)))
    with refused(
        UsageError,
        "layer s: factor holds values beyond the range of float32, "
        "expected a dtype that holds every value",
    ):
        big.astype(np.float32)


def test_run_gives_what_the_backend_gives() -> None:
    model = chain(lstm(), dense())
    y, state = model.run(np.zeros((4, 2)), on="exact")
    assert (y.shape, y.dtype, set(state)) == ((4, 1), np.float32, {"h0", "c0"})
    wide, _ = model.run(np.zeros((4, 2)), on="truth")
    assert wide.dtype == np.float64


# -- chains that it refuses -----------------------------------------------------------------------

TO_VECTOR = "expected a LastStep before it"
TO_SEQUENCE = "expected a HiddenAsSequence or RepeatVector before it"
FINAL = (
    "layer last: takes the final state, but no recurrent layer stands right before it, "
    "expected LastStep(of='state') right after a Recurrent"
)
NO_TOKENS = (
    "an Embedding stands where no tokens arrive, "
    "expected a TokenInput and an Embedding as the first layer, or neither"
)
TOKENS = "expected a TokenInput and an Embedding as the first layer, or neither"
EMBED = Embedding("embed", ones(7, 2))


@pytest.mark.parametrize(
    ("inputs", "layers", "message"),
    [
        # types
        (X, (lstm(),), "inputs is of type FeatureInput, expected a tuple "
         "(FeatureInput or TokenInput or LengthsInput or StateInput, ...)"),
        ((X,), lstm(), "layers is of type Recurrent, expected a tuple (Layer, ...)"),
        ((X,), (lstm(), "relu"), "layers[1] is 'relu', expected Layer"),
        ((X,), (lstm(), None), "layers[1] is None, expected Layer"),
        ((X,), (cell(),), "layers[0] is of type LSTMCell, expected Layer"),
        ((X, "lengths"), (lstm(),), "inputs[1] is 'lengths', expected FeatureInput or TokenInput "
         "or LengthsInput or StateInput"),
        # the main input
        ((), (lstm(),), "the first input is no feature or token input, expected a FeatureInput or "
         "TokenInput first"),
        ((LengthsInput(), X), (lstm(),), "the first input is no feature or token input, expected "
         "a FeatureInput or TokenInput first"),
        ((X, FeatureInput(2, "x2")), (lstm(),),
         "input 'x2' is a second main input, expected one main input"),
        ((X, TokenInput(2, "t")), (lstm(),),
         "input 't' is a second main input, expected one main input"),
        ((FeatureInput(0),), (lstm(),), "input_size is 0, expected 1 to 65536"),
        ((FeatureInput(-1),), (lstm(),), "input_size is -1, expected 1 to 65536"),
        ((FeatureInput(65537),), (Dropout("d", 0.5),),
         "input_size is 65537, expected 1 to 65536" + raising("input_size")),
        ((FeatureInput(3),), (lstm(),), "layer lstm: receives 3 features, expected 2"),
        ((X,), (lstm(), dense("d", 4)), "layer d: receives 3 features, expected 4"),
        ((X, LengthsInput("a"), LengthsInput("b")), (lstm(),),
         "inputs 'a' and 'b' both give the lengths, expected one LengthsInput at most"),
        ((X, LengthsInput("x")), (lstm(),), "two inputs are named 'x', expected unique names"),
        # names and number of layers
        ((X,), (), "the model has no layers, expected at least one"),
        ((X,), tuple(Dropout(str(i), 0.0) for i in range(65)),
         "the model has 65 layers, expected at most 64" + raising("layers")),
        ((X,), (Residual("r", tuple(Dropout(str(i), 0.0) for i in range(64)), 1),),
         "the model has 65 layers, expected at most 64" + raising("layers")),
        ((X,), (lstm(""),), "a layer of kind lstm has a name of 0 characters, expected 1 to 256"),
        ((X,), (Dropout("n" * 257, 0.0),),
         "a layer of kind dropout has a name of 257 characters, expected 1 to 256"
         + raising("name_chars")),
        ((X,), (lstm("a"), lstm("a", 3)), "two layers are named 'a', expected unique names"),
        ((X,), (lstm("a"), Residual("r", (lstm("a", 3),), 1)),
         "two layers are named 'a', expected unique names"),
        ((X,), (Residual("r", (Residual("a", (dense("b", 2, 2),), 1),), 1),
                Residual("r.a", (dense("b2", 2, 2), Dense("b", ones(2, 2))), 1)),
         "two layers are named 'b', expected unique names"),
        ((X,), (Residual("r", (Scale("s", ones(2), ones(2)),), 1), Scale("r.s", ones(2), ones(2))),
         "two arrays are named 'r.s.factor', expected layer names that no other name continues "
         "after a dot"),
        # tokens
        ((TokenInput(7),), (lstm("a", 1),),
         f"layer a: the model reads tokens, but no Embedding comes first, {TOKENS}"),
        ((TokenInput(7),), (Residual("r", (EMBED,), 1),),
         f"layer r: the model reads tokens, but no Embedding comes first, {TOKENS}"),
        ((X,), (EMBED, lstm()), f"layer embed: {NO_TOKENS}"),
        ((X,), (lstm(), EMBED), f"layer embed: {NO_TOKENS}"),
        ((TokenInput(7),), (EMBED, Embedding("again", ones(7, 2))),
         f"layer again: {NO_TOKENS}"),
        ((X,), (Residual("r", (EMBED,), 1),),
         f"layer embed: {NO_TOKENS}"),
        ((TokenInput(8),), (EMBED,),
         "layer embed: has 7 rows for a vocabulary of 8, expected one row per token"),
        ((TokenInput(0),), (EMBED,),
         "layer embed: has 7 rows for a vocabulary of 0, expected one row per token"),
        # time
        ((X,), (LastStep("a"), Masking("m")),
         f"layer m: takes a sequence but gets a vector, {TO_SEQUENCE}"),
        ((X,), (HiddenAsSequence("h"),),
         f"layer h: takes a vector but gets a sequence, {TO_VECTOR}"),
        ((X,), (lstm(), RepeatVector("r", 3)),
         f"layer r: takes a vector but gets a sequence, {TO_VECTOR}"),
        ((X,), (LastStep("a"), lstm()),
         f"layer lstm: takes a sequence but gets a vector, {TO_SEQUENCE}"),
        ((X,), (LastStep("a"), BOTH),
         f"layer bi: takes a sequence but gets a vector, {TO_SEQUENCE}"),
        ((X,), (LastStep("a"), LastStep("b")),
         f"layer b: takes a sequence but gets a vector, {TO_SEQUENCE}"),
        ((X,), (Flatten("a", 2), Flatten("b", 2)),
         f"layer b: takes a sequence but gets a vector, {TO_SEQUENCE}"),
        ((X,), (LastStep("a"), Residual("r", (dense("d", 2, 2),), 1)),
         f"layer r: takes a sequence but gets a vector, {TO_SEQUENCE}"),
        # the final state
        ((X,), (LastStep("last", "state"),), FINAL),
        ((X,), (lstm(), Dropout("d", 0.5), LastStep("last", "state")), FINAL),
        ((X,), (Residual("r", (lstm("in"),), 1), LastStep("last", "state")), FINAL),
        ((X,), (lstm(), ActivationLayer("a", TANH), LastStep("last", "state")), FINAL),
        # states
        ((X, StateInput("s", ())), (lstm(),),
         "input 's' feeds no state, expected a StateSlot for each state it holds"),
        ((X, StateInput("s", (StateSlot("b", "h"),))), (lstm("a"),),
         "input 's' feeds the state of 'b', expected one of the recurrent layers a"),
        ((X, StateInput("s", (StateSlot("d", "h"),))), (dense("d", 2),),
         "input 's' feeds the state of 'd', expected no states, none recurs"),
        ((X, StateInput("s", (StateSlot("a", "h"), StateSlot("a", "h")))), (lstm("a"),),
         "input 's' feeds state h of 'a', which is fed already, expected each state in one slot "
         "only"),
        ((X, StateInput("s", (StateSlot("a", "h"),)), StateInput("t", (StateSlot("a", "h"),))),
         (lstm("a", initial=FED),),
         "input 't' feeds state h of 'a', which is fed already, expected each state in one slot "
         "only"),
        ((X,), (lstm("a", initial=FED),),
         "layer a: initial state is of kind 'input', but 0 of its 2 states are inputs, expected "
         "a StateInput for h, c or both exactly where the kind is 'input'"),
        ((X, StateInput("s", (StateSlot("a", "h"),))), (lstm("a"),),
         "layer a: initial state is of kind 'zero', but 1 of its 2 states is an input, expected "
         "a StateInput for h, c or both exactly where the kind is 'input'"),
        ((X, StateInput("s", (StateSlot("a", "h"), StateSlot("a", "c")))),
         (lstm("a", initial=InitialState("constant", weights(1, 1, 3), weights(2, 1, 3))),),
         "layer a: initial state is of kind 'constant', but 2 of its 2 states are inputs, expected "
         "a StateInput for h, c or both exactly where the kind is 'input'"),
        ((X,), (Residual("r", (lstm("a", initial=FED),), 1),),
         "layer a: initial state is of kind 'input', but 0 of its 2 states are inputs, expected "
         "a StateInput for h, c or both exactly where the kind is 'input'"),
    ],
)  # fmt: skip
def test_chains_that_do_not_fit(inputs: Any, layers: Any, message: str) -> None:
    with refused(ModelError, message):
        Model(inputs, layers)


@pytest.mark.parametrize(
    ("layers", "outputs", "message"),
    [
        (
            (lstm(),),
            (Output("last"),),
            "output 'y' has role 'last', expected 'sequence', the chain ends in a sequence",
        ),
        (
            (lstm(), LastStep("l")),
            (Output("sequence", "all"),),
            "output 'all' has role 'sequence', expected 'last', the chain ends in a vector",
        ),
        (
            (lstm(),),
            (Output("h_n"),),
            "output 'y' gives h_n of no layer, expected one of the recurrent layers lstm",
        ),
        (
            (lstm(), dense()),
            (Output("c_n", "c", ("lstm", "dense")),),
            "output 'c' gives c_n of 'dense', expected one of the recurrent layers lstm",
        ),
        (
            (dense("d", 2),),
            (Output("h_n", "h", ("d",)),),
            "output 'h' gives h_n of 'd', expected no states, none recurs",
        ),
        (
            (lstm(),),
            (Output("h_n", "h", ("lstm", "lstm")),),
            "output 'h' gives h_n of 'lstm' twice, expected each layer once",
        ),
        (
            (lstm(),),
            (Output("sequence", "y", ("lstm",)),),
            "output 'y' has role 'sequence' and names layers, expected layers for the roles 'h_n' "
            "and 'c_n' only",
        ),
        (
            (lstm(),),
            (Output("sequence"), Output("h_n", "y", ("lstm",))),
            "two outputs are named 'y', expected unique names",
        ),
        ((lstm(),), "y", "outputs is 'y', expected a tuple (Output, ...)"),
        ((lstm(),), ("y",), "outputs[0] is 'y', expected Output"),
    ],
)
def test_outputs_that_do_not_fit(layers: Any, outputs: Any, message: str) -> None:
    with refused(ModelError, message):
        Model((X,), layers, outputs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FeatureInput("2"), "size is '2', expected a whole number"),
        (lambda: FeatureInput(2.0), "size is 2.0, expected a whole number"),
        (lambda: FeatureInput(True), "size is True, expected a whole number"),
        (lambda: FeatureInput(2, None), "name is None, expected a string"),
        (lambda: FeatureInput(2, "x", "BTI"), "axes is 'BTI', expected one of 'BT', 'TB', 'T'"),
        (lambda: TokenInput(None), "vocabulary is None, expected a whole number"),
        (lambda: LengthsInput(3), "name is 3, expected a string"),
        (lambda: StateSlot("a", "x"), "part is 'x', expected one of 'h', 'c'"),
        (lambda: StateSlot(0, "h"), "layer is 0, expected a string"),
        (
            lambda: StateInput("s", StateSlot("a", "h")),
            "slots is of type StateSlot, expected a tuple (StateSlot, ...)",
        ),
        (lambda: StateInput("s", (("a", "h"),)), "slots[0] is ('a', 'h'), expected StateSlot"),
        (
            lambda: Output("hidden"),
            "role is 'hidden', expected one of 'sequence', 'last', 'h_n', 'c_n', 'state'",
        ),
        (lambda: Output("h_n", "h", "lstm"), "layers is 'lstm', expected a tuple (a string, ...)"),
        (lambda: Output("h_n", "h", (1,)), "layers[0] is 1, expected a string"),
        (lambda: Provenance(3), "framework is 3, expected a string"),
        (lambda: Provenance(notes="one"), "notes is 'one', expected a tuple (a string, ...)"),
        (lambda: Provenance(names=["a"]), "names is ['a'], expected a mapping of strings"),
        (lambda: Provenance(names={"a": 1}), "names is {'a': 1}, expected a mapping of strings"),
        (lambda: Model((X,), (lstm(),), (), None), "provenance is None, expected Provenance"),
    ],
)
def test_parts_of_the_wrong_type(make: Any, message: str) -> None:
    with refused(ModelError, message):
        make()


def test_sizes_of_numpy_become_whole_numbers() -> None:
    size = FeatureInput(np.int64(2)).size  # type: ignore[arg-type]
    assert (size, type(size)) == (2, int)


def test_limits_are_those_of_the_messages() -> None:
    assert (limits.DEFAULTS.layers, limits.DEFAULTS.name_chars, limits.DEFAULTS.input_size) == (
        64,
        256,
        65536,
    )
    longest = chain(Dropout("n" * 256, 0.0), *(Dropout(str(i), 0.0) for i in range(63)))
    assert len(longest.layers) == 64
