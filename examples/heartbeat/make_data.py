"""Make src/ifgo/demo/beats.npz: five minutes of MIT-BIH record 208 as labelled beats.

    python make_data.py PATH        PATH: the scipy 1.11.4 wheel, or the scipy/misc/ecg.dat in it

The excerpt has no beat labels, so a fixed rule finds and names the beats (`find_peaks`,
`name_beats`). Its templates come from the training minutes alone. Rule labels serve training and
display; the tests judge the model by the database's own annotation, which is not in the package.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo import demo

MEMBER = "scipy/misc/ecg.dat"
SHA256 = "f20ad3365fb9b7f845d0e5c48b6fe67081377ee466c3a220b7f69f35c8958baf"
ZERO = 1024  # the digitizer's value for 0 mV
RATE = demo.RECORD_RATE
TRAIN = demo.TRAIN_MINUTES * 60 * RATE

SPACING = RATE // 4  # two beats are at least 250 ms apart
BEFORE, AFTER = 50, 100  # the window that is compared with a template: 139 ms and 278 ms
SEED = 0.6  # correlation with the median beat below which a beat shapes the ventricular template
MARGIN = 0.3  # least difference of the two correlations of a beat that is not ambiguous

Signal = NDArray[np.float64]
Indices = NDArray[np.intp]


def read_excerpt(path: Path) -> Signal:
    """Samples (108000,) in digitizer units above 0 mV; exits where the bytes are not those."""
    data = path.read_bytes()
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            data = wheel.read(MEMBER)
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{path}: sha256 of ecg.dat is {digest}, expected {SHA256}")
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return archive["ecg"].astype(np.float64) - ZERO


def band_pass(signal: Signal, low: float, high: float) -> Signal:
    """`signal` with only its frequencies from `low` to `high` Hz, without delay."""
    spectrum = np.fft.rfft(signal)
    frequency = np.fft.rfftfreq(len(signal), 1 / RATE)
    spectrum[(frequency < low) | (frequency > high)] = 0
    return np.fft.irfft(spectrum, len(signal))


def resample(signal: Signal) -> Signal:
    """`signal` at 128 Hz: its spectrum, cut at 64 Hz. 45 samples become 16."""
    length, remainder = divmod(len(signal) * demo.RATE, RATE)
    if remainder:
        raise SystemExit(f"{len(signal)} samples are no whole number at {demo.RATE} Hz")
    return np.fft.irfft(np.fft.rfft(signal)[: length // 2 + 1], length) * length / len(signal)


def find_peaks(signal: Signal) -> Indices:
    """Sample of each beat's peak, ascending.

    A beat is a local maximum of the 5-20 Hz energy (120 ms Hann mean) above 15 % of that energy's
    98th percentile in the training minutes, strongest first, none nearer than SPACING to a
    stronger one. Its peak is the highest value of the 0.5-40 Hz signal within 100 ms.
    """
    hann = np.hanning(43)
    energy = np.convolve(band_pass(signal, 5, 20) ** 2, hann / hann.sum(), "same")
    inner = energy[1:-1]
    maxima = 1 + np.flatnonzero((inner > energy[:-2]) & (inner >= energy[2:]))
    floor = 0.15 * np.percentile(energy[:TRAIN], 98)
    taken = np.zeros(len(signal), bool)
    for sample in sorted(maxima, key=lambda m: -energy[m]):
        near = slice(max(0, sample - SPACING), sample + SPACING)
        if energy[sample] >= floor and not taken[near].any():
            taken[sample] = True
    smooth, reach = band_pass(signal, 0.5, 40), RATE // 10
    starts = np.maximum(np.flatnonzero(taken) - reach, 0)
    return np.unique([start + smooth[start : start + 2 * reach + 1].argmax() for start in starts])


def correlation(windows: NDArray[Any], template: NDArray[Any]) -> Signal:
    """Pearson correlation of each window (n, w) with `template` (w,)."""
    a = windows - windows.mean(axis=1, keepdims=True)
    b = template - template.mean()
    return a @ b / np.sqrt((a * a).sum(axis=1) * (b @ b))


def name_beats(signal: Signal, peaks: Indices) -> NDArray[np.int8]:
    """0 normal, 1 ventricular, -1 ambiguous, for each peak.

    The normal template is the median beat of the training minutes (0.5-40 Hz). The ventricular
    one is the median of those training beats that correlate with it below SEED. A beat is named
    after the template that it correlates with more, by at least MARGIN; what lies between the
    two shapes, most of the fusion beats among it, is ambiguous.
    """
    smooth = band_pass(signal, 0.5, 40)
    windows = np.stack([smooth[peak - BEFORE : peak + AFTER] for peak in peaks])
    train = peaks < TRAIN
    to_normal = correlation(windows, np.median(windows[train], axis=0))
    to_ventricular = correlation(windows, np.median(windows[train & (to_normal < SEED)], axis=0))
    difference = to_ventricular - to_normal
    return np.where(np.abs(difference) < MARGIN, -1, difference > 0).astype(np.int8)


def main() -> None:
    """Write beats.npz, and say what went into it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="scipy 1.11.4 wheel, or its scipy/misc/ecg.dat")
    signal = read_excerpt(parser.parse_args().path)
    peaks = find_peaks(signal)
    first = np.rint(peaks * demo.RATE / RATE).astype(np.intp) - demo.BEFORE
    border = TRAIN * demo.RATE // RATE
    last = first + demo.STEPS
    whole = (first >= 0) & (last <= len(signal) * demo.RATE // RATE)
    peaks, first, last = peaks[whole], first[whole], last[whole]

    label = name_beats(signal, peaks)
    one_side = (last <= border) | (first >= border)
    kept = (label >= 0) & one_side
    at_128_hz = resample(signal)
    x = np.stack([at_128_hz[start : start + demo.STEPS] for start in first[kept]])
    np.savez_compressed(
        demo.data_path(),
        x=np.rint(x).astype(np.int16),
        label=label[kept],
        peak=(demo.RECORD_START + peaks[kept]).astype(np.int32),
        in_test=first[kept] >= border,
    )
    print(f"{len(peaks)} beats, {(label < 0).sum()} of them ambiguous and left out")
    for name, part in (("train", last <= border), ("test", first >= border)):
        counts = np.bincount(label[kept & part], minlength=2)
        print(f"{name}: {counts[0]} normal, {counts[1]} ventricular")


if __name__ == "__main__":
    main()
