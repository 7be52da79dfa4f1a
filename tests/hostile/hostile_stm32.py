"""What only a C header of numbers can suffer: sizes that lie, comments and braces without end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from corpus import MARK, NAMES, Format, Mutant, model

from ifgo import formats
from ifgo.model import FeatureInput, Model

HEAD = b"#define LSTM_INPUT_SIZE 3\n#define LSTM_HIDDEN_SIZE 2\n#define LSTM_BIASES 0\n"
WHOLE = HEAD + b"float a[24] = {" + b"1," * 24 + b"};\nfloat b[16] = {" + b".5f," * 16 + b"};\n"


def intact(folder: Path) -> Path:
    one = model()
    formats.save(Model((FeatureInput(3),), one.layers[:1]), folder / "m.h", "stm32_text")
    return folder / "m.h"


def _file(data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "m.h").write_bytes(data)
        return folder / "m.h"

    return write


CASES: dict[str, bytes] = {
    "input size 999999": WHOLE.replace(b"SIZE 3", b"SIZE 999999"),
    "hidden size 999999": WHOLE.replace(b"SIZE 2", b"SIZE 999999"),
    "hidden size 8192": WHOLE.replace(b"SIZE 2", b"SIZE 8192"),
    "hidden size 0": WHOLE.replace(b"SIZE 2", b"SIZE 0"),
    "sizes without end": HEAD * 50_000 + WHOLE,
    "a size of blanks": b"#define LSTM_INPUT_SIZE " + b" " * 2**20 + WHOLE,
    "lines of blanks": HEAD + b" " * 2**20 + b"#" + b" \t" * 2**20,
    "braces without end": HEAD + b"{" * 2**20,
    "pairs of braces": HEAD + b"{}" * 2**19,
    "one number a brace": HEAD + b"{1}" * 2**17,
    "open comments": HEAD + b"/*" * 2**19,
    "stars": HEAD + b"/*" + b"*" * 2**20,
    "slashes": HEAD + b"/" * 2**20,
    "numbers without end": HEAD + b"{" + b"1," * 2**21 + b"}",
    "NaN": WHOLE.replace(b".5f", b"nan", 1),
    "infinity": WHOLE.replace(b".5f", b"1e999", 1),
    "a word": WHOLE.replace(b".5f", MARK.encode(), 1),
    "a long word": WHOLE.replace(b".5f", b"x" * 2**20, 1),
    "a call": WHOLE.replace(b".5f", b"system(0)", 1),
    "NUL": WHOLE.replace(b".5f", b"\0", 1),
    "UTF-16": WHOLE.decode().encode("utf-16"),
}


def crafted() -> Iterator[Mutant]:
    """Everything in this file, and names in comments."""
    for name, data in CASES.items():
        yield Mutant(f"stm32_text: {name}", _file(data))
    for name, text in NAMES.items():
        said = f"/* {text} */\n".encode(errors="surrogatepass")
        yield Mutant(f"stm32_text: comment, {name}", _file(HEAD + said + WHOLE))


def named(folder: Path, name: str) -> Path:
    """A comment, and the names of the arrays."""
    path = intact(folder)
    said = name.encode(errors="surrogatepass")
    text = path.read_bytes()
    shown = said.replace(b"*/", b"* /")
    path.write_bytes(b"/* " + shown + b" */\n" + text.replace(b"lstm0", said))
    return path


STM32 = Format("stm32_text", intact, crafted)
