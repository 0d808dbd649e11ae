"""Numbers in README.md, the model card and docs are those that their commands print today.

A published number is not repeated here: each test reads it in the document, runs the command that
stands beside it and compares. `make numbers` runs all of these tests; those that take more than 15
seconds on two cores are marked, and `make test` leaves them out.

Not tested: scores of networks that are not shipped.
"""

import hashlib
import re
import shlex
from collections.abc import Callable
from functools import cache, partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
import torch

import evaluate_video
import infer_video
import models
import train_video
from benchmarks import ablation, equator_prior, follow, near_people, real_gaze
from prepare import synthetic
from recipes import gaze_scenes, score_flat_clips, score_flat_photos
from recipes import people as find_people
from tests.commands import ROOT, ended, success
from tests.shared import shared
from video import read_frames

README, CARD = "README.md", "checkpoints/README.md"
SPEED, TRAINING, FOLLOW = "docs/speed.md", "docs/training.md", "docs/follow.md"
CHECKPOINT = ROOT / "checkpoints/cube_unet_best.pth"
NUMBER = re.compile(r"(?<!\d)[−-]?\d\.\d{3}(?!\d)")
TOLERANCE = 0.0015  # both are rounded to three digits, and processors differ a little
RATIO = re.compile(r"(\d\.\d\d) of the best constant map's")

Rows = dict[str, list[float]]


def numbers_in(text: str) -> list[float]:
    return [float(number.replace("−", "-")) for number in NUMBER.findall(text)]


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def published(document: str, *phrases: str, count: int) -> list[float]:
    """Return the next numbers in a document after phrases that follow each other."""
    text = text_of(document)
    for phrase in phrases:
        assert phrase in text, f"{document} no longer says {phrase!r}, whose numbers are tested"
        text = text.partition(phrase)[2]
    return numbers_in(text)[:count]


def printed(main: Callable, *words) -> Rows:
    """Return the numbers that a command prints, by what stands before them in their line.

    Lines without a label go on with the one before: below means are their intervals.
    """
    text = success(ended(main, *words))
    rows, label = {}, ""
    for line in text.splitlines():
        if number := NUMBER.search(line):
            label = line[: number.start()].strip(" |") or label
            rows.setdefault(label, []).extend(numbers_in(line))
    return rows


def compare(name: str, documented: list[float], measured: list[float], within=TOLERANCE) -> None:
    """Check numbers, and print both side by side: `make numbers` shows that of each test."""
    columns = (" ".join(f"{number:.3f}" for number in row) for row in (documented, measured))
    print("{}: documented {}; measured {}".format(name, *columns))
    assert documented == pytest.approx(measured, abs=within)


@cache
def panoramas(name: str, *checkpoints: Path, latitude: float = 75, more: tuple = ()) -> Rows:
    path = shared(f"data/gaze360/{name}.npz")
    with TemporaryDirectory() as folder:
        (Path(folder) / path.name).symlink_to(path)
        words = folder, "--ckpt_path", *checkpoints, "--latitude", latitude, *more
        return printed(real_gaze.main, *words)


def authors(name: str) -> Rows:
    return panoramas(name, shared("official/SST_Sal.pth"), shared("official/SST_Sal_wo_OF.pth"))


@cache
def opensal() -> Rows:
    path = shared("data/gaze360/opensal360_validation_gt_3videos.npz")
    return printed(equator_prior.main, path)


@cache
def photographs() -> Rows:
    folder = shared("data/osie")
    with mock.patch.object(score_flat_photos, "WIDTHS", (256, 320)):  # 384 takes half of the time
        return printed(score_flat_photos.main, folder, "--ckpt_path", CHECKPOINT)


@cache
def clips() -> Rows:
    sources = shared("data/hevc33_video").parent
    # Published in bfloat16; in float32 the CC of single clips changes by up to 0.007.
    with mock.patch.object(score_flat_clips, "choose_precision", lambda *_: torch.bfloat16):
        return printed(score_flat_clips.main, sources, "--ckpt_path", CHECKPOINT)


