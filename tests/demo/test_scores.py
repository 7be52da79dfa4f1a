import numpy as np
import pytest

from ifgo import UsageError, demo


def test_counts_by_hand():
    # called ventricular: 0.5 (right), 2 (right), 1 (wrong); missed: -1.
    found = demo.score([0.5, 2.0, 1.0, -1.0, -3.0], [1, 1, 0, 1, 0])
    assert found.beats == 5
    assert found.mistakes == 2
    assert found.accuracy == 3 / 5
    assert found.recall == 2 / 3
    assert found.precision == 2 / 3
    assert found.auc == 4 / 6  # of the pairs only (0.5, 1) and (-1, 1) are in the wrong order


def test_ties_count_half_and_zero_is_not_ventricular():
    found = demo.score([0.0, 0.0], [1, 0])
    assert found.auc == 0.5
    assert found.recall == 0
    assert np.isnan(found.precision)


def test_text():
    assert str(demo.score([1.0, -1.0, 1.0], [1, 0, 0])) == (
        "accuracy 0.6667, ventricular recall 1.0000, precision 0.5000, AUC 0.7500, "
        "1 of 3 beats wrong"
    )


@pytest.mark.parametrize(
    ("values", "label", "message"),
    [
        (
            [1.0, 2.0],
            [0, 1, 1],
            "values have shape (2,), labels (3,), expected one value per beat, (N,) and (N,)",
        ),
        ([1.0, np.nan], [0, 1], "values hold NaN or infinity, expected finite scores"),
        ([1.0, 2.0], [0, 0], "0 ventricular and 2 normal beats, expected some of each"),
    ],
)
def test_refusals(values, label, message):
    with pytest.raises(UsageError) as caught:
        demo.score(values, label)
    assert str(caught.value) == message


def test_linear_baseline_separates_the_rule_labels():
    beats = demo.beats()
    scores = demo.linear_baseline(beats)
    assert scores.shape == beats.label.shape
    found = demo.score(scores[beats.in_test], beats.label[beats.in_test])
    assert found.accuracy >= 0.97
    assert found.recall >= 0.9


def test_linear_baseline_sees_no_test_label():
    beats = demo.beats()
    flipped = np.where(beats.in_test, 1 - beats.label, beats.label).astype(np.int8)
    other = demo.Beats(beats.x, flipped, beats.peak, beats.in_test)
    assert np.array_equal(demo.linear_baseline(beats), demo.linear_baseline(other))
