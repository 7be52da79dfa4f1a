"""Native files that are cut, changed, or describe something else: each is refused by name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounds import within_bounds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_cases import describe, edit, parts, refused, small, whole
from raising import raising
from safetensors.numpy import save as to_safetensors

from ifgo import formats, limits
from ifgo.errors import FormatError, IfgoError, ModelError, UnsupportedError, UsageError
from ifgo.formats import _native_codec, native
from ifgo.model import (
    Layer,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.ifgo"
    native.write(small(), path)
    return path


def test_every_truncation_is_refused(file: Path) -> None:
    data = file.read_bytes()
    for size in range(len(data)):
        file.write_bytes(data[:size])
        refused(file)


def test_truncation_says_where_the_file_ends(file: Path) -> None:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    hint = "The file was changed or cut short after it was written; fetch or write it again"
    expected = "expected a safetensors file: header length, header, tensors. " + hint
    file.write_bytes(data[:100])
    message = refused(file)
    assert message == f"ends after 100 bytes, inside a header of {length} bytes, {expected}"
    file.write_bytes(data[:3])
    assert refused(file) == f"ends after 3 bytes, {expected}"
    file.write_bytes(data[:-1])
    assert refused(file) == (
        "is no whole safetensors file (Error while deserializing: incomplete metadata, "
        f"file not fully covered). {hint}"
    )


def test_what_the_parser_quotes_prints(file: Path) -> None:
    header, payload = parts(file.read_bytes())
    header["layers[0].forward.weight_ih"]["dtype"] = "\u202e\x1b[2J"
    file.write_bytes(whole(header, payload))
    assert refused(file).startswith(
        "is no whole safetensors file (Error while deserializing: invalid JSON in header: unknown "
        "variant `\\u202e\\x1b[2J`, expected one of "
    )


def test_names_in_a_refusal_print(file: Path) -> None:
    header, payload = parts(file.read_bytes())
    header["__metadata__"]["ifgo"] = json.dumps(
        {"a\n\x1b": 0, "version": 1, "sha256": "", "model": 1}
    )
    file.write_bytes(whole(header, payload))
    with pytest.raises(FormatError) as caught:
        formats.load(file)
    assert str(caught.value) == (
        f"{file}: the description has a\\n\\x1b, model, sha256, version, "
        "expected version, sha256 and model"
    )


def test_bytes_after_the_tensors_are_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")
    assert refused(file).startswith("is no whole safetensors file")


def test_every_flipped_bit_is_refused(file: Path) -> None:
    """Every bit of the header, one bit of each byte of the tensors."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for position in range(len(data)):
        for bit in range(8) if position < 8 + length else [position % 8]:
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            file.write_bytes(changed)
            with pytest.raises((FormatError, UnsupportedError)):
                native.read(file)


def test_a_flipped_bit_in_a_tensor_names_it(file: Path) -> None:
    data = bytearray(file.read_bytes())
    header, payload = parts(bytes(data))
    for name, entry in header.items():
        if name != "__metadata__":
            changed = bytearray(payload)
            changed[entry["data_offsets"][0]] ^= 0x10
            file.write_bytes(whole(header, bytes(changed)))
            assert refused(file) == (
                f"tensor {name!r} does not match its checksum. The file was changed or cut short "
                "after it was written; fetch or write it again"
            )
    assert {"layers[0].forward.weight_ih", "layers[1].layers[0].weight", "layers[2].bias"} < set(
        header
    )


def test_a_tensor_of_another_shape_is_refused(file: Path) -> None:
    header, payload = parts(file.read_bytes())
    header["layers[0].forward.weight_ih"]["shape"] = [3, 8]
    file.write_bytes(whole(header, payload))
    assert refused(file).startswith("tensor 'layers[0].forward.weight_ih' does not match its")


def test_a_changed_description_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"50.0", b"51.0"))
    assert refused(file).startswith("the description does not match its checksum. The file was")


