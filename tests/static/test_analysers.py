"""Static analysers on the emitted C: nothing found but what DEVIATIONS.md lists, and all of that.

The lists hold for the versions that Debian 12 has; other versions know other rules.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from static_cases import ALL, FEW, STRICT, Emission, call, require

DOCUMENT = Path(__file__).parents[2] / "DEVIATIONS.md"

Findings = set[tuple[str, str]]
"""(rule, file) pairs."""

MACROS = (
    *("-DFLT_EVAL_METHOD=0", "-DFLT_RADIX=2", "-DFLT_MANT_DIG=24", "-DFLT_MIN_EXP=(-125)"),
    "--suppress=missingIncludeSystem",
)
"""cppcheck reads no system headers, so float.h's part is told."""

CONFIGURATIONS = ((), ("-DIFGO_SELFTEST", "-DIFGO_TRACE"))


def listed(tool: str) -> Findings:
    """The rows `| tool | rule | files | reason |` of DEVIATIONS.md."""
    rows = [line.strip("|").split(" | ") for line in DOCUMENT.read_text().splitlines()]
    mine = [[cell.strip() for cell in row] for row in rows if row[0].strip() == tool]
    assert mine, f"DEVIATIONS.md has no row of {tool}"
    assert all(len(row) == 4 and row[3] for row in mine)
    pairs = [(row[1].strip("`"), file) for row in mine for file in row[2].split(", ")]
    assert len(set(pairs)) == len(pairs)
    return set(pairs)


def cppcheck(emission: Emission, folder: Path) -> Findings:
    emission.write(folder)
    found: Findings = set()
    for macros in CONFIGURATIONS:
        options = ("--enable=all", "--std=c99", "--addon=misra", "--quiet")
        template = "--template=found {id} {file}"
        sources = ("model.c", "main.c")
        done = call("cppcheck", *options, template, *MACROS, *macros, *sources, folder=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        found |= set(re.findall(r"^found (\S+) (\S+)$", done.stderr, re.MULTILINE))
    return found


def clang(emission: Emission, folder: Path) -> Findings:
    emission.write(folder)
    found: Findings = set()
    for macros in CONFIGURATIONS:
        command = ("clang", "-std=c99", "-O2", "-Weverything", "-fsyntax-only", *macros)
        done = call(*command, "model.c", "main.c", folder=folder)
        assert done.returncode == 0, done.stderr
        lines = re.findall(
            r"^(?:\./)?([\w.]+):\d+.* warning: .*\[(-W\S+)\]$", done.stderr, re.MULTILINE
        )
        assert done.stderr.count("warning: ") == len(lines), done.stderr
        found |= {(rule, file) for file, rule in lines}
    return found


def clang_tidy(emission: Emission, folder: Path) -> Findings:
    emission.write(folder)
    found: Findings = set()
    checks = "-checks=-*,bugprone-*,cert-*,clang-analyzer-*,misc-*,portability-*"
    for macros in CONFIGURATIONS:
        command = ("clang-tidy", "--quiet", checks, "model.c", "main.c", "--", "-std=c99", *macros)
        done = call(*command, folder=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = re.findall(r"/([\w.]+):\d+:\d+: \w+: .*\[(\S+)\]$", done.stdout, re.MULTILINE)
        assert done.stdout.count("warning: ") == len(lines), done.stdout
        found |= {(rule, file) for file, rule in lines}
    return found


TOOLS = {
    "cppcheck": (cppcheck, r"Cppcheck 2\.10"),
    "clang": (clang, r"version 14\."),
    "clang-tidy": (clang_tidy, r"version 14\."),
}

by_tool = pytest.mark.parametrize("tool", TOOLS)


def collect(tool: str, emissions: list[Emission], folder: Path) -> Findings:
    function, version = TOOLS[tool]
    require(tool, version)
    found: Findings = set()
    for emission in emissions:
        (folder / emission.name).mkdir()
        found |= function(emission, folder / emission.name)
    return found


@by_tool
def test_findings_are_the_listed_deviations_none_stale(tool: str, tmp_path: Path) -> None:
    assert collect(tool, FEW, tmp_path) == listed(tool)


@pytest.mark.slow
@by_tool
def test_no_case_has_a_finding_that_is_not_listed(tool: str, tmp_path: Path) -> None:
    assert collect(tool, ALL, tmp_path) <= listed(tool)


FAULTS = {
    "cppcheck": "    int fault[2];\n    fault[2] = 1;\n",
    "clang": "    int fault = 1.5;\n    (void)fault;\n",
    "clang-tidy": "    int fault = 1 / 0;\n    (void)fault;\n",
}


@by_tool
def test_a_seeded_fault_is_found(tool: str, tmp_path: Path) -> None:
    function, version = TOOLS[tool]
    require(tool, version)
    mark = "    size_t j, k;\n"

    class Faulty(Emission):
        def write(self, folder: Path):
            emitted = Emission.write(self, folder)
            text = emitted.files["model.c"]
            assert mark in text
            (folder / "model.c").write_text(text.replace(mark, mark + FAULTS[tool], 1))
            return emitted

    assert function(Faulty("fault", FEW[0].model), tmp_path) - listed(tool)


CORTEX_M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
ANALYSERS = {
    "gcc": ("gcc", "-O2", "-fanalyzer"),
    "arm": ("arm-none-eabi-gcc", *CORTEX_M4, "-O2", "-fanalyzer"),
    "clang": ("clang", "--analyze", "-Xclang", "-analyzer-werror"),
}


@pytest.mark.parametrize("command", ANALYSERS.values(), ids=ANALYSERS)
def test_path_analysers_find_nothing(command: tuple[str, ...], tmp_path: Path) -> None:
    require(command[0])
    for emission in FEW:
        emission.write(tmp_path)
        for macros in CONFIGURATIONS:
            options = ("-std=c99", *STRICT, *macros, "-c")
            for source in ("model.c", "main.c"):
                done = call(*command, *options, source, "-o", "x.o", folder=tmp_path)
                assert (done.returncode, done.stderr) == (0, ""), emission.name
