"""PyTorch files and architecture files, one attribute at a time, against PyTorch itself."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
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
    import torch
except ImportError:
    missing("torch", "pip install -c constraints.txt '.[peers]'")

SILENT = {
    "layer[].name": "how ifgo's layer is called",
    "layer[].rate": "dropout is of training",
}

LEGAL = {
    "module": ["embed", "rec", "net.rec", "bn", "mid", "lin", "cell", "c"],
    "kind": [e["kind"] for e in peer.CHAIN["layer"]],
    "of": ["sequence", "state", "both"],
    "activation": [*peer.ACTIVATE, "gelu"],
    "epsilon": [1e-5, 1],
    "steps": [1, 2, 3, 4],
}


def tensor_edits(tensors: dict[str, Any], keys: tuple[str, ...]) -> Iterator[Edit]:
    """Each key and tensor: other names, shapes, types, layouts and numbers."""
    yield Edit("order", "reversed", dict(reversed(tensors.items())))
    for old, new in (("net.", "module."), ("net.", ""), ("net.", "net._orig_mod.")):
        yield Edit("prefix", new, {k.replace(old, new, 1): v for k, v in tensors.items()})
    for key in keys:
        value, without = tensors[key], {k: v for k, v in tensors.items() if k != key}
        yield Edit(key, "absent", without)
        last = key.rpartition(".")[2]
        for new in ("x", f"{last}x", last.upper(), "weight", "bias", "weight_hr_l0", "scale",
                    last.replace("_l0", "_l1"), last.replace("_l0", "_l7"),
                    last.replace("_l0", "_l00"), last.replace("_l0", ""), f"{last}_reverse",
                    f"{last}_orig", f"{last}_g"):  # fmt: skip
            other = key[: -len(last)] + new
            if other not in tensors:
                yield Edit(key, f"named {new}", without | {other: value})
        for new in (f"other.{key}", key.removeprefix("net."), f"{key}.{last}", last, ""):
            yield Edit(key, f"at {new}", without | {new: value})
        many = value.reshape(-1) if value.ndim else value.reshape(1)
        wide = torch.cat([many, many])
        for what, new in {
            "moved": value + 1 if value.dtype == torch.int64 else value + 0.25,
            "float64": value.double(), "float16": value.half(), "bfloat16": value.bfloat16(),
            "int32": value.int(), "bool": value.bool(), "complex": value.to(torch.complex64),
            "flat": many, "one axis more": value[None], "twice": wide,
            "transposed": value.t() if value.ndim == 2 else value,
            "laid out by columns": value.t().clone().t() if value.ndim == 2 else value,
            "a view": wide[: len(many)].reshape(value.shape),
            "a view from further": wide[len(many) :].reshape(value.shape),
            "a row less": value[:-1] if value.ndim else value,
            "a row more": torch.cat([value, value[:1]]) if value.ndim else value,
            "a parameter": torch.nn.Parameter(value) if value.is_floating_point() else value,
            "nan": value * float("nan"), "empty": many[:0],
            "negative": -value, "sparse": value.to_sparse() if value.ndim else value,
            "None": None, "a number": 1.0, "a list": value.tolist(), "text": "x", "a dict": {},
        }.items():  # fmt: skip
            yield Edit(key, what, tensors | {key: new})


def chain_file(folder: Path, tree: Any) -> Path | None:
    text = toml(tree)
    if text is None:
        return None
    path = folder / "net.toml"
    path.write_text(text)
    return path


def test_every_tensor(tmp_path: Path) -> None:
    tensors, path, chain = peer.state_dict(), tmp_path / "m.pt", chain_file(tmp_path, peer.CHAIN)
    torch.save(tensors, path)
    silent = {"net.bn.num_batches_tracked": "counts batches of training"}
    found = Attributes(partial(formats.load, architecture=str(chain)), path, silent, signal)
    for edit in tensor_edits(tensors, tuple(tensors)):
        torch.save(edit.tree, path)
        run = partial(peer.run, edit.tree, peer.CHAIN)
        found.judge(Change(edit.name, edit.value, path, run))
    found.finish(tensors)


def test_every_key_of_an_architecture_file(tmp_path: Path) -> None:
    tensors, path = peer.state_dict(), tmp_path / "m.pt"
    torch.save(tensors, path)
    given = chain_file(tmp_path, peer.CHAIN)

    def read(_: Path) -> Any:
        return formats.load(path, architecture=str(given))

    found = Attributes(read, path, SILENT, signal)
    for edit in edits(peer.CHAIN, LEGAL):
        if chain_file(tmp_path, edit.tree) is not None:
            run = partial(peer.run, tensors, edit.tree)
            found.judge(Change(edit.name, edit.value, path, run))
    found.finish(names(peer.CHAIN) - {"file"})


def test_every_wrapping(tmp_path: Path) -> None:
    """What a trainer puts around a state_dict; whatever it is, the tensors are these or none."""
    tensors, path = peer.state_dict(), tmp_path / "m.pt"
    other = {key: value + 1 for key, value in tensors.items()}
    tree = {
        "epoch": 3,
        "global_step": 12,
        "pytorch-lightning_version": "2.5",
        "hyper_parameters": {"hidden_size": 4},
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "state_dict": tensors,
    }
    chain = chain_file(tmp_path, peer.CHAIN)
    torch.save(tree, path)
    around = {key: "of training" for key in tree if key != "state_dict"}
    found = Attributes(partial(formats.load, architecture=str(chain)), path, around, signal)
    wrapped = [Edit(k, "absent", {n: v for n, v in tree.items() if n != k}) for k in tree]
    wrapped += [Edit(k, str(v), tree | {k: v}) for k in tree for v in (None, 7, "x", [], {})]
    for key in ("model_state_dict", "model", "ema_state_dict", "net", "optimizer"):
        bare = {n: v for n, v in tree.items() if n != "state_dict"}
        wrapped.append(Edit(f"as {key}", "moved", bare | {key: tensors}))
        wrapped.append(Edit(f"beside {key}", "added", tree | {key: other}))
    for edit in wrapped:
        torch.save(edit.tree, path)
        found.judge(Change(edit.name, edit.value, path, partial(peer.run, tensors, peer.CHAIN)))
    assert found.refused["state_dict"]
    assert set(tree) <= set(found.refused) | set(found.equal)
    assert not found.moved


def test_every_member_of_the_archive(tmp_path: Path) -> None:
    """Whatever torch.load makes of a changed archive, or a refusal."""
    tensors, path = peer.state_dict(), tmp_path / "m.pt"
    torch.save(tensors, path)
    chain = chain_file(tmp_path, peer.CHAIN)
    facts = (".storage_alignment", ".format_version", "version", ".data/serialization_id")
    silent = {f"m/{fact}": "of the container, not of the numbers" for fact in facts}
    found = Attributes(partial(formats.load, architecture=str(chain)), path, silent, signal)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}

    def oracle(x: Any) -> Any:
        return peer.run(torch.load(path, weights_only=True), peer.CHAIN, x)

    for name, data in members.items():
        turned = data[4:8] + data[:4] + data[8:]
        for what in (None, b"", b"x", b"big", b"little", b"3\n", b"64", turned, data + data[:4]):
            changed = members | {name: what}
            with zipfile.ZipFile(path, "w") as archive:
                for member, content in changed.items():
                    if content is not None:
                        archive.writestr(member, content)
            shown = "absent" if what is None else repr(what[:9])
            found.judge(Change(name, shown, path, oracle))
    found.finish(name for name in members if "/data" in name)
