"""evaluate_video.py as users start it, on tiny data sets with known truth."""

import csv
import json
import math
import re
import shutil
from pathlib import Path
from unittest import mock

import av
import numpy as np
import pytest
import torch
from PIL import Image

import evaluate_video
import metrics
import models
from common.protocols import Published
from datasets import SaliencyVideos
from datasets.gaze import gaussian_map
from datasets.gaze_files import Fixations, write_fixations_csv
from evaluation import report
from evaluation.scorer import Scorer
from evaluation.sources import SavedMaps
from projection import solid_angles
from projection.sphere import latitudes
from tests.clips import moving_disc
from tests.commands import ended, run
from video.motion import MOTIONS, FlowImage

SIZE, SIGMA, PEOPLE = (24, 48), 12, 8
ALL = ["cc", "sim", "kld", "nss", "auc_judd", "sauc", "information_gain"]
BASELINES = ["uniform", "equator prior", "training mean"]


def evaluate(data, *options, code=0):
    """What the script prints; the error if it must fail."""
    words = ["--data_root", data, "--height", SIZE[0], "--sigma", SIGMA, "--device", "cpu"]
    words += ["--output_dir", Path(data).parent / "out", *options]
    found, printed, error = ended(evaluate_video.main, *words)
    assert found == code, error
    return error if code == 2 else printed + error * code


def results(folder):
    text = (folder / "metrics.json").read_text(encoding="utf-8")
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def scores(data, *options):
    """Predictor → metric → mean over clips."""
    evaluate(data, *options)
    content = results(Path(data).parent / "out")["predictors"]
    return {p: {m: s["mean"] for m, s in found.items()} for p, found in content.items()}


def gaze(clip, frame):
    """Longitudes and latitudes of eight people: most near the disc, which is elsewhere by clip."""
    generator = np.random.default_rng([sum(clip.encode()), frame])
    longitudes = generator.normal(0.2 * frame + sum(clip.encode()) % 5 - 2, 0.3, PEOPLE)
    return longitudes, generator.normal(0.1, 0.2, PEOPLE)


def truth(clip, frame):
    """(24, 48) whole numbers to 255, which a grey picture holds as well."""
    blurred = gaussian_map(*gaze(clip, frame), *SIZE, SIGMA)
    return (255 * blurred / blurred.max()).round().numpy()


def write_data(root, clips, layout="eccv", fixations=True):
    """clips: split → name → frame numbers. Frames and maps of 24×48, fixations of 8 people."""
    for name, numbers in (item for split in clips.values() for item in split.items()):
        for folder in (name,) if layout == "eccv" else ("frames", "saliency_maps", "fixations"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for n in numbers:
            frame, map_ = Image.fromarray(moving_disc(n, *SIZE)), truth(name, n)
            if layout == "eccv":
                frame.save(root / name / f"{n:04d}.png")
                np.save(root / name / f"{n:04d}_gt.npy", map_.astype(np.float32))
            else:
                frame.save(root / "frames" / f"{name}_{n:04d}.png")
                picture = Image.fromarray(map_.astype(np.uint8))
                picture.save(root / "saliency_maps" / f"{name}_{n:04d}.png")
        if fixations:
            columns = (np.concatenate(column) for column in zip(*(gaze(name, n) for n in numbers)))
            frames, people = np.repeat(list(numbers), PEOPLE), np.tile(range(PEOPLE), len(numbers))
            places = (Path(name, "fixations.csv"), Path("fixations", f"{name}.csv"))
            path = root / places[layout != "eccv"]
            write_fixations_csv(path, Fixations(frames, *columns, people))
    names = {split: list(names) for split, names in clips.items()}
    (root / "splits.json").write_text(json.dumps(names))
    return root


CLIPS = {"train": {"a": range(1, 4)}, "test": {"b": range(1, 7), "c": range(1, 5)}}


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", CLIPS)


def write_maps(folder, clips, make=truth):
    """sal_0001.npy … in a folder for each clip of the test split."""
    for clip, numbers in clips["test"].items():
        (folder / clip).mkdir(parents=True)
        for position, number in enumerate(numbers, 1):
            saliency = make(clip, number).astype(np.float32)
            np.save(folder / clip / f"sal_{position:04d}.npy", saliency)
    return folder


def blurry(clip, frame):
    """A prediction that is neither right nor useless."""
    return gaussian_map(*gaze(clip, frame + 1), 30, 50, 20).numpy()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Tiny models: unet.pth, equator.pth, sst.pth."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    unet = models.CubeUNet(height=40, width=80, base_channels=4)
    unet.head.weight.data *= 10
    for _ in range(10):  # batch statistics, so that maps depend on frames
        unet(torch.rand(1, 2, 3, 40, 80), torch.rand(1, 2, 1, 40, 80))
    models.save(folder / "unet.pth", unet)
    models.save(folder / "equator.pth", models.EquatorPrior(height=24, width=48))
    sst = models.SSTSal(in_channels=3, hidden_channels=2, height=24, width=32)
    models.save(folder / "sst.pth", sst)
    return folder


def test_a_report_of_the_run_before_stayed_beside_new_metrics(data_root, checkpoint, tmp_path):
    words = (data_root, "--ckpt_path", checkpoint)
    evaluate(*words, "--report", "--per_frame")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"metrics.json", "metrics.csv", "report.html", "per_frame.csv"}
    evaluate(*words)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"metrics.json", "metrics.csv"}


