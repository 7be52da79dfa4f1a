"""Exact comparison, and native files taken apart and put together again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifgo.errors import FormatError, IfgoError
from ifgo.formats import native
from ifgo.model import (
    Dense,
    FeatureInput,
    LSTMCell,
    Model,
    Provenance,
    Recurrent,
    Residual,
)


def identical(have: Any, want: Any, place: str = "model", *, skip: tuple[str, ...] = ()) -> None:
    """Asserts the same classes, the same array bits and dtypes, the same float bits.

    skip: names of fields that may differ.
    """
    assert type(have) is type(want), place
    if dataclasses.is_dataclass(want):
        for field in dataclasses.fields(want):
            if (name := field.name) not in skip:
                identical(getattr(have, name), getattr(want, name), f"{place}.{name}", skip=skip)
    elif isinstance(want, np.ndarray):
        assert (have.dtype, have.shape) == (want.dtype, want.shape), place
        assert have.tobytes() == want.tobytes(), place
    elif isinstance(want, tuple):
        assert len(have) == len(want), place
        for i, (a, b) in enumerate(zip(have, want, strict=True)):
            identical(a, b, f"{place}[{i}]", skip=skip)
    elif isinstance(want, float):
        assert struct.pack("<d", have) == struct.pack("<d", want), place
    else:
        assert have == want, place


def small() -> Model:
    """One of each thing the refusals below point at."""
    rng = np.random.default_rng(7)

    def weights(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    cell = LSTMCell(weights(8, 3), weights(8, 2), weights(8), clip_z=50.0)
    inner = Residual("skip", (Dense("inner", weights(2, 2)),), 1)
    chain = (Recurrent("lstm", cell), inner, Dense("head", weights(1, 2), weights(1)))
    return Model((FeatureInput(3),), chain, provenance=Provenance("onnx", "1.17", "m.onnx"))


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def whole(header: dict[str, Any] | str, payload: bytes) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + payload


def signed(model: Any, version: Any = 1) -> str:
    """A description whose checksum is right, whatever the model says."""
    text = json.dumps(model, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"version": version, "sha256": digest, "model": model})


def describe(path: Path, model: Any) -> None:
    """Replaces the model in the description and signs it."""
    header, payload = parts(path.read_bytes())
    header["__metadata__"]["ifgo"] = signed(model)
    path.write_bytes(whole(header, payload))


def edit(path: Path, change: Any) -> None:
    """Changes the model in the description in place and signs it again."""
    model = json.loads(parts(path.read_bytes())[0]["__metadata__"]["ifgo"])["model"]
    change(model)
    describe(path, model)


def refused(path: Path, error: type[IfgoError] = FormatError) -> str:
    with pytest.raises(error) as caught:
        native.read(path)
    prefix = f"{path}: "
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)