def make_scenes(data, *options) -> None:
    sources, people = shared("data/hevc33_video").parent, f"{data}_people.json"
    detector = shared("teachers/detectors/fastestdet.onnx")
    finding = "--sources", sources, "--detector", detector, "--output", people
    success(ended(find_people.main, *finding))
    making = "--sources", sources, "--people", people, "--output", data, *options
    success(ended(gaze_scenes.main, *making))


@cache
def scenes(seed: int, *training: Path) -> Rows:
    """Return the scores on 50 scenes of test photographs and clips. training: training scenes."""
    with TemporaryDirectory() as folder:
        data, split = f"{folder}/test", ("--split", "test")
        make_scenes(data, *split, "--clips", 50, "--seed", seed)
        scoring = "--ckpt_path", CHECKPOINT, "--data_root", data, *split
        # Published in bfloat16; in float32 the NSS changes by 0.002.
        more = "--precision", "bf16", "--output_dir", f"{folder}/scores"
        baseline = ("--train_root", *training) if training else ()
        return printed(evaluate_video.main, *scoring, *more, *baseline)


oiqa = partial(panoramas, "oiqa_10panoramas", CHECKPOINT)
avtrack = partial(panoramas, "avtrack360_20stills", CHECKPOINT)
wild = partial(panoramas, "wild360_16frames", CHECKPOINT, latitude=90)
FAST = "--quality", "fast"
oiqa_fast = partial(panoramas, "oiqa_10panoramas", CHECKPOINT, more=FAST)
avtrack_fast = partial(panoramas, "avtrack360_20stills", CHECKPOINT, more=FAST)
oiqa_authors = partial(authors, "oiqa_10panoramas")
avtrack_authors = partial(authors, "avtrack360_20stills")

# Columns of printed rows: the means, and for panoramas and scenes the ends of their intervals.
CC, _, KLD, NSS, AUC, _, CC_LOW, CC_HIGH = range(8)
README_COLUMNS, CARD_COLUMNS = (CC, KLD, NSS), (CC, KLD, NSS, AUC)
SCENE_COLUMNS = CC, NSS, KLD, AUC
WITH_INTERVAL = CC, CC_LOW, CC_HIGH, KLD, NSS, AUC
WITHOUT_FIXATIONS, CC_LOW_ALONE, CC_HIGH_ALONE = (CC, KLD), 3, 4  # of three columns
CLIPS = range(2)  # CC and NSS

NET, PRIOR, GAUSSIAN = "cube_unet_best", "equator prior", "Gaussian of 18° in latitude"
LESS = f"{NET} fast"
FLOW, STILL = "SST_Sal", "SST_Sal_wo_OF"
SMOOTHED, MIDDLE = "with motion, smoothed", "Gaussian in the middle"
MEAN_MAP, SHOWN = "mean map of 550 photographs: CC", "{} pixels wide, model × mean map^{}: CC"
SHOWN_320, SHOWN_256 = SHOWN.format(320, 0.5), SHOWN.format(256, 0.5)
ALONE_320, ALONE_256 = SHOWN.format(320, 0), SHOWN.format(256, 0)