def test_a_model_as_users_score_it(data, checkpoints, tmp_path):
    """What the script prints and what it writes."""
    out = tmp_path / "new/out"
    words = "--ckpt_path", checkpoints / "unet.pth", "--report", "--output_dir", out
    lines = evaluate(data, *words).splitlines()
    found = sorted(path.name for path in out.iterdir())
    assert found == ["metrics.csv", "metrics.json", "report.html"]

    content = results(out)
    assert (content["data"], content["split"], content["protocol"]) == ("data", "test", "sphere")
    assert content["checkpoint"] == "unet.pth" and len(content["sha256"]) == 64
    assert content["command"].startswith("python command --data_root")
    assert content["grid"] == [24, 48] and content["frames"] == 10
    assert list(content["metrics"]) == [d["metric"] for d in content["differences"]] == ALL
    assert list(content["predictors"]) == ["cube_unet", *BASELINES, "inter-observer"]
    for clip, frames in (("b", 6), ("c", 4)):
        assert content["clips"][clip]["frames"] == frames
    assert content["predictors"]["uniform"]["auc_judd"]["mean"] == 0.5
    assert content["predictors"]["inter-observer"]["cc"]["mean"] > 0.5

    rows = table(out / "metrics.csv")
    assert len(rows) == 2 * 5
    for row in rows:
        expected = content["clips"][row["clip"]]["scores"][row["predictor"]]
        scored = ALL[:-1] if row["predictor"] == "inter-observer" else ALL  # it has no density
        assert [float(row[metric]) for metric in scored] == [expected[metric] for metric in scored]

    assert lines[0].split()[::2] == ["CC", "SIM", "KLD", "NSS", "AUC-Judd", "sAUC", "IG"]
    cc = content["predictors"]["cube_unet"]["cc"]
    assert lines[1].split()[:2] == ["cube_unet", f"{cc['mean']:.3f}".replace("-", "−")]
    assert sum("  cube_unet − " in line for line in lines) == len(ALL)
    assert lines[-1] == f"metrics.json, metrics.csv and report.html in {out}"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 7 + 7 + 2 + 2
    assert all(f"{title}: CC" in page for title in ("Best clip", "Worst frame of a clip"))


def test_without_fixations(checkpoints, tmp_path):
    data = write_data(tmp_path / "data", CLIPS, fixations=False)
    printed = evaluate(data, "--ckpt_path", checkpoints / "unet.pth")
    content = results(tmp_path / "out")
    assert list(content["metrics"]) == ALL[:3]
    assert list(content["predictors"]) == ["cube_unet", *BASELINES]
    for note in ("NSS needs fixations.", "sAUC needs fixations of other clips."):
        assert note in content["notes"] and note in printed
    assert "AUC" not in printed.splitlines()[0] and "uman" not in printed


def test_one_clip(tmp_path):
    """There are no fixations of other clips, and no certainty."""
    clips = {"train": {"a": [1]}, "test": {"b": range(1, 7)}}
    data = write_data(tmp_path / "data", clips)
    maps = write_maps(tmp_path / "maps", clips, blurry)
    printed = evaluate(data, "--pred_dir", maps, "--report")
    content = results(tmp_path / "out")
    assert list(content["metrics"]) == [*ALL[:5], "information_gain"]
    agreement, absent, *_ = content["notes"]
    assert "SIM and KLD compare two halves of the observers" in agreement
    assert absent == "sAUC needs fixations of other clips."
    assert content["predictors"]["maps"]["cc"]["low"] is None
    assert content["differences"][0]["low"] is None
    assert "better on 1 of 1 clips\n" in printed and "*" not in printed and "p =" not in printed
    assert "Best clip: CC" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_both_layouts_give_the_same(checkpoints, tmp_path):
    found = [
        scores(
            write_data(tmp_path / layout / "data", CLIPS, layout),
            *("--ckpt_path", checkpoints / "unet.pth", "--precision", "fp32"),
        )
        for layout in ("eccv", "flat")
    ]
    assert found[0] == found[1]
    assert found[0]["inter-observer"]["nss"] > 0


