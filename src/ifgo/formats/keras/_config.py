"""One layer of a Keras config: its keys, taken one by one, so that none is overlooked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from ifgo.activations import (
    HARD_SIGMOID_KERAS2,
    HARD_SIGMOID_KERAS3,
    LINEAR,
    RELU,
    SIGMOID,
    SOFTMAX,
    TANH,
    Activation,
)
from ifgo.errors import FormatError, UnsupportedError
from ifgo.text import cut, quote

ACTIVATIONS: Final[dict[str, Activation]] = {
    "linear": LINEAR,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "relu": RELU,
    "softmax": SOFTMAX,
    "softplus": Activation("softplus"),
    "softsign": Activation("softsign"),
    "elu": Activation("elu", 1.0),
    "leaky_relu": Activation("leaky_relu", 0.2),
}
"""Name in a config → ours, of one meaning in every version. hard_sigmoid has two."""

_TRAINING: Final = frozenset(
    {"trainable", "seed", "unit_forget_bias", "implementation", "unroll", "use_cudnn", "lora_alpha"}
    | {"input_dim", "input_length", "batch_input_shape", "batch_shape", "input_shape"}
    | {"input_dtype", "build_config", "shared_object_id"}
    | {"init", "inner_init", "forget_bias_init", "weights", "consume_less"}
)
"""Keys that inference does not depend on: what trained it, and shapes that the arrays say too."""

_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "lora_rank": (None,),
    "quantization_config": (None,),
    "quantization_mode": (None,),
    "ragged": (False,),
    "sparse": (False,),
    "autocast": (True,),
    "batch_size": (None,),
    "dynamic": (False,),
}
"""Keys that must keep the value that means nothing."""

_TRAINED: Final = re.compile(r"\w+_(initializer|regularizer|constraint)")


@dataclass(frozen=True)
class Version:
    """keras_version of a file: text as written, major None where the file does not say."""

    text: str = ""
    major: int | None = None
    minor: int = 0
    tensorflow: bool = False
    """Whether TensorFlow's own Keras wrote it (-tf, or 2.4 to 2.15)."""
    recent: bool = False
    """Whether the layout of the file alone shows that it is of 2.12 or later."""

    @staticmethod
    def parse(text: str | None) -> Version:
        """Raises FormatError where `text` is no version, UnsupportedError where it is unknown."""
        if text is None:
            return Version()
        found = re.match(r"(\d{1,3})\.(\d{1,3})(?:\.|$|[^\d.])", text)
        if found is None or len(text) > 60:
            raise FormatError(f"keras_version is {quote(text)}", expected="such as 3.15.1")
        major, minor = int(found[1]), int(found[2])
        if major not in (1, 2, 3):
            raise UnsupportedError(f"keras_version is {quote(text)}", expected="1, 2 or 3")
        return Version(text, major, minor, "-tf" in text or (major == 2 and minor >= 4))


