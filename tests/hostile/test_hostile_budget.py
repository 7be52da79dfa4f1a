"""The rule that hostile models are held to can fail: each misdeed is noticed, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_cases import CPU_SECONDS, FORMATS, Worker, budget, faults

MIB = 2**20
SIZE = 1000
PLAIN = (70,)
"""The exit code of the error with which every misdeed ends."""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("budget"), FORMATS[:1])
    yield made
    made.close()


def test_nothing_wrong(worker: Worker) -> None:
    assert faults(worker.offend(f"memory:{32 * MIB}"), SIZE, PLAIN) == []


def test_memory(worker: Worker) -> None:
    """What is measured is what was taken, to a mebibyte (of heap that lay free before, or of the
    child's own pages), however little of it is kept."""
    for amount in (8, 16, 63, 100):
        peak = worker.offend(f"memory:{amount * MIB}")["peak"]
        assert abs(peak - amount * MIB) <= MIB
    found = worker.offend(f"memory:{70 * MIB}")
    (wrong,) = faults(found, SIZE, PLAIN)
    assert wrong.endswith(f" MiB for {SIZE} bytes, of 64 MiB")
    assert faults(found, 2 * MIB, PLAIN) == []
    assert budget(2 * MIB) == 72 * MIB


def test_memory_that_nobody_touches(worker: Worker) -> None:
    assert worker.offend(f"pages:{256 * MIB}")["peak"] <= MIB


def test_memory_beyond_the_machine(worker: Worker) -> None:
    found = worker.offend(f"memory:{2**40}")
    assert faults(found, SIZE, PLAIN) == ["MemoryError, none of ours (exit None): "]


def test_time(worker: Worker) -> None:
    """CPU time, which a busy machine does not stretch."""
    found = worker.offend(f"cpu:{CPU_SECONDS + 0.2}")
    (wrong,) = faults(found, SIZE, PLAIN)
    assert wrong.endswith(" s")
    assert CPU_SECONDS + 0.1 <= found["cpu"] <= CPU_SECONDS + 1


def test_reading_elsewhere(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    (worker.scratch / "room").mkdir(exist_ok=True)
    link = worker.scratch / "room" / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "secret")
    for place in (tmp_path / "secret", link):
        found = worker.offend(f"read:{place}")
        assert faults(found, SIZE, PLAIN) == [f"read {tmp_path / 'secret'}"]


def test_writing(worker: Worker) -> None:
    place = worker.scratch / "room" / "new"
    assert faults(worker.offend(f"write:{place}"), SIZE, PLAIN) == [f"wrote {place}"]
    assert place.exists()


def test_running_code(worker: Worker) -> None:
    (wrong,) = faults(worker.offend("run"), SIZE, PLAIN)
    assert wrong.startswith("ran code of <string> in ")


def test_starting_a_program(worker: Worker) -> None:
    assert faults(worker.offend("start"), SIZE, PLAIN) == ["os.system (b'true',)"]


def test_waiting(worker: Worker) -> None:
    found = worker.offend("hang:60", patience=0.5)
    assert faults(found, SIZE, PLAIN) == ["waited for ever"]


def test_crashing(worker: Worker) -> None:
    assert faults(worker.offend("crash"), SIZE, PLAIN) == ["ended by SIGSEGV"]


def test_errors_of_python(worker: Worker) -> None:
    (wrong,) = faults(worker.offend("nonsense"), SIZE, PLAIN)
    assert wrong == "ValueError, none of ours (exit None): nonsense"


def test_other_exits(worker: Worker) -> None:
    found = worker.offend("memory:1")
    assert faults(found, SIZE, (3, 4)) == ["IfgoError (exit 70): memory"]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"deployed": "partly: {'model.c'}"}, "deploying it left: partly: {'model.c'}"),
        ({"intact": "refused"}, "the intact model afterwards: refused"),
        ({"message": "m" * 2001}, "a message of 2001 characters"),
    ],
)
def test_what_is_left(worker: Worker, change: dict[str, str], wrong: str) -> None:
    found = worker.offend("memory:1")
    assert faults(found, SIZE, PLAIN) == []
    assert faults(found | change, SIZE, PLAIN) == [wrong]
