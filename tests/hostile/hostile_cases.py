"""Every format of the corpus, the worker that tries its mutants, and the rule they are held to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

import hostile_arrays
import hostile_audio
import hostile_darknet
import hostile_dlfs2
import hostile_keras
import hostile_native
import hostile_onnx
import hostile_raw
import hostile_stm32
import hostile_tensorflow
import hostile_tflite
import hostile_torch
from corpus import Format, Mutant, written

from ifgo import formats

OWN: Final = (
    hostile_native.NATIVE,
    hostile_raw.RAW,
    hostile_raw.RAW_TEXT,
    hostile_onnx.ONNX,
    hostile_darknet.DARKNET,
    hostile_dlfs2.DLFS2,
    hostile_keras.KERAS,
    hostile_keras.KERAS_H5,
    hostile_tflite.TFLITE,
    hostile_tensorflow.TENSORFLOW,
    hostile_tensorflow.SAVED_MODEL,
    hostile_audio.RTNEURAL,
    hostile_audio.GUITARML,
    hostile_audio.NAM,
    hostile_arrays.ARRAYS,
    hostile_torch.TORCH,
    hostile_torch.SAFETENSORS,
    hostile_stm32.STM32,
)
"""A new reader joins here."""

FORMATS: Final = (
    *OWN,
    *(written(name) for name in formats.FORMATS if name not in {form.name for form in OWN}),
)
"""Until it does, what its writer makes of the small model is damaged, and no more."""

NAMED: Final[dict[str, Callable[[Path, str], Path]]] = {
    "native": hostile_native.named,
    "raw": hostile_raw.named,
    "onnx": hostile_onnx.named,
    "keras": hostile_keras.named,
    "keras h5": hostile_keras.named_h5,
    "tflite": hostile_tflite.named,
    "tensorflow": hostile_tensorflow.named,
    "saved_model": hostile_tensorflow.saved_named,
    "arrays": hostile_arrays.named,
    "torch": hostile_torch.named,
    "safetensors": hostile_torch.safe_named,
    "darknet": hostile_darknet.named,
    "stm32_text": hostile_stm32.named,
    "rtneural": partial(hostile_audio.named, "rtneural"),
    "nam": partial(hostile_audio.named, "nam"),
}
"""Format → writes the model of its intact file with a name in every place that takes one."""

NAMELESS: Final = {
    "raw as text": "its names are those of the raw folder",
    "darknet": "comments alone are text",
    "stm32_text": "comments and names of arrays, none kept",
    "guitarml": "numbers under keys that are known",
    "dlfs2": "a list of arrays",
}
"""Format → why no name of the file is kept."""

CPU_SECONDS: Final = 2.0
SPARE_BYTES: Final = 64 * 1024**2
PER_BYTE: Final = 4
"""What reading a hostile model may cost: CPU time, and memory beyond 4 times its files."""


def budget(size: int) -> int:
    """Bytes that a model of `size` bytes may take while it is read."""
    return SPARE_BYTES + PER_BYTE * size


class Worker:
    """The program hostile_worker.py, with one intact model of each format loaded beforehand."""

    def __init__(self, scratch: Path, formats: Iterable[Format] = FORMATS) -> None:
        self.scratch = scratch
        (scratch / "out").mkdir()
        self.intact: dict[str, Path] = {}
        for k, form in enumerate(formats):
            place = scratch / f"intact{k}"
            place.mkdir()
            self.intact[form.name] = form.intact(place)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("hostile_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        self._ask({"warm": [str(path) for path in self.intact.values()], "scratch": str(scratch)})

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _ask(self, case: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(case) + "\n")
        stdin.flush()
        answer = stdout.readline()
        assert answer, "the worker has ended"
        return json.loads(answer)

    def offend(self, what: str, **more: Any) -> dict[str, Any]:
        """The worker's own misdeeds, which a rule that can fail must notice."""
        room = self.scratch / "room"
        room.mkdir(exist_ok=True)
        return self._ask(
            {
                "path": f"offender:{what}",
                "options": {},
                "room": str(room),
                "scratch": str(self.scratch / "out"),
                "intact": str(next(iter(self.intact.values()))),
                "again": False,
                **more,
            }
        )

    def fault(self, form: Format, mutant: Mutant, *, again: bool) -> str:
        """What is wrong with how `mutant` is treated; "" where all is well."""
        room = self.scratch / "room"
        shutil.rmtree(room, ignore_errors=True)
        folder = room / "model"
        folder.mkdir(parents=True)
        try:
            path = mutant.write(folder)
            before = listing(room)
            found = self._ask(
                {
                    "path": str(path),
                    "options": {
                        key: str(folder / value) if isinstance(value, str) else value
                        for key, value in mutant.options.items()
                    },
                    "room": str(folder),
                    "scratch": str(self.scratch / "out"),
                    "intact": str(self.intact[form.name]),
                    "again": again,
                }
            )
            wrong = faults(found, size_of(folder), mutant.codes)
            if listing(room) != before:
                wrong.append("changed the files it read")
            return f"{form.name}, {mutant.name}: {'; '.join(wrong)}" if wrong else ""
        finally:
            shutil.rmtree(room, ignore_errors=True)
            shutil.rmtree(self.scratch / "out", ignore_errors=True)
            (self.scratch / "out").mkdir()


def faults(found: dict[str, Any], size: int, codes: tuple[int, ...]) -> list[str]:
    """Where `found`, which the worker says of files of `size` bytes, breaks the rule."""
    result = found["result"]
    if "code" not in found:
        return [result]
    wrong: list[str] = []
    if result != "model" and found["code"] not in codes:
        wrong.append(f"{result} (exit {found['code']}): {found['message'][:300]}")
    if found["peak"] > budget(size):
        wrong.append(f"{found['peak'] >> 20} MiB for {size} bytes, of {budget(size) >> 20} MiB")
    if found["cpu"] > CPU_SECONDS:
        wrong.append(f"{found['cpu']:.1f} s")
    if len(found["message"]) > 2000:
        wrong.append(f"a message of {len(found['message'])} characters")
    wrong += found["harm"]
    if found["deployed"] not in ("whole", "refused"):
        wrong.append(f"deploying it left: {found['deployed']}")
    if found["intact"] != "whole":
        wrong.append(f"the intact model afterwards: {found['intact']}")
    return wrong


def size_of(folder: Path) -> int:
    """Bytes of the files in `folder`, holes left out."""
    every = (f.lstat() for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
    return sum(min(s.st_size, max(s.st_blocks * 512, 4096)) for s in every)


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every entry below `folder`: size, time of the last change, mode."""
    every = ((str(f), f.lstat()) for f in sorted(folder.rglob("*")))
    return {
        name: (s.st_size if not os.path.isdir(name) else 0, s.st_mtime_ns, s.st_mode)
        for name, s in every
    }
