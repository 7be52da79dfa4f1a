"""State_dicts in several files: none of them is read as if it were the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ifgo import formats
from ifgo.errors import UnsupportedError

JOIN = "Join them first: load each file, and save the union of their tensors as one"


def tensors(layer: int) -> dict[str, Any]:
    """One layer of an nn.LSTM(4, 4): whole in itself, so nothing else tells that more follow."""
    rng = np.random.default_rng(layer)
    shapes = {"weight_ih": (16, 4), "weight_hh": (16, 4), "bias_ih": (16,), "bias_hh": (16,)}
    return {f"rnn.{name}_l{layer}": rng.normal(0, 1, s).astype("f") for name, s in shapes.items()}


@pytest.mark.parametrize("select", [None, "rnn"])
@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "m-1-of-2.safetensors"])
def test_one_file_of_two(tmp_path: Path, name: str, select: str | None) -> None:
    path = tmp_path / name
    save_file(tensors(0), path)
    message = (
        f"{path}: is file 1 of 2 of one model, by its name, expected all tensors in one file: "
        f"modules may go on in the next. {JOIN}"
    )
    options = {} if select is None else {"select": select}
    for read in (lambda: formats.load(path, **options), lambda: formats.list_layers(path)):
        with pytest.raises(UnsupportedError) as caught:
            read()
        assert str(caught.value) == message


def test_one_file_of_pytorch(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model-00002-of-00002.bin"
    path.write_bytes(b"PK")
    with pytest.raises(UnsupportedError, match="is file 2 of 2 of one model, by its name"):
        formats.load(path, "torch")


@pytest.mark.parametrize("name", ["model-00001-of-00001.safetensors", "of-2.safetensors"])
def test_one_file_of_one(tmp_path: Path, name: str) -> None:
    save_file(tensors(0), tmp_path / name)
    assert len(formats.load(tmp_path / name).recurrent) == 1


def test_the_union_is_the_model(tmp_path: Path) -> None:
    save_file(tensors(0) | tensors(1), tmp_path / "model.safetensors")
    assert len(formats.load(tmp_path / "model.safetensors").recurrent) == 2


def test_the_index(tmp_path: Path) -> None:
    places = dict.fromkeys(tensors(0), "model-00001-of-00002.safetensors")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    with pytest.raises(UnsupportedError) as caught:
        formats.load(path)
    assert str(caught.value) == (
        f"{path}: is an index (weight_map) of the files of one model, without tensors, expected "
        f"all tensors in one file. {JOIN}"
    )
