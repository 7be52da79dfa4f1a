"""Names of a hostile model and of its folder reach no emitted file, and no page but as text."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from corpus import MARK, NAMES
from hostile_cases import FORMATS, NAMED, NAMELESS
from presence import missing

import ifgo
from ifgo.deployment import deploy
from ifgo.describe import table
from ifgo.errors import FormatError, IfgoError, ModelError, UnsupportedError
from ifgo.verification import verify

BOARD = "mps2-an386"
FOLDERS = {key: name[:60] for key, name in NAMES.items() if not {"\0", "/"} & set(name)}
"""Names that a folder can have."""

Write = Callable[[Path, str], Path]


def emitted(path: Path, folder: Path) -> dict[str, str]:
    """Every file that deploying `path` writes, by target and name."""
    found: dict[str, str] = {}
    for target, board in (("c99", None), ("cortex_m", BOARD)):
        done = deploy(path, folder / target, target=target, board=board, main=target == "c99")
        for file in done.files:
            found[f"{target}/{file}"] = (done.folder / file).read_text()
    return found


class Page(HTMLParser):
    """The text of a page, and what would run or be fetched in it."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.shown: list[str] = []
        self.active: list[str] = []
        self._inside: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.active += [tag, *(f"{key}={value}" for key, value in attrs)]
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._inside:
            while self._inside.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        active = self._inside and self._inside[-1] in ("script", "style")
        (self.active if active else self.shown).append(data)

    def handle_comment(self, data: str) -> None:
        self.active.append(data)

    def handle_decl(self, decl: str) -> None:
        self.active.append(decl)


def test_a_page_can_fail() -> None:
    for page in (
        f"<script>{MARK}</script>",
        f"<p title={MARK}>",
        f"<!-- {MARK} -->",
        f"<{MARK}>",
        f"<style>{MARK}</style>",
    ):
        assert any(MARK.lower() in part.lower() for part in Page(page).active)
    assert not any(MARK in part for part in Page(f"<p>{MARK}</p>").active)


@pytest.fixture(scope="module", params=list(NAMED))
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A format, and what the model without hostile names is emitted as."""
    write, folder = NAMED[request.param], tmp_path_factory.mktemp("plain")
    (folder / "model").mkdir()
    return write, emitted(write(folder / "model", "plain"), folder), request.param


@pytest.mark.parametrize("key", list(NAMES))
def test_names_in_a_model(
    plain: tuple[Write, dict[str, str], str], key: str, tmp_path: Path
) -> None:
    """The same files byte for byte as with a harmless name, or a refusal that writes nothing."""
    write, want, _ = plain
    (tmp_path / "model").mkdir()
    path = write(tmp_path / "model", NAMES[key])
    try:
        model = ifgo.load(path)
    except (FormatError, ModelError, UnsupportedError):
        with pytest.raises(IfgoError):
            deploy(path, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    have = emitted(path, tmp_path)
    assert have == want
    assert not any(MARK in text for text in have.values())
    done = verify(model)
    page = Page(done.to_html(table(model)))
    assert not any(MARK.lower() in part.lower() for part in page.active)
    text = "".join(page.shown)
    assert all(char.isprintable() or char == "\n" for char in text)


def test_some_names_are_read(plain: tuple[Write, dict[str, str], str], tmp_path: Path) -> None:
    """Else the test above would prove nothing about what is emitted; some formats keep none."""
    path = plain[0](tmp_path, NAMES["script"])
    model = ifgo.load(path)
    assert (MARK in repr(model)) == (plain[2] not in NAMELESS)


def test_every_format_is_named() -> None:
    assert {*NAMED, *NAMELESS} == {form.name for form in FORMATS}
    assert {*NAMED} & {*NAMELESS} == {"darknet", "stm32_text"}


@pytest.mark.parametrize("key", list(FOLDERS))
def test_names_of_folders(
    plain: tuple[Write, dict[str, str], str], key: str, tmp_path: Path
) -> None:
    """A model in a folder of that name, deployed into another."""
    write, want, _ = plain
    place = tmp_path / FOLDERS[key]
    place.mkdir()
    have = emitted(write(place, "plain"), tmp_path / f"out {FOLDERS[key]}")
    assert have == want


def test_the_project_compiles(
    plain: tuple[Write, dict[str, str], str], cc: str, tmp_path: Path
) -> None:
    """What is emitted for every name, by the compiler, with trigraphs."""
    (tmp_path / "model").mkdir()
    path = plain[0](tmp_path / "model", NAMES["end of comment"])
    done = deploy(path, tmp_path / "out", main=True)
    sources = [file for file in done.files if file.endswith(".c")]
    flags = ["-std=c99", "-trigraphs", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    command = [cc, *flags, "-o", "model", *sources, "-lm"]
    subprocess.run(command, cwd=done.folder, check=True)


@pytest.mark.slow
def test_the_report_of_a_board(plain: tuple[Write, dict[str, str], str], tmp_path: Path) -> None:
    """What is measured in the emulator, as a page."""
    for name in ("arm-none-eabi-gcc", "qemu-system-arm"):
        if shutil.which(name) is None:
            missing(name, "apt install gcc-arm-none-eabi qemu-system-arm")
    (tmp_path / "model").mkdir()
    path = plain[0](tmp_path / "model", NAMES["script"])
    done = deploy(path, tmp_path / "out", target="cortex_m", board=BOARD, report=True)
    assert {"report.html", "report.json"} <= set(done.files)
    page = Page((done.folder / "report.html").read_text())
    assert page.shown
    assert not any(MARK.lower() in part.lower() for part in page.active)