def test_a_header_above_the_bound_is_refused(file: Path) -> None:
    size = limits.DEFAULTS.json_bytes + 1
    file.write_bytes(size.to_bytes(8, "little") + b" " * size)
    assert refused(file) == f"its header has {size} bytes, expected at most {size - 1}" + raising(
        "json_bytes"
    )


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("[1]", "the header is no JSON object, expected an object in braces"),
        ('{"a":1,"b":2,"a":3}', "the header has two keys 'a', expected each key once"),
        ('{"a":NaN}', "the header holds NaN, expected finite numbers"),
        ("[" * 100_000, "the header nests too deep"),
        ('{"a":' * 100_000, "the header nests too deep"),
        (
            "{'a'}",
            "the header is no JSON (Expecting property name enclosed in double quotes: line 1 "
            "column 2 (char 1)). The file was changed or cut short after it was written; fetch "
            "or write it again",
        ),
        ('{"a":' + "9" * 5000 + "}", "the header is no JSON (Exceeds the limit (4300 digits)"),
    ],
)
def test_broken_headers_are_refused(file: Path, header: str, message: str) -> None:
    file.write_bytes(whole(header, b""))
    assert refused(file).startswith(message)


def test_lying_offsets_are_refused(file: Path) -> None:
    header, payload = parts(file.read_bytes())
    begin, end = header["layers[2].bias"]["data_offsets"]
    for lie in ([begin, end + 4], [begin + 4, end], [end, begin], [begin, 2**63], [-4, 0]):
        header["layers[2].bias"]["data_offsets"] = lie
        file.write_bytes(whole(header, payload))
        assert refused(file).startswith("is no whole safetensors file")


def test_tensors_alone_are_refused(file: Path) -> None:
    for metadata in (None, {"format": "pt"}):
        file.write_bytes(to_safetensors({"a": np.ones(3), "b": np.ones(2)}, metadata))
        assert not native.sniff(file)
        assert refused(file, UnsupportedError) == (
            "holds 2 tensors but no model description, expected a file that ifgo wrote. Read it "
            "as a state_dict of PyTorch: --from safetensors"
        )


def test_newer_versions_are_refused(file: Path) -> None:
    header, payload = parts(file.read_bytes())
    header["__metadata__"]["ifgo"] = json.dumps({"version": 2, "new": "things"})
    file.write_bytes(whole(header, payload))
    assert refused(file, UnsupportedError) == (
        "is written in version 2 of the native format, expected version 1, all that this ifgo "
        "reads. Install a newer ifgo"
    )


@pytest.mark.parametrize("version", [0, "1", None, True, 1.0])
def test_versions_that_are_none_are_refused(file: Path, version: Any) -> None:
    header, payload = parts(file.read_bytes())
    header["__metadata__"]["ifgo"] = json.dumps({"version": version})
    file.write_bytes(whole(header, payload))
    assert refused(file) == f"its version is {version!r}, expected a whole number from 1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version":1,"model":{}}', "the description has model, version, expected version, "),
        ('{"version":1,"version":1}', "the description has two keys 'version', expected each key"),
        ("[" * 5000, "the description nests too deep"),
        ("{", "the description is no JSON (Expecting property name enclosed in double quotes"),
    ],
)
def test_broken_descriptions_are_refused(file: Path, text: str, message: str) -> None:
    header, payload = parts(file.read_bytes())
    header["__metadata__"]["ifgo"] = text
    file.write_bytes(whole(header, payload))
    assert refused(file).startswith(message)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.update({"f" * 100_000: 1}),
        lambda model: model["provenance"]["names"].update({"n" * 100_000: 1}),
        lambda model: model["layers"][0].update({"name": ["x" * 100_000]}),
    ],
)
def test_messages_stay_short(file: Path, change: Any) -> None:
    edit(file, change)
    assert len(refused(file)) < 500


def test_many_tensors_that_nothing_uses(file: Path) -> None:
    header, payload = parts(file.read_bytes())
    for k in range(5000):
        header[f"t{k}"] = {"dtype": "F32", "shape": [0], "data_offsets": [len(payload)] * 2}
    file.write_bytes(whole(header, payload))
    assert refused(file) == (
        "the model does not use tensor 't0', 't1', 't10', 't100', 't1000', 't1001', 't1002', "
        "'t1003' and 4992 more, expected no other tensors"
    )
    within_bounds(lambda: native.read(file), file.stat().st_size)


