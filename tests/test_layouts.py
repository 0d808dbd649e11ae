"""Data sets in the layouts of ECCV 2018 and SST-Sal: splits, frame rates, and what is wrong."""

import json
import pickle
import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

import models
from common.errors import InputError
from datasets import SaliencyVideos, check
from datasets.layouts import list_clips
from datasets.rates import ClipRates, rate_of_folder
from datasets.splits import eccv2018_split
from datasets.video_saliency import summarise
from evaluation.sources import Network
from maps.interpolate import interpolate
from models import Spec
from prepare import pack
from tests.clips import moving_disc, write_data_set, write_eccv_clip
from tests.commands import ended, evaluate, infer, read_record, refusal, success, train_one_epoch
from tests.runs import last
from tests.shared import shared
from video.reader import read_frames, read_pictures, sampling_step

SPEC = Spec(height=24, width=48, motion="difference")


def data_set(root, spec=SPEC, skip_frames=0, **clips):
    for name, numbers in clips.items():
        write_eccv_clip(root / name, numbers)
    (root / "splits.json").write_text(json.dumps({"train": list(clips)}))
    return SaliencyVideos(root, "train", spec, skip_frames)


def kinds(irregular):
    return [kind for kind, _ in irregular]


def test_items_are_as_documented(tmp_path):
    data = data_set(tmp_path, replace(SPEC, clip_length=3), a=range(1, 7))
    assert len(data) == 2
    item = data[1]
    assert item["frames"].shape == (3, 3, 24, 48)
    assert item["motion"].shape == item["target"].shape == (3, 1, 24, 48)
    assert item["numbers"].tolist() == [4, 5, 6]
    assert item["valid"].all()
    assert item["name"] == "a"
    assert item["target"].amax((1, 2, 3)).tolist() == [1, 1, 1]  # by its own maximum
    assert item["irregular"] == data.irregular == []