def test_perfect_maps(data, tmp_path):
    """The truth itself, on other scales."""
    maps = write_maps(tmp_path / "ours", CLIPS, lambda clip, n: 7 * n * truth(clip, n))
    printed = evaluate(data, "--pred_dir", maps)
    content = results(tmp_path / "out")
    for clip in content["clips"].values():
        found = clip["scores"]["ours"]
        assert found["cc"] == pytest.approx(1, abs=1e-6)
        assert found["sim"] == pytest.approx(1, abs=1e-6)
        assert found["kld"] == pytest.approx(0, abs=1e-6)
    assert content["maps"] == content["model"] == "ours" and "checkpoint" not in content
    assert "CC ↑  ours − " in printed and "better on 2 of 2 clips" in printed
    assert "2 clips are too few to show any difference; 6 are enough." in printed


def test_the_equator_checkpoint_scores_as_the_equator_baseline(data, checkpoints):
    found = scores(data, "--ckpt_path", checkpoints / "equator.pth")
    assert found["equator"] == found["equator prior"]
    printed = evaluate(data, "--ckpt_path", checkpoints / "equator.pth")
    assert "KLD ↓  equator − " in printed and "*" not in printed


def test_a_published_protocol_scores_its_frames_of_its_clips(tmp_path):
    """Of a data set of 16 frames a second with other splits."""
    clips = {"train": {"119": range(1, 5), "047": range(1, 6)}, "test": {"166": range(1, 7)}}
    data = write_data(tmp_path / "data", clips)
    everything = {"test": clips["train"] | clips["test"]}
    maps = write_maps(tmp_path / "ours", everything, lambda clip, n: truth(clip, n + 1) + 1)
    (data / "dataset.json").write_text('{"fps": 16}')

    def scored(protocol):
        """What is printed, the clips and frames that were scored, and the mean CC."""
        printed = evaluate(data, "--pred_dir", maps, "--per_frame", "--protocol", protocol)
        rows = table(tmp_path / "out/per_frame.csv")
        frames = {(row["clip"], int(row["frame"])) for row in rows}
        content = results(tmp_path / "out")
        assert content["protocol"] == protocol
        return printed, frames, content["predictors"]["ours"]["cc"]["mean"]

    printed, frames, mean = scored("sst_sal")
    assert "23 test clips of sst_sal are missing" in printed
    assert frames == {("047", 1), ("047", 3), ("047", 5), ("119", 1), ("119", 3)}
    cosine, by_clip = latitudes(24).cos()[:, None], {}
    for clip, n in frames:
        pair = (
            torch.from_numpy(m).double() * cosine for m in (truth(clip, n + 1) + 1, truth(clip, n))
        )
        by_clip.setdefault(clip, []).append(metrics.cc(*pair).item())
    assert mean == pytest.approx(np.mean([np.mean(v) for v in by_clip.values()]), abs=1e-6)
    assert scored("salformer360")[1] == {("166", 1), ("166", 6)}
    (data / "dataset.json").unlink()
    printed, frames, _ = scored("salvit360")
    assert frames == {("166", n) for n in range(1, 7)}
    assert "All frames of clips without a known frame rate were scored" in printed


def test_protocols(data, tmp_path):
    """Each against the metrics themselves; on a mass, sine and solid angle are the same."""
    maps = write_maps(tmp_path / "ours", CLIPS, lambda clip, n: truth(clip, n + 1) + 1)
    found = {name: scores(data, "--pred_dir", maps, "--protocol", name)["ours"]
             for name in ("sphere", "planar", "sin")}  # fmt: skip
    cosine = latitudes(24).cos()[:, None]
    values = {name: [] for name in found}
    for clip, numbers in CLIPS["test"].items():
        pairs = [tuple(torch.from_numpy(truth(clip, k)).double() + one for k, one in both)
                 for both in (((n + 1, 1), (n, 0)) for n in numbers)]  # fmt: skip
        sphere = "sphere", solid_angles(24, 48), 1
        for name, weights, factor in (sphere, ("planar", None, 1), ("sin", None, cosine)):
            frames = [metrics.cc(p * factor, q * factor, weights).item() for p, q in pairs]
            values[name].append(np.mean(frames))
    for name, clips in values.items():
        assert found[name]["cc"] == pytest.approx(np.mean(clips), abs=1e-6)
    assert len({round(found[name]["cc"], 3) for name in found}) == 3
    for metric in ("sim", "kld"):
        assert found["sin"][metric] == pytest.approx(found["sphere"][metric], abs=1e-5)
        assert found["planar"][metric] != pytest.approx(found["sphere"][metric], abs=1e-3)
    assert found["sin"]["nss"] != pytest.approx(found["planar"]["nss"], abs=1e-3)


