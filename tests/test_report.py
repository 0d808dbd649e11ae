"""The report is read as a browser would read it: tags, texts, drawings, pictures."""

import base64
import math
import re
import xml.etree.ElementTree as ElementTree
from html import escape
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from metrics.plots import over_time, percentiles, ticks
from metrics.report import Picture, write_report
from metrics.summary import against_floor

VOID = {"meta", "img", "br"}
TITLES = {"cc": "CC", "kld": "KLD", "nss": "NSS"}
HOSTILE = "<script>alert('&\"')</script>"


class Page(HTMLParser):
    """Tags must close in order; rows of the table, texts by tag, pictures."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.texts, self.images = [], [], {}, []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append([])
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        for tag in self.open:
            self.texts[tag][-1] += text
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1].append(text)


def score(mean, half=0.01, clips=24):
    return {"mean": mean, "low": mean - half, "high": mean + half, "clips": clips}


def evaluation(cc, half=0.01, clips=("217", "218", "219")):
    """The model with this CC and KLD 2 − CC, and floors of CC 0.3 at the most."""
    flat = dict.fromkeys(("mean", "low", "high"), 0.0) | {"clips": 24}
    values = {"cube_unet": cc, "equator prior": 0.3, "training mean": 0.2, "human": 0.7}
    predictors = {p: {"cc": score(v, half), "kld": score(2 - v, half)} for p, v in values.items()}
    predictors["uniform"] = {"cc": flat, "kld": {"mean": math.nan, "low": None, "high": None}}
    by_clip = {p: {"cc": v, "kld": 2 - v} for p, v in values.items()}
    gains = {"cc": score(cc - 0.3, half), "kld": score(0.3 - cc, half)}
    against = {
        k: {"floor": "equator prior", "difference": g.pop("mean")} | g for k, g in gains.items()
    }
    return {
        **{"data": "ECCV 2018", "split": "test", "protocol": "sphere", "model": "cube_unet"},
        **{"checkpoint": "best.pth", "sha256": "9f86d0", "command": "python evaluate_video.py"},
        **{"frames": 1234, "notes": ["3 × no ground truth (first: 0042 of clip 217)"]},
        "metrics": {k: {"title": t, "higher_is_better": k != "kld"} for k, t in TITLES.items()},
        "predictors": predictors,
        "against_floor": against,
        "clips": {clip: {"frames": 300, "scores": by_clip} for clip in clips},
    }


def curves(clips=("217", "218", "219"), n=30, predictors=("cube_unet", "equator prior", "human")):
    """Every predictor's score is frame / 100, with a gap and a lone value in it."""
    numbers = list(range(1, n + 1))
    values = [math.nan if i in (9, 10, 12) else i / 100 for i in numbers]
    scores = {p: {"cc": values, "kld": values} for p in predictors}
    return {clip: {"numbers": numbers, "scores": scores} for clip in clips}


@pytest.fixture
def report(tmp_path):
    def write(results, series=None, pictures=()):
        write_report(tmp_path / "report.html", results, series or {}, list(pictures))
        assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


def drawings(text):
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.S)]


def verdicts(text):
    """{metric: sentence}."""
    items = (item for item in Page(text).texts["li"] if ": " in item and item[0] in "✓≈✗–")
    return {item[1:].split(": ", 1)[0]: item.split(": ", 1)[1] for item in items}


def test_table(report):
    text = report(evaluation(0.41))
    rows = {row[0][0]: row[1:] for row in Page(text).rows}
    assert rows["predictor"] == [["CC ↑"], ["KLD ↓"], ["NSS ↑"]]
    clips = "24 clips"  # other than the three that the page is about, so it is said
    assert rows["cube_unet"][0] == ["0.410", "0.400 to 0.420", clips]
    assert rows["human"][1] == ["1.300", "1.290 to 1.310", clips]
    assert rows["uniform"][1:] == [["–"], ["–"]]
    assert re.findall("<b>([−0-9.]+)</b>", text) == ["0.410", "1.590"]  # and not those of human
    assert "nan" not in text.lower() and "None" not in text


