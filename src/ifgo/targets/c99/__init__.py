"""C99: self-contained model.h and model.c with the interpreter's bits (SPEC.md section 5)."""

from __future__ import annotations

from ifgo.targets.c99.builder import (
    STRICT_FLAGS,
    Built,
    Traces,
    build,
    compile_c,
    decode_traces,
    find_compiler,
    run_model,
    trace_size,
)
from ifgo.targets.c99.emitter import Emitted, Facts, Variant, check_variant, emit

__all__ = [
    "STRICT_FLAGS",
    "Built",
    "Emitted",
    "Facts",
    "Traces",
    "Variant",
    "build",
    "check_variant",
    "compile_c",
    "decode_traces",
    "emit",
    "find_compiler",
    "run_model",
    "trace_size",
]
