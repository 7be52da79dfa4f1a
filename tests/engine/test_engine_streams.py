"""Streams: one step at a time equals many, states go in and out, and every refusal."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from core_cases import cell, chain, dense, lstm, refused

from ifgo.engine import Session, Stream
from ifgo.errors import UnsupportedError, UsageError
from ifgo.model import InitialState, LastStep, Recurrent

STEPS = 60


@pytest.fixture(params=[(1, 5), (1, 16), (9, 33), (20, 64)], ids=str)
def stream(request, native):
    inputs, hidden = request.param
    return Stream(
        chain(lstm("a", inputs, hidden), lstm("b", hidden, 7), dense("d", 7), size=inputs)
    )


def drawn(stream, steps=STEPS):
    rng = np.random.default_rng(4)
    return rng.normal(size=(steps, stream.input_size)).astype(np.float32)


def test_pieces_are_the_whole(stream):
    x = drawn(stream)
    whole = stream.run(x)
    stream.reset()
    pieces = [stream.run(part) for part in np.split(x, [1, 4, 5, 30, 31])]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()
    stream.reset()
    steps = [stream.step(row) for row in x]
    assert np.stack(steps).tobytes() == whole.tobytes()


def test_tick_is_a_step_between_fixed_arrays(stream):
    x, out = np.zeros(stream.input_size, np.float32), np.zeros(1, np.float32)
    wanted = stream.run(drawn(stream))
    stream.reset()
    stream.bind(x, out)
    for row, want in zip(drawn(stream), wanted, strict=True):
        x[:] = row
        assert stream.tick() is None
        assert out.tobytes() == want.tobytes()


def test_step_fills_what_it_is_given(stream):
    out = np.zeros(1, np.float32)
    assert stream.step(drawn(stream)[0], out) is out
    assert out[0] != 0


def test_two_threads_give_the_same_bits(native):
    model = chain(lstm("a", 9, 200), size=9)
    x = np.random.default_rng(5).normal(size=(30, 9)).astype(np.float32)
    assert Stream(model, threads=2).run(x).tobytes() == Stream(model, threads=1).run(x).tobytes()


def test_a_state_goes_on_where_it_was_taken(stream):
    x = drawn(stream)
    stream.run(x[:20])
    kept = stream.state
    wanted = stream.run(x[20:])
    other = Stream(stream.model)
    other.state = kept
    assert other.run(x[20:]).tobytes() == wanted.tobytes()


def test_a_session_gives_the_same_state(native):
    model = chain(Recurrent("a", cell(3, 10, 4)), size=3)
    stream, x = Stream(model), np.random.default_rng(6).normal(size=(9, 3)).astype(np.float32)
    stream.run(x)
    _, state = Session(model).run(x[None])
    assert {key: value.tobytes() for key, value in stream.state.items()} == {
        key: value.tobytes() for key, value in state.items()
    }


def test_reset_returns_to_the_constants_of_the_model(native):
    h, c = np.full((1, 3), 0.25, np.float32), np.full((1, 3), -0.5, np.float32)
    stream = Stream(chain(lstm(initial=InitialState("constant", h, c))))
    stream.run(np.ones((3, 2), np.float32))
    stream.reset()
    assert stream.state["h0"].ravel().tolist() == [0.25] * 3
    assert stream.state["c0"].ravel().tolist() == [-0.5] * 3


class TestRefusals:
    """Each leaves the state as it was."""

    @pytest.fixture
    def small(self, native):
        stream = Stream(chain(lstm(), dense()))
        stream.step(np.ones(2, np.float32))
        return stream

    @pytest.mark.parametrize(
        ("x", "found"),
        [
            (np.ones(3, np.float32), "float32 of shape (3,)"),
            (np.ones(2), "float64 of shape (2,)"),
            (np.ones(4, np.float32)[::2], "float32 of shape (2,), not contiguous"),
            ([1.0, 2.0], "a list"),
            (None, "a NoneType"),
        ],
        ids=["size", "dtype", "strided", "list", "none"],
    )
    def test_x(self, small, x, found):
        before = small.state
        wanted = f"x is {found}, expected float32 of shape (2,), contiguous"
        with refused(UsageError, wanted):
            small.step(x)
        assert all((small.state[key] == before[key]).all() for key in before)

    def test_out_too_small(self, small):
        wanted = (
            "out is float32 of shape (0,), expected float32 of shape (1,), contiguous, writable"
        )
        with refused(UsageError, wanted):
            small.step(np.ones(2, np.float32), np.ones(0, np.float32))

    def test_out_that_may_not_be_written(self, small):
        out = np.ones(1, np.float32)
        out.flags.writeable = False
        wanted = (
            "out is float32 of shape (1,), read-only, "
            "expected float32 of shape (1,), contiguous, writable"
        )
        with refused(UsageError, wanted):
            small.step(np.ones(2, np.float32), out)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite(self, small, value):
        before = small.state
        wanted = (
            "x holds a value that is not finite, expected finite float32 values. "
            "Clean the data first; the state would keep a NaN for ever"
        )
        with refused(UsageError, wanted):
            small.step(np.array([0, value], np.float32))
        assert all((small.state[key] == before[key]).all() for key in before)

    def test_tick_before_bind(self, small):
        with refused(UsageError, "tick() has nothing bound. Call bind(x, out) first"):
            small.tick()

    def test_a_sequence_of_another_width(self, small):
        with refused(UsageError, "x has shape (4, 3), expected (T, 2)"):
            small.run(np.ones((4, 3), np.float32))

    def test_an_output_of_fewer_steps(self, small):
        wanted = (
            "out is float32 of shape (3, 1), expected float32 of shape (4, 1), contiguous, writable"
        )
        with refused(UsageError, wanted):
            small.run(np.ones((4, 2), np.float32), np.ones((3, 1), np.float32))

    def test_a_sequence_of_another_type(self, small):
        wanted = "x is float64 of shape (4, 2), expected float32 of shape (4, 2), contiguous"
        with refused(UsageError, wanted):
            small.run(np.ones((4, 2)), np.ones((4, 1), np.float32))

    def test_a_state_of_another_model(self, small):
        before = small.state
        with pytest.raises(UsageError, match=r"state h0 \(layer lstm\) has shape \(1, 1, 4\)"):
            small.state = {"h0": np.ones((1, 1, 4), np.float32)}
        assert all((small.state[key] == before[key]).all() for key in before)

    def test_a_second_thread_inside(self, native):
        stream = Stream(chain(lstm("a", 2, 300)), threads=1)
        x = np.ones((20000, 2), np.float32)
        seen: list[Exception] = []
        thread = threading.Thread(target=stream.run, args=(x,))
        thread.start()
        while thread.is_alive() and not seen:
            try:
                stream.step(x[0])
            except UsageError as error:
                seen.append(error)
        thread.join()
        wanted = "another thread is inside this Stream, expected one thread at a time."
        assert seen
        assert str(seen[0]).startswith(wanted)

    def test_a_model_that_does_not_stream(self, native):
        with pytest.raises(UnsupportedError, match="the model cannot run one step per call"):
            Stream(chain(Recurrent("a", cell(), cell())))

    def test_a_layer_that_a_stream_does_not_have(self, native):
        wanted = (
            "layer last: a layer of kind last_step cannot run in a Stream, expected Recurrent and "
            "Dense layers with the usual activations. Session.run computes the whole model"
        )
        with refused(UnsupportedError, wanted):
            Stream(chain(lstm(), LastStep("last")))