def test_minus_sign_and_the_number_of_clips(report):
    results = evaluation(-0.05)
    results["predictors"]["cube_unet"]["cc"]["clips"] = 3
    row = next(row for row in Page(report(results)).rows if row[0][0] == "cube_unet")
    assert row[1] == ["−0.050", "−0.060 to −0.040"]


@pytest.mark.parametrize(
    ("cc", "half", "mark", "claim", "wins"),
    [
        (0.41, 0.02, "✓", "beats the best floor, equator prior, by 0.110 (0.090 to 0.130)", 3),
        (0.32, 0.03, "≈", "is ahead of the best floor, equator prior, by 0.020 "
            "(−0.010 to 0.050), which may be chance", 3),
        (0.28, 0.03, "✗", "is behind the best floor, equator prior, by 0.020 "
            "(−0.010 to 0.050), which may be chance", 0),
        (0.25, 0.02, "✗", "is behind the best floor, equator prior, by 0.050 (0.030 to 0.070)", 0),
        (0.3001, 0.02, "✗", "scores the same as the best floor, equator prior "
            "(−0.020 to 0.020)", 3),
    ],
)  # fmt: skip
def test_verdict(report, cc, half, mark, claim, wins):
    text = report(evaluation(cc, half))
    assert verdicts(text)["CC"] == f"cube_unet {claim}. Better on {wins} of 3 clips."
    marks = {item[1:].split(":")[0]: item[0] for item in Page(text).texts["li"]}
    assert marks["CC"] == marks["KLD"] == mark
    assert verdicts(text)["NSS"] == "not scored."
    assert f"floor on {2 if mark == '✓' else 0} of 2 metrics" in text


def test_lower_kld_is_better(report):
    sentence = verdicts(report(evaluation(0.41)))["KLD"]
    assert "beats the best floor, equator prior, by 0.110 (0.100 to 0.120)" in sentence
    assert "Better on 3 of 3" in sentence


def test_one_clip_gives_no_certainty(report):
    """A bootstrap over one clip has no width, which is not the same as being certain."""
    results = evaluation(0.41, half=0.0, clips=("217",))
    for scores in results["predictors"].values():
        scores["cc"]["clips"] = 1
    results["against_floor"]["cc"] |= {"low": None, "high": None, "clips": 1}
    text = report(results, curves(("217",)))
    assert verdicts(text)["CC"] == (
        "cube_unet is ahead of the best floor, equator prior, by 0.110; one clip tells nothing "
        "of others."
    )
    assert next(r for r in Page(text).rows if r[0][0] == "cube_unet")[1] == ["0.410"]


def test_without_floors(report):
    results = evaluation(0.41)
    results["predictors"] = {"cube_unet": results["predictors"]["cube_unet"]}
    results["against_floor"] = {}
    text = report(results, curves(predictors=("cube_unet",)))
    assert verdicts(text)["CC"] == "no floor to compare it with."
    assert "floor on 0 of 0 metrics" in text


def test_a_floor_under_test_is_not_compared_with_itself(report):
    results = evaluation(0.41)
    prior = results["predictors"].pop("equator prior")
    results["predictors"] = {"equator prior": prior, **results["predictors"]}
    results["against_floor"] = against_floor(results)
    assert (
        "equator prior is ahead of the best floor, training mean" in verdicts(report(results))["CC"]
    )


def test_maps_without_a_checkpoint(report):
    results = evaluation(0.41)
    del results["checkpoint"], results["sha256"]
    facts = Page(report(results | {"maps": "our maps", "grid": [240, 480]})).texts
    assert facts["dt"] == ["data", "split", "protocol", "model", "maps", "command"]
    assert "our maps" in facts["dd"]


def test_nothing_scored(report):
    results = evaluation(0.41)
    results |= {"predictors": {"cube_unet": {}, "uniform": {}}, "clips": {}, "notes": []}
    text = report(results, {"217": {"numbers": [], "scores": {}}})
    assert verdicts(text) == dict.fromkeys(TITLES.values(), "not scored.")
    assert drawings(text) == []