@pytest.mark.parametrize("unit", ['"%d":{},', '"%d":[[]],', '"%d":1,'])
def test_no_header_costs_much(file: Path, unit: str) -> None:
    entries = "".join(
        unit % k for k in range((limits.DEFAULTS.json_bytes - 20) // len(unit % 99999))
    )
    file.write_bytes(whole("{" + entries + '"x":1}', b""))
    within_bounds(lambda: native.read(file), file.stat().st_size)


def test_a_tensor_that_is_missing_is_refused(file: Path) -> None:
    header, payload = parts(file.read_bytes())
    header["layers[9].bias"] = header.pop("layers[2].bias")
    file.write_bytes(whole(header, payload))
    assert refused(file).startswith("tensor 'layers[2].bias' is missing. The file was changed")


def test_a_tensor_that_nothing_uses_is_refused(file: Path) -> None:
    edit(file, lambda model: model["layers"][2].update(bias=None))
    assert refused(file) == (
        "the model does not use tensor 'layers[2].bias', expected no other tensors"
    )


def test_a_tensor_of_integers_is_refused(file: Path) -> None:
    header, payload = parts(file.read_bytes())
    entry = header["layers[2].bias"]
    entry["dtype"] = "I32"
    begin, end = entry["data_offsets"]
    digest = hashlib.sha256(b"I32 [1]\n" + payload[begin:end]).hexdigest()
    file.write_bytes(whole(header, payload))
    edit(file, lambda model: model["layers"][2].update(bias=digest))
    assert refused(file) == (
        "tensor 'layers[2].bias' has dtype I32, expected one of F16, F32, F64, BF16"
    )


LONG = "n" * 10_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            json.dumps({"version": 1, **dict.fromkeys(map(str, range(1000)))}),
            "the description has 0, 1, 10, 100, 101, 102, 103, 104 and 993 more, expected version, "
            "sha256 and model",
        ),
        (
            f'{{"{LONG}": 1, "{LONG}": 1}}',
            f"the description has two keys '{LONG[:60]}...', expected each key once",
        ),
        (
            json.dumps({"version": LONG}),
            f"its version is '{LONG[:59]}..., expected a whole number from 1",
        ),
        (
            json.dumps({"version": 10**4000}),
            f"is written in version 1{'0' * 59}... of the native format, expected version 1, all "
            "that this ifgo reads. Install a newer ifgo",
        ),
    ],
)
def test_long_descriptions_are_cut(file: Path, text: str, message: str) -> None:
    header, payload = parts(file.read_bytes())
    header["__metadata__"]["ifgo"] = text
    file.write_bytes(whole(header, payload))
    assert refused(file, IfgoError) == message


def test_long_names_are_cut(file: Path) -> None:
    edit(file, lambda model: model.update({LONG: 1}))
    assert refused(file) == (
        f"{LONG[:60]}... is a field that Model does not have, expected one of inputs, layers, "
        "outputs, provenance"
    )


def test_many_tensors_that_nothing_uses_are_cut(file: Path) -> None:
    header, payload = parts(file.read_bytes())
    for k in range(1000):
        header[f"{LONG[:100]}{k:03}"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    file.write_bytes(whole(header, payload))
    names = ", ".join([f"'{LONG[:60]}...'"] * 8)
    assert refused(file).startswith("the model does not use tensor 'nnnn")
    assert len(refused(file)) < len(names) + 100


LAYERS = ", ".join(name for name, c in _native_codec.CLASSES.items() if issubclass(c, Layer))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m["layers"][1].update({"class": "Path"}),
            f"layers[1].class is 'Path', expected one of {LAYERS}. "
            "A newer ifgo may have written it",
        ),
        (
            lambda m: m["layers"][1].update({"class": "Model"}),
            f"layers[1].class is 'Model', expected one of {LAYERS}. "
            "A newer ifgo may have written it",
        ),
        (
            lambda m: m["layers"][1].update({"class": ["Dense"]}),
            f"layers[1].class is ['Dense'], expected one of {LAYERS}. "
            "A newer ifgo may have written it",
        ),
        (
            lambda m: m["layers"][1]["layers"][0].update(rate=0.5),
            "layers[1].layers[0].rate is a field that Dense does not have, expected one of "
            "name, weight, bias, activation",
        ),
        (
            lambda m: m["layers"][0]["forward"].pop("peephole"),
            "layers[0].forward.peephole is missing, expected every field of LSTMCell",
        ),
        (
            lambda m: m["layers"][0]["forward"].update(clip_z="50"),
            "layers[0].forward.clip_z is '50', expected a number or null",
        ),
        (
            lambda m: m["layers"][0]["forward"].update(clip_z=50),
            "layers[0].forward.clip_z is 50, expected a number or null",
        ),
        (
            lambda m: m["layers"][0]["forward"].update(forget_bias=None),
            "layers[0].forward.forget_bias is None, expected a number",
        ),
        (
            lambda m: m["layers"][0]["forward"].update(weight_ih=[1.0]),
            "layers[0].forward.weight_ih is [1.0], expected the checksum of a tensor",
        ),
        (
            lambda m: m["layers"][0]["forward"].update(coupling="f=i"),
            "layers[0].forward.coupling is 'f=i', expected one of 'f=1-i', 'i=1-f' or null",
        ),
        (
            lambda m: m["layers"][0]["forward"]["activations"].pop(),
            "layers[0].forward.activations is [{'alpha': None, 'beta': None, 'class': "
            "'Activation', 'name': 'sigmoid'}, {'alpha': None, 'beta': None, 'class': "
            "'Activation', 'name': 'tanh'}], expected a list of 3",
        ),
        (
            lambda m: m["layers"][0].update(stateful=1),
            "layers[0].stateful is 1, expected true or false",
        ),
        (lambda m: m.update(layers={}), "layers is {}, expected a list"),
        (
            lambda m: m["inputs"][0].update(size=True),
            "inputs[0].size is True, expected a whole number",
        ),
        (lambda m: m["inputs"][0].update(name=3), "inputs[0].name is 3, expected a string"),
        (
            lambda m: m["provenance"].update(names=[]),
            "provenance.names is [], expected an object of strings",
        ),
        (
            lambda m: m["provenance"].update(names={"a": 1}),
            "provenance.names['a'] is 1, expected a string",
        ),
    ],
)
def test_descriptions_of_something_else_are_refused(file: Path, change: Any, message: str) -> None:
    edit(file, change)
    assert refused(file) == message


