"""Input files: .npy, .npz, .csv and .txt, and everything that is refused in them."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
from bounds import within_bounds
from raising import raising

from ifgo import limits
from ifgo.cli import data
from ifgo.cli.new import random_model
from ifgo.errors import FormatError, UsageError


@pytest.fixture(scope="module")
def one():
    """A model of one feature."""
    return random_model([2], 1)


@pytest.fixture(scope="module")
def two():
    """A model of two features."""
    return random_model([2], 2)


AS_FLOATS = "Convert it with numpy.asarray(x, dtype=float) and save that"


def refused(kind, message, path, model):
    with pytest.raises(kind) as caught:
        data.read(path, model)
    assert str(caught.value) == message
    assert type(caught.value) is kind


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


class TestNpy:
    @pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "<i8", "|u1"])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_numbers(self, two, tmp_path, dtype, order):
        values = np.arange(24).reshape(3, 4, 2)
        path = tmp_path / "x.npy"
        np.save(path, np.array(values, dtype, order=order))
        found = data.read(path, two)
        assert found.x.dtype == np.float32
        assert (found.x == values).all()
        assert found.lengths is None
        assert found.state == {}

    def test_one_sequence(self, two, tmp_path):
        path = tmp_path / "x.npy"
        np.save(path, np.ones((4, 2)))
        assert data.read(path, two).x.shape == (1, 4, 2)

    def test_wrong_shape(self, two, tmp_path):
        path = tmp_path / "x.npy"
        np.save(path, np.ones((4, 3)))
        refused(
            UsageError,
            f"{path}: x has shape (4, 3), 3 features per step, "
            "expected (B, T, 2) or (T, 2). The last axis holds the features",
            path,
            two,
        )

    def test_empty(self, two, tmp_path):
        path = tmp_path / "x.npy"
        np.save(path, np.ones((0, 2)))
        message = f"{path}: x has shape (0, 2), expected (B, T, 2) or (T, 2)"
        refused(UsageError, message, path, two)

    def test_no_file(self, two, tmp_path):
        path = tmp_path / "x.npy"
        refused(UsageError, f"{path}: no such file. Check the path", path, two)

    def test_pickle(self, two, tmp_path):
        path = tmp_path / "x.npy"
        path.write_bytes(npy(np.array([{}]), allow_pickle=True))
        refused(
            FormatError,
            f"{path}: holds Python objects (a pickle), which could run code, expected real "
            f"numbers. {AS_FLOATS}",
            path,
            two,
        )

    def test_bare_pickle(self, two, tmp_path):
        path = tmp_path / "x.npy"
        path.write_bytes(pickle.dumps(np.ones((4, 2))))
        refused(FormatError, f"{path}: is no .npy array. Write it with numpy.save", path, two)

    @pytest.mark.parametrize(
        "header",
        [
            b"",
            b"\x93NUMPY\x01\x00\xff\xff",
            b"\x93NUMPY\x03\x00\x10\x00\x00\x00{}",
            b"\x93NUMPY\x01\x00\x08\x00" + b"(" * 8,
            b"\x93NUMPY\x01\x00\xa0\x0f" + b"(" * 4000,
            b"\x93NUMPY\x01\x00\x03\x00'a\n",
        ],
    )
    def test_damaged_header(self, two, tmp_path, header):
        path = tmp_path / "x.npy"
        path.write_bytes(header)
        refused(FormatError, f"{path}: is no .npy array. Write it with numpy.save", path, two)

    def test_complex(self, two, tmp_path):
        path = tmp_path / "x.npy"
        np.save(path, np.ones((4, 2), complex))
        message = f"{path}: holds complex128, expected real numbers. {AS_FLOATS}"
        refused(FormatError, message, path, two)

    def test_cut_short(self, two, tmp_path):
        path = tmp_path / "x.npy"
        path.write_bytes(npy(np.ones((4, 2), np.float32))[:-1])
        refused(
            FormatError,
            f"{path}: has 31 bytes of data for shape (4, 2) of float32, expected 32. "
            "The file is cut short, or its header is wrong",
            path,
            two,
        )

    @pytest.mark.parametrize("shape", ["(1099511627776, 2)", "(-1, -8)"])
    def test_header_that_lies(self, two, tmp_path, shape):
        """Nothing is allocated for it."""
        path = tmp_path / "x.npy"
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
        path.write_bytes(start + header + bytes(32))
        with pytest.raises(FormatError, match="has 32 bytes of data for shape"):
            data.read(path, two)

    def test_header_of_no_data_with_a_size_beyond_memory(self, two, tmp_path):
        path = tmp_path / "x.npy"
        header = (
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (1180591620717411303424, 0), }\n"
        )
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        with pytest.raises(FormatError, match="has 0 bytes of data for shape"):
            data.read(path, two)


class TestNpz:
    def test_unknown_array(self, two, tmp_path):
        path = tmp_path / "x.npz"
        np.savez(path, x=np.ones((4, 2)), y=np.ones(3))
        message = (
            f"{path}: holds an array 'y', expected x, lengths, h0, c0, h1 and so on. "
            "Leave it out, or give it one of these names"
        )
        refused(UsageError, message, path, two)

    def test_without_x(self, two, tmp_path):
        path = tmp_path / "x.npz"
        np.savez(path, h0=np.zeros((1, 1, 2)))
        message = (
            f"{path}: has no array 'x', expected x, lengths, h0, c0, h1 and so on. "
            "Save the input under that name"
        )
        refused(UsageError, message, path, two)

    def test_wrong_lengths(self, two, tmp_path):
        path = tmp_path / "x.npz"
        np.savez(path, x=np.ones((3, 4, 2)), lengths=np.array([4, 5, 1]))
        refused(UsageError, f"{path}: lengths reach from 1 to 5, expected 0 to 4", path, two)

    def test_compressed(self, two, tmp_path):
        path = tmp_path / "x.npz"
        np.savez_compressed(path, x=np.ones((4, 2)), h0=np.zeros((1, 1, 2)))
        found = data.read(path, two)
        assert (found.x == 1).all()
        assert list(found.state) == ["h0"]

    def test_no_zip(self, two, tmp_path):
        path = tmp_path / "x.npz"
        path.write_bytes(b"PK no zip")
        refused(FormatError, f"{path}: is no .npz. Write it with numpy.savez", path, two)

    def test_pickle_inside(self, two, tmp_path):
        path = tmp_path / "x.npz"
        np.savez(path, x=np.array([{}]))
        refused(
            FormatError,
            f"{path}: x: holds Python objects (a pickle), which could run code, "
            f"expected real numbers. {AS_FLOATS}",
            path,
            two,
        )

    def test_damaged_entry(self, two, tmp_path):
        path = tmp_path / "x.npz"
        np.savez(path, x=np.ones((4, 2)))
        content = bytearray(path.read_bytes())
        content[200] ^= 1
        path.write_bytes(content)
        refused(FormatError, f"{path}: x: is damaged. Write the file again", path, two)

    def test_one_array_twice(self, two, tmp_path):
        path = tmp_path / "x.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", npy(np.ones((4, 2))))
            archive.writestr("x", npy(np.zeros((4, 2))))
        refused(FormatError, f"{path}: holds an array twice, expected each name once", path, two)

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            (
                {"x": np.zeros((2**24, 3))},
                "x has shape (16777216, 3), 3 features per step, expected (B, T, 2) or (T, 2). "
                "The last axis holds the features",
            ),
            (
                {"x": np.zeros((10_000_001, 2), np.uint8)},
                "x has 10000001 steps, expected at most 10000000. Cut it into shorter sequences"
                + raising("steps"),
            ),
            (
                {"x": np.zeros((4, 2)), "h0": np.zeros((1, 2**20, 2))},
                "state h0 (layer lstm0) has shape (1, 1048576, 2), "
                "expected (1, 1, 2): directions, batch, width",
            ),
            (
                {"x": np.zeros((4, 2)), "h7": np.zeros(2**20)},
                "the state has an array 'h7', expected only h0, c0",
            ),
            (
                {"x": np.zeros((4, 2)), "lengths": np.zeros(2**20, np.int8)},
                "lengths has shape (1048576,) and dtype int8, expected (1,) integers, one length "
                "per sequence",
            ),
        ],
    )
    def test_what_does_not_fit_is_not_unpacked(self, two, tmp_path, monkeypatch, arrays, message):
        path = tmp_path / "x.npz"
        np.savez_compressed(path, **arrays)
        monkeypatch.setattr("ifgo.arrays._unpack", None)
        refused(UsageError, f"{path}: {message}", path, two)

    def test_states_that_do_not_fit_are_not_unpacked(self, two, tmp_path, monkeypatch):
        path, states = tmp_path / "x.npy", tmp_path / "s.npz"
        np.save(path, np.zeros((4, 2)))
        np.savez_compressed(states, c0=np.zeros((1, 2**20, 2)))
        monkeypatch.setattr("ifgo.arrays._unpack", None)
        with pytest.raises(UsageError) as caught:
            data.read(path, two, states)
        assert str(caught.value) == (
            f"{states}: state c0 (layer lstm0) has shape (1, 1048576, 2), "
            "expected (1, 1, 2): directions, batch, width"
        )

    def test_bomb(self, two, tmp_path):
        """It fits the model, and is refused for what it would cost."""
        path = tmp_path / "x.npz"
        np.savez_compressed(path, x=np.zeros((2**15, 2**10, 2), np.uint8))
        with pytest.raises(FormatError) as caught:
            data.read(path, two)
        size = path.stat().st_size
        assert str(caught.value) == (
            f"{path}: has {size} bytes and unpacks to 268435456, expected at most 16777216 more "
            "than it has. Write it with numpy.savez, which does not compress"
            + raising("expansion_bytes")
        )
        within_bounds(lambda: data.read(path, two), size)

    def test_the_most_that_unpacks(self, two, tmp_path):
        path = tmp_path / "x.npz"
        np.savez_compressed(path, x=np.zeros((2**10, 2**11, 2), np.uint8))
        assert data.read(path, two).x.shape == (2**10, 2**11, 2)
        within_bounds(lambda: data.read(path, two), path.stat().st_size)


class TestCsv:
    @pytest.mark.parametrize(
        "text",
        [
            "1,2\n3,4.5\n",
            "left,right\n1,2\n3,4.5",
            ',"the right, one"\r\n 1 , 2 \r\n3,45e-1\r\n\r\n\r\n',
            "\ufeff1,2\n3,+4.5\n",
        ],
    )
    def test_rows_are_time(self, two, tmp_path, text):
        path = tmp_path / "x.csv"
        path.write_bytes(text.encode())
        assert (data.read(path, two).x == [[[1, 2], [3, 4.5]]]).all()

    def test_ragged(self, two, tmp_path):
        path = tmp_path / "x.csv"
        path.write_text("a,b\n1,2\n3\n")
        message = (
            f"{path} line 3: has 1 columns, expected 2, as the first line. "
            "Every line is one time step of all features"
        )
        refused(FormatError, message, path, two)

    @pytest.mark.parametrize("text", ["", "\n\n", "a,b\n"])
    def test_empty(self, two, tmp_path, text):
        path = tmp_path / "x.csv"
        path.write_text(text)
        message = f"{path}: holds no numbers, expected one line per time step"
        refused(FormatError, message, path, two)

    def test_empty_line_inside(self, one, tmp_path):
        path = tmp_path / "x.csv"
        path.write_text("1\n2\n\n4\n")
        message = f"{path} line 3: is empty, expected numbers in every line but the last. Remove it"
        refused(FormatError, message, path, one)

    @pytest.mark.parametrize(
        ("text", "line", "column", "held"),
        [
            ("1,\n", 1, 2, "''"),
            ("a,1\n", 1, 1, "'a'"),
            ("1,2\n3,x\x1b[0m\n", 2, 2, r"'x\x1b[0m'"),
            ("a\n1_000\n", 2, 1, "'1_000'"),
            ("a\n1;5\n", 2, 1, "'1;5'"),
            ("a\n" + "9e" * 30, 2, 1, repr("9e" * 20 + "...")),
            ("1,0x1p3\n", 1, 2, "'0x1p3'"),
            ("1,\xa02\n", 1, 2, r"'\xa02'"),
        ],
    )
    def test_no_number(self, two, tmp_path, text, line, column, held):
        path = tmp_path / "x.csv"
        path.write_text(text)
        message = f"{path} line {line} column {column}: holds {held}, expected a number. "
        refused(
            FormatError,
            message + "Commas separate columns, decimals have a point",
            path,
            two,
        )

    @pytest.mark.parametrize("word", ["nan", "-inf", "Infinity"])
    @pytest.mark.parametrize("before", ["1\n", ""])
    def test_not_finite(self, one, tmp_path, word, before):
        """No header either."""
        path = tmp_path / "x.csv"
        path.write_text(f"{before}{word}\n")
        line = 2 if before else 1
        refused(
            FormatError,
            f"{path} line {line} column 1: holds '{word}', expected a finite number. "
            "Commas separate columns, decimals have a point",
            path,
            one,
        )

    @pytest.mark.parametrize("word", ["1e39", "-1e400", "3.4028236e38"])
    def test_beyond_float32(self, one, tmp_path, word):
        for name, place in (("x.csv", " line 2 column 1:"), ("x.txt", ": line 2")):
            path = tmp_path / name
            path.write_text(f"3.4028235e38\n{word}\n")
            refused(
                FormatError,
                f"{path}{place} holds '{word}', which is infinite in float32, "
                "expected a finite float32. Scale the numbers down",
                path,
                one,
            )

    def test_strict(self, one, tmp_path):
        path = tmp_path / "x.csv"
        path.write_text('1\n"2"3\n')
        refused(
            FormatError,
            f"{path} line 2: is no CSV (',' expected after '\"'). "
            "Save it again, with quotes closed at the end of a field",
            path,
            one,
        )

    @pytest.mark.parametrize("break_", ["", '"\n",'])
    def test_too_many_columns(self, one, tmp_path, break_):
        path = tmp_path / "x.csv"
        path.write_text(("1," * 40_000 + break_) * 20)
        with pytest.raises(FormatError) as caught:
            data.read(path, one)
        assert str(caught.value).endswith(
            " columns or more, expected at most 65536. Rows are time steps, columns are features"
            + raising("input_size")
        )
        within_bounds(lambda: data.read(path, one), path.stat().st_size)

    @pytest.mark.parametrize("unit", ["1\n", "1,2\n", "x\n", '"\n"', ",", "1 ", '"'])
    def test_no_text_costs_much(self, one, tmp_path, unit):
        text = unit * (2**18 // len(unit))
        for name in ("x.csv", "x.txt"):
            path = tmp_path / name
            path.write_text(text)
            within_bounds(lambda place=path: data.read(place, one), len(text))

    def test_too_many_numbers(self, one, tmp_path, monkeypatch):
        path = tmp_path / "x.csv"
        path.write_text("1\n2\n3\n")
        monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(text_numbers=2))
        message = (
            f"{path}: has more than 2 numbers, expected at most that many in a text. "
            "Save them with numpy.save, as .npy" + raising("text_numbers")
        )
        refused(FormatError, message, path, one)

    def test_binary(self, one, tmp_path):
        path = tmp_path / "x.csv"
        path.write_bytes(b"1\n\xff\n")
        refused(FormatError, f"{path}: is no text, expected UTF-8", path, one)

    def test_endless_field(self, one, tmp_path):
        path = tmp_path / "x.csv"
        path.write_text('"' + "1" * 140_000)
        message = f"{path} line 1: is no CSV (field larger than field limit (131072)). " + (
            "Save it again, with quotes closed at the end of a field"
        )
        refused(FormatError, message, path, one)

    def test_too_large(self, one, tmp_path, monkeypatch):
        path = tmp_path / "x.csv"
        path.write_text("1\n" * 10)
        monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(text_bytes=10))
        refused(
            FormatError,
            f"{path}: has 20 bytes, expected at most 10 bytes" + raising("text_bytes"),
            path,
            one,
        )


class TestTxt:
    def test_numbers_are_one_sequence(self, one, tmp_path):
        path = tmp_path / "x.txt"
        path.write_text("1 2;3,\n\n4e0\t-5")
        assert (data.read(path, one).x == np.array([1, 2, 3, 4, -5])[None, :, None]).all()

    def test_two_features(self, two, tmp_path):
        path = tmp_path / "x.txt"
        path.write_text("1 2\n3 4\n")
        refused(
            UsageError,
            f"{path}: x has shape (4, 1), 1 features per step, "
            "expected (B, T, 2) or (T, 2). The last axis holds the features",
            path,
            two,
        )

    def test_no_number(self, one, tmp_path):
        path = tmp_path / "x.txt"
        path.write_text("1\n2 two\n")
        refused(
            FormatError,
            f"{path}: line 2 holds 'two', expected a decimal number. "
            "A number looks like -1.5e-3, and has a point, no comma",
            path,
            one,
        )

    def test_empty(self, one, tmp_path):
        path = tmp_path / "x.txt"
        path.write_text(" \n")
        refused(FormatError, f"{path}: holds no numbers, expected one per time step", path, one)

    def test_many_numbers(self, one, tmp_path):
        """More than are rounded at once."""
        path = tmp_path / "x.txt"
        values = np.arange(70_000, dtype=np.float32) / 8
        path.write_text("\n".join(map(str, values)))
        assert (data.read(path, one).x[0, :, 0] == values).all()

    @pytest.mark.parametrize("name", ["x.txt", "x.csv"])
    def test_decimals_round_once(self, one, tmp_path, name):
        """Just above the middle of 1 and the next float32: by way of float64 it would give 1."""
        path = tmp_path / name
        path.write_text("1.000000059604644775390625000000000001\n")
        assert float(np.float32(float(path.read_text()))) == 1.0
        assert data.read(path, one).x.item() == 1 + 2**-23


def test_unknown_ending(one, tmp_path):
    path = tmp_path / "x.wav"
    message = f"{path}: has the ending '.wav', expected .npy, .npz, .csv or .txt"
    refused(UsageError, message, path, one)
