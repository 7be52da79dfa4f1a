"""Tensors as a .pt file describes them: a view (offset, sizes, strides) of a storage of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import FormatError, ToolError, UnsupportedError
from ifgo.formats._unpickle import Name, Outside
from ifgo.text import cut, quote

MAX_RANK: Final = 8

STORAGES: Final = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
"""torch.NAME → NumPy's name of the dtype (bfloat16: ml_dtypes')."""


@dataclass(frozen=True)
class Storage:
    """Numbers of one member of the archive: data/KEY."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage, counted in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def damaged(what: str) -> NoReturn:
    """Raises FormatError: the pickle is not as it was written."""
    raise FormatError(
        f"data.pkl {what}",
        expected="a whole pickle",
        hint="The file was changed or cut short after it was written; fetch or write it again",
    )


def rebuilt(arguments: tuple[Any, ...]) -> Tensor:
    """The tensor of _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, ...).

    Raises FormatError where it reaches beyond its storage, UnsupportedError where it repeats it.
    """
    if len(arguments) < 4:
        damaged("builds a tensor of too few parts")
    storage, offset, shape, strides = arguments[:4]
    storage = storage_of(storage)
    numbers = (offset, *_whole(shape), *_whole(strides))
    if any(type(n) is not int or not 0 <= n < 2**48 for n in numbers) or len(shape) != len(strides):
        damaged(f"builds a tensor of storage {quote(storage.key)} with sizes that cannot be")
    count = 1
    for size in shape:
        count *= size
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if count and last >= storage.count:
        raise FormatError(
            f"a tensor of shape {cut(shape)} ends at element {last} of storage "
            f"{quote(storage.key)}",
            expected=f"at most {storage.count - 1}",
        )
    if count > storage.count:
        raise UnsupportedError(
            f"a tensor of shape {cut(shape)} repeats the {storage.count} elements of storage "
            f"{quote(storage.key)}",
            hint="Save it with .contiguous()",
        )
    return Tensor(storage, offset, shape, strides)


def storage_of(value: Any) -> Storage:
    """Of the persistent id ("storage", torch.FloatStorage, key, device, count); files before
    PyTorch 1.6 add None, or a view of another storage, which is refused."""
    key: Any = value.key if isinstance(value, Outside) else ()
    parts = cast("tuple[Any, ...]", key if type(key) is tuple else ())
    if (
        not (len(parts) == 5 or (len(parts) == 6 and parts[5] is None))
        or type(parts[0]) is not str
        or parts[0] != "storage"
        or not isinstance(parts[1], Name)
        or parts[1].path.removeprefix("torch.") not in STORAGES
        or type(parts[2]) is not str
        or type(parts[4]) is not int
    ):
        damaged("builds a tensor without a storage")
    return Storage(parts[2], STORAGES[parts[1].path.removeprefix("torch.")], parts[4])


def _whole(sizes: Any) -> tuple[Any, ...]:
    if type(sizes) is not tuple or len(cast("tuple[Any, ...]", sizes)) > MAX_RANK:
        damaged(f"builds a tensor with something else than at most {MAX_RANK} sizes")
    return cast("tuple[Any, ...]", sizes)


def values(tensor: Tensor, data: memoryview, order: str) -> NDArray[Any]:
    """The array of `tensor` as a view of `data`, its storage's bytes in byte order "<" or ">".

    Raises FormatError where `data` is of another size than the storage says.
    """
    dtype = _dtype(tensor.storage.dtype)
    wanted = tensor.storage.count * dtype.itemsize
    if len(data) != wanted:
        raise FormatError(
            f"data/{cut(tensor.storage.key)} has {len(data)} bytes",
            expected=f"{wanted}, {tensor.storage.count} values of {dtype}",
        )
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, dtype)
    if dtype.itemsize > 1 and order == ">":
        unit = dtype.itemsize // (2 if dtype.kind == "c" else 1)
        data = memoryview(np.frombuffer(data, f"u{unit}").byteswap().tobytes())
    flat = np.frombuffer(data, dtype)[tensor.offset :]
    steps = tuple(step * dtype.itemsize for step in tensor.strides)
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, steps, writeable=False)


def _dtype(name: str) -> np.dtype[Any]:
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise ToolError(
            "holds bfloat16, which NumPy alone does not know",
            hint="Install it: pip install ml_dtypes",
        ) from None
    return np.dtype(ml_dtypes.bfloat16)


def itemsize(name: str) -> int:
    """Bytes of one value of a dtype in STORAGES."""
    return 2 if name == "bfloat16" else np.dtype(name).itemsize
