import importlib.util
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from presence import missing

from ifgo import ToolError, UsageError, demo

HOSTILE = '"><script>alert(1)</script><img src=http://example.com/x onerror=alert(1)>'


def need_plotly() -> None:
    if importlib.util.find_spec("plotly") is None:
        missing("plotly", "pip install '.[demo]'")


class Reader(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.scripts, self.styles = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        into = {"script": self.scripts, "style": self.styles}
        into.get(self.tags[-1] if self.tags else "", self.text).append(data)

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")


def inside(seed, hidden_size=16):
    values = np.random.default_rng(seed).uniform(-1, 1, (demo.STEPS, hidden_size))
    return {part: np.abs(values) if part in "ifo" else values for part in demo.TRACED}


def parts(names=("lstm_0", "lstm_1")):
    beats = demo.beats()
    logits = np.where(beats.label == 1, 3.0, -3.0)
    chosen = demo.typical_beats(beats, logits)
    views = [demo.View(i, {name: inside(i) for name in names}) for i in chosen]
    proof = [demo.Proof("C99 against the reference", "439 beats", "EXACT", True)]
    return beats, logits, proof, views


@pytest.fixture(scope="module")
def whole():
    need_plotly()
    return demo.page(*parts())


def test_nothing_is_fetched(whole):
    page = Reader(whole)
    fetching = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href"}
    assert [entry for entry in page.attributes if entry[1] in fetching] == []
    assert not {"link", "iframe", "img", "object", "embed", "base", "form"} & set(page.tags)
    assert page.styles
    assert not any("url(" in style or "@import" in style for style in page.styles)
    own = [script for script in page.scripts if len(script) < 1_000_000]
    assert len(own) == len(page.scripts) - 1  # the other one is plotly.js
    assert not any("fetch(" in script or "XMLHttpRequest" in script for script in own)


def test_the_policy_forbids_requests(whole):
    (policy,) = [value for _, name, value in Reader(whole).attributes if name == "content"][:1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": "'unsafe-inline'",
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
    }


def test_it_says_what_it_shows(whole):
    text = " ".join(" ".join(Reader(whole).text).split())
    for part in (
        "One LSTM, the same numbers wherever it ran",
        "(1 → 16 → 16)",
        "C99 against the reference 439 beats ✓ EXACT",
        "none of the 170 beats lies on the wrong side",
        "LSTM 1.000 1.000 1.000 1.000 0 of 170",
        "linear baseline",
        "Layer lstm_1",
        "MIT-BIH Arrhythmia Database",
    ):
        assert part in text


def test_axes_are_labelled_with_units(whole):
    scripts = " ".join(Reader(whole).scripts)
    for label in ("time from the peak (ms)", "(mV)", "time in the record (minutes:seconds)"):
        assert label in scripts
    assert "log-odds of ventricular" in scripts


def test_the_same_arguments_give_the_same_page(whole):
    assert demo.page(*parts()) == whole


def test_a_failed_comparison_is_the_headline():
    need_plotly()
    beats, logits, proof, views = parts()
    failed = demo.Proof("C99 on a board", "439 beats", "3 bits differ", False)
    text = " ".join(
        " ".join(Reader(demo.page(beats, logits, [*proof, failed], views)).text).split()
    )
    assert "1 of 2 comparisons failed" in text
    assert "✗ failed: 3 bits differ" in text
    assert "the same numbers wherever" not in text


def test_mistakes_are_counted_and_ringed():
    need_plotly()
    beats, logits, proof, views = parts()
    wrong = logits.copy()
    wrong[np.flatnonzero(beats.in_test)[[3, 8]]] *= -1
    page = Reader(demo.page(beats, wrong, proof, views))
    assert "mistakes are ringed: 2 of 170 beats" in " ".join(page.text)
    assert any("circle-open" in script for script in page.scripts if len(script) < 1_000_000)


def test_hostile_text_is_escaped():
    need_plotly()
    beats, logits, _, views = parts((HOSTILE, "</script><b>"))
    proof = [demo.Proof(HOSTILE, HOSTILE, HOSTILE, True)]
    hostile = Reader(demo.page(beats, logits, proof, views))
    harmless = Reader(demo.page(*parts()))
    assert hostile.tags == harmless.tags
    assert hostile.scripts[0] == harmless.scripts[0]
    assert sum(HOSTILE in text for text in hostile.text) == 4
    assert not any("alert(1)" in script for script in hostile.scripts)


def test_a_missing_plotly_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ToolError) as caught:
        demo.page(*parts())
    assert str(caught.value) == (
        "the page is drawn with plotly, which is not installed. Install it: pip install plotly"
    )
    assert caught.value.exit_code == 3


def test_typical_beats_have_the_middle_score():
    beats = demo.beats()
    logits = np.arange(len(beats.label), dtype=np.float64)
    for label, index in enumerate(demo.typical_beats(beats, logits)):
        others = logits[beats.in_test & (beats.label == label)]
        assert beats.in_test[index]
        assert beats.label[index] == label
        assert (others < logits[index]).sum() == len(others) // 2


def replaced(views, **change):
    layers = {name: dict(traced) for name, traced in views[0].layers.items()}
    layers["lstm_0"].update(change)
    return [demo.View(views[0].beat, layers), views[1]]


def test_refusals():
    beats, logits, proof, views = parts()
    first = views[0].beat
    one_layer = demo.View(first, {"lstm_0": inside(0)})
    square = "(128, 16)"
    cases = [
        ((beats, logits[1:], proof, views),
         "logits have shape (438,), expected (439,), one per beat"),
        ((beats, logits * np.inf, proof, views),
         "logits hold NaN or infinity, expected finite numbers"),
        ((beats, logits, [], views),
         "the proof has no rows, expected at least one comparison"),
        ((beats, logits, proof, []),
         "there is no view of a layer, expected at least one beat and one layer"),
        ((beats, logits, proof, [demo.View(439, views[0].layers)]),
         "view of beat 439: no such beat, expected 0 to 438"),
        ((beats, logits, proof, [views[1], one_layer]),
         f"view of beat {first}: shows the layers lstm_0, "
         "expected lstm_0, lstm_1, as the first view"),
        ((beats, logits, proof, replaced(views, c=np.zeros((127, 16)))),
         f"view of beat {first}: layer 'lstm_0' holds arrays i {square}, f {square}, g {square}, "
         f"o {square}, c (127, 16), h {square}, expected i, f, g, o, c, h, each (128, H)"),
    ]  # fmt: skip
    for arguments, message in cases:
        with pytest.raises(UsageError) as caught:
            demo.page(*arguments)
        assert str(caught.value) == message


def test_no_typical_beat_without_test_beats():
    beats = demo.beats()
    train_only = demo.Beats(beats.x, beats.label, beats.peak, np.zeros_like(beats.in_test))
    with pytest.raises(UsageError) as caught:
        demo.typical_beats(train_only, np.zeros(len(beats.label)))
    assert str(caught.value) == "no normal beat among the test beats, expected at least one"