def test_windows_begin_anew_after_a_gap(checkpoints, tmp_path):
    """45 frames in two runs of SST-Sal's windows of 20 score as each run by itself."""
    runs = {"first": [*range(1, 27)], "second": [*range(40, 59)]}
    runs["both"] = runs["first"] + runs["second"]
    found = {}
    for name, numbers in runs.items():
        clips = {"train": {"a": [1]}, "test": {"b": numbers}}
        data = write_data(tmp_path / name / "data", clips, fixations=False)
        found[name] = scores(data, "--ckpt_path", checkpoints / "sst.pth")["sst_sal"]["cc"]
    content = results(tmp_path / "both/out")
    assert content["frames"] == 45
    gap = "Problems in the data: 1 × gap in the numbering (first: b/0040.png comes after 0026.png)."
    assert gap in content["notes"]
    weighted = (26 * found["first"] + 19 * found["second"]) / 45
    assert found["both"] == pytest.approx(weighted, abs=1e-6)
    assert found["first"] != pytest.approx(found["second"], abs=1e-3)


def test_few_bits_reach_the_network_alone(checkpoints, tmp_path):
    """People were once scored in bfloat16 as well, inside the network's autocast."""
    clips = {"train": {"a": [1]}, "test": {"b": range(1, 11)}}
    data = write_data(tmp_path / "data", clips)
    full, few = (
        scores(data, "--ckpt_path", checkpoints / "unet.pth", "--precision", precision)
        for precision in ("fp32", "bf16")
    )
    assert full.pop("cube_unet") != few.pop("cube_unet")
    assert full == few


def test_maps_named_as_a_baseline_are_not_taken_for_it(data, tmp_path):
    found = scores(data, "--pred_dir", write_maps(tmp_path / "uniform", CLIPS))
    assert found["uniform (maps)"]["cc"] > 0.9 and found["uniform"]["cc"] == 0


def test_pictures_of_maps(data, tmp_path):
    """An array is preferred to its picture; pictures alone are told, as they lose ties."""
    maps = write_maps(tmp_path / "maps", CLIPS)
    for path in maps.glob("b/*.npy"):
        saliency = np.load(path)
        Image.fromarray(saliency.astype(np.uint8)).save(path.with_suffix(".png"))
    evaluate(data, "--pred_dir", maps)
    assert "8 bits" not in "".join(results(tmp_path / "out")["notes"])
    for path in maps.glob("b/*.npy"):
        path.unlink()
    printed = evaluate(data, "--pred_dir", maps)
    assert "6 × 8-bit map, whose ties and zeros may change scores" in printed
    assert results(tmp_path / "out")["clips"]["b"]["scores"]["maps"]["cc"] == pytest.approx(1)


@pytest.mark.parametrize("saliency, says", [
    (np.full(SIZE, -1.0), "sal_0002.npy: has negative or non-finite values"),
    (np.full(SIZE, math.nan), "sal_0002.npy: has negative or non-finite values"),
    (np.zeros((*SIZE, 3)), "sal_0002.npy: expected a map (H, W), got (24, 48, 3)"),
    (np.zeros((0, 5)), "sal_0002.npy: not an array of numbers (float64 of shape (0, 5))"),
    (np.array(["text"]), "sal_0002.npy: not an array of numbers (<U4 of shape (1,))"),
    (b"\x93NUMPY", "sal_0002.npy: not an array of numbers"),
])  # fmt: skip
def test_maps_that_can_not_be_scored(data, tmp_path, saliency, says):
    maps = write_maps(tmp_path / "maps", CLIPS)
    path = maps / "b/sal_0002.npy"
    path.unlink()
    assert "1 × missing map (first: " in evaluate(data, "--pred_dir", maps)
    if isinstance(saliency, bytes):
        path.write_bytes(saliency)
    else:
        np.save(path, saliency)
    assert says in evaluate(data, "--pred_dir", maps, code=1)
    frames = [content["frames"] for content in results(tmp_path / "out")["clips"].values()]
    assert sum(frames) == 9


