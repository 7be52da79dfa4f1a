"""The rule's labels and the model, judged by the annotation of MIT-BIH record 208 itself.

The record is no part of the package: these tests skip where ../shared/data/mitbih is absent.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ifgo import demo

RAW = Path(__file__).parents[3] / "shared" / "data" / "mitbih" / "raw"
pytestmark = pytest.mark.skipif(
    not (RAW / "208.atr").is_file(), reason=f"record 208 with its annotation is not in {RAW}"
)

LENGTH = 5 * 60 * demo.RECORD_RATE
NORMAL, VENTRICULAR, FUSION, UNCLASSIFIABLE = (
    1,
    5,
    6,
    13,
)  # annotation codes, as the format has them
BEAT_CODES = (NORMAL, VENTRICULAR, FUSION, UNCLASSIFIABLE)
REACH = demo.RECORD_RATE // 10  # a peak belongs to an annotation at most 100 ms away


def read_signal(path):
    """The first of two signals of a format 212 file: 12 bits each, two samples in three bytes."""
    raw = np.fromfile(path, np.uint8).reshape(-1, 3).astype(np.int64)
    sample = raw[:, 0] | (raw[:, 1] & 0x0F) << 8
    return np.where(sample >= 2048, sample - 4096, sample)


def read_annotation(path):
    """(sample, code) of every annotation: 16-bit words, code in the upper 6 bits, time in 10."""
    words = np.fromfile(path, "<u2").tolist()
    found, time, at = [], 0, 0
    while words[at] != 0:
        code, value = words[at] >> 10, words[at] & 0x3FF
        at += 1
        if code == 59:  # SKIP: a 32-bit step follows, upper half first
            time += words[at] << 16 | words[at + 1]
            at += 2
        elif code == 63:  # AUX: `value` bytes of text follow, padded to whole words
            at += (value + 1) // 2
        elif code not in (60, 61, 62):  # NUM, SUB and CHN say more about the last annotation
            time += value
            found.append((time, code))
    return found


@pytest.fixture(scope="module")
def signal():
    return read_signal(RAW / "208.dat")


@pytest.fixture(scope="module")
def official():
    """Sample (n,) and code (n,) of every beat in the five minutes."""
    end = demo.RECORD_START + LENGTH
    inside = [
        (sample, code)
        for sample, code in read_annotation(RAW / "208.atr")
        if demo.RECORD_START <= sample < end and code in BEAT_CODES
    ]
    return np.array(inside).T


@pytest.fixture(scope="module")
def windows(signal):
    """A function: peaks in the record → beats (n, T) in 1/200 mV, cut as the package's are."""
    excerpt = signal[demo.RECORD_START : demo.RECORD_START + LENGTH] - 1024.0
    length = LENGTH * demo.RATE // demo.RECORD_RATE
    spectrum = np.fft.rfft(excerpt)[: length // 2 + 1]
    resampled = np.fft.irfft(spectrum, length) * length / LENGTH

    def cut(peaks):
        first = first_step(peaks)
        return np.stack([resampled[start : start + demo.STEPS] for start in first])

    return cut


def first_step(peaks):
    at_128_hz = np.rint((peaks - demo.RECORD_START) * demo.RATE / demo.RECORD_RATE)
    return at_128_hz.astype(int) - demo.BEFORE


def logits(x):
    session = onnxruntime.InferenceSession(demo.model_path(), providers=["CPUExecutionProvider"])
    return session.run(["logit"], {"x": x})[0][:, 0]


def matched(beats, official):
    """The official code of each beat of the package, 0 where no annotation is within REACH."""
    samples, codes = official
    nearest = np.abs(beats.peak[:, None] - samples).argmin(axis=1)
    near = np.abs(beats.peak - samples[nearest]) <= REACH
    return np.where(near, codes[nearest], 0)


def test_the_readers_agree_with_the_header_and_the_published_counts(signal, official):
    name, signals, rate, length = (RAW / "208.hea").read_text().split("\n")[0].split()[:4]
    first = (RAW / "208.hea").read_text().split("\n")[1].split()
    assert (name, signals, int(rate)) == ("208", "2", demo.RECORD_RATE)
    assert len(signal) == int(length)
    assert first[:5] == ["208.dat", "212", "200", "11", "1024"]
    assert signal[0] == int(first[5])
    assert signal.sum() % 2**16 == int(first[6]) % 2**16
    counts = {code: int((official[1] == code).sum()) for code in BEAT_CODES}
    assert counts == {NORMAL: 358, VENTRICULAR: 93, FUSION: 56, UNCLASSIFIABLE: 2}


def test_the_beats_are_those_samples_of_the_record(windows):
    with np.load(demo.data_path(), allow_pickle=False) as stored:
        off = np.abs(windows(stored["peak"]) - stored["x"])
    # Stored values are rounded to whole units; 1e-6 is far above the noise of a float64 transform.
    assert off.max() <= 0.5 + 1e-6


def test_rule_labels_against_the_annotation(official):
    beats = demo.beats()
    code = matched(beats, official)
    judged = np.isin(code, (NORMAL, VENTRICULAR))
    right = (beats.label == 1) == (code == VENTRICULAR)
    assert right[judged].mean() >= 0.99
    assert (~judged).mean() <= 0.02  # fusion beats and artefacts that the rule took for beats
    print(  # noqa: T201
        f"rule: {right[judged].sum()} of {judged.sum()} named as annotated, "
        f"{(~judged).sum()} of {len(judged)} neither normal nor ventricular"
    )


def test_packaged_beats_of_the_last_two_minutes(official):
    beats = demo.beats()
    code = matched(beats, official)
    judged = beats.in_test & np.isin(code, (NORMAL, VENTRICULAR))
    truth = code[judged] == VENTRICULAR
    lstm = demo.score(logits(beats.x)[judged], truth)
    linear = demo.score(demo.linear_baseline(beats)[judged], truth)
    print(f"packaged beats, LSTM: {lstm}\npackaged beats, linear: {linear}")  # noqa: T201
    assert lstm.accuracy >= 0.97
    assert lstm.recall >= 0.9


def test_every_normal_and_ventricular_beat_of_the_last_two_minutes(official, windows):
    """Also the beats that the rule missed or found ambiguous, cut at the annotated peak."""
    samples, codes = official
    first = first_step(samples)
    inside = (first >= demo.TRAIN_MINUTES * 60 * demo.RATE) & (
        first + demo.STEPS <= 5 * 60 * demo.RATE
    )
    judged = inside & np.isin(codes, (NORMAL, VENTRICULAR))
    x = demo.standardise(np.rint(windows(samples[judged])))
    truth = codes[judged] == VENTRICULAR
    own = demo.beats()
    both = demo.Beats(
        np.concatenate([own.x, x]),
        np.concatenate([own.label, truth.astype(np.int8)]),
        np.concatenate([own.peak, samples[judged].astype(np.int32)]),
        np.concatenate([own.in_test, np.ones(len(x), np.bool_)]),
    )
    lstm = demo.score(logits(x), truth)
    linear = demo.score(demo.linear_baseline(both)[len(own.x) :], truth)
    print(f"all annotated beats, LSTM: {lstm}\nall annotated beats, linear: {linear}")  # noqa: T201
    assert lstm.accuracy >= 0.97
    assert lstm.recall >= 0.9