def test_a_description_of_no_model_is_refused(file: Path) -> None:
    describe(file, [])
    assert refused(file) == "the model is [], expected an object"
    describe(file, {})
    hint = "A newer ifgo may have written it"
    assert refused(file) == f"class is None, expected one of Model. {hint}"
    describe(file, {"class": "Dense"})
    assert refused(file) == f"class is 'Dense', expected one of Model. {hint}"


def test_parts_that_do_not_fit_name_their_place(file: Path) -> None:
    edit(file, lambda model: model["layers"][0]["forward"].update(clip_z=-1.0))
    assert refused(file, ModelError) == (
        "layers[0].forward: clip_z is -1.0, expected a finite number above 0, or None"
    )
    edit(file, lambda model: model["inputs"][0].update(size=4))
    edit(file, lambda model: model["layers"][0]["forward"].update(clip_z=None))
    assert refused(file, ModelError) == "layer lstm: receives 4 features, expected 3"


def test_nested_residuals_are_bounded(file: Path) -> None:
    def nest(model: Any) -> None:
        layer = model["layers"][1]
        for i in range(limits.DEFAULTS.layers + 8):
            layer = {"class": "Residual", "name": str(i), "layers": [layer], "channels": 1}
        model["layers"][1] = layer

    edit(file, nest)
    assert refused(file) == "the model description nests too deep, expected at most 64" + raising(
        "layers"
    )


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_descriptions_raise_only_our_errors(file: Path, data: st.DataObject) -> None:
    """One random place of the description becomes something else, signed as if it were meant."""
    native.write(small(), file)
    junk = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.just([])
        | st.just({})
    )

    def change(model: Any) -> None:
        node: Any = model
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = data.draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and node[key] and data.draw(st.integers(0, 9)):
                node = node[key]
                continue
            if data.draw(st.booleans()):
                node[key] = data.draw(junk)
            else:
                del node[key]
            return

    edit(file, change)
    with contextlib.suppress(IfgoError):
        native.read(file)


def test_files_that_are_none(tmp_path: Path) -> None:
    assert not native.sniff(tmp_path)
    assert not native.sniff(tmp_path / "absent")
    assert refused(tmp_path / "absent", UsageError) == "no such file. Check the path"
    assert refused(tmp_path, UsageError) == "is a folder, expected a file"
    for content in (
        b"",
        b"\x08\0\0",
        b"hello, this is text",
        b"\x02\0\0\0\0\0\0\0{}",
        os.urandom(64),
    ):
        (tmp_path / "other").write_bytes(content)
        assert not native.sniff(tmp_path / "other")