@dataclass
class Node:
    """A layer of the config.

    kind: its class. owner: the layer of the top level that holds it, which is itself unless it is
    nested; own: its name in the model that holds it, "" unless it is nested. path: where Keras 3
    keeps its arrays.
    """

    kind: str
    name: str
    values: dict[str, Any]
    version: Version
    owner: str = ""
    own: str = ""
    path: str = ""
    within: str = ""
    taken: set[str] = field(default_factory=set[str])

    @staticmethod
    def parse(given: Any, version: Version, within: str = "") -> Node:
        """{"class_name", "config"} of the JSON. Raises FormatError where it is something else."""
        if not isinstance(given, Mapping):
            raise FormatError(
                f"{within or 'the config'} holds {quote(given)}", expected="a layer in {}"
            )
        entry = cast("Mapping[str, Any]", given)
        kind: Any = entry.get("class_name")
        values: Any = entry.get("config")
        if not isinstance(kind, str) or not isinstance(values, dict | list):
            raise FormatError(
                f"{within or 'the config'} holds a layer without class_name and config",
                expected="both",
            )
        config: dict[str, Any] = {"layers": values}
        if isinstance(values, dict):
            config = cast("dict[str, Any]", values)
        name: Any = entry.get("name") or config.get("name") or kind.lower()
        if not isinstance(name, str) or not 1 <= len(name) <= 256:
            raise FormatError(f"a {cut(kind)} has the name {quote(name)}", expected="a short text")
        node = Node(kind, name, config, version, owner=name, within=within)
        module, registered = entry.get("module"), entry.get("registered_name")
        own = module is None or (isinstance(module, str) and module.split(".")[0] in _MODULES)
        builtin = registered is None or registered == kind or registered == f"Keras>{kind}"
        if not own or not builtin:
            raise UnsupportedError(
                f"is a class of its own, {quote(registered or module)}",
                where=node.where,
                expected="a layer of Keras",
                hint=SELECT_HINT,
            )
        return node

    @property
    def where(self) -> str:
        """How errors name it."""
        place = f"layer {cut(self.name)} ({cut(self.kind)})"
        return f"{self.within}: {place}" if self.within else place

    def raw(self, key: str, default: Any = None) -> Any:
        """The value of `key` as it stands."""
        self.taken.add(key)
        return self.values.get(key, default)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or False."""
        value = self.raw(key, default)
        if isinstance(value, bool):
            return value
        raise self.wrong(key, value, "true or false")

    def integer(self, *keys: str, least: int = 1) -> int:
        """A whole number by the first of `keys` that is there."""
        key = next((key for key in keys if key in self.values), keys[0])
        value = self.raw(key)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31:
            return value
        raise self.wrong(key, value, f"a whole number from {least}")

    def real(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.raw(key, default)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
            return float(value)
        raise self.wrong(key, value, "a number")

    def rate(self, *keys: str) -> float:
        """A dropout rate, 0 where none of `keys` is there."""
        key = next((key for key in keys if self.values.get(key) is not None), "")
        value = self.real(key) if key else 0.0
        self.taken.update(keys)
        if not 0 <= value < 1:
            raise self.wrong(key, value, "a rate in [0, 1)")
        return value

    def activation(self, *keys: str, required: bool = False) -> Activation:
        """The activation by the first of `keys` that is there; linear where it is null."""
        key = next((key for key in keys if key in self.values), None)
        if key is None and required:
            raise FormatError(
                f"has no {keys[0]}", where=self.where, expected="the name of an activation"
            )
        name = None if key is None else self.raw(key)
        if name is None:
            return LINEAR
        if name == "hard_sigmoid":
            return self._hard_sigmoid(cast("str", key))
        found = ACTIVATIONS.get(name) if isinstance(name, str) else None
        if found is None:
            shown = (
                cast("dict[str, Any]", name).get("class_name") if isinstance(name, dict) else name
            )
            raise UnsupportedError(
                f"{key} is {quote(shown)}",
                where=self.where,
                expected="one of " + ", ".join([*ACTIVATIONS, "hard_sigmoid"]),
                hint=SELECT_HINT,
            )
        return found

    def _hard_sigmoid(self, key: str) -> Activation:
        major = self.version.major
        if major is None:
            raise UnsupportedError(
                f"{key} is 'hard_sigmoid', clip(0.2x + 0.5) in Keras 1 and 2 and clip(x/6 + 0.5) "
                "in Keras 3, and no keras_version is known",
                where=self.where,
                hint='Write "keras_version": "2.15.0" (or what it was) beside class_name in the '
                "config",
            )
        return HARD_SIGMOID_KERAS3 if major == 3 else HARD_SIGMOID_KERAS2

    def inner(self, key: str) -> Node:
        """The layer or cell that `key` holds."""
        node = Node.parse(self.raw(key), self.version, self.where)
        node.owner, node.own = self.owner, self.own
        return node

    def wrong(self, key: str, value: Any, expected: str) -> FormatError:
        """A value of the wrong kind."""
        return FormatError(f"{key} is {quote(value)}", where=self.where, expected=expected)

    def close(self) -> None:
        """Raises UnsupportedError naming a key that nothing took, or a policy that is not float32
        or float64."""
        policy = _policy(self.raw("dtype"))
        if policy not in (None, "float32", "float64") and self.kind != "InputLayer":
            raise UnsupportedError(
                f"computes by the dtype policy {quote(policy)}",
                where=self.where,
                expected="float32 or float64",
                hint="Load it in Keras, set every layer's dtype policy to float32, and save it",
            )
        self.taken.add("name")
        for key, value in self.values.items():
            if key in self.taken or key in _TRAINING or _TRAINED.fullmatch(key):
                continue
            if key in ("W_regularizer", "U_regularizer", "b_regularizer", "W_constraint"):
                continue
            if key in _NEUTRAL and value in _NEUTRAL[key]:
                continue
            raise UnsupportedError(
                f"sets {cut(key)} to {quote(value)}",
                where=self.where,
                expected="no such key" if key not in _NEUTRAL else f"{_NEUTRAL[key][0]}",
                hint="Report the model if Keras wrote it",
            )


_MODULES: Final = ("keras", "tf_keras", "tensorflow", "builtins")
SELECT_HINT: Final = "--select takes recurrent layers out of a larger model"


def _policy(given: Any) -> Any:
    """The name of a dtype policy, as a text or as Keras serialises it."""
    if isinstance(given, dict):
        config = cast("dict[str, Any]", given).get("config")
        if isinstance(config, dict):
            return cast("dict[str, Any]", config).get("name", "no name")
        return cast("dict[str, Any]", given).get("class_name", "no name")
    return given
