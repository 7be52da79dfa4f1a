"""A Darknet .cfg: sections of key=value lines, every key known or refused.

Spaces mean nothing anywhere in a line; lines that start with # or ; are comments. Darknet itself
ignores a key it does not know and takes the first of two; here both are refused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from ifgo.errors import FormatError, UnsupportedError
from ifgo.text import quote

_SCHEDULE = """batch subdivisions time_steps learning_rate momentum decay policy burn_in power step
scale steps scales seq_scales gamma max_batches adam B1 B2 eps random notruth track augment_speed
sequential_subdivisions init_sequential_subdivisions max_crop min_crop max_ratio min_ratio center
clip angle aspect saturation exposure hue flip loss_scale dynamic_minibatch optimized_memory
workspace_size_limit_MB learning_rate_min batches_per_cycle batches_cycle_mult try_fix_nan
weights_reject_freq equidistant_point badlabels_rejection_percentage num_sigmas_reject_badlabels
ema_alpha letter_box mosaic mixup cutmix blur gaussian_noise label_smooth_eps log_step"""
_ANY_LAYER = """clip truth onlyforward stopbackward dontsave dontload dontloadscales learning_rate
smooth numload dont_update burnin_update train_only_bn"""

KEYS: Final[dict[str, tuple[str, ...]]] = {
    "net": ("inputs", "height", "width", "channels", *_SCHEDULE.split()),
    "lstm": ("output", "batch_normalize", *_ANY_LAYER.split()),
    "connected": ("output", "batch_normalize", "activation", *_ANY_LAYER.split()),
    "softmax": ("groups", "temperature", "tree", "spatial", "noloss", *_ANY_LAYER.split()),
    "dropout": ("probability", *_ANY_LAYER.split()),
    "cost": ("type", "scale", "ratio", "noobj", "thresh", *_ANY_LAYER.split()),
}
"""Section → the keys that one of the two forks reads there."""

_ALIASES: Final = {"network": "net", "conn": "connected", "soft": "softmax"}
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,9}")


@dataclass(frozen=True)
class Section:
    """One [name] with its keys; number counts the layers from 0, as Darknet does."""

    name: str
    number: int
    values: dict[str, str]

    @property
    def where(self) -> str:
        """How errors name the section."""
        return "[net]" if self.name == "net" else f"layer {self.number} [{self.name}]"

    def integer(self, key: str, default: int, *, least: int = 0) -> int:
        """The whole number `key`, `default` where it is absent; FormatError below `least`."""
        text = self.values.get(key)
        if text is None:
            return default
        if not _NUMBER.fullmatch(text) or int(text) < least:
            raise FormatError(
                f"{key} is {quote(text)}",
                where=self.where,
                expected=f"a whole number from {least}",
            )
        return int(text)

    def flag(self, key: str) -> bool:
        """Whether `key` is set to another number than 0."""
        return self.integer(key, 0, least=-999_999_999) != 0

    def real(self, key: str, default: float) -> float:
        """The finite number `key`, `default` where it is absent."""
        text = self.values.get(key)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or "_" in text:
            raise FormatError(
                f"{key} is {quote(text)}", where=self.where, expected="a finite number"
            )
        return value


def parse(data: bytes) -> list[Section]:
    """The sections of a cfg, [net] first.

    Raises FormatError naming the line that is no section, comment or key=value, UnsupportedError
    naming a section or key that ifgo does not know.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"is no text (byte {error.start})", expected="a cfg in UTF-8") from None
    sections: list[Section] = []
    for count, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"[ \t\0]", "", raw)
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            sections.append(_section(line, len(sections) - 1, f"line {count}"))
            continue
        key, equals, value = line.partition("=")
        if not equals or not key or not value:
            raise FormatError(f"is {quote(line)}", where=f"line {count}", expected="key=value")
        if not sections:
            raise FormatError(
                f"sets {quote(key)} before any section",
                where=f"line {count}",
                expected="[net] first",
            )
        _set(sections[-1], key, value)
    if not sections or sections[0].name != "net":
        raise FormatError("has no [net] section first", expected="[net], then the layers")
    return sections


def _section(line: str, number: int, where: str) -> Section:
    name = line[1:-1] if line.endswith("]") else ""
    name = _ALIASES.get(name, name)
    if name not in KEYS:
        raise UnsupportedError(
            f"section {quote(line)} is none that ifgo reads, and what it stores would shift "
            "all that follows",
            where=where,
            expected=", ".join(f"[{known}]" for known in KEYS),
        )
    if (name == "net") != (number == -1):
        raise FormatError(
            "[net] stands among the layers" if name == "net" else f"[{name}] stands first",
            where=where,
            expected="one [net], before all layers",
        )
    return Section(name, number, {})


def _set(section: Section, key: str, value: str) -> None:
    if key not in KEYS[section.name]:
        raise UnsupportedError(
            f"key {quote(key)} is none that Darknet reads there",
            where=section.where,
            expected="one of " + ", ".join(KEYS[section.name]),
            hint="Correct its spelling, or remove the line",
        )
    if key in section.values:
        raise FormatError(f"sets {key} twice", where=section.where, expected="each key once")
    section.values[key] = value