def test_motion_looks_back_beyond_the_start_of_a_run(tmp_path):
    data = data_set(tmp_path, a=range(1, 4))
    assert data[0]["motion"].abs().max() == 0
    grey = [
        (data[i]["frames"][0] * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
        for i in (0, 1)
    ]
    torch.testing.assert_close(data[1]["motion"][0, 0], (grey[1] - grey[0]).abs())


def test_a_gap_in_the_numbering_breaks_the_run(tmp_path):
    data = data_set(tmp_path, a=[1, 2, 3, 7, 8])
    assert kinds(data.irregular) == ["gap in the numbering"]
    assert "0007.jpg comes after 0003.jpg" in summarise(data.irregular)
    assert data[3]["motion"].abs().max() == 0  # nothing before it


def test_missing_truth_is_counted_and_never_valid(tmp_path):
    write_data_set(tmp_path, "a", range(1, 5), train=["a"])
    (tmp_path / "a/0002_gt.npy").unlink()
    data = SaliencyVideos(tmp_path, "train", Spec(height=24, width=48, clip_length=4))
    assert data[0]["valid"].tolist() == [True, False, True, True]
    assert kinds(data.irregular) == ["no ground truth"]


def test_an_unreadable_frame_is_never_black(tmp_path):
    data = data_set(tmp_path, Spec(height=24, width=48, clip_length=2), a=[1, 2])
    (tmp_path / "a/0002.jpg").write_bytes(b"")
    item = data[0]
    assert item["valid"].tolist() == [True, False]
    torch.testing.assert_close(item["frames"][1], item["frames"][0])
    assert kinds(item["irregular"]) == ["unreadable frame"]


def test_what_is_missing_altogether_is_refused(tmp_path):
    with pytest.raises(InputError, match="synthetic"):
        SaliencyVideos(tmp_path / "nowhere", "train", SPEC)
    with pytest.raises(InputError, match=r"splits\.json"):
        SaliencyVideos(tmp_path, "train", SPEC)
    (tmp_path / "splits.json").write_text('{"train": ["gone"]}')
    with pytest.raises(InputError, match="clip without frames"):
        SaliencyVideos(tmp_path, "train", SPEC)
    with pytest.raises(InputError, match="'val'"):
        SaliencyVideos(tmp_path, "val", SPEC)
    wrong = {"{": "not valid JSON", "[1]": "expected {", '{"train": 1}': "expec"}
    for text, message in wrong.items():
        (tmp_path / "splits.json").write_text(text)
        with pytest.raises(InputError, match=message):
            SaliencyVideos(tmp_path, "train", SPEC)


def test_the_built_in_split_is_the_published_one():
    published = json.loads(shared("splits/eccv2018.json").read_text())
    split = eccv2018_split()
    assert sorted(split["train"] + split["val"]) == sorted(published["train"])
    assert split["test"] == sorted(published["test"])
    assert len(split["val"]) == 8


def test_two_frames_of_one_number_are_refused(data_root, tmp_path):
    """Every pair of 0001.png and 0001.jpg was a run: 30 frames had 29 gaps."""
    for number in (1, 2, 3):
        shutil.copy(data_root / f"a/{number:04d}.jpg", data_root / f"a/{number:04d}.png")
    training = train_one_epoch(data_root, tmp_path / "run")
    copying = ended(pack.main, "--data_root", data_root, "--output", tmp_path / "small")
    for code, _, line in (training, copying):
        assert code == 2 and "a/0001.png: same number as 0001.jpg; delete one" in line
    problem = check.check(data_root)["problems"][0]
    assert problem["detail"] == "a/0001.png: same number as 0001.jpg; delete one"


# Names of frames and flow, and of saliency maps: the authors' own (DataLoader360Video.py), those
# that the code of D-SAV360 writes, and without folders of clips.
SST_SAL = {
    "own": ("{0}/{0}_{1:04d}.png", "{0}/{1:04d}.png"),
    "D-SAV360": ("{0}/{0}_{1:04d}.png", "{0}/{0}_{1:04d}.png"),
    "flat": ("{0}_{1:04d}.png", "{0}_{1:04d}.png"),
}


def write_sst_sal_layout(root, clip, numbers, flow=(), names="own"):
    """frames/, saliency_maps/ and optical_flow/."""
    for n in numbers:
        name, name_of_map = (name.format(clip, n) for name in SST_SAL[names])
        picture = moving_disc(n, 32, 64)
        saliency = ((picture[..., 1] > 200) * 200).astype(np.uint8)
        pictures = {f"frames/{name}": picture, f"saliency_maps/{name_of_map}": saliency}
        if n in flow:
            pictures[f"optical_flow/{name}"] = np.full((32, 64, 3), (250, 0, 30), np.uint8)
        for path, values in pictures.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(root / path)


@pytest.mark.parametrize("names", SST_SAL)
def test_the_layout_of_sst_sal(tmp_path, names):
    write_sst_sal_layout(tmp_path, "0001", range(1000, 1006), range(1000, 1004), names)
    write_sst_sal_layout(tmp_path, "0002", range(3), names=names)
    (tmp_path / "splits.json").write_text('{"train": ["0001"], "val": ["0002"]}')
    spec = Spec(height=24, width=48, motion="dis", clip_length=3)
    data = SaliencyVideos(tmp_path, "train", spec)
    assert len(data) == 2
    assert data[1]["name"] == "0001"
    assert data[1]["numbers"].tolist() == [1003, 1004, 1005]
    assert data[1]["target"].amax((1, 2, 3)).tolist() == [1, 1, 1]
    colours = data[0]["motion"].mean((-2, -1))
    torch.testing.assert_close(colours, torch.tensor([[250.0, 0, 30]] * 3) / 255)
    estimated = data[1]["motion"][1:]
    assert estimated.std() > 0  # no picture of the flow: estimated
    assert len(SaliencyVideos(tmp_path, "val", spec)) == 1
    assert check.check(tmp_path)["problems"] == []
    (tmp_path / "frames" / SST_SAL[names][0].format("0002", 2)).unlink()
    [problem] = check.check(tmp_path)["problems"]
    assert problem["kind"] == "ground truth without a frame"
    assert problem["detail"].startswith("saliency_maps")


def test_flow_folders_of_sst_sal_are_read_in_inference(tmp_path):
    write_sst_sal_layout(tmp_path, "0001", range(4), flow=[0, 1, 3])
    spec = Spec(height=24, width=48, motion="dis")
    frames = list(read_frames(tmp_path / "frames/0001", spec))
    red = torch.tensor([250.0, 0, 30]) / 255
    given = [torch.equal(f.motion.mean((1, 2)).mul(255).round(), red * 255) for f in frames]
    assert given == [True, True, False, True]


def test_the_start_of_a_clip_can_be_skipped(tmp_path):
    spec = Spec(height=24, width=48, motion="difference", clip_length=2)
    data = data_set(tmp_path, spec, 3, a=range(1, 9), b=[1, 2, 5, 6, 7, 8, 9])
    assert [data[i]["numbers"].tolist() for i in range(4)] == [[4, 5], [6, 7], [6, 7], [8, 9]]
    assert data[0]["motion"].abs().max() > 0  # looks back into the skipped frames
    assert kinds(data.irregular) == ["too few frames for a sample", "gap in the numbering"]


def test_skipped_frames_are_not_blamed_on_the_layout_alone(tmp_path):
    """SST-Sal on clips of 20 frames: "expected <clip>/0001.jpg", which was there."""
    spec = Spec(height=24, width=48, clip_length=20)
    with pytest.raises(InputError, match="no 20 frames in a row .* skip_frames"):
        data_set(tmp_path, spec, 20, a=range(1, 21))


def test_data_sets_can_be_sent_to_a_process(tmp_path):
    """OpenCV's optical flow can't be pickled, so workers that are spawned would not start."""
    data = data_set(tmp_path, Spec(height=24, width=48, motion="dis"), a=[1, 2])
    expected = data[1]["motion"]
    assert torch.equal(pickle.loads(pickle.dumps(data))[1]["motion"], expected)


def test_the_last_readable_frame_of_the_run_stands_in(tmp_path):
    """It was black where the sample began with what is unreadable, and motion from black."""
    data = data_set(tmp_path, a=range(1, 6))
    for n in (3, 4):
        (tmp_path / f"a/000{n}.jpg").write_bytes(b"")
    frames = [item["frames"] for item in data]
    assert torch.equal(frames[2], frames[1])
    assert torch.equal(frames[3], frames[1])
    assert [item["valid"].item() for item in data] == [True, True, False, False, True]
    assert data[3]["motion"].max() == 0
    moved = (frames[4] - frames[1]).abs().amax(2, keepdim=True)  # of each pixel and column
    assert data[4]["motion"].max() <= moved.max()
    assert data[4]["motion"].mean() < 0.5 * frames[4].mean()


@pytest.mark.parametrize("unreadable", [(), (1, 2), (4, 5), (1, 3, 8)])
@pytest.mark.parametrize("length", [1, 4])
def test_training_evaluation_and_inference_get_the_same_frames(tmp_path, unreadable, length):
    """Inference left unreadable frames out, where training put the last readable one."""
    spec = replace(SPEC, clip_length=length)
    data = data_set(tmp_path, spec, a=range(1, 9))
    for n in unreadable:
        (tmp_path / f"a/000{n}.jpg").write_bytes(b"")
    inference = read_frames(tmp_path / "a", SPEC, fps=Fraction(8))
    evaluation = read_pictures([file.picture for file in data.clips["a"]], SPEC, Fraction(8))
    items = list(data)
    valid = torch.cat([item["valid"] for item in items]).tolist()
    assert [n for n, usable in enumerate(valid, 1) if not usable] == list(unreadable)
    for reader in (inference, evaluation):
        frames = [frame for frame in reader for _ in frame.times]
        assert sorted(reader.damage.unreadable) == list(unreadable)
        assert torch.equal(torch.stack([f.rgb for f in frames]), gathered(items, "frames"))
        assert torch.equal(torch.stack([f.motion for f in frames]), gathered(items, "motion"))
        assert list(reader.times) == [n / 8 for n in range(8)]


def gathered(items, name):
    return torch.cat([item[name] for item in items])


def test_a_clip_without_a_readable_frame_is_never_valid(tmp_path, checkpoint):
    data = data_set(tmp_path, a=[1, 2])
    for path in (tmp_path / "a").glob("*.jpg"):
        path.write_bytes(b"")
    assert not any(item["valid"] or item["frames"].any() for item in data)
    irregular = []
    network = Network(checkpoint, models.load(checkpoint))
    assert list(network.maps("a", data.clips["a"], irregular, None)) == [None, None]
    assert kinds(irregular) == ["unreadable frame"] * 2


def test_clips_listed_twice_and_in_two_splits_are_named(tmp_path):
    """A clip listed twice was scored twice; overlapping splits trained and evaluated silently."""
    splits = {"train": ["a", "a", "b"], "val": ["b"], "test": ["b"]}
    write_data_set(tmp_path, "ab", range(1, 5), **splits)
    data = SaliencyVideos(tmp_path, "train", Spec(height=16, width=32))
    assert len(data) == 8
    assert summarise(data.irregular) == "2 × clip listed more than once (first: a)"
    problems = [tuple(problem.values()) for problem in check.check(tmp_path)["problems"]]
    assert problems == [("clip listed more than once", name) for name in "ab"]


@pytest.mark.parametrize(
    "splits",
    [{"train": "a"}, {"train": [["a"]]}, {"train": [None]}, {"train": {"a": 1}}, {"val": 5},
     {"train": ["../a"]}, {"train": ["/etc"]}, {"train": [".."]}, {"train": [""]}],
)  # fmt: skip
def test_splits_with_entries_of_another_type(data_root, tmp_path, splits):
    """A name that leaves the folder would be written outside the output folder, too."""
    (data_root / "splits.json").write_text(json.dumps(splits))
    refusal(train_one_epoch(data_root, tmp_path / "run"), "splits.json")


def write_data(root, frames=14, clips=("a",), **facts):
    """Clips without loss, as a folder of pictures is read too."""
    for name in clips:
        write_eccv_clip(root / name, range(1, frames + 1))
        for path in (root / name).glob("*.jpg"):
            Image.fromarray(moving_disc(int(path.stem), 32, 64)).save(path.with_suffix(".png"))
            path.unlink()
    (root / "splits.json").write_text(json.dumps({"train": list(clips), "val": list(clips)}))
    if facts:
        (root / "dataset.json").write_text(json.dumps(facts))
    return root


@pytest.mark.parametrize("fps", [30, 25, "30000/1001", 12, 8, 5])
def test_frames_are_those_of_inference(tmp_path, fps):
    data = SaliencyVideos(write_data(tmp_path, fps=fps), "train", SPEC)
    seen = list(read_frames(tmp_path / "a", SPEC, Fraction(fps)))
    assert [int(item["numbers"]) for item in data] == [frame.number for frame in seen]
    for item, frame in zip(data, seen, strict=True):
        assert torch.equal(item["frames"][0], frame.rgb)
        torch.testing.assert_close(item["motion"][0], frame.motion, atol=1e-6, rtol=0)


def test_motion_at_30_fps_was_that_between_consecutive_frames(tmp_path):
    """Networks were trained with less motion than they then saw in videos."""
    consecutive = SaliencyVideos(write_data(tmp_path), "train", SPEC)[4]
    (tmp_path / "dataset.json").write_text('{"fps": 30}')
    sampled = SaliencyVideos(tmp_path, "train", SPEC)[1]
    assert consecutive["numbers"] == sampled["numbers"] == 5
    assert sampled["motion"].mean() > 2 * consecutive["motion"].mean()


def test_every_frame_is_seen_where_nothing_is_stated(tmp_path):
    assert len(SaliencyVideos(write_data(tmp_path), "train", SPEC)) == 14


def test_every_frame_is_seen_where_the_model_asks_for_it(tmp_path):
    every = Spec(height=24, width=48, fps=1000)
    assert len(SaliencyVideos(write_data(tmp_path, fps=30), "train", every)) == 14


def test_what_is_stated_can_be_replaced(tmp_path):
    data = SaliencyVideos(write_data(tmp_path, fps=8), "train", SPEC, fps=Fraction(30))
    assert [int(item["numbers"]) for item in data] == [1, 5, 9, 13]


def test_clips_have_rates_of_their_own(tmp_path):
    write_data(tmp_path, 8, ("a", "b", "c"), fps={"a": 16, "b": "24"})
    data = SaliencyVideos(tmp_path, "train", SPEC, skip_frames=1)
    numbers = {name: [] for name in "abc"}
    for item in data:
        numbers[item["name"]] += item["numbers"].tolist()
    assert numbers == {"a": [3, 5, 7], "b": [4, 7], "c": [2, 3, 4, 5, 6, 7, 8]}


@pytest.mark.parametrize("fps", [0, -1, "fast", None, [25], {"a": "x"}, 1e9, float("nan")])
def test_rates_that_are_none_are_refused(tmp_path, fps):
    with pytest.raises(InputError, match=r"dataset\.json"):
        ClipRates(write_data(tmp_path, fps=fps))


def test_evaluation_scores_the_maps_of_inference(tmp_path):
    """Every frame with a ground truth has a map, interpolated in time as infer_video.py does."""
    write_data(tmp_path, fps=30)
    model = models.CubeUNet(height=40, width=80, base_channels=4).eval()
    models.save(tmp_path / "model.pth", model)
    files, irregular = list_clips(tmp_path)["a"], []
    scored = Network(tmp_path / "model.pth", model).maps("a", files, irregular, Fraction(30))
    frames = read_frames(tmp_path / "a", model.spec, Fraction(30))
    written = [saliency for _, saliency in interpolate(models.predict(model, frames))]
    assert len(written) == 14 and not irregular
    for one, other in zip(scored, written, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, rtol=0)


def test_inference_takes_the_rate_that_the_data_set_states(tmp_path, checkpoint):
    """Frames of 30 a second were taken for 8 a second, with a note to give --fps."""
    write_data(tmp_path / "data", fps={"a": 30, "b": 8})
    for more, fps in (((), 30), (("--fps", 12, "--overwrite"), 12)):
        code, _, errors = infer(tmp_path / "data/a", checkpoint, tmp_path / "maps", *more)
        assert code == 0 and "have no frame rate" not in errors
        assert read_record(tmp_path / "maps")["fps"] == fps
    nested = tmp_path / "sst/frames/a"
    shutil.copytree(tmp_path / "data/a", nested)
    assert rate_of_folder(nested) is None
    shutil.copy(tmp_path / "data/dataset.json", tmp_path / "sst")
    assert rate_of_folder(nested) == 30
    (tmp_path / "data/dataset.json").write_text("[]")
    refusal(infer(tmp_path / "data/a", checkpoint, tmp_path / "other"), "dataset.json: ")
    assert infer(tmp_path / "data/a", checkpoint, tmp_path / "other", "--fps", 8)[0] == 0


def test_the_published_recipe_steps_from_frame_to_frame(tmp_path):
    """It trained on every frame of data without a rate, but inference saw 8 a second."""
    data = write_data(tmp_path / "data")
    words = ("--recipe", "paper", "--model_args", "height=40", "width=80", "base_channels=4")
    assert "frame rate is unknown" not in success(train_one_epoch(data, tmp_path / "run", *words))
    model = models.load(tmp_path / "run/cube_unet_best.pth")
    assert sampling_step(Fraction(30), model.spec.fps) == 1
    code, printed, _ = train_one_epoch(data, tmp_path / "plain")
    assert "note: " in printed and "used as if they were 8 a second; give --fps" in printed


def test_an_unreadable_frame_has_no_map_where_it_would_be_sampled(tmp_path):
    write_data(tmp_path, fps=30)
    (tmp_path / "a/0005.png").write_bytes(b"")
    model = models.CubeUNet(height=40, width=80, base_channels=4).eval()
    models.save(tmp_path / "model.pth", model)
    files, irregular = list_clips(tmp_path)["a"], []
    scored = Network(tmp_path / "model.pth", model).maps("a", files, irregular, Fraction(30))
    assert [number for number, one in enumerate(scored, 1) if one is None] == [5]
    assert [kind for kind, _ in irregular] == ["unreadable frame"]


def test_a_checkpoint_keeps_the_rates_of_its_training(tmp_path):
    data, run = write_data(tmp_path / "data", fps=30), tmp_path / "run"
    assert train_one_epoch(data, run)[0] == 0
    state = last(run)
    assert state["spec"]["fps"] == 8 and state["run"]["data_fps"] == "30"
    assert state["step"] == 2  # 4 of 14 frames, 2 in a batch
    refusal(train_one_epoch(data, run, "--fps", 15), "data_fps 30 instead of 15")
    refusal(train_one_epoch(data, run, "--model_fps", "all"), "fps 8.0 instead of 1000.0")


def test_consecutive_frames_as_published(tmp_path):
    data, run = write_data(tmp_path / "data", fps=30), tmp_path / "run"
    assert train_one_epoch(data, run, "--model_fps", "all")[0] == 0
    assert last(run)["step"] == 7
    model = models.load(run / "cube_unet_best.pth")
    assert len(list(read_frames(data / "a", model.spec, Fraction(30)))) == 14
    assert evaluate(data, tmp_path / "out", "--ckpt_path", run / "cube_unet_best.pth",
                    "--split", "val")[0] == 0  # fmt: skip