def test_hostile_names(report):
    results = evaluation(0.41, clips=(HOSTILE, "b" * 300, "\udcff.mp4"))
    results |= {"model": HOSTILE, "command": HOSTILE, "notes": [HOSTILE], "data": HOSTILE}
    predictors = results["predictors"]
    results["predictors"] = {HOSTILE: predictors.pop("cube_unet"), **predictors}
    for clip in results["clips"].values():
        clip["scores"] = {HOSTILE: clip["scores"]["cube_unet"]}
    image = np.zeros((4, 8, 3), np.uint8)
    picture = Picture(HOSTILE, image, image[..., 0], image[..., 0])
    text = report(results, curves((HOSTILE,), predictors=(HOSTILE,)), [picture])
    page = Page(text)
    assert "script" not in page.texts and escape(HOSTILE) in text
    assert page.texts["h1"] == [f"{HOSTILE} on {HOSTILE}, test"]
    assert HOSTILE in page.texts["li"] and HOSTILE in page.texts["dd"]
    assert page.images[0]["alt"] == f"frame, {HOSTILE}"
    assert len(drawings(text)) > 4


def test_needs_no_other_file(report):
    image = np.zeros((4, 8, 3), np.uint8)
    picture = Picture("clip 217", image, image[..., 0], image[..., 0])
    text = report(evaluation(0.41), curves(), [picture])
    assert not re.search(r"http|<link|<script|@import|url\(", text)
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in Page(text).images)


def test_drawings(report):
    clips = tuple("abcd")
    figures = [s for s in drawings(report(evaluation(0.41), curves(clips))) if s.get("role")]
    titles = [svg.find("title").text for svg in figures]
    assert titles == ["CC over time", "KLD over time", "CC by clip", "KLD by clip"]
    styles = [path.get("class") for path in figures[0].iter("path") if path.get("class")]
    assert styles == ["c0", "c1", "c2", "c3", "floor", "human"]
    five = next(s for s in drawings(report(evaluation(0.41), curves((*clips, "e")))))
    styles = [path.get("class") for path in five.iter("path") if path.get("class")]
    assert styles == ["band", "c0", "floor", "human"]


def test_line_over_time(report):
    """Scores 0.01 to 0.30 on an axis from 0 to 0.3, y 190 to 8; frames 1 to 30, x 46 to 470."""
    svg = drawings(report(evaluation(0.41), curves()))[0]
    d = next(path.get("d") for path in svg.iter("path") if path.get("class") == "c0")
    points = [tuple(map(float, p.split())) for p in re.findall(r"[ML]([0-9.]+ [0-9.]+)", d)]
    numbers = [i for i in range(1, 31) if i not in (9, 10, 12)]
    expected = [(46 + (i - 1) / 29 * 424, 190 - i / 30 * 182) for i in numbers]
    np.testing.assert_allclose(points, expected, atol=0.051)
    breaks = [i for i, letter in zip(numbers, re.findall("[ML]", d)) if letter == "M"]
    assert breaks == [1, 11, 13]


def test_percentiles_over_clips():
    """Scores of 0 … 10 in the first frame, of 0 … 5 and 0 … 4 in the next ones of 11 clips."""
    clips = {str(i): np.array([i, *(i if i < n else np.nan for n in (6, 5))]) for i in range(11)}
    expected = [[1, 0.5, np.nan], [5, 2.5, np.nan], [9, 4.5, np.nan]]
    np.testing.assert_allclose(percentiles(clips, 10, 50, 90), expected)


def test_long_series_become_means():
    """1000 frames in 200 stretches of 5: the means of 1 … 5, 6 … 10, … are 3, 8, …"""
    numbers = list(range(1, 1001))
    x, clips = over_time({"a": {"numbers": numbers, "scores": {"m": {"cc": numbers}}}}, "m", "cc")
    np.testing.assert_allclose(x, np.arange(3, 1000, 5))
    np.testing.assert_allclose(clips["a"], x)