# Phrases of a document, and rows and columns of commands with the numbers that follow them there.
QUICK = [
    (README, ["(OIQA)"], [(oiqa, NET, README_COLUMNS), (oiqa, PRIOR, README_COLUMNS)]),
    (README, ["(OSIE)"], [(photographs, SHOWN_320, [CC]), (photographs, MEAN_MAP, [CC])]),
    (README, ["(OpenSAL360)"],
     [(opensal, PRIOR, README_COLUMNS), (opensal, GAUSSIAN, README_COLUMNS)]),
    (CARD, ["score_flat_photos OSIE_FOLDER"],
     [(photographs, row, [CC]) for row in (SHOWN_320, SHOWN_256, ALONE_320, ALONE_256, MEAN_MAP)]),
]  # fmt: skip
SLOW = [
    (README, ["(Wild360)"],
     [(wild, NET, WITHOUT_FIXATIONS), (wild, PRIOR, [CC]), (wild, "uniform", [KLD])]),
    (CARD, ["**Sports.**"],
     [(wild, NET, (CC, CC_LOW_ALONE, CC_HIGH_ALONE, KLD)), (wild, PRIOR, WITHOUT_FIXATIONS),
      (wild, "uniform", [KLD])]),
    (SPEED, ["--quality fast"], [(oiqa_fast, LESS, (CC, NSS)), (avtrack_fast, LESS, (CC, NSS))]),
    (README, ["(AVTrack360)"], [(avtrack, NET, README_COLUMNS), (avtrack, PRIOR, README_COLUMNS)]),
    (README, ["(observers:"], [(avtrack, "inter-observer", [CC])]),
    (CARD, ["| this checkpoint"], [(oiqa, NET, WITH_INTERVAL), (avtrack, NET, WITH_INTERVAL)]),
    (CARD, ["| equator prior"], [(oiqa, PRIOR, WITH_INTERVAL), (avtrack, PRIOR, WITH_INTERVAL)]),
    (CARD, ["| uniform"], [(oiqa, "uniform", CARD_COLUMNS), (avtrack, "uniform", CARD_COLUMNS)]),
    (CARD, ["| observers among"], [(avtrack, "inter-observer", CARD_COLUMNS)]),
    (README, ["(OIQA)", "weights with flow"], [(oiqa_authors, FLOW, README_COLUMNS)]),
    (README, ["(OIQA)", "weights without flow"], [(oiqa_authors, STILL, README_COLUMNS)]),
    (CARD, ["weights with flow"],
     [(oiqa_authors, FLOW, CARD_COLUMNS), (avtrack_authors, FLOW, CARD_COLUMNS)]),
    (CARD, ["weights without flow"],
     [(oiqa_authors, STILL, CARD_COLUMNS), (avtrack_authors, STILL, CARD_COLUMNS)]),
    (README, ["(frames alone:"],
     [(clips, "frames alone", [0]), (clips, SMOOTHED, CLIPS), (clips, MIDDLE, CLIPS)]),
    (CARD, ["| frames alone"], [(clips, "frames alone", CLIPS)]),
    (CARD, ["| with the motion channel"], [(clips, "with motion", CLIPS)]),
    (CARD, ["| smoothed over 0.4 s"], [(clips, SMOOTHED, CLIPS)]),
    (CARD, ["| a Gaussian in the middle"], [(clips, MIDDLE, CLIPS)]),
]  # fmt: skip


def named(cases: list, *marks) -> list:
    """Return the cases with names for pytest."""
    return [pytest.param(*case, id=" ".join([case[0], *case[1]]), marks=marks) for case in cases]


CASES = named(QUICK) + named(SLOW, pytest.mark.numbers)


@pytest.mark.slow
@pytest.mark.parametrize("document, phrases, places", CASES)
def test_published(document, phrases, places):
    found = [rows_of()[row][column] for rows_of, row, columns in places for column in columns]
    shown = published(document, *phrases, count=len(found))
    compare(f"{document} {' '.join(phrases)}", shown, found)


def test_size_and_hash_of_the_checkpoint():
    size, digest = re.search(r"size, SHA-256 \| ([\d,]+) bytes, `(\w+)`", text_of(CARD)).groups()
    content = CHECKPOINT.read_bytes()
    assert int(size.replace(",", "")) == len(content)
    assert digest == hashlib.sha256(content).hexdigest()


@pytest.mark.numbers
@pytest.mark.parametrize("seed", range(5))
def test_scenes_of_a_seed(seed):
    found = [scenes(seed)["cube_unet"][column] for column in SCENE_COLUMNS]
    row = published(CARD, "recipes.gaze_scenes", f"\n| {seed} |", count=4)
    compare(f"scenes of seed {seed}", row, found)


@pytest.mark.numbers
def test_mean_of_the_seeds_of_scenes():
    columns = list(zip(*(scenes(seed)["cube_unet"] for seed in range(5))))
    found = [sum(columns[column]) / 5 for column in README_COLUMNS]
    compare("250 scenes", published(README, "250 scenes of unseen", count=3), found)