@pytest.mark.parametrize("name", ["{:04d}.npy", "{}.npy", "frame-{:06d}.npy", "b_2_{:03d}.npy"])
def test_maps_are_known_by_the_number_in_their_name(data, tmp_path, name):
    wanted = scores(data, "--pred_dir", write_maps(tmp_path / "maps", CLIPS, blurry))["maps"]
    for path in (tmp_path / "maps").rglob("*.npy"):
        path.rename(path.with_name(name.format(int(path.stem[4:]))))
    assert scores(data, "--pred_dir", tmp_path / "maps")["maps"] == wanted


def test_numbers_are_those_of_frames_but_of_infer_video_count_them(tmp_path):
    clips = {"train": {"a": [1]}, "test": {"b": (3, 4, 7, 8), "c": (1, 2)}}
    data = write_data(tmp_path / "data", clips)
    counted = write_maps(tmp_path / "maps", clips)
    assert scores(data, "--pred_dir", counted)["maps"]["cc"] == pytest.approx(1)
    for clip, numbers in clips["test"].items():
        for number, path in zip(numbers, sorted((counted / clip).iterdir()), strict=True):
            path.rename(path.with_name(f"{number}.npy"))
    assert scores(data, "--pred_dir", counted)["maps"]["cc"] == pytest.approx(1)
    np.save(counted / "b/0.npy", np.ones(SIZE))  # counted from 0, or of no frame
    assert "1 × map without a matching frame (first: " in evaluate(data, "--pred_dir", counted)
    np.save(counted / "b/map_03.npy", np.ones(SIZE))
    assert "has the number of 3.npy" in evaluate(data, "--pred_dir", counted, code=2)


def write_exr(path, values):
    """values: (H, W) or (H, W, 3) float32."""
    form = "grayf32le" if values.ndim == 2 else "gbrpf32le"
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as output:
        stream = output.add_stream("exr", rate=1)
        stream.height, stream.width, stream.pix_fmt = *values.shape[:2], form
        frame = av.VideoFrame.from_ndarray(values, format=form)
        output.mux([*stream.encode(frame), *stream.encode(None)])


def test_maps_in_openexr(data, tmp_path):
    maps = write_maps(tmp_path / "maps", CLIPS, blurry)
    wanted = scores(data, "--pred_dir", maps)["maps"]
    for k, path in enumerate(sorted(maps.rglob("*.npy"))):
        saliency = np.load(path)
        write_exr(path.with_suffix(".exr"), saliency if k % 2 else np.stack([saliency] * 3, -1))
        path.unlink()
    assert scores(data, "--pred_dir", maps)["maps"] == wanted
    (maps / "b/sal_0002.exr").write_bytes(b"v/1\x01no more")
    assert "sal_0002.exr: not a readable OpenEXR file" in evaluate(data, "--pred_dir", maps, code=1)


@pytest.fixture
def undrawn(monkeypatch):
    """The report has its texts, but its pictures, which other tests draw, are left out."""
    monkeypatch.setattr(report, "image", lambda *_: "")


def test_models_are_scored_where_none_lacks_a_map(data, checkpoints, tmp_path, undrawn):
    """The first missing map ended it, and one run scored one model."""
    first, second = (write_maps(tmp_path / name, CLIPS) for name in ("first", "second"))
    (first / "b/sal_0002.npy").unlink()
    (second / "b/sal_0005.npy").unlink()
    (second / "c/sal_0001.npy").unlink()
    words = "--pred_dir", first, second, "--ckpt_path", checkpoints / "unet.pth"
    printed = evaluate(data, *words, "--report")
    assert "3 × missing map (first: " in printed and "b: 2" in printed
    content = results(tmp_path / "out")
    assert list(content["predictors"])[:4] == ["unet", "first", "second", "uniform"]
    assert {name: c["frames"] for name, c in content["clips"].items()} == {"b": 4, "c": 3}
    assert content["models"]["first"] == {"maps": "first"}
    assert content["predictors"]["first"] == content["predictors"]["second"]
    pairs = {(d["model"], d["other"]) for d in content["differences"] if d["metric"] == "cc"}
    assert pairs >= {("unet", "first"), ("unet", "second"), ("first", "second")}
    matrix = re.search(r"(CC ↑ +− .*) − unet +− first +− second\n(unet .*)\n", printed)
    assert matrix[2].split()[2] == "–" and matrix[2].split()[3][0] == "−"
    assert "2 clips are too few to show any difference" in printed
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert (
        page.count('class="model"') == 3
        and str(tmp_path) not in page.partition("<h2>Data and models")[0]
    )
    assert matrix[0] in page


