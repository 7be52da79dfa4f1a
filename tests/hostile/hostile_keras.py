"""What only Keras files can suffer: HDF5 and zips that lie, and configs that ask for more."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from corpus import MARK, NAMES, Format, Mutant, model

from ifgo import formats

PARTS = ("metadata.json", "config.json", "model.weights.h5")


def intact(folder: Path) -> Path:
    formats.save(model(), folder / "m.keras")
    return folder / "m.keras"


def intact_h5(folder: Path) -> Path:
    formats.save(model(), folder / "m.h5")
    return folder / "m.h5"


def _parts(folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(intact(folder)) as archive:
        return {name: archive.read(name) for name in PARTS}


def _zipped(
    change: Callable[[dict[str, bytes]], None], *, method: int = zipfile.ZIP_STORED
) -> Callable[[Path], Path]:
    """The intact .keras with its three parts changed."""

    def write(folder: Path) -> Path:
        parts = _parts(folder)
        change(parts)
        with zipfile.ZipFile(folder / "m.keras", "w", method) as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
        return folder / "m.keras"

    return write


def _config(change: Callable[[Any], None]) -> Callable[[Path], Path]:
    """The intact .keras with its config changed."""

    def edit(parts: dict[str, bytes]) -> None:
        config = json.loads(parts["config.json"])
        change(config)
        parts["config.json"] = json.dumps(config).encode()

    return _zipped(edit)


def _layer(number: int, **values: Any) -> Callable[[Path], Path]:
    return _config(lambda config: config["config"]["layers"][number]["config"].update(values))


def _whole(name: str, data: bytes) -> Callable[[Path], Path]:
    return _zipped(lambda parts: parts.update({name: data}))


def _h5(change: Callable[[Any], None]) -> Callable[[Path], Path]:
    """The intact .h5 changed by h5py."""

    def write(folder: Path) -> Path:
        path = intact_h5(folder)
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return write


def _kernel(make: Callable[[Any, str], None]) -> Callable[[Path], Path]:
    """The intact .h5 whose first kernel `make` puts anew."""

    def change(file: Any) -> None:
        group = file["model_weights/lstm0/lstm0/cell"]
        del group["kernel"]
        make(group, "kernel")

    return _h5(change)


def _virtual(group: Any, name: str) -> None:
    layout = h5py.VirtualLayout(shape=(3, 8), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(3, 8))
    group.create_virtual_dataset(name, layout)


def _deep(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def _loop(file: Any) -> None:
    file["model_weights/lstm0/lstm0"]["again"] = file["model_weights"]


def _bomb(group: Any, name: str) -> None:
    zeros = np.zeros((2**13, 2**13), np.float32)
    group.create_dataset(name, data=zeros, chunks=(2**10, 2**10), compression="gzip")


CASES: dict[str, Callable[[Path], Path]] = {
    "units 2**30": _layer(1, units=2**30),
    "units negative": _layer(1, units=-1),
    "units true": _layer(1, units=True),
    "units of many digits": _layer(1, units=10**400),
    "a Lambda": _config(
        lambda c: c["config"]["layers"][1].update(
            class_name="Lambda", config={"name": "l", "function": f"import os; os.mkdir('{MARK}')"}
        )
    ),
    "a class of a module": _config(
        lambda c: c["config"]["layers"][1].update(module="os", class_name="system")
    ),
    "an activation in Python": _layer(1, activation={"class_name": "__lambda__", "config": MARK}),
    "a deep config": _whole("config.json", b'{"class_name":' + _deep(100_000) + b"}"),
    "a deep config within limits": _whole(
        "config.json",
        b'{"class_name": "Functional", "config": {"name": "f", "layers": [{"class_name": "Dense", '
        b'"config": {"name": "d"}, "name": "d", "inbound_nodes": [{"args": '
        + _deep(900)
        + b"}]}]}}",
    ),
    "a config of a megabyte": _whole("config.json", b"[" + b"[]," * 340_000 + b"[]]"),
    "a config of many megabytes": _whole("config.json", b" " * 2**24),
    "no numbers": _layer(1, dropout=float("nan")),
    "layers without end": _config(
        lambda c: c["config"].update(layers=c["config"]["layers"] * 5000)
    ),
    "sequentials without end": _whole(
        "config.json",
        b'{"class_name":"Sequential","config":{"layers":[' * 200 + b"1" + b"]}}" * 200,
    ),
    "a version that is none": _whole(
        "metadata.json", b'{"keras_version": "9' + b"9" * 5000 + b'"}'
    ),
    "metadata that is none": _whole("metadata.json", b"[]"),
    "a zip bomb": _zipped(
        lambda parts: parts.update({PARTS[2]: bytes(2**28)}), method=zipfile.ZIP_DEFLATED
    ),
    "weights twice": _zipped(lambda parts: parts.update({"./" + PARTS[2]: b""})),
}

H5_CASES: dict[str, Callable[[Path], Path]] = {
    "an external link": _kernel(
        lambda group, name: group.__setitem__(name, h5py.ExternalLink("/etc/passwd", "/"))
    ),
    "a soft link": _kernel(lambda group, name: group.__setitem__(name, h5py.SoftLink("/"))),
    "a hard link to the top": _h5(_loop),
    "a virtual array": _kernel(_virtual),
    "external storage": _kernel(
        lambda group, name: group.create_dataset(
            name, (3, 8), "f4", external=[("/etc/passwd", 0, 96)]
        )
    ),
    "a huge shape": _kernel(lambda group, name: group.create_dataset(name, (2**31, 2**20), "f4")),
    "a huge chunked shape": _kernel(
        lambda group, name: group.create_dataset(name, (2**31, 2**20), "f4", chunks=(8, 8))
    ),
    "a compression bomb": _kernel(_bomb),
    "references": _kernel(
        lambda group, name: group.create_dataset(name, (3, 8), dtype=h5py.ref_dtype)
    ),
    "texts": _kernel(lambda group, name: group.create_dataset(name, data=np.array([b"x"] * 24))),
    "integers": _kernel(lambda group, name: group.create_dataset(name, data=np.zeros((3, 8), int))),
    "NaN": _kernel(
        lambda group, name: group.create_dataset(name, data=np.full((3, 8), np.nan, np.float32))
    ),
    "names without end": _h5(
        lambda file: file["model_weights"].attrs.__setitem__(
            "layer_names", np.array([b"lstm0"] * 10_000)
        )
    ),
    "a config that is no text": _h5(lambda file: file.attrs.__setitem__("model_config", 3.5)),
}


def crafted_h5() -> Iterator[Mutant]:
    """What HDF5 can hold and no model may."""
    for name, write in H5_CASES.items():
        yield Mutant(f"keras h5: {name}", write)


def named(folder: Path, name: str) -> Path:
    """The intact file whose LSTM has another name."""
    return _layer(1, name=name)(folder)


def named_h5(folder: Path, name: str) -> Path:
    """Config, groups and arrays of the LSTM called after `name`."""

    def change(file: Any) -> None:
        said = name.replace("\0", "").encode(errors="surrogatepass")
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["config"]["name"] = name
        file.attrs["model_config"] = json.dumps(config)
        group = file["model_weights"]
        group.move("lstm0", said)
        names = [said if n == b"lstm0" else n for n in group.attrs["layer_names"]]
        group.attrs["layer_names"] = np.array(names)

    return _h5(change)(folder)


def crafted() -> Iterator[Mutant]:
    """Zips and configs."""
    for name, write in CASES.items():
        yield Mutant(f"keras: {name}", write)
    for name, text in NAMES.items():
        yield Mutant(f"keras: class named {name}", _kind(text))


def _kind(text: str) -> Callable[[Path], Path]:
    return _config(lambda c: c["config"]["layers"][1].update(class_name=text))


KERAS = Format("keras", intact, crafted)
KERAS_H5 = Format("keras h5", intact_h5, crafted_h5)