@pytest.mark.numbers
def test_best_baseline_of_the_scenes(tmp_path):
    """The training scenes take minutes to make."""
    make_scenes(tmp_path / "train", "--seed", 303)
    columns = list(zip(*(scenes(seed, tmp_path / "train")["training mean"] for seed in range(5))))
    means = [sum(column) / 5 for column in columns]
    row = published(CARD, "recipes.gaze_scenes", "of the training maps, has", count=4)
    compare("baseline of 250 scenes", row, [means[column] for column in SCENE_COLUMNS])
    row = published(README, "250 scenes of unseen", count=6)[3:]
    compare("baseline of 250 scenes", row, [means[column] for column in README_COLUMNS])


@pytest.mark.numbers
def test_shares_of_people_near_the_camera():
    """All columns but that of the network before, which is not shipped."""
    text = success(ended(near_people.main, CHECKPOINT, "--media", shared("media")))
    rows = {line.split("|")[1].strip(): line for line in text.splitlines()}
    guide = {"| courtyard, guide, at 2 s |": 2} | {f"| {n} s |": n for n in (13, 20, 30, 36)}
    names = {phrase: f"courtyard, {second} s: guide" for phrase, second in guide.items()}
    names |= {"| drive, driver |": "drive, 3 s: driver"}
    names |= {"| mean of all 36 people |": "mean of 36 people"}
    for phrase, name in names.items():
        _, _, row = text_of(CARD).partition("**People near the camera**")[2].partition(phrase)
        documented = [float(n) for n in re.findall(r"\d+\.\d\d", row.partition("\n")[0])]
        measured = [float(n) for n in re.findall(r"\d+\.\d\d", rows[name])]
        compare(name, documented[:3] + documented[5:], measured, 0.0101)  # both are rounded


@pytest.mark.numbers
@pytest.mark.parametrize("name, file", [
    ("courtyard", "courtyard_640x322_30fps.mp4"), ("drive", "drive_1920x1080_25fps.webm"),
])  # fmt: skip
def test_what_the_camera_shows_that_follows_attention(name, file, tmp_path):
    words = ("--video_path", shared(f"media/{file}"), "--output_dir", tmp_path / name)
    assert ended(infer_video.main, *words)[0] == 0
    for more in ((), ("--cuts",)):
        text = success(ended(follow.main, tmp_path / name, *more))
        row = text_of(FOLLOW).partition(f"\n| {name}, {'`--cuts`' if more else ''}")[2]
        documented = re.findall(r"\d+ of \d+ \| \d+ \| \d+%", row)[0]
        order = r".*: (\d+ of \d+) peaks .*?(\d+) direct.*?(\d+%) of.*"
        measured = re.sub(order, r"\1 | \2 | \3", text)
        print(f"{name} {' '.join(more)}: documented {documented}; measured {measured.strip()}")
        pairs = zip(*(map(int, re.findall(r"\d+", line)) for line in (documented, measured)))
        # Peaks in view, peaks, directions, time in motion in percent.
        for (one, other), within in zip(pairs, (1, 0, 1, 3), strict=True):
            assert abs(one - other) <= within


@pytest.mark.numbers
@pytest.mark.parametrize("more", [(), ("--cuts",)])
def test_what_the_camera_shows_of_what_viewers_see(more):
    heads = shared("data/gaze360/nasrabadi_mmsys19_head_5hz.npz")
    text = success(ended(follow.main, "--heads", heads, *more))
    for row in text.splitlines()[1:]:
        phrase = row[:15].strip() + ", `--cuts`" * (bool(more) and row.startswith("camera"))
        documented = text_of(FOLLOW).partition(f"\n| {phrase} | ")[2].partition("\n")[0]
        pairs = [[float(n) for n in re.findall(r"[\d.]+", line)] for line in (documented, row)]
        compare(phrase, *pairs, 1.01)  # percent; a path may differ by a shot


@pytest.mark.numbers
@torch.inference_mode()
def test_maps_in_bfloat16():
    """Ten frames of two clips, against what docs/speed.md says."""
    stated = re.search(r"by (0\.9\d+) or more and differ by up to (\d+) %", text_of(SPEED))
    least, most = map(float, stated.groups())
    full, few = (models.deploy(models.load(CHECKPOINT), d) for d in (torch.float32, torch.bfloat16))
    for clip in ("courtyard_640x322_30fps.mp4", "drive_1920x1080_25fps.webm"):
        for frame in islice(read_frames(shared(f"media/{clip}"), full.spec), 0, 100, 20):
            pictures = frame.rgb[None, None], frame.motion[None, None]
            exact = full(*pictures).flatten().double()
            with torch.autocast("cpu", torch.bfloat16):
                rounded = few(*pictures).flatten().double()
            assert torch.corrcoef(torch.stack([exact, rounded]))[0, 1] >= least
            assert (exact - rounded).abs().max() <= exact.max() * most / 100