@pytest.mark.parametrize("truths, middle", [((11, 12, 13, 14, 15), 13), ((3, 4, 19), 4), ((9,), 9)])
def test_the_middle_frame_is_that_of_the_frames_with_ground_truth(tmp_path, truths, middle):
    """Of 12 truths in 40 frames it was the last."""
    frames = {"train": CLIPS["train"], "test": {"b": range(1, 21)}}
    root, maps = write_data(tmp_path / "data", frames), write_maps(tmp_path / "maps", frames)
    for n in set(range(1, 21)) - {*truths}:
        (root / f"b/{n:04d}_gt.npy").unlink()
    data = SaliencyVideos(root, "test", models.Spec())
    scorer = Scorer(data, Published("sphere", "test"), 24, SIGMA, None, torch.device("cpu"))
    scores = scorer.score("b", [SavedMaps(maps)], picture=True)
    assert scores.picture.title == f"b, frame {middle}"


def test_models_of_one_name_are_told_apart(data, checkpoints, tmp_path):
    (tmp_path / "other").mkdir()
    other = shutil.copy(checkpoints / "unet.pth", tmp_path / "other/unet.pth")
    evaluate(data, "--ckpt_path", checkpoints / "unet.pth", other, checkpoints / "equator.pth")
    names = list(results(tmp_path / "out")["predictors"])
    assert names[:3] == [f"{checkpoints.name}/unet", "other/unet", "equator"]
    words = "--ckpt_path", other, other
    assert "give different --names" in evaluate(data, *words, code=2)
    assert "--names: 1 for 2 models" in evaluate(data, *words, "--names", "one", code=2)
    evaluate(data, *words, "--names", "one", "two")
    assert list(results(tmp_path / "out")["models"]) == ["one", "two"]


def test_seeds_of_one_name_are_one_row(data, tmp_path, undrawn):
    """Its scores are means over seeds, frame by frame, and the table says how far they differ."""
    random = np.random.default_rng(0)

    def noisy(clip, frame):
        return truth(clip, frame) + 900 * random.random(SIZE)

    for seed in range(3):
        write_maps(tmp_path / f"seed{seed}", CLIPS, noisy)
    folders = [tmp_path / f"seed{seed}" for seed in range(3)]
    alone = [scores(data, "--pred_dir", folder)[folder.name]["cc"] for folder in folders]
    blind = write_maps(tmp_path / "blind", CLIPS, lambda clip, n: np.ones(SIZE))
    words = "--pred_dir", *folders, blind, "--names", "ours", "ours", "ours", "blind", "--report"
    printed = evaluate(data, *words, "--per_frame")
    content = results(tmp_path / "out")
    assert list(content["predictors"])[:3] == ["ours", "blind", "uniform"]
    row = content["predictors"]["ours"]["cc"]
    assert row["seeds"] == pytest.approx(alone) and row["mean"] == pytest.approx(np.mean(alone))
    assert row["sd"] == pytest.approx(np.std(alone, ddof=1)) and row["sd"] > 0
    assert f"{row['mean']:.3f} ± {row['sd']:.3f}" in printed
    assert content["models"]["ours"] == {"maps": "seed0, seed1, seed2"}
    assert re.search(r"CC ↑ +− .* − ours +− blind\nours .*–", printed)
    rows = [row for row in table(tmp_path / "out/per_frame.csv") if row["predictor"] == "ours"]
    frames = [f"b{n}" for n in range(1, 7)] + [f"c{n}" for n in range(1, 5)]
    assert [row["clip"] + row["frame"] for row in rows] == frames
    mean = np.mean([float(row["cc"]) for row in rows if row["clip"] == "b"])
    assert mean == pytest.approx(content["clips"]["b"]["scores"]["ours"]["cc"])


def test_rows_of_seeds_were_in_reverse_order(data, tmp_path):
    maps = write_maps(tmp_path / "maps", CLIPS, blurry)
    evaluate(data, "--pred_dir", maps, maps, maps, maps, "--names", "one", "one", "two", "two")
    content = results(tmp_path / "out")
    assert list(content["predictors"])[:3] == [*content["models"], "uniform"]


def test_names_that_make_no_rows(data, checkpoints, tmp_path):
    """Kinds that are mixed ended in a KeyError, and a name of a seed replaced that seed."""
    maps = write_maps(tmp_path / "maps", CLIPS)
    mixed = "--ckpt_path", checkpoints / "unet.pth", "--pred_dir", maps, "--names", "ours", "ours"
    assert "ours: a checkpoint and saved maps" in evaluate(data, *mixed, code=2)
    same = "--pred_dir", maps, maps, maps, "--names", "ours", "ours", "ours (1)"
    assert "one is that of a seed" in evaluate(data, *same, code=2)


