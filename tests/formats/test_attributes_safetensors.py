"""Safetensors, one field of the header at a time, against PyTorch and the loader of safetensors."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attributes import Attributes, Change, Edit, edits, names, signal, toml
from presence import missing

from ifgo import formats

pytestmark = pytest.mark.peers

try:
    import attributes_torch as peer
    import safetensors.torch
    import torch
except ImportError:
    missing("torch", "pip install -c constraints.txt '.[peers]'")

KINDS = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "U8", "BOOL", "F8_E4M3", "f32"]

SILENT = {
    "__metadata__": "texts; the one of them that ifgo writes says layers, see below",
    "__metadata__.format": "says pt or np",
    "__metadata__.title": "what the author says about the model",
    "net.bn.num_batches_tracked": "counts batches of training",
    "net.bn.num_batches_tracked.dtype": "counts batches of training",
    "net.bn.num_batches_tracked.shape": "counts batches of training",
}


def test_every_field_of_the_header(tmp_path: Path) -> None:
    """Torch's own loader computes the changed file, or nothing does."""
    tensors, path = peer.state_dict(), tmp_path / "m.safetensors"
    (tmp_path / "net.toml").write_text(toml(peer.CHAIN) or "")
    safetensors.torch.save_file(tensors, path, {"format": "pt", "title": "a net"})
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    tree, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]

    def oracle(x: Any) -> Any:
        return peer.run(safetensors.torch.load_file(path), peer.CHAIN, x)

    read = partial(formats.load, format="safetensors", architecture=str(tmp_path / "net.toml"))
    found = Attributes(read, path, SILENT, signal)
    shapes = [[1, 7, 3], [3, 7], [21], [7, 3, 1], [16, 3], [3, 16], [4, 4], [2, 2], [1], []]
    legal = {"dtype": KINDS, "shape": shapes}
    one, two = (f"net.rec.weight_hh_l0{side}" for side in ("", "_reverse"))
    swapped = Edit(one, "the other's numbers", tree | {one: tree[two], two: tree[one]})
    for edit in (swapped, *edits(tree, legal)):
        header = json.dumps(edit.tree).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + data)
        found.judge(Change(edit.name, edit.value, path, oracle))
    found.finish(names(tree))


def test_the_layers_that_a_file_says_itself(tmp_path: Path) -> None:
    """The text that ifgo writes, word by word."""
    from ifgo.formats._state_write import OWN

    torch.manual_seed(1)
    lstm, linear = torch.nn.LSTM(3, 4), torch.nn.Linear(4, 4)
    tensors = {f"rec.{k}": v for k, v in lstm.state_dict().items()}
    tensors |= {f"lin.{k}": v for k, v in linear.state_dict().items()}
    path, activations = tmp_path / "m.safetensors", ("tanh", "relu", "softmax")
    said = {
        f"rec{last},lin{word}": [
            {"kind": "lstm", "module": "rec"},
            *(
                [{"kind": "last_step", "of": "sequence" if last == ":last" else "state"}]
                * bool(last)
            ),
            {"kind": "dense", "module": "lin"} | ({"activation": word[1:]} if word else {}),
        ]
        for last in ("", ":last", ":state")
        for word in ("", *(f":{name}" for name in activations))
    }
    said["lin,lin"] = [{"kind": "dense", "module": "lin"}] * 2
    refused = (
        "rec:lost",
        "rec:",
        "",
        "rec,rec",
        "rec lin",
        "lin(3)",
        "x",
        "rec:last(2)",
    )
    safetensors.torch.save_file(tensors, path, {OWN: "rec,lin"})
    found = Attributes(formats.load, path, {}, signal)
    for text, layers in (said | {key: [{}] for key in refused}).items():
        safetensors.torch.save_file(tensors, path, {OWN: text})
        run = partial(peer.run, tensors, {"version": 1, "layer": layers})
        found.judge(Change(OWN, text, path, run))
    assert found.refused[OWN] == len(refused)
    found.finish([OWN])
