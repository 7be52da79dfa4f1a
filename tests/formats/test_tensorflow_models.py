"""Models that TensorFlow and Keras wrote compute what TensorFlow recorded (tensorflow_generate.py
makes them); what is changed in one of them is refused or computes the same."""

from __future__ import annotations

import random
import shutil
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from onnx_bounds import cell_bound, float32_bound

from ifgo import formats, gates
from ifgo.cli.main import group as cli
from ifgo.errors import IfgoError
from ifgo.formats.tensorflow.crc import crc32c
from ifgo.formats.tensorflow.file import message
from ifgo.reference import truth

ARCHIVE = Path(__file__).with_name("tensorflow_models.tar.xz")
KERAS = (
    "lstm_last_dense",
    "bidirectional_between",
    "bidirectional_last",
    "bidirectional_product",
    "backwards",
    "backwards_twice",
    "keras2_parts",
    "unrolled",
)
GRAPHS = ("basic", "peephole_projection", "lengths", "directions", "static")
MODELS = (
    *(f"{name}{ending}" for name in KERAS for ending in ("", "_functional.pb", "_lowered.pb")),
    *(f"{name}{ending}" for name in GRAPHS for ending in ("", "_frozen.pb")),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tensorflow")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_what_tensorflow_recorded(models: Path, name: str) -> None:
    model = formats.load(models / name)
    stored = np.load(models / f"{name.removesuffix('.pb')}.npz")
    assert model.provenance.framework == "tensorflow"
    lengths = [int(n) for n in stored["lengths"]] if "lengths" in stored else None
    found = truth.forward(model, stored["x"], lengths=lengths)
    assert found.y.shape == stored["y"].shape
    assert np.abs(found.y - stored["y"]).max() <= float32_bound(model, found, stored["x"])
    if "c" in stored:
        assert sorted((output.name, output.role) for output in model.outputs) == [
            ("c", "c_n"),
            ("y", "sequence"),
        ]
        last = found.state[f"c{len(model.recurrent) - 1}"][0]
        assert np.abs(last - stored["c"]).max() <= cell_bound(model, found, stored["x"])


def test_every_other_gate_order_is_noticed(models: Path) -> None:
    stored, noticed = np.load(models / "lstm_last_dense.npz"), 0
    model = formats.load(models / "lstm_last_dense")
    cell = model.recurrent[0].cell
    for order in map("".join, permutations("ifgo")):
        arrays = {name: gates.reorder(array, order) for name, array in cell.arrays.items()}
        layers = (replace(model.recurrent[0], forward=replace(cell, **arrays)), *model.layers[1:])
        found = truth.forward(replace(model, layers=layers), stored["x"])
        bound = float32_bound(model, found, stored["x"])
        noticed += bool(np.abs(found.y - stored["y"]).max() > bound)
    assert noticed == 23


def test_the_command_line_takes_the_folder_and_its_layers(models: Path, tmp_path: Path) -> None:
    folder = models / "bidirectional_between"
    runner = CliRunner()
    shown = runner.invoke(cli, ["inspect", str(folder)])
    assert shown.exit_code == 0
    assert "bidirectional" in shown.output
    made = runner.invoke(cli, ["convert", str(folder), str(tmp_path / "m.onnx")])
    assert made.exit_code == 0, made.output
    x = np.load(models / "bidirectional_between.npz")["x"]
    expected = formats.load(folder).run(x, on="truth")[0]
    assert np.array_equal(formats.load(tmp_path / "m.onnx").run(x, on="truth")[0], expected)
    listing = formats.list_layers(folder)
    assert tuple(sorted(listing.names)) == ("lstm0", "lstm1", "lstm2", "lstm3")
    assert formats.load(folder, select="lstm0").recurrent[0].cell.hidden_size == 4


# -- what is refused --------------------------------------------------------------------------


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(IfgoError) as caught:
        formats.load(path, **options)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """A SavedModel of one variable scope that a test may change."""
    shutil.copytree(models / "basic", tmp_path / "m")
    return tmp_path / "m"


def changed(folder: Path, change: Callable[[Any], None]) -> Path:
    path = folder / "saved_model.pb"
    model = message("SavedModel").FromString(path.read_bytes())
    change(model.meta_graphs[0])
    path.write_bytes(model.SerializeToString())
    return folder


def test_the_file_of_the_folder_is_the_folder(folder: Path) -> None:
    assert formats.load(folder / "saved_model.pb").layers[0].kind == "lstm"


def test_a_signature_is_needed(folder: Path) -> None:
    assert refusal(folder, signature="serve") == (
        "saved_model.pb: has no signature 'serve', expected one of serving_default"
    )
    assert formats.load(folder, signature="serving_default").layers[0].kind == "lstm"

    def renamed(meta: Any) -> None:
        second = meta.signature_def.add()
        second.CopyFrom(meta.signature_def[0])
        meta.signature_def[0].key, second.key = b"a", b"b"

    assert refusal(changed(folder, renamed)) == (
        "saved_model.pb: has no signature 'serving_default', expected one of a, b. "
        "Name one with --signature NAME (signature= in Python)"
    )

    def without(meta: Any) -> None:
        del meta.signature_def[:]

    assert refusal(changed(folder, without)) == (
        "saved_model.pb: has no signature, so nothing says what goes in and what comes out, "
        "expected one. Save it with model.export(folder), or "
        "tf.saved_model.save(..., signatures=...)"
    )


def test_a_variable_without_numbers(folder: Path) -> None:
    def forgotten(meta: Any) -> None:
        nodes = [n for n in meta.graph_def.node if n.op == b"RestoreV2"]
        for node in nodes:
            node.op = b"RestoreV3"

    assert refusal(changed(folder, forgotten)).endswith(
        "is a variable that the checkpoint does not restore, expected one that is saved and "
        "restored. Save a Keras 3 model with model.export(folder), not tf.saved_model.save"
    )


def test_functions_that_call_themselves(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "lstm_last_dense", tmp_path / "m")

    def recursive(meta: Any) -> None:
        library = meta.graph_def.library.function
        for k, stored in enumerate(library):
            function = message("FunctionDef").FromString(stored)
            for node in function.node_def:
                for entry in node.attr:
                    if entry.key == b"f":
                        entry.value.func.name = function.signature.name
            library[k] = function.SerializeToString()

    assert "within itself, expected calls at most 16 deep" in refusal(
        changed(tmp_path / "m", recursive)
    )


def test_functions_that_are_not_called_are_not_decoded(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "lstm_last_dense", tmp_path / "m")
    node = b"\x08\x00" * 600_000
    size = bytes([len(node) & 127 | 128, len(node) >> 7 & 127 | 128, len(node) >> 14])
    expected = formats.load(tmp_path / "m")

    def added(meta: Any) -> None:
        head = message("FunctionHead")(signature={"name": b"unused"}).SerializeToString()
        meta.graph_def.library.function.append(head + b"\x1a" + size + node)

    found = formats.load(changed(tmp_path / "m", added))
    assert found.layers[0].arrays.keys() == expected.layers[0].arrays.keys()

    def called(meta: Any) -> None:
        library = meta.graph_def.library.function
        for k, stored in enumerate(library[:-1]):
            library[k] = stored + b"\x1a" + size + node

    assert "has more than 524288 fields or 131072 parts" in refusal(changed(tmp_path / "m", called))


def test_parts_of_a_model_are_what_keras_says(models: Path) -> None:
    kinds = [layer.kind for layer in formats.load(models / "keras2_parts").layers]
    assert kinds == ["lstm", "lstm", "lstm", "last_step"]
    merges = [layer.merge for layer in formats.load(models / "keras2_parts").recurrent]
    assert merges == ["concat", "ave", "sum"]
    found = formats.load(models / "bidirectional_product").recurrent
    assert [layer.merge for layer in found] == ["mul", "ave"]


def turned_otherwise(models: Path, target: Path, name: bytes) -> Path:
    """The frozen graph of both directions with lengths, one of its turns along the batch."""
    graph = message("Graph").FromString((models / "directions_frozen.pb").read_bytes())
    (node,) = (node for node in graph.node if node.name == name)
    places = {entry.key: entry.value for entry in node.attr}
    places[b"seq_dim"].i, places[b"batch_dim"].i = 0, 1
    target.write_bytes(graph.SerializeToString())
    return target


def test_sequences_that_are_turned_otherwise(models: Path, tmp_path: Path) -> None:
    name = b"bidirectional_rnn/bw/ReverseSequence"
    path = turned_otherwise(models, tmp_path / "a.pb", name)
    assert "is a ReverseSequence along another axis" in refusal(path, select="lstm1")
    path = turned_otherwise(models, tmp_path / "b.pb", b"ReverseSequence")
    assert refusal(path).endswith(
        "turns sequences by ReverseSequence, and its outputs are used before they are turned back, "
        "expected outputs turned back by ReverseSequence within the same lengths, as "
        "tf.nn.bidirectional_dynamic_rnn does"
    )


def test_a_checkpoint_is_held_to_its_checksums(folder: Path) -> None:
    index = folder / "variables" / "variables.index"
    data = folder / "variables" / "variables.data-00000-of-00001"
    whole, numbers = index.read_bytes(), data.read_bytes()
    hint = ". The checkpoint is damaged: copy or save the SavedModel again"
    data.write_bytes(bytes([numbers[0] ^ 1]) + numbers[1:])
    assert refusal(folder).endswith(
        f"is not what its checksum says, expected the bytes as saved{hint}"
    )
    data.write_bytes(numbers[:8])
    assert refusal(folder).endswith(f" of 8, expected a place in its file{hint}")
    data.unlink()
    assert refusal(folder).endswith("no such file. Check the path")
    data.symlink_to(ARCHIVE)
    assert refusal(folder) == (
        f"{data.name}: is a link out of the folder, expected a file of the SavedModel. "
        "Copy the folder with what its links name: cp -rL"
    )
    data.unlink()
    data.write_bytes(numbers)
    index.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert refusal(folder) == (
        f"variables.index: has a block at 0 that its checksum does not fit, expected it to{hint}"
    )
    index.write_bytes(whole[:-9])
    assert refusal(folder) == (
        f"variables.index: is no index of a checkpoint, expected a LevelDB table{hint}"
    )


def test_checksums_are_those_of_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    data = np.random.default_rng(0).bytes(5000)
    for size in (0, 1, 255, 256, 257, 512, 768, 2047, 5000):
        register = 0xFFFFFFFF
        for byte in data[:size]:
            register ^= byte
            for _ in range(8):
                register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
        assert crc32c(data[:size]) == register ^ 0xFFFFFFFF


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_damage(folder: Path, name: str) -> None:
    """Cut and flipped files are refused or read; nothing else happens."""
    path, rng = folder / name, random.Random(0)
    data = path.read_bytes()
    ends = range(0, len(data), max(1, len(data) // 100))
    for end in ends:
        path.write_bytes(data[:end])
        with suppress(IfgoError):
            formats.load(folder)
    for _ in range(200):
        damaged, bit = bytearray(data), rng.randrange(8 * len(data))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with suppress(IfgoError):
            formats.load(folder)
