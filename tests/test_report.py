"""The report on made-up scores: what it holds, and names and scores that could break it."""

import base64
import io
import math
import re
import warnings
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from evaluation import report as evaluation_report
from evaluation.plots import Picture, over_time
from evaluation.report import write_report
from evaluation.summary import differences, over_clips

HOSTILE = "<script>alert('&\"')</script>"
METRICS = {"cc": "CC", "kld": "KLD"}


class Page(HTMLParser):
    """Texts by tag and the addresses of pictures; tags must close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.images = [], {}, []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes)["src"])
        elif tag not in ("meta", "br"):
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        for tag in self.open:
            self.texts[tag][-1] += text


def evaluation(clips, model="cube_unet"):
    """CC of 0.4 to 0.5 and KLD 2 − CC for the model, 0.1 less CC for the baseline."""
    values = {clip: 0.4 + 0.1 * k / len(clips) for k, clip in enumerate(clips)}
    by_clip = {
        clip: {
            name: {"cc": cc, "kld": 2 - cc}
            for name, cc in ((model, v), ("equator prior", v - 0.1), ("inter-observer", 0.7))
        }
        for clip, v in values.items()
    }
    predictors = {
        name: {m: over_clips([by_clip[clip][name][m] for clip in clips]) for m in METRICS}
        for name in (model, "equator prior", "inter-observer")
    }
    content = {
        **{"data": "ECCV 2018", "split": "test", "protocol": "sphere", "model": model},
        **{"checkpoint": "best.pth", "sha256": "9f86d0", "command": "python evaluate_video.py"},
        **{"frames": 1234, "notes": ["3 × no ground truth (first: 0042 of clip 217)"]},
        "metrics": {k: {"title": t, "higher_is_better": k != "kld"} for k, t in METRICS.items()},
        "predictors": predictors,
        "clips": {clip: {"frames": 300, "scores": by_clip[clip]} for clip in clips},
        "models": {model: {"checkpoint": "best.pth", "sha256": "9f86d0"}},
    }
    return content | {"differences": differences(content)}


def curves(clips, n=30, model="cube_unet"):
    """Scores of frame / 100, with a gap and a lone value; human scores in every fifth frame."""
    values = {i: math.nan if i in (9, 10, 12) else i / 100 for i in range(1, n + 1)}
    scores = {p: {"cc": values, "kld": values} for p in (model, "equator prior")}
    human = dict.fromkeys(range(1, n + 1, 5), 0.5)
    return {clip: scores | {"inter-observer": {"cc": human, "kld": human}} for clip in clips}


def picture(title="clip 217"):
    image = np.random.default_rng(0).integers(0, 255, (24, 48, 3), np.uint8)
    maps = {HOSTILE: image[..., 1], "b": 0 * image[..., 0]}
    return Picture(title, image, image[..., 0], maps, np.array([[1.5, 0.7]]))


@pytest.fixture
def report(tmp_path):
    def write(results, series, pictures=()):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "Glyph")  # letters that the font does not have
            write_report(tmp_path / "report.html", results, series, list(pictures))
        assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


@pytest.mark.parametrize("count", [1, 24, pytest.param(300, marks=pytest.mark.slow)])
def test_a_report_needs_no_other_file(report, count):
    clips = [f"clip {i}" for i in range(count)]
    text = report(evaluation(clips), curves(clips), [picture(), picture()])
    page = Page(text)
    words = re.sub('base64,[^"]*', "", text)
    assert not re.search(r"http|<link|<script|@import|url\(", words)
    assert len(page.images) == 2 + 2 + 2
    assert all(source.startswith("data:image/png;base64,") for source in page.images)
    assert page.texts["h1"] == ["cube_unet on ECCV 2018, split test"]
    assert page.texts["li"][-1].startswith("3 × no ground truth")
    assert "best.pth, 9f86d0" in page.texts["dd"] and "0.700" in text
    assert text.index("<table>") < text.index("<ul>")
    [verdict] = page.texts["pre"]
    assert verdict.startswith("CC ↑  cube_unet − equator prior: +")
    assert ("*" in verdict.splitlines()[0]) == (count > 5)  # by chance, all of five may agree
    assert page.texts["small"].count("inter-observer") == 1
    assert "nan" not in words.lower()


def test_hostile_names(report):
    """Markup, formulas, letters that the font lacks."""
    clips = [HOSTILE, "$\\frac{$", "日本語" * 50, "\n"]
    results = evaluation(clips, HOSTILE) | {"command": HOSTILE, "notes": [HOSTILE]}
    text = report(results | {"data": HOSTILE}, curves(clips, model=HOSTILE), [picture(HOSTILE)])
    page = Page(text)
    assert "script" not in page.texts and escape(HOSTILE) in text
    assert page.texts["h1"] == [f"{HOSTILE} on {HOSTILE}, split test"]
    assert HOSTILE in page.texts["li"] and HOSTILE in page.texts["dd"]


def test_all_models_are_in_every_plot_and_compared(report, monkeypatch):
    clips = [f"clip {k}" for k in range(8)]
    results, series = evaluation(clips, "first"), curves(clips, model="first")
    scores = [content["scores"] for content in results["clips"].values()]
    for predictors in [results["predictors"], *scores, *series.values()]:
        predictors["second"] = predictors["first"]
    for clip in scores:
        clip["second"] = {"cc": clip["first"]["cc"] - 0.05, "kld": clip["first"]["kld"] + 0.05}
    results["models"]["second"] = {"maps": "folder"}
    results["differences"] = differences(results)
    drawn = []
    for name in ("time_plot", "clip_plot", "picture_plot"):
        plot = getattr(evaluation_report, name)
        draw = lambda *given, plot=plot: drawn.append(plot(*given)) or drawn[-1]  # noqa: E731
        monkeypatch.setattr(evaluation_report, name, draw)
    page = Page(report(results, series, [picture()]))
    assert page.texts["h1"] == ["first, second on ECCV 2018, split test"]
    matrix = page.texts["pre"][0].splitlines()
    assert matrix[0].split("− ")[2:] == ["first  ", "second"]
    assert matrix[1].startswith("first ") and matrix[1].endswith("+0.050*")
    assert matrix[2].startswith("second ") and "−0.050*" in matrix[2]
    for figure in drawn[:4]:
        assert {"first", "second"} <= {text.get_text() for text in figure.legends[0].get_texts()}
    assert len(drawn) == 5 and len(drawn[-1].axes) == 4


def test_legends_were_cut(report, monkeypatch):
    """Names were shortened to 20 characters, and three in a row were wider than the plot."""
    name = "W" * 60
    results, drawn = evaluation(["a", "b"], name), []
    plot = evaluation_report.clip_plot
    draw = lambda *given: drawn.append(plot(*given)) or drawn[-1]  # noqa: E731
    monkeypatch.setattr(evaluation_report, "clip_plot", draw)
    page = Page(report(results, curves(["a", "b"], model=name)))
    width = drawn[0].legends[0].get_window_extent().width / drawn[0].dpi  # inches
    assert name in {text.get_text() for text in drawn[0].legends[0].get_texts()}
    content = base64.b64decode(page.images[2].partition(",")[2])
    assert Image.open(io.BytesIO(content)).width >= 120 * width > 120 * 5.6


def test_a_report_without_baselines_and_observers(report):
    results = evaluation(["a", "b"])
    for clip in results["clips"].values():
        clip["scores"] = {"cube_unet": clip["scores"]["cube_unet"]}
    results["predictors"] = {"cube_unet": results["predictors"]["cube_unet"]}
    results["differences"] = differences(results)
    series = curves(["a", "b"])
    series = {clip: {"cube_unet": scores["cube_unet"]} for clip, scores in series.items()}
    page = Page(report(results, series))
    assert not any("baseline" in line for line in page.texts.get("li", []))
    assert "inter-observer" not in page.texts["th"]
    assert len(page.images) == 4


def test_a_frame_without_a_score_is_nan():
    """Clip b has no frame 2 and no score in frame 3."""
    curves = {"a": {1: 0.5, 2: 0.5, 3: 0.5}, "b": {1: 0.5, 3: math.nan}}
    series = {clip: {"m": {"cc": curve}} for clip, curve in curves.items()}
    x, means = over_time(series, "m", "cc")
    np.testing.assert_allclose(x, [1, 2, 3])
    np.testing.assert_array_equal(means, [[0.5] * 3, [0.5, math.nan, math.nan]])
    assert np.isnan(over_time(series, None, "cc")[1]).all()
