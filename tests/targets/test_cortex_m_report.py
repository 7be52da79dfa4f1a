"""The report as users get it: every byte accounted for, stable JSON, a page that asks nothing."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cortex_m_cases as cases
import pytest

from ifgo.deployment import deploy
from ifgo.errors import ToolError, UsageError
from ifgo.model import FeatureInput, Model, Recurrent
from ifgo.targets import cortex_m
from ifgo.targets.cortex_m import toolchain
from ifgo.targets.cortex_m.builder import compile_files

HOSTILE = '<script>alert(1)</script> & "\x1b[31m\u202eder'

by_board = pytest.mark.parametrize("board", cortex_m.BOARDS)


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    cases.require_cross_tools()
    cases.require("gcc", "make")


def hostile() -> Model:
    return Model((FeatureInput(3),), (Recurrent(HOSTILE, cases.layer(3, 5).recurrent[0].cell),))


def nameless(folder: Path, project: cortex_m.Project, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes of texts, and of tables of the compiler's library, by the linker's own account."""
    flags = (*toolchain.LINK_FLAGS, "-Wl,-Map,map")
    monkeypatch.setattr(toolchain, "LINK_FLAGS", flags)
    compile_files(folder, project.board, project.files)
    entries = re.findall(
        r"^ (\.rodata\S*)\s+0x\w+\s+0x(\w+) (\S+)$", (folder / "map").read_text(), re.M
    )
    return sum(int(n, 16) for name, n, file in entries if ".str" in name or "libgcc" in file)


