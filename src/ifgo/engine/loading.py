"""The compiled engine, found and fit to run here, or an error that says what to do.

`import ifgo.engine` always works: an installation without the engine is a whole ifgo that lacks its
fastest backend.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from ifgo import __version__
from ifgo.errors import ToolError, UnsupportedError, UsageError
from ifgo.text import listed, quote

if TYPE_CHECKING:
    from types import ModuleType

MODULE: Final = "ifgo.engine._native"

_FOLDER = Path(__file__).parent
_SCRIPT = _FOLDER.parents[2] / "tools" / "build_native.sh"


def native() -> ModuleType:
    """The module `ifgo.engine._native`, with kernels that run on this CPU.

    ToolError where it is missing, cannot be loaded or is of another version; UsageError and
    UnsupportedError where the environment variable IFGO_ISA names an instruction set that is
    unknown, or that this CPU lacks; UnsupportedError where the CPU has none of those built in.
    """
    try:
        module = cast("Any", import_module(MODULE))
    except ModuleNotFoundError as error:
        if error.name != MODULE:
            raise
        raise _missing() from None
    except ImportError as error:
        raise ToolError(f"the compiled engine cannot be loaded ({error})", hint=_how()) from None
    if module.__version__ != __version__:
        raise ToolError(
            f"the compiled engine is of ifgo {module.__version__}",
            expected=__version__,
            hint=_how(),
        )
    if module.isa() is None:
        raise _refused_isa(module.wanted_isa, module.isas(), module.built_isas())
    return module


def available() -> bool:
    """Whether there is an engine that runs here. Raises as `native` where IFGO_ISA is at fault."""
    try:
        native()
    except ToolError:
        return False
    except UnsupportedError:
        if os.environ.get("IFGO_ISA"):
            raise
        return False
    return True


def _missing() -> ToolError:
    others = sorted(path.name for path in _FOLDER.glob("_native.*") if path.suffix != ".pyi")
    if others:
        return ToolError(
            f"the compiled engine was built for another Python ({listed(others)})", hint=_how()
        )
    return ToolError(
        "the compiled engine is not installed",
        hint=f"It needs a C and a C++ compiler (apt install g++; xcode-select --install). {_how()}",
    )


def _how() -> str:
    if _SCRIPT.exists():
        return f"Build it: {_SCRIPT}"
    return "Install ifgo anew, from its source: pip install --force-reinstall --no-deps ."


def _refused_isa(wanted: str, runs: list[str], built: list[str]) -> UsageError | UnsupportedError:
    if not runs:
        return UnsupportedError(
            "this CPU has no instruction set that the compiled engine was built for",
            expected=_either(built),
            hint="Without the engine, backend exact computes everything",
        )
    what = f"IFGO_ISA is {quote(wanted)}"
    if wanted in built:
        return UnsupportedError(
            f"{what}, which this CPU or its system cannot run",
            expected=_either(runs),
            hint="Unset it to take the widest",
        )
    return UsageError(
        f"{what}, which is no instruction set of this build",
        expected=_either(runs),
        hint="Unset it to take the widest",
    )


def _either(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
