"""What a raw folder without model.toml leaves open, and how options settle it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from raw_cases import dense_files, fill, kinds, lstm_files, refused

from ifgo.errors import UsageError
from ifgo.formats import raw
from ifgo.model import (
    LastStep,
)

HOW = "expected --layout A or --layout B (layout= in Python)"


def test_layout_is_never_guessed(tmp_path: Path) -> None:
    folder = fill(tmp_path, lstm_files(1, 3, 16, biases=4))
    assert refused(folder, UsageError) == (
        "tensor_B_1_16.bin has 64 values = 4·16, which layout B has and layout A with its two "
        f"biases summed, {HOW}"
    )
    fill(folder, lstm_files(1, 3, 16) | lstm_files(2, 16, 2, biases=4))
    assert refused(folder, UsageError).startswith("tensor_B_2_2.bin has 8 values = 4·2, which")
    (folder / "tensor_B_1_16.bin").unlink()
    assert refused(folder, UsageError) == (
        "layer 1 has no biases, so nothing tells the gate order i, o, f, g of layout A from "
        f"i, f, g, o of layout B, {HOW}"
    )
    assert raw.read(folder, layout="A").recurrent[0].cell.bias_ih is None
    assert raw.read(folder, layout="B").recurrent[0].cell.bias_ih is None


def test_layout_of_dense_layers_alone_is_never_guessed(tmp_path: Path) -> None:
    folder = fill(tmp_path, dense_files(1, 3, 2))
    assert refused(folder, UsageError) == (
        "has Dense layers alone, so nothing tells W (O, I) of layout A from W (I, O) of B, " + HOW
    )
    a, b = (raw.read(folder, layout=x).arrays["dense_1.weight"] for x in "AB")
    flat = np.fromfile(folder / "tensor_W_1_2.bin", "<f4")
    assert a.tolist() == flat.reshape(2, 3).tolist()
    assert b.tolist() == flat.reshape(3, 2).T.tolist()


def test_options_that_are_none(tmp_path: Path) -> None:
    folder = fill(tmp_path, lstm_files(1, 3, 2))
    message = "option layout is 'a', expected one of 'A', 'B'"
    assert refused(folder, UsageError, layout="a") == message
    assert refused(folder, UsageError, stack="flat") == (
        "option stack is 'flat', expected one of 'stacked', 'hidden-as-sequence'"
    )


FORWARD = (
    "no model.toml: LSTM layers taken as forward with sigmoid and tanh, Dense layers as linear"
)
WHOLE = "no model.toml: every layer taken to give a whole sequence, Dense layers step by step"
REPLAY = "no model.toml: final hidden states taken as the next LSTM's input sequence"


def test_a_stack_of_sequences(tmp_path: Path) -> None:
    files = lstm_files(1, 3, 4) | lstm_files(2, 4, 2) | dense_files(3, 2, 1)
    model = raw.read(fill(tmp_path, files))
    assert kinds(model) == ["lstm", "lstm", "dense"]
    assert [layer.name for layer in model.layers] == ["lstm_1", "lstm_2", "dense_3"]
    assert model.provenance.notes == (FORWARD, WHOLE)
    assert not model.ends_in_vector


def test_hidden_states_as_sequences(tmp_path: Path) -> None:
    files = lstm_files(1, 3, 4) | lstm_files(2, 1, 2) | dense_files(3, 2, 5)
    model = raw.read(fill(tmp_path, files))
    assert kinds(model) == ["lstm", "last_step", "hidden_as_sequence", "lstm", "last_step", "dense"]
    assert [layer.name for layer in model.layers][1:3] == ["last_1", "sequence_2"]
    assert all(layer.of == "state" for layer in model.layers if isinstance(layer, LastStep))
    assert model.provenance.notes == (FORWARD, REPLAY)


def test_a_dense_layer_between_hidden_sequences(tmp_path: Path) -> None:
    files = lstm_files(1, 3, 4) | dense_files(2, 4, 6) | lstm_files(3, 1, 2)
    model = raw.read(fill(tmp_path, files))
    between = ["lstm", "last_step", "dense", "hidden_as_sequence", "lstm", "last_step"]
    assert kinds(model) == between


def test_one_value_after_one_value_is_never_guessed(tmp_path: Path) -> None:
    folder = fill(tmp_path, lstm_files(1, 3, 1) | lstm_files(2, 1, 4))
    assert refused(folder, UsageError) == (
        "layer 1 puts out 1 value and layer 2 takes 1, which is a stack of sequences or a hidden "
        "state as sequence, expected --stack stacked or --stack hidden-as-sequence (stack= in "
        "Python)"
    )
    assert kinds(raw.read(folder, stack="stacked")) == ["lstm", "lstm"]
    replayed = ["lstm", "last_step", "hidden_as_sequence", "lstm", "last_step"]
    assert kinds(raw.read(folder, stack="hidden-as-sequence")) == replayed


def test_one_lstm_is_a_sequence_unless_asked(tmp_path: Path) -> None:
    folder = fill(tmp_path, lstm_files(1, 1, 4))
    assert kinds(raw.read(folder)) == ["lstm"]
    assert kinds(raw.read(folder, stack="hidden-as-sequence")) == ["lstm", "last_step"]


def test_layers_that_fit_no_topology(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", lstm_files(1, 3, 16) | lstm_files(2, 3, 16))
    assert refused(folder) == (
        "tensor_W_2_16.bin gives layer 2 3 inputs, but layer 1 puts out 16, expected 16 (stacked) "
        "or 1 (hidden as sequence)"
    )
    assert refused(folder, UsageError, stack="stacked") == (
        "stack 'stacked' does not fit: layer 2 takes 3 values per step, layer 1 puts out 16, "
        "expected layers that fit each other"
    )
    folder = fill(tmp_path / "b", lstm_files(1, 3, 16) | dense_files(2, 1, 4))
    assert refused(folder) == (
        "tensor_W_2_4.bin gives layer 2 1 inputs, but layer 1 puts out 16, expected 16"
    )
    folder = fill(tmp_path / "c", dense_files(1, 3, 16) | lstm_files(2, 1, 4))
    assert refused(folder) == (
        "tensor_W_2_4.bin gives layer 2 1 inputs, but layer 1 puts out 16, expected 16 (stacked) "
        "or 1 (hidden as sequence)"
    )


def test_two_topologies_in_one_folder_are_refused(tmp_path: Path) -> None:
    files = lstm_files(1, 3, 16) | lstm_files(2, 1, 8) | lstm_files(3, 8, 4)
    assert refused(fill(tmp_path, files)) == (
        "layer 3 reads a sequence of outputs, layer 2 a hidden state as sequence, expected one way "
        "through the folder. Say the topology in a model.toml beside the tensors"
    )


def test_a_stack_option_that_sizes_contradict(tmp_path: Path) -> None:
    folder = fill(tmp_path, lstm_files(1, 3, 16) | lstm_files(2, 16, 8))
    assert refused(folder, UsageError, stack="hidden-as-sequence") == (
        "stack 'hidden-as-sequence' does not fit: layer 2 takes 16 values per step, layer 1 puts "
        "out 16, expected the other stack"
    )
