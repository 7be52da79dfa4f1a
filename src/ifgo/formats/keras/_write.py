"""A Model as a .keras or .h5 that Keras 3 loads: what fits, what is folded, what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, Final

import h5py  # pyright: ignore[reportMissingTypeStubs]
import numpy as np

from ifgo import files
from ifgo.errors import IfgoError, UsageError
from ifgo.formats import Report
from ifgo.formats._attributes import Losses
from ifgo.formats.keras._container import WEIGHTS
from ifgo.formats.keras._weights import snake
from ifgo.formats.keras._write_layers import Built, Chain
from ifgo.model import Model

VERSION: Final = "3.0.0"
"""keras_version of what is written: hard_sigmoid means clip(x/6 + 0.5)."""

_DATE: Final = (1980, 1, 1, 0, 0, 0)


def write_file(model: Model, path: Path, *, allow_lossy: Losses) -> Report:
    """Write `path`; see ifgo.formats.keras.write."""
    name = path.name.lower()
    if path.suffix.lower() not in (".keras", ".h5") or name.endswith(".weights.h5"):
        raise UsageError(
            "does not end in .keras or .h5",
            where=str(path),
            expected="NAME.keras, or NAME.h5 of the older form; weights without a config say less",
        )
    chain = Chain(allow_lossy=allow_lossy)
    try:
        chain.read(model)
        chain.judge()
    except IfgoError as error:
        raise error.located(str(path)) from None
    make = _zip if path.suffix.lower() == ".keras" else _legacy
    files.atomic_write(path, make(chain.config(), chain.built))
    return chain.report(model)


def _zip(config: dict[str, Any], built: list[Built]) -> bytes:
    """metadata.json, config.json, and the arrays by class and counter."""
    out = io.BytesIO()
    parts = {
        "metadata.json": json.dumps({"keras_version": VERSION, "date_saved": ""}).encode(),
        "config.json": json.dumps(config).encode(),
        WEIGHTS: _by_path(built),
    }
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), data)
    return out.getvalue()


def _by_path(built: list[Built]) -> bytes:
    out = io.BytesIO()
    seen: dict[str, int] = {}
    with h5py.File(out, "w") as opened:
        file: Any = opened
        for layer in built:
            base = snake(layer.kind)
            number = f"_{seen[base]}" if base in seen else ""
            seen[base] = seen.get(base, 0) + 1
            for inner, arrays in layer.arrays.items():
                place = "/".join(filter(None, ("layers", base + number, inner, "vars")))
                for k, array in enumerate(arrays.values()):
                    file[f"{place}/{k}"] = array
    return out.getvalue()


def _legacy(config: dict[str, Any], built: list[Built]) -> bytes:
    """The config in an attribute, and the arrays by layer."""
    out = io.BytesIO()
    with h5py.File(out, "w") as opened:
        file: Any = opened
        file.attrs["keras_version"] = VERSION
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(config)
        group = file.create_group("model_weights")
        group.attrs["keras_version"] = VERSION
        group.attrs["backend"] = "tensorflow"
        _names(group, "layer_names", [layer.name for layer in built])
        for layer in built:
            held = group.create_group(layer.name)
            names: list[str] = []
            for inner, arrays in layer.arrays.items():
                for key, array in arrays.items():
                    names.append("/".join(filter(None, (layer.name, inner, key))))
                    held[names[-1]] = array
            _names(held, "weight_names", names)
        _names(group.create_group("top_level_model_weights"), "weight_names", [])
    return out.getvalue()


def _names(group: Any, key: str, names: list[str]) -> None:
    """A list of names as an attribute, in parts where it is longer than HDF5 lets one be."""
    encoded = [name.encode() for name in names]
    longest = max([len(name) for name in encoded], default=1)
    count = max(1, 60_000 // longest)
    parts = [encoded[k : k + count] for k in range(0, len(encoded), count)] or [[]]
    for k, part in enumerate(parts):
        name = key if len(parts) == 1 else f"{key}{k}"
        group.attrs[name] = np.array(part, dtype=f"S{longest}") if part else np.zeros(0)
