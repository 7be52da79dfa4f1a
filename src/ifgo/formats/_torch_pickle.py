"""The pickle of a .pt file as containers and tensors. What it names is checked, and never run."""

from __future__ import annotations

from typing import Any, Final, cast

from ifgo.errors import UnsupportedError
from ifgo.formats._torch_tensor import STORAGES, Tensor, damaged, rebuilt
from ifgo.formats._unpickle import Made, Pickled, parse_at
from ifgo.text import quote

_SAVE_DICT: Final = (
    "Where you trust the file, load it with torch and save the dictionary alone: "
    "torch.save(model.state_dict(), path)"
)
_ORDERED: Final = "collections.OrderedDict"
_TENSORS: Final = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_PARAMETERS: Final = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
)
_BESIDE: Final = (
    *("torch.Size", "torch.device", "builtins.set", "__builtin__.set", "collections.defaultdict"),
    *("builtins.dict", "__builtin__.dict", "argparse.Namespace", "pathlib.PosixPath"),
    *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *("_codecs.encode", "lightning_fabric.utilities.data.AttributeDict"),
    *(
        f"{package}.AttributeDict"
        for package in (
            "lightning.fabric.utilities.data",
            "pytorch_lightning.utilities.parsing",
        )
    ),
)
"""What checkpoints hold beside tensors: left out with the entry that holds it."""

_KNOWN: Final = {
    _ORDERED,
    *_TENSORS,
    *_PARAMETERS,
    *_BESIDE,
    *(f"torch.{name}" for name in STORAGES),
}
_HOLDS_TENSORS: Final = ("torch._utils.", "torch._tensor.", "torch.storage.", "torch.sparse.")
"""Where functions that make tensors live: one that is not known might hold a weight."""


def read_pickle(data: memoryview | bytes, start: int = 0) -> tuple[Pickled, list[str]]:
    """The pickle at byte `start` as ifgo.formats._unpickle has it, and the classes and functions
    it names that are no part of a state_dict. None of them is imported or called.

    Raises UnsupportedError on tensors of a kind that is not known, FormatError on damage.
    """
    names: dict[str, None] = {}

    def admit(path: str) -> None:
        if path not in _KNOWN:
            _refuse_tensors(path)
            names[path] = None

    return parse_at(bytes(data), start, admit), list(names)


def _refuse_tensors(path: str) -> None:
    name = path.rpartition(".")[2]
    packed = path == "torch.ScriptObject" or "qtensor" in name or "quantized" in path
    if packed or name.startswith(("QInt", "QUInt")):
        raise UnsupportedError(
            f"data.pkl names {quote(path, 120)}, packed parameters of a quantised model",
            expected="floating-point tensors",
            hint="Save the state_dict of the model before quantisation",
        )
    if path.startswith(_HOLDS_TENSORS):
        raise UnsupportedError(
            f"data.pkl names {quote(path, 120)}, which may run code and is never called",
            expected="tensors as torch.save writes those of a state_dict",
            hint=_SAVE_DICT,
        )


def table_of(value: Any) -> dict[Any, Any] | None:
    """A dict, or the entries of an OrderedDict; None for anything else."""
    if type(value) is dict:
        return cast("dict[Any, Any]", value)
    if not isinstance(value, Made) or value.path != _ORDERED:
        return None
    if value.args not in ((), ([],)):
        damaged("builds an OrderedDict of something else than pairs")
    return dict(value.pairs)


def metadata_of(value: Any) -> dict[Any, Any]:
    """The _metadata that state_dict() attaches to an OrderedDict, by path of the module."""
    state = value.state if isinstance(value, Made) else None
    found = cast("dict[Any, Any]", state).get("_metadata") if type(state) is dict else None
    return table_of(found) or {}


def tensor_of(value: Any) -> Tensor | None:
    """A tensor, or that of a parameter; None for anything else.

    Raises FormatError where it reaches beyond its storage, UnsupportedError where it repeats it.
    """
    if not isinstance(value, Made) or value.path not in (*_TENSORS, *_PARAMETERS):
        return None
    inner: Any = value
    if value.path in _PARAMETERS:
        inner = _arguments(value)[0]
        if not isinstance(inner, Made) or inner.path not in _TENSORS:
            damaged("builds a parameter of no tensor")
    return rebuilt(_arguments(inner))


def _arguments(value: Made) -> tuple[Any, ...]:
    given: Any = value.args
    if type(given) is not tuple or not given:
        damaged("builds a tensor of nothing")
    return cast("tuple[Any, ...]", given)