def test_change_of_cc_from_frame_to_frame(data, tmp_path):
    """A perfect map has none; of one that is right every other time, it is the mean step."""
    make = lambda clip, n: truth(clip, n) if n % 2 else np.ones(SIZE)  # noqa: E731
    flicker = write_maps(tmp_path / "flicker", CLIPS, make)
    right = write_maps(tmp_path / "right", CLIPS)
    printed = evaluate(data, "--pred_dir", flicker, right)
    changes = results(tmp_path / "out")["cc_change"]
    assert changes["flicker"] == pytest.approx(1) and changes["right"] == pytest.approx(0, abs=1e-6)
    assert changes["uniform"] == 0 < changes["equator prior"] and "inter-observer" not in changes
    assert "CC changes by 1.000 (flicker), 0.000 (right), 0.000 (uniform), " in printed


def test_the_worst_frames_are_in_the_report(data, tmp_path, undrawn):
    """Frame 3 of clip b and frame 2 of clip c are shown the wrong way round."""
    wrong = {("b", 3), ("c", 2)}
    make = lambda *at: 255 - truth(*at) if at in wrong else truth(*at)  # noqa: E731
    maps = write_maps(tmp_path / "maps", CLIPS, make)
    evaluate(data, "--pred_dir", maps, "--report")
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    for clip, number in wrong:
        assert f"Worst frame of a clip: CC -1.000 (maps); {clip}, frame {number}<" in page


@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_tables_for_papers(data, tmp_path, form):
    """Standard output holds the table alone, with every mean that metrics.json has."""
    maps = write_maps(tmp_path / "a_b", CLIPS, blurry)
    words = ["--data_root", data, "--output_dir", tmp_path / "out", "--pred_dir", maps]
    code, printed, errors = ended(evaluate_video.main, *words, "--height", 24, "--format", form)
    assert code == 0 and "CC ↑  a_b − " in errors and "metrics.json" in errors
    lines, content = printed.splitlines(), results(tmp_path / "out")["predictors"]
    names = {"markdown": r"a\_b", "latex": r"a\_b", "csv": "a_b"}
    if form == "csv":
        rows = {row["predictor"]: row for row in csv.DictReader(lines)}
        assert rows.keys() == content.keys() and len(rows["a_b"]) == 1 + 4 * len(ALL)
        for metric in ALL:
            for end, key in (("", "mean"), ("_low", "low"), ("_high", "high")):
                assert float(rows["a_b"][metric + end]) == content["a_b"][metric][key]
        assert rows["a_b"]["cc_sd"] == ""
        return
    separator, bold = (" | ", "**{}**") if form == "markdown" else (" & ", r"\textbf{{{}}}")
    (row,) = (line for line in lines if names[form] in line)
    cells = [cell.strip("| ") for cell in row.removesuffix(r" \\").split(separator)]
    for metric, cell in zip(ALL, cells[1:], strict=True):
        text = f"{content['a_b'][metric]['mean']:.3f}".replace(
            "-", "−" if form == "markdown" else "$-$"
        )
        assert cell in (text, bold.format(text))
    assert bold.format(f"{content['a_b']['cc']['mean']:.3f}") in row
    if form == "markdown":
        assert {line.count("|") for line in lines} == {len(ALL) + 2}
    else:
        assert lines[0] == r"\begin{tabular}{lrrrrrrr}" and lines[-1] == r"\end{tabular}"
        assert r"CC $\uparrow$" in lines[2] and r"KLD $\downarrow$" in lines[2]


def test_sampling_is_chosen_on_the_command_line(data, checkpoints, tmp_path):
    both = "--ckpt_path", checkpoints / "sst.pth", checkpoints / "unet.pth"
    seamless = scores(data, *both)
    reference = scores(data, *both, "--sampling", "reference")
    assert reference["unet"] == seamless["unet"]
    assert abs(reference["sst"]["cc"] - seamless["sst"]["cc"]) > 0
    message = evaluate(data, *both[::2], "--sampling", "reference", code=2)
    assert "is for SST-Sal only" in message


def test_motion_is_for_the_models_whose_channels_fit(data, checkpoints, tmp_path):
    """It was refused for the others."""
    models.save(tmp_path / "flow.pth", models.SSTSal(hidden_channels=2, height=24, width=32))
    words = "--ckpt_path", checkpoints / "unet.pth", tmp_path / "flow.pth"
    raft = "--motion", "raft"
    still = {"flow": lambda self, current, previous: torch.zeros(2, *current.shape[-2:])}
    with mock.patch.dict(MOTIONS.known, raft=type("Still", (FlowImage,), still)):
        changed, as_trained = scores(data, *words, *raft), scores(data, *words)
        message = evaluate(data, *words[:2], *raft, code=2)
        assert "--motion raft: none of these models can use it; leave it out" in message
        assert "none of these models" in evaluate(data, "--pred_dir", tmp_path, *raft, code=2)
    assert changed["unet"] == as_trained["unet"]
    assert changed["flow"] != as_trained["flow"]


