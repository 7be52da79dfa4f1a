"""Files changed at random by hypothesis, containers kept whole: a valid Model, or our refusal.

Every format of the corpus is a target, and so is every format of the registry. What a refusal may
cost is the corpus' own rule; here it is what comes out. IFGO_SLOW=1 (`make fuzz`) tries more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import hostile_arrays
import pytest
from corpus import Format, rich
from hostile_cases import FORMATS, OWN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutate

import ifgo
from ifgo import formats
from ifgo.describe import table
from ifgo.errors import IfgoError, UnsupportedError, UsageError

SLOW = bool(os.environ.get("IFGO_SLOW"))
EXAMPLES = 3000 if SLOW else 60

Files = dict[Path, bytes]


OTHERS: dict[str, tuple[Callable[[Path], Path], ...]] = {
    "arrays": (hostile_arrays.pickled, hostile_arrays.json_lists),
}
"""Other containers of a format."""


def seeds(form: Format, folder: Path) -> list[tuple[Path, Files]]:
    """The intact model, other containers of it, and a richer model where it can be written:
    path to load, files."""
    found: list[tuple[Path, Files]] = []
    for k, write in enumerate((form.intact, *OTHERS.get(form.name, ()), partial(_rich, form.name))):
        room = folder / str(k)
        room.mkdir()
        try:
            path = write(room)
        except (UnsupportedError, UsageError):
            assert k, "the intact model is not written"
            continue
        files = [file for file in room.rglob("*") if file.is_file()]
        found.append((path.relative_to(room), {f.relative_to(room): f.read_bytes() for f in files}))
    return found


def _rich(name: str, folder: Path) -> Path:
    path = folder / f"m{next(iter(formats.get(name).EXTENSIONS), '')}"
    formats.save(rich(), path, name, allow_lossy=True)
    return path


def tried(path: Path, again: Path) -> str:
    """ "model", or the message of a refusal. A model is listed, described, and kept in a file."""
    try:
        formats.list_layers(path)
        model = ifgo.load(path)
    except IfgoError as caught:
        return refused(caught, path)
    assert table(model)
    ifgo.save(model, again)
    assert ifgo.load(again).layers
    return "model"


def refused(error: IfgoError, path: Path) -> str:
    """The message, which names the file, prints, and ends."""
    assert error.exit_code in (3, 4), repr(error)
    assert str(error).startswith(str(path)), str(error)
    assert str(error).isprintable(), repr(error)
    assert len(str(error)) < 2000 + len(str(path)), str(error)
    return str(error)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_fuzz(form: Format, tmp_path: Path) -> None:
    """Each file of the model in turn; whole first, so that the target is known to work."""
    sources = seeds(form, tmp_path)
    room = tmp_path / "room"
    found: set[str] = set()

    def put(files: Files) -> None:
        for name, data in files.items():
            (room / name).parent.mkdir(parents=True, exist_ok=True)
            (room / name).write_bytes(data)

    for place, files in sources:
        put(files)
        assert tried(room / place, tmp_path / "again.ifgo") == "model"

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=not SLOW,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.sampled_from(sources), st.integers(0, 2**32 - 1), st.data())
    def attack(source: tuple[Path, Files], seed: int, data: st.DataObject) -> None:
        place, files = source
        which = data.draw(st.sampled_from(sorted(files)))
        put(files | {which: mutate(files[which], Random(seed), which.name)})
        found.add(tried(room / place, tmp_path / "again.ifgo"))

    attack()
    assert len(found) > 3, "the changes reach nothing but the first check"


def test_every_format_is_a_target() -> None:
    """With a file of its own in the corpus, not by its writer alone."""
    own = {form.name for form in OWN}
    assert set(formats.FORMATS) <= own
    assert own == {form.name for form in FORMATS}
