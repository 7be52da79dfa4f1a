"""The chain of a state_dict from a TOML file: the same model as from words, or a refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch_cases as cases

from ifgo import formats
from ifgo.errors import FormatError, IfgoError, ModelError, UsageError

NET = {
    "embed.weight": np.ones((9, 3), "f"),
    **cases.lstm("rec."),
    "bn.running_mean": np.ones(2, "f"),
    "bn.running_var": np.ones(2, "f"),
    "lin.weight": np.ones((4, 2), "f"),
    "lin.bias": np.ones(4, "f"),
}
TEXT = """version = 1
[[layer]]
kind = "embedding"
module = "embed"
[[layer]]
kind = "lstm"
module = "rec"
name = "core"
[[layer]]
kind = "dropout"
rate = 0.5
[[layer]]
kind = "last_step"
of = "sequence"
[[layer]]
kind = "batch_norm"
module = "bn"
epsilon = 1e-5
[[layer]]
kind = "dense"
module = "lin"
activation = "leaky_relu"
alpha = 0.1
"""


def files(folder: Path, text: str) -> tuple[Path, str]:
    (folder / "net.toml").write_text(text)
    return cases.put(folder / "m.pt", cases.state_dict(NET)), str(folder / "net.toml")


def test_the_same_as_words(tmp_path: Path) -> None:
    path, sheet = files(tmp_path, TEXT)
    model = formats.load(path, architecture=sheet)
    words = "embed:embedding,rec:dropout(0.5):last,bn:batch_norm(1e-5),lin:leaky_relu(0.1)"
    same = formats.load(path, layers=words)
    assert [type(a) for a in model.layers] == [type(b) for b in same.layers]
    assert [layer.name for layer in model.layers] == [
        "embed", "core", "dropout", "last_step", "bn", "lin"
    ]  # fmt: skip
    tokens = np.array([[1, 2, 3]])
    assert model.run(tokens, on="exact")[0].tobytes() == same.run(tokens, on="exact")[0].tobytes()


def test_every_other_kind(tmp_path: Path) -> None:
    text = """version = 1
[[layer]]
kind = "activation"
activation = "relu"
[[layer]]
kind = "lstm"
module = "rec"
[[layer]]
kind = "last_step"
of = "state"
[[layer]]
kind = "repeat_vector"
steps = 3
[[layer]]
kind = "flatten"
steps = 3
[[layer]]
kind = "hidden_as_sequence"
"""
    path, sheet = files(tmp_path, text)
    assert [layer.kind for layer in formats.load(path, architecture=sheet).layers] == [
        "activation", "lstm", "last_step", "repeat_vector", "flatten", "hidden_as_sequence"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "kind", "said"),
    [
        ("version = 1", "version = 0", FormatError, "net.toml: version is 0, expected 1"),
        ('module = "rec"', 'modul = "rec"', FormatError, "net.toml: unknown key 'layer[1].modul', "
         "expected one of kind, name, module. Did you mean 'module'?"),
        ('module = "rec"', 'module = "rex"', UsageError, "has no module 'rex', expected one of "
         "embed, rec, bn, lin. Did you mean 'rec'?"),
        ('kind = "lstm"\nmodule = "rec"', 'kind = "lstm"\nmodule = "lin"', UsageError,
         "module lin: is nn.Linear 2 → 4, no lstm, expected lin without it"),
        ("rate = 0.5", "rate = 2.0", ModelError, "net.toml: layer[2]: layer dropout: dropout rate "
         "is 2.0, expected a rate in [0, 1)"),
        ("epsilon = 1e-5", "", FormatError, "net.toml: layer[4].epsilon is missing, expected a "
         "number"),
        ('"leaky_relu"', '"what"', ModelError, "net.toml: layer[5]: unknown activation 'what', "
         "expected one of sigmoid, tanh, relu"),
    ],
)  # fmt: skip
def test_files_that_mean_nothing(
    tmp_path: Path, old: str, new: str, kind: type[IfgoError], said: str
) -> None:
    assert old in TEXT
    path, sheet = files(tmp_path, TEXT.replace(old, new))
    with pytest.raises(kind) as caught:
        formats.load(path, architecture=sheet)
    assert str(caught.value).removeprefix(f"{path}: ").startswith(said)


def test_one_option_says_it(tmp_path: Path) -> None:
    path, sheet = files(tmp_path, TEXT)
    with pytest.raises(UsageError, match="options layers and architecture both say the chain"):
        formats.load(path, layers="rec", architecture=sheet)
    with pytest.raises(UsageError, match="no such file"):
        formats.load(path, architecture=str(tmp_path / "absent.toml"))