def test_a_map_of_nothing_is_a_prediction(data, tmp_path):
    maps = write_maps(tmp_path / "maps", CLIPS, lambda clip, n: np.zeros((3, 7)))
    found = scores(data, "--pred_dir", maps)
    assert found["maps"] == pytest.approx(found["uniform"])


def test_what_can_not_be_evaluated(data, checkpoints, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.pth").write_text("no checkpoint")
    (tmp_path / "file").touch()
    model = "--ckpt_path", checkpoints / "equator.pth"
    assert "no splits.json and no clip" in evaluate(tmp_path / "empty", *model, code=2)
    assert "no such data set" in evaluate(tmp_path / "missing", *model, code=2)
    assert "'val'" in evaluate(data, *model, "--split", "val", code=2)
    assert "broken.pth" in evaluate(data, "--ckpt_path", tmp_path / "broken.pth", code=2)
    assert "missing.pth" in evaluate(data, "--ckpt_path", tmp_path / "missing.pth", code=2)
    assert "no such folder" in evaluate(data, "--pred_dir", tmp_path / "missing", code=2)
    assert "--height: 4:" in evaluate(data, *model, "--height", 4, code=2)
    assert "--sigma: 90:" in evaluate(data, *model, "--sigma", 90, code=2)
    message = evaluate(data, *model, "--output_dir", tmp_path / "file", code=2)
    assert "file: File exists" in message
    (data / "c/fixations.csv").write_text("frame,longitude,latitude,observer\n1,5,95,ann\n")
    assert "fixations.csv, line 2" in evaluate(data, *model, code=2)
    (data / "c/fixations.csv").unlink()
    nothing = evaluate(data, "--pred_dir", tmp_path / "empty", code=2)
    assert "could be scored (10 × missing map" in nothing
    for path in data.glob("[bc]/*_gt.npy"):
        np.save(path, np.zeros(SIZE))
    assert "no frame of split 'test' could be scored" in evaluate(data, *model, code=2)


def test_frames_that_can_not_be_scored_are_counted(data, checkpoints):
    """An unreadable frame and unusable maps have no score; a clip without any is named."""
    (data / "b/0002.png").write_bytes(b"")
    (data / "b/0003_gt.npy").unlink()
    np.save(data / "b/0004_gt.npy", np.zeros(SIZE))
    for n in range(1, 5):
        np.save(data / f"c/{n:04d}_gt.npy", np.zeros(SIZE))
    message = evaluate(data, "--ckpt_path", checkpoints / "unet.pth", "--report", code=1)
    assert "left out of the scores: 1 × unreadable frame" in message
    content = results(data.parent / "out")
    assert content["frames"] == 3 and list(content["clips"]) == ["b"]
    assert "Clips without usable frames (not scored): c." in content["notes"]
    for what in ("1 × no ground truth", "1 × unreadable frame", "5 × unusable ground truth"):
        assert what in " ".join(content["notes"])


def test_no_training_clips(tmp_path):
    clips = {"test": CLIPS["test"]}
    data, maps = write_data(tmp_path / "data", clips), write_maps(tmp_path / "maps", CLIPS)
    evaluate(data, "--pred_dir", maps)
    content = results(tmp_path / "out")
    assert list(content["predictors"]) == ["maps", *BASELINES[:2], "inter-observer"]
    assert content["notes"][0].startswith("There is no training mean: ")


def test_training_clips_of_another_data_set(data, tmp_path):
    alone = write_data(tmp_path / "alone", {"test": CLIPS["test"]})
    maps = write_maps(tmp_path / "maps", CLIPS)
    together = scores(data, "--pred_dir", maps)["training mean"]
    assert scores(alone, "--pred_dir", maps, "--train_root", data)["training mean"] == together


def test_check(data, tmp_path, capsys):
    assert "no problems found" in evaluate(data, "--check")
    content = json.loads((tmp_path / "out/check.json").read_text(encoding="utf-8"))
    assert content["clean"] and content["splits"]["test"]["usable"] == 10
    (data / "b/0003.png").write_bytes(b"")
    with pytest.raises(SystemExit, match="^1$"):
        run(evaluate_video.main, "--check", "--data_root", data, "--output_dir", tmp_path / "out")
    assert "b/0003.png" in capsys.readouterr().out
    assert "no such data set" in evaluate(tmp_path / "missing", "--check", code=2)