def commands_under(heading: str) -> list[list[str]]:
    """Return the commands that docs/training.md shows first under a heading, as words."""
    block = text_of(TRAINING).partition(f"## {heading}\n\n```sh\n")[2].partition("```")[0]
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


def options(command: list[str]) -> list[str]:
    return command[next(n for n, word in enumerate(command) if word.startswith("--")) :]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """The scenes of docs/training.md."""
    folder = tmp_path_factory.mktemp("rendered")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        code, _, error = ended(synthetic.main, *options(commands_under("What can be expected")[0]))
    assert code == 0, error
    return folder / "scenes"


@pytest.fixture
def beside_scenes(rendered, tmp_path, monkeypatch):
    """The current folder has the scenes."""
    (tmp_path / "scenes").symlink_to(rendered)
    monkeypatch.chdir(tmp_path)


@pytest.mark.numbers
@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_three_minutes_of_training(beside_scenes, recipe):
    """With both commands of docs/training.md as they stand there."""
    words = options(commands_under("What can be expected")[1])
    text = success(ended(train_video.main, *words, "--recipe", recipe))
    found = float(RATIO.search(text)[1])
    documented = re.findall(r"SMSE reaches (0\.\d\d)", text_of(TRAINING))
    if recipe == "paper":  # two processors'
        sentence = text_of(TRAINING).partition("`--recipe paper`,")[2].partition(").")[0]
        documented = re.findall(r"\b0\.\d\d\b", sentence)
    nearest = min(map(float, documented), key=lambda ratio: abs(ratio - found))
    compare(f"three minutes of training, {recipe}", [nearest], [found], 0.0101)


@pytest.mark.numbers
def test_the_training_of_the_readme(tmp_path, monkeypatch):
    """With both commands as they stand there."""
    monkeypatch.chdir(tmp_path)
    block = text_of(README).partition("## Training\n\n```sh\n")[2].partition("```")[0]
    render, train = block.replace("\\\n", " ").splitlines()
    words = [options(shlex.split(line, comments=True)) for line in (render, train)]
    assert ended(synthetic.main, *words[0])[0] == 0
    text = success(ended(train_video.main, *words[1]))
    found, documented = (RATIO.search(part)[1] for part in (text, text_of(README)))
    compare("the training of the README", [float(documented)], [float(found)], 0.0101)
    assert (tmp_path / "runs/synthetic/predictions.png").is_file()


TITLES = {  # of the variants of the ablation
    "cube": "cube padding",
    "zero": "`padding=zero`",
    "replicate": "`padding=replicate`",
    "no latitude bias": "`latitude_bias=false`",
    "planar loss": "`--loss mse`",
}
MEAN = re.compile(r"(\d+\.\d+) ± (\d+\.\d+)")


@pytest.mark.numbers
@pytest.mark.parametrize("variant", ablation.VARIANTS)
def test_ablation(beside_scenes, variant):
    """Four trainings; processors round as differently as seeds draw."""
    [command] = commands_under("Does cube padding help?")
    text = success(ended(ablation.main, *options(command), "--variants", variant))
    [row] = (line for line in text.splitlines() if line.startswith(f"| {variant} |"))
    found = [float(mean) for mean, _ in MEAN.findall(row)]
    found = [*found[:2], found[-1]]  # CC, CC at edges and the change when rotated are shown
    title = f"\n| {TITLES[variant]} |"
    shown = MEAN.findall(text_of(TRAINING).partition(title)[2].partition("\n")[0])
    documented, deviations = (list(map(float, column)) for column in zip(*shown, strict=True))
    print(f"ablation, {variant}: documented {shown}; measured {found}")
    for value, mean, deviation in zip(found, documented, deviations, strict=True):
        assert value == pytest.approx(mean, abs=2 * deviation)