def test_clips_of_other_frame_rates_have_no_gaps():
    series = {}
    for step in (1, 3, 4):
        numbers = list(range(1, 61, step))
        series[str(step)] = {"numbers": numbers, "scores": {"m": {"cc": [0.5] * len(numbers)}}}
    for curve in over_time(series, "m", "cc")[1].values():
        there = np.flatnonzero(np.isfinite(curve))
        assert len(there) >= 14 and (np.diff(there) == 1).all()


def test_every_third_frame_stays_what_it_is():
    numbers = list(range(1, 61, 3))
    series = {"a": {"numbers": numbers, "scores": {"m": {"cc": numbers}}}}
    np.testing.assert_array_equal(over_time(series, "m", "cc")[1]["a"], numbers)


def test_clip_of_one_frame(report):
    text = report(evaluation(0.41), curves(("217",), n=1))
    plot = drawings(text)[0]
    assert [p.get("d") for p in plot.iter("path") if p.get("class") == "c0"] == ["M46.0 190.0h0"]


def test_ticks():
    assert ticks(0, 1, 5, 0.01) == {0: "0.0", 0.5: "0.5", 1: "1.0"}
    assert list(ticks(-0.13, 0.12, 6, 0.01).values())[:3] == ["−0.15", "−0.10", "−0.05"]
    assert list(ticks(3, 3, 5, 0.01).values()) == ["3.00", "3.01"]
    assert list(ticks(1, 2950, 7, 1).values())[:3] == ["0", "500", "1000"]
    assert list(ticks(4, 5, 7, 1).values()) == ["4", "5"]


def test_worst_clips_come_first(report):
    results = evaluation(0.41, clips=("a", "b", "c", "d"))
    model = [(0.5, 0.4), (0.2, 0.9), (0.6, 0.1), (None, math.nan)]
    for clip, (cc, kld) in zip(results["clips"].values(), model):
        floor = {"cc": 0.3, "kld": 0.5}
        clip["scores"] = {"cube_unet": {"cc": cc, "kld": kld}, "equator prior": floor}
    cc, kld = drawings(report(results))
    rows = [[t.text for t in g.iter("text")] for g in cc.iter("g")]
    assert rows == [["b", "0.200"], ["a", "0.500"], ["c", "0.600"]]
    assert [dot.get("class") for dot in cc.iter("circle")] == ["c1", "c0", "c0"]
    assert [g.find("title").text[0] for g in kld.iter("g")] == ["b", "a", "c"]
    assert "Better on 2 of 3 clips" in verdicts(report(results))["CC"]


def test_pictures(report):
    """A red frame, a fixation at longitude 90°, latitude 45°: column 360 of 480, row 60 of 240."""
    frame = np.zeros((90, 160, 3), np.uint8) + np.array([200, 0, 0], np.uint8)
    truth = np.zeros((128, 256))
    truth[32:64, 64:128] = 7.0
    fixations = np.array([[math.pi / 2, math.pi / 4]])
    picture = Picture("best", frame, truth, -truth[:60, :120], fixations)
    sources = [image["src"] for image in Page(report(evaluation(0.4), {}, [picture])).images]
    images = [np.frombuffer(base64.b64decode(s.partition(",")[2]), np.uint8) for s in sources]
    frame, truth, prediction = (cv2.imdecode(i, cv2.IMREAD_COLOR)[..., ::-1] for i in images)
    assert frame.shape == truth.shape == prediction.shape == (240, 480, 3)
    assert np.abs(frame[200, 100].astype(int) - (200, 0, 0)).max() < 10
    assert frame[59:61, 359:361].min() > 200 and frame[60, 350:370, 1].mean() < 200
    assert truth[90, 180].min() > 100 and truth[:40].max() < 20
    assert prediction.max() < 20


def test_many_clips_and_frames_stay_small(report):
    clips = tuple(f"clip {i}" for i in range(200))
    text = report(evaluation(0.41, clips=clips), curves(clips, 2000))
    assert len(text) < 1_000_000
