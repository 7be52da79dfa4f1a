"""Many models in one C program: compiling and linking once is what makes hundreds of them cheap."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from ifgo.model import Model, TokenInput
from ifgo.targets import c99
from ifgo.targets.c99.builder import Built
from ifgo.targets.c99.emitter import runner


def build_all(
    models: Sequence[tuple[Model, int, bool]],
    folder: Path,
    *,
    compiler: str,
    flags: Sequence[str],
    trace: bool,
) -> list[Built]:
    """(model, max_steps, lengths) → built, in order. One executable under a name per model."""
    emitted = [
        c99.emit(model, name=f"m{k}", max_steps=steps, lengths=lengths)
        for k, (model, steps, lengths) in enumerate(models)
    ]
    for k, (source, (model, _, _)) in enumerate(zip(emitted, models, strict=True)):
        text = runner(source, tokens=isinstance(model.input, TokenInput))
        text = text.replace("int main(void)", f"int run_{k}(void);\nint run_{k}(void)")
        header = f'#include "m{k}.h"'
        (folder / f"m{k}.h").write_text(source.files["model.h"])
        whole = source.files["model.c"] + text
        (folder / f"m{k}.c").write_text(whole.replace('#include "model.h"', header))
    cases = "\n".join(f"    case {k}: return run_{k}();" for k in range(len(emitted)))
    declared = "\n".join(f"int run_{k}(void);" for k in range(len(emitted)))
    (folder / "main.c").write_text(
        "#include <stdlib.h>\n#include <string.h>\n"
        f"{declared}\nint main(int n, char **v) {{\n"
        "    (void)n;\n    switch (atoi(strrchr(v[0], 'm') + 1)) {\n"
        f"{cases}\n    }}\n    return 9;\n}}\n"
    )
    sources = ["main.c", *(f"m{k}.c" for k in range(len(emitted)))]
    defines = ["-DIFGO_TRACE"] if trace else []
    command = [compiler, "-std=c99", *flags, *defines, *sources, "-o", "all"]
    subprocess.run(command, cwd=folder, check=True)
    built: list[Built] = []
    for k, (source, (model, _, _)) in enumerate(zip(emitted, models, strict=True)):
        place = folder / f"m{k}"
        place.hardlink_to(folder / "all")
        built.append(Built(place, source, model, trace))
    return built
