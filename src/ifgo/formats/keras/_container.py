"""A file of Keras taken apart: the config as plain JSON, the version, the arrays as HDF5.

`.keras` is a zip of metadata.json, config.json and model.weights.h5; `.h5` is HDF5 with the config
in an attribute, or without one where only weights were saved.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from ifgo import files, limits
from ifgo.errors import FormatError, IfgoError, UsageError
from ifgo.formats.keras._config import Version
from ifgo.formats.keras._hdf5 import SIGNATURE, Hdf5, Object
from ifgo.text import cut, quote

ZIP: Final = b"PK\x03\x04"
WEIGHTS: Final = "model.weights.h5"
_AGAIN: Final = "Save it again with Keras"
_ENTRY: Final = b"PK\x01\x02"

Given = str | Path | Mapping[str, Any] | Sequence[Any]
"""What option config may be: the path of a JSON, or what such a file holds."""


@dataclass(frozen=True)
class Contents:
    """config: the JSON, None where the file holds weights alone and none was given. root: the group
    that holds the arrays. by_path: whether they lie by class and counter (Keras 3), not by name."""

    config: Any
    version: Version
    root: Object
    by_path: bool
    given: bool = False


def unpack(path: Path, given: Given | None) -> Contents:
    """What lies in `path`. Raises FormatError, UnsupportedError, or UsageError where a config is
    given beside the file's own."""
    data = files.read_bytes(path)
    if data[:4] == ZIP:
        parts = _entries(data)
        meta, config = parse_json(parts["metadata.json"], "metadata.json"), parts["config.json"]
        root = Hdf5(parts[WEIGHTS]).root
        text = cast("dict[str, Any]", meta).get("keras_version") if isinstance(meta, dict) else None
        version = Version.parse(text if isinstance(text, str) else None)
        found = Contents(parse_json(config, "config.json"), version, root, True)
    elif data[:8] == SIGNATURE:
        root = Hdf5(data).root
        text = root.text("model_config")
        config = None if text is None else parse_json(text.encode(), "attribute model_config")
        whole = root.children.get("model_weights")
        held = root if whole is None else whole
        version = Version.parse(root.text("keras_version") or held.text("keras_version"))
        found = Contents(config, version, held, held.texts("layer_names") is None)
    else:
        raise FormatError(
            "is neither HDF5 nor a zip", expected="a .keras or .h5 that Keras wrote", hint=_AGAIN
        )
    if given is None:
        return found
    if found.config is not None:
        raise UsageError("holds its config, and another is given", expected="one", hint="Leave it")
    config = _given(given)
    version = found.version
    said = cast("dict[str, Any]", config).get("keras_version") if isinstance(config, dict) else None
    if version.major is None and said is not None:
        version = Version.parse(str(said))
    if version.major is None:
        version = Version(recent=found.by_path)
    return Contents(config, version, found.root, found.by_path, given=True)


def _given(given: Given) -> Any:
    """The JSON of option config; a list of layers is a Sequential."""
    config: Any = given
    if isinstance(given, str | Path):
        try:
            data = files.read_bytes(Path(given), limit="json_bytes")
            config = parse_json(data, "config")
        except IfgoError as error:
            known = error.where is not None and str(given) in error.where
            raise error if known else error.located(str(given)) from None
    if isinstance(config, Sequence):
        config = {"class_name": "Sequential", "config": {"layers": list(cast("list[Any]", config))}}
    if not isinstance(config, Mapping):
        raise UsageError(
            f"option config is {quote(config)}", expected="the path of a JSON, or its content"
        )
    return dict(cast("Mapping[str, Any]", config))


def parse_json(data: bytes, what: str) -> Any:
    """`data` as JSON of unique keys and finite numbers. Raises FormatError naming `what`."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key twice")
        return found

    def constant(text: str) -> Any:
        raise ValueError(text)

    if len(data) > limits.current().json_bytes:
        raise FormatError(f"{what} has {len(data)} bytes", **limits.at_most("json_bytes"))
    try:
        return json.loads(data, object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        said = "too deep" if isinstance(error, RecursionError) else cut(error)
        raise FormatError(f"{what} is no JSON ({said})", hint=_AGAIN) from None


def _entries(data: bytes) -> dict[str, bytes]:
    """The three parts of a .keras file, weighed before they are unpacked."""
    if data.count(_ENTRY) > limits.current().arrays:
        raise FormatError("holds too many files", **limits.at_most("arrays"))
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            for name, limit in (
                ("metadata.json", "json_bytes"),
                ("config.json", "json_bytes"),
                (WEIGHTS, "expansion_bytes"),
            ):
                if names.count(name) != 1:
                    raise FormatError(
                        f"holds {names.count(name)} files {name}",
                        expected="one, as Keras writes it",
                        hint=_AGAIN,
                    )
                entry = archive.getinfo(name)
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise FormatError(
                        f"{name} is compressed by method {entry.compress_type}",
                        expected="none (0) or deflate (8)",
                        hint=_AGAIN,
                    )
                most = limits.value(limit) + (len(data) if name == WEIGHTS else 0)
                if entry.file_size > most:
                    raise FormatError(
                        f"{name} unpacks to {entry.file_size} bytes",
                        **limits.at_most(limit, form=f"at most {most}"),
                    )
                with archive.open(entry) as stream:
                    found[name] = stream.read(entry.file_size + 1)
    except (IfgoError, MemoryError):
        raise
    # zipfile passes on what each part of a damaged directory, and its decompressor, raise.
    except Exception:
        raise FormatError("is a damaged zip", hint=_AGAIN) from None
    return found
