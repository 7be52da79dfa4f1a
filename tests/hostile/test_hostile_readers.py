"""Hostile model files: each is a Model or refused by an error of ours, within time and memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus import Format, Mutant, damaged, written
from hostile_cases import FORMATS, OWN, Worker

from ifgo import formats


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("hostile"))
    yield made
    made.close()


def hold(worker: Worker, form: Format, mutants: Iterator[Mutant], least: int) -> None:
    wrong: list[str] = []
    count = 0
    for count, mutant in enumerate(mutants, 1):
        if fault := worker.fault(form, mutant, again=count % 10 == 1):
            wrong.append(fault)
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong)
    assert count >= least


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_damaged(worker: Worker, form: Format, tmp_path: Path) -> None:
    """Cut, flipped, overwritten, doubled, replaced by pipes, links and other files."""
    hold(worker, form, damaged(form, tmp_path), 100)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_damaged_in_full(worker: Worker, form: Format, tmp_path: Path) -> None:
    """The same at every offset, and thousands of times."""
    hold(worker, form, damaged(form, tmp_path, full=True), 2000)


def test_a_format_by_its_writer(tmp_path: Path) -> None:
    """What stands in for a reader that has not joined yet."""
    form = written("native")
    assert form.intact(tmp_path).is_file()
    assert [made.name for made in FORMATS if made in OWN] == [made.name for made in OWN]
    assert {made.name for made in FORMATS} >= set(formats.FORMATS)


@pytest.mark.parametrize("form", OWN, ids=lambda form: form.name)
def test_crafted(worker: Worker, form: Format) -> None:
    """Whole to their container, and lying: sizes, counts, depths, places."""
    hold(worker, form, form.crafted(), 10)
