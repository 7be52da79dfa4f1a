import numpy as np

from ifgo import demo


def test_shapes_and_types():
    beats = demo.beats()
    count = len(beats.label)
    assert beats.x.shape == (count, demo.STEPS, 1)
    assert beats.x.dtype == np.float32
    for array, dtype in ((beats.label, np.int8), (beats.peak, np.int32), (beats.in_test, np.bool_)):
        assert array.shape == (count,)
        assert array.dtype == dtype


def test_counts_of_each_class_and_part():
    beats = demo.beats()
    counts = {
        (bool(part), int(label)): int(((beats.in_test == part) & (beats.label == label)).sum())
        for part in (False, True)
        for label in (0, 1)
    }
    assert counts == {(False, 0): 228, (False, 1): 41, (True, 0): 124, (True, 1): 46}
    assert sum(counts.values()) == len(beats.label)


def test_train_and_test_windows_share_no_sample():
    beats = demo.beats()
    first = np.rint((beats.peak - demo.RECORD_START) * demo.RATE / demo.RECORD_RATE) - demo.BEFORE
    border = demo.TRAIN_MINUTES * 60 * demo.RATE
    assert (np.diff(beats.peak) > 0).all()
    assert first.min() >= 0
    assert (first + demo.STEPS).max() <= 5 * 60 * demo.RATE
    assert (first[beats.in_test] >= border).all()
    assert (first[~beats.in_test] + demo.STEPS <= border).all()


def test_standardise_is_millivolt_less_the_mean_of_the_beat():
    stored = np.array([[200, 400, 600, 400], [-10, -10, -10, -10]], np.int16)
    expected = np.array([[-1, 0, 1, 0], [0, 0, 0, 0]], np.float32)
    assert np.array_equal(demo.standardise(stored)[:, :, 0], expected)


def test_beats_are_the_stored_ones_standardised():
    with np.load(demo.data_path(), allow_pickle=False) as stored:
        assert stored["x"].dtype == np.int16
        assert np.array_equal(demo.beats().x, demo.standardise(stored["x"]))


def test_what_the_package_carries_is_small_and_attributed():
    assert demo.data_path().stat().st_size < 64 * 1024
    assert demo.model_path().stat().st_size < 32 * 1024
    notice = demo.data_path().with_name("NOTICE").read_text(encoding="utf-8")
    for part in ("MIT-BIH", "Moody GB, Mark RG", "Goldberger AL", "PhysioNet", "ODC-By", "PDDL"):
        assert part in notice