@by_board
def test_every_byte_of_flash_is_accounted_for(
    board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cases.stream()
    report = cortex_m.measure(model, board, recipe="timer")
    project = cortex_m.emit(model, board)
    known = nameless(tmp_path, project, monkeypatch)
    subprocess.run(["make", "--silent", "clean"], cwd=tmp_path, check=True)
    subprocess.run(["make", "--silent", "SELFTEST="], cwd=tmp_path, check=True)
    named = sum(part.bytes for part in report.parts)
    assert named + report.unnamed == report.flash == (tmp_path / "firmware.bin").stat().st_size
    assert known <= report.unnamed <= known + 3 * (len(report.parts) + 8), "alignment to 4 bytes"
    assert set(report.sections) == {".text", ".rodata"}
    assert 0 <= report.flash - sum(report.sections.values()) < 8
    assert all(part.bytes > 0 for part in report.parts)
    sizes = {one.name: one.bytes for one in toolchain.symbols(tmp_path / "model.o")}
    own = {p.name: p.bytes for p in report.parts if p.kind in ("tensor", "function")}
    assert own.keys() <= sizes.keys()
    assert {name: sizes[name] for name in own} == own
    project_parts = {part.name for part in report.parts if part.kind == "project"}
    assert project_parts >= {"main", "vectors", "Reset_Handler", "example"}
    outside = sum(part.bytes for part in report.parts if part.kind == "project")
    assert report.model_flash == named - outside


SCHEMA: dict[str, Any] = {
    "board": str,
    "core": str,
    "hertz": int,
    "compiler": str,
    "flags": str,
    "library": str,
    "variant": str,
    "emulator": str,
    "flash": int,
    "flash_available": int,
    "sections": {".text": int, ".rodata": int},
    "parts": [{"name": str, "kind": str, "bytes": int, "what": str}],
    "unnamed": int,
    "ram": int,
    "ram_available": int,
    "stack_reserved": int,
    "state": int,
    "scratch": int,
    "stack": {"painted": int, "call_graph": int},
    "instructions": {
        "recipe": str,
        "steps": int,
        "calls": int,
        "per_step": float,
        "least_call": int,
        "most_call": int,
        "functions": float,
    },
    "macs": int,
    "cycles": float,
    "assumptions": str,
    "model_flash": int,
    "microseconds": float,
}
"""report.json: readers rely on these names and types; a change here is a change for them."""


def check_schema(data: Any, schema: Any, where: str = "report") -> None:
    match schema:
        case dict():
            assert list(data) == list(schema), where
            for key, inner in schema.items():
                check_schema(data[key], inner, f"{where}.{key}")
        case [inner]:
            assert data, where
            for item in data:
                check_schema(item, inner, f"{where}[]")
        case _ if where.endswith(".functions"):
            assert {type(value) for value in data.values()} == {schema}, where
        case _:
            assert type(data) is schema, where


def test_files_and_schema(tmp_path: Path) -> None:
    model = cases.stream()
    plain = deploy(model, tmp_path / "plain", target="cortex_m", board="stm32f405", name="net")
    done = deploy(
        model, tmp_path / "out", target="cortex_m", board="stm32f405", name="net", report=True
    )
    assert plain.report is None
    assert done.files == (*plain.files, "report.json", "report.html")
    for file in plain.files:
        assert (done.folder / file).read_bytes() == (plain.folder / file).read_bytes()
    text = (done.folder / "report.json").read_text("ascii")
    data = json.loads(text)
    assert json.dumps(data, indent=2) + "\n" == text
    check_schema(data, SCHEMA)
    assert data == json.loads(json.dumps(done.report.to_dict()))
    assert {part["kind"] for part in data["parts"]} == {"tensor", "function", "project"}
    assert "net_step" in {part["name"] for part in data["parts"]}
    assert data["hertz"] == 168_000_000
    by_hand = data["cycles"] / 168
    assert abs(data["microseconds"] - by_hand) <= 3 * 2.0**-53 * by_hand  # three float64 roundings
    profile = data["instructions"]
    assert sum(profile["functions"].values()) == profile["per_step"]  # sixteenths: no rounding
    assert profile["least_call"] <= profile["per_step"] <= profile["most_call"]
    assert (done.folder / "report.html").read_text("ascii") == done.report.to_html()


def test_whole_sequences_are_measured_at_their_longest(tmp_path: Path) -> None:
    done = deploy(
        cases.whole(), tmp_path, target="cortex_m", board="mps2-an386", max_steps=5, report=True
    )
    assert (done.report.instructions.calls, done.report.instructions.steps) == (1, 5)
    assert done.report.scratch == done.facts.scratch_bytes
    text = str(done.report)
    assert "over one call of 5 steps" in " ".join(text.split())


def test_text() -> None:
    report = cortex_m.measure(cases.stream(), "mps2-an386")
    text = str(report)
    words = " ".join(text.split())
    counted = report.instructions
    assert f"flash {report.flash} of 4194304 bytes in the example program, " in words
    assert f"program, {report.model_flash} of them the model " in words
    assert (
        f"stack at most {report.stack.call_graph} bytes by the call graph, "
        f"{report.stack.painted} touched in the emulator, {report.stack_reserved} reserved; "
        "interrupts come on top" in words
    )
    assert (
        f"instructions {counted.per_step:.1f} per step on average, {counted.least_call} to "
        f"{counted.most_call} per call, over 16 calls (timer and plugin, which agree)" in words
    )
    assert (
        f"cycles about {report.cycles:.0f} per step, {report.microseconds:.1f} us at 25 MHz"
        in words
    )
    assert "the clock is the part's highest" in words
    for part in report.parts:
        assert re.search(rf"^ *{part.bytes} .*{part.kind} +{re.escape(part.name)}", text, re.M)
    for name, value in counted.functions.items():
        assert re.search(rf"^ *{value:.1f} .*% +{re.escape(name)}$", text, re.M)
    assert text.count("a.forward.weight_ih") == 1


def test_without_profile_and_estimate_the_text_says_why() -> None:
    report = cortex_m.measure(cases.stream(), "mps3-an547", recipe="timer")
    words = " ".join(str(report).split())
    assert "cycles none Arm publishes no instruction timing for this core: no estimate" in words
    assert "instructions per step" not in words
    assert "Instructions</h2>" not in report.to_html()
    assert report.to_dict()["cycles"] is report.to_dict()["microseconds"] is None


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_names_are_only_text() -> None:
    report = cortex_m.measure(hostile(), "mps2-an386")
    assert any(HOSTILE in part.what for part in report.parts)
    html = report.to_html()
    page = Page(html)
    assert html.isascii()
    assert "default-src 'none'" in html
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not {"src", "href", "onclick", "onload"} & set(page.attributes)
    shown = '<script>alert(1)</script> & "\\x1b[31m\\u202eder.forward.weight_ih'
    assert shown in page.text
    assert shown in str(report)
    for part in report.parts:
        assert part.name in page.text
    assert "\x1b" not in html + str(report)


# -- refusals -------------------------------------------------------------------------------------


def test_a_target_without_a_board_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        deploy(cases.stream(), tmp_path / "out", report=True)
    assert str(caught.value) == (
        "a report is measured on a board, and target c99 has none, expected target cortex_m"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["arm-none-eabi-gcc", "qemu-system-arm"])
def test_missing_tools(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bin"
    path.mkdir()
    for other in {"arm-none-eabi-gcc", "arm-none-eabi-nm", "arm-none-eabi-size"} - {name}:
        (path / other).symlink_to(cortex_m.find_tool(other))
    monkeypatch.setenv("PATH", str(path))
    with pytest.raises(ToolError) as caught:
        deploy(cases.stream(), tmp_path / "out", target="cortex_m", board="mps2-an386", report=True)
    assert str(caught.value) == (
        f"{name} is not installed. Install the cross compiler and the emulator: apt install "
        "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("exact", "exact: the bits of the reference"),
        ("contracted", "contracted: products and sums may be fused, within a bound"),
    ],
)
def test_a_report_says_whose_arithmetic_it_measured(variant: Any, words: str) -> None:
    report = cortex_m.measure(cases.stream(), "stm32f405", recipe="timer", variant=variant)
    assert report.variant == variant
    assert f"arithmetic     {words}" in str(report)
    assert f"<td>{words}</td>" in report.to_html()
