"""One's own model, loss, metric and motion: a file each, never imported by a checkpoint."""

import json
import multiprocessing
import re
import sys
from contextlib import ExitStack
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate_video
import infer_video
import models
import train_video
from common import errors
from common.components import AUGMENTATIONS, BACKBONES, LAYOUTS, LOSSES, METRICS, MODELS, MOTIONS
from common.errors import InputError
from datasets import SaliencyVideos, augment
from tests.clips import write_video
from tests.commands import TINY_MODEL, ended, refusal, run_as_user, success
from tests.trainings import ROOT, TINY, resolve, write_data
from training.batches import loss_sum, make_loader
from video import read_frames

PAGE = (ROOT / "docs/own_model.md").read_text(encoding="utf-8")
HEADER = "import torch\nfrom models import CubeUNet, SaliencyModel, Spec\n"
NET = """
class Net(SaliencyModel):
    def __init__(self, scale: float = 1.0, deep: bool = False):
        super().__init__(Spec(height=8, width=16), scale=scale, deep=deep)
        self.bias = torch.nn.Parameter(torch.zeros(()))
    def forward(self, frames, motion):
        return (frames.mean(2, keepdim=True) + self.bias).sigmoid() * self.arguments["scale"]
"""

MAINS = {f"{s.__name__}.py": s.main for s in (train_video, infer_video, evaluate_video)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with what an import leaves behind taken back at the end."""
    imported = set(sys.modules)
    monkeypatch.setattr(errors, "_own_code", False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with ExitStack() as restored:
        for kind in (MODELS, BACKBONES, LAYOUTS, LOSSES, METRICS, MOTIONS):
            restored.enter_context(mock.patch.dict(kind.known))
        yield tmp_path
    for name in set(sys.modules) - imported:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.slow
def test_the_file_on_the_page_works_as_it_says(folder):
    """Nothing told how to bring a model, and --model refused all but two names."""
    (folder / "tiny.py").write_text(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1])
    commands = re.search(r"```sh\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
    data, clip = write_data(folder / "data"), write_video(folder / "clip.mp4", frames=4, fps=8)
    more = {
        "train_video.py": "--workers 0 --epochs 1 --samples 4 --model_args height=40 width=80",
        "infer_video.py": "--output_dir maps",
        "evaluate_video.py": "--split val --height 24",
    }
    for command in commands:
        python, script, *words = command.replace("DATA", str(data)).split()
        words += more.pop(script).split()
        if script == "infer_video.py":  # in a process that has not imported the file
            run_as_user(script, *words, cwd=folder)
            continue
        printed = success(ended(MAINS[script], *words))
        if script == "train_video.py":
            next_step = "infer_video.py --ckpt_path runs/tiny/tiny_best.pth --model tiny:Tiny"
            assert next_step in printed
    assert not more and clip.exists()
    assert len(list((folder / "maps").glob("sal_*.png"))) == 4
    stored = torch.load("runs/tiny/tiny_best.pth", weights_only=True)
    assert stored["model"] == "tiny" and stored["arguments"]["height"] == 40
    assert stored["run"]["learning_rate"] == 2e-3  # cube_unet's


def test_a_checkpoint_never_causes_an_import(folder):
    (folder / "evil.py").write_text("open('imported', 'w')\n" + HEADER + NET)
    torch.save({"model": "evil:Net", "arguments": {}, "weights": {}}, "foreign.pth")
    write_video(folder / "clip.mp4", frames=2)
    words = ("--video_path", "clip.mp4", "--ckpt_path", "foreign.pth", "--output_dir", "maps")
    line = refusal(ended(infer_video.main, *words), "its model is 'evil:Net', not one of cube_unet")
    assert "if you trust" in line and "--model package.module:NAME" in line
    for load in (models.load, models.checkpoint.read):
        with pytest.raises(InputError, match="evil:Net"):
            load("foreign.pth")
    assert not (folder / "imported").exists()


def test_a_class_without_a_name_is_called_after_its_module(folder):
    (folder / "nameless.py").write_text(HEADER + NET)
    (folder / "two.py").write_text("from nameless import Net\n")
    kind = MODELS.find("nameless:Net")
    assert kind is MODELS.find("two:Net") is MODELS.find("nameless:Net")
    models.save("net.pth", kind(scale=0.5))
    assert models.checkpoint.read("net.pth")["model"] == "nameless:Net"
    assert isinstance(models.load("net.pth"), kind)
    del MODELS.known["nameless:Net"]
    with pytest.raises(InputError, match="its model is 'nameless:Net'"):
        models.load("net.pth")
    data = write_data(folder / "data")
    words = ("--data_root", data, "--output_dir", "run", "--workers", 0, "--epochs", 1)
    net = ("--model", "nameless:Net")
    assert ended(train_video.main, *words, *net, "--model_args", "scale=0.5", "deep=true")[0] == 0
    assert sorted(path.name for path in (folder / "run").glob("*.pth")) == [
        "Net_best.pth", "Net_last.pth"]  # fmt: skip
    model = models.load("run/Net_best.pth")
    assert model.arguments == {"scale": 0.5, "deep": True}
    assert "resumed after step" in ended(train_video.main, *words, *net, "--epochs", 2,
                                         "--model_args", "scale=0.5", "deep=true")[1]  # fmt: skip


@pytest.mark.parametrize("name, code, says", [
    ("resnet", "", "no model 'resnet'; give cube_unet, sst_sal, equator or your own"),
    ("wrong.py", "", "no model 'wrong.py'; give"),
    ("absent:Net", "", "there is no module 'absent'"),
    ("wrong.sub:Net", "", "there is no module 'wrong.sub'"),
    ("wrong:Net", "", "wrong:Net: not a subclass of models.SaliencyModel"),
    ("wrong:Spec", "", "wrong:Spec: not a subclass"),
    ("wrong:torch", "", "wrong:torch: not a subclass"),
    ("wrong:Net", "class Net(SaliencyModel):\n def __init__(self, size): 0\n", "takes 'size'"),
    ("wrong:Net", "class Net(CubeUNet):\n name = 'cube_unet'\n", "is named 'cube_unet'"),
])  # fmt: skip
def test_what_is_no_model_is_refused_in_one_line(folder, name, code, says):
    (folder / "wrong.py").write_text(HEADER + code)
    for script in (train_video, infer_video, evaluate_video):
        words = ("--video_path", folder) if script is infer_video else ()
        refusal(ended(script.main, "--model", name, *words), says)


def test_a_constructor_that_a_checkpoint_could_not_call_is_refused(folder):
    net = "class Net(SaliencyModel):\n def __init__(self, size: int = 8): super().__init__(Spec())"
    (folder / "wrong.py").write_text(HEADER + net)
    refusal(ended(train_video.main, "--model", "wrong:Net"), "'size' is not among the arguments of")


@pytest.mark.parametrize("option", ["--model", "--loss", "--motion", "--metric"])
@pytest.mark.parametrize("code, error", [
    ("torch.zeros(-1)", RuntimeError), ("int('x')", ValueError), ("class", SyntaxError),
])  # fmt: skip
def test_errors_of_the_users_own_code_are_not_hidden(folder, option, code, error):
    (folder / "broken.py").write_text(HEADER + code)
    script = evaluate_video if option == "--metric" else train_video
    with pytest.raises(error):
        ended(script.main, option, "broken:Net")


def test_an_error_in_the_users_constructor_is_not_hidden(folder):
    net = "class Net(SaliencyModel):\n    def __init__(self, size: int = 8): raise ValueError\n"
    (folder / "broken.py").write_text(HEADER + net)
    with pytest.raises(ValueError):
        resolve(["--model", "broken:Net"])


def test_a_checkpoint_of_another_model_than_the_one_named(folder, checkpoint):
    (folder / "other.py").write_text(HEADER + NET)
    words = ("--video_path", folder, "--ckpt_path", checkpoint, "--model", "other:Net")
    refusal(ended(infer_video.main, *words), "contains a cube_unet; leave out --model")


FILES = {
    "strided": "## A backbone",
    "steady_gaze": "## A loss",
    "on_off": "## A motion",
    "hellinger": "## A metric",
    "rgb_maps": "## A layout",
}


def example(name: str) -> str:
    """Return the code that the page shows in the section about a file."""
    return re.search(r"```python\n(.*?)```", PAGE.split(FILES[name])[1], re.DOTALL)[1]


@pytest.fixture
def examples(folder):
    """The current folder with the page's components."""
    for name in FILES:
        (folder / f"{name}.py").write_text(example(name), encoding="utf-8")
    return folder


def write_gaze(root, clips=4):
    """A data set in which three people look at each frame."""
    write_data(root)
    for n in range(clips):
        rows = [f"{f},{10 * f},{5 * o},{o}" for f in range(1 + n, 5 + n) for o in range(3)]
        table = "\n".join(("frame,longitude,latitude,observer", *rows))
        (root / f"clip{n}/fixations.csv").write_text(table)
    return root


def trained(data, output, *more, code=0):
    words = ("--data_root", data, "--output_dir", output, "--workers", 0, "--epochs", 1)
    found = ended(train_video.main, *words, *more)
    return refusal(found) if code else success(found)


CLIPS = """
class Net(SaliencyModel):
    def __init__(self, size: int = 8):
        super().__init__(Spec(height=size, width=16, clip_length=2), size=size)
        self.bias = torch.nn.Parameter(torch.zeros(()))
    def forward(self, frames, motion):
        return (frames.mean(2, keepdim=True) + self.bias).sigmoid()
"""


def test_every_component_is_of_its_kind():
    for kind in (MODELS, BACKBONES, LAYOUTS, LOSSES, METRICS, MOTIONS):
        module, _, base = kind.base.partition(":")
        base = getattr(import_module(module), base)
        for part in kind.values():
            made = is_dataclass(base)
            assert isinstance(part, base) if made else issubclass(part, base), part
    assert all(AUGMENTATIONS[name] is getattr(augment, name) for name in AUGMENTATIONS)


def test_examples_are_short():
    assert all(len(example(name).splitlines()) <= 15 for name in FILES)


def test_the_commands_on_the_page_train_infer_and_evaluate(examples):
    data, clip = write_gaze(examples / "data"), write_video(examples / "clip.mp4", frames=4, fps=8)
    more = {
        "train_video.py": f"--workers 0 --epochs 1 --samples 4 {' '.join(TINY)}",
        "infer_video.py": "--output_dir maps",
        "evaluate_video.py": "--split val --height 24 --report --output_dir scores",
    }
    commands = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[-1].replace("DATA", str(data))
    for command in commands.splitlines():
        python, script, *words = command.split()
        printed = success(ended(MAINS[script], *words, *more.pop(script).split()))
        if script == "train_video.py":
            assert "steady_gaze:SteadyGaze and scores of the best constant" in printed
            own = "--ckpt_path runs/own/cube_unet_best.pth --motion on_off:OnOff"
            assert f"infer_video.py {own}" in printed
    assert not more and clip.exists()
    assert len(list((examples / "maps").glob("sal_*.png"))) == 4
    stored = torch.load("runs/own/cube_unet_best.pth", weights_only=True)
    assert stored["run"]["loss"] == "steady_gaze:SteadyGaze"
    assert stored["run"]["augment"] == ["yaw", "mirror"]
    assert stored["spec"]["motion"] == "on_off:OnOff" and stored["arguments"]["in_channels"] == 5
    scores = json.loads((examples / "scores/metrics.json").read_text())
    metric = scores["metrics"]["hellinger:HELLINGER"]
    assert metric == {"title": "Hellinger", "higher_is_better": False}
    assert {"inter-observer", "uniform", "cube_unet"} <= scores["predictors"].keys()
    for predictor in scores["predictors"].values():
        assert 0 < predictor["hellinger:HELLINGER"]["mean"] < 1
    assert any(entry["metric"] == "hellinger:HELLINGER" for entry in scores["differences"])
    assert "Hellinger ↓" in (examples / "scores/report.html").read_text(encoding="utf-8")


def test_the_layout_on_the_page_is_found_by_its_folders(examples):
    write_data(examples / "data")
    for path in (examples / "data").glob("*/*.jpg"):
        maps = examples / "data/maps" / path.parent.name
        maps.mkdir(parents=True, exist_ok=True)
        truth = (255 * np.load(path.with_name(f"{path.stem}_gt.npy"))).astype(np.uint8)
        Image.fromarray(truth).save(maps / f"{path.stem}.png")
        (examples / "data/rgb" / path.parent.name).mkdir(parents=True, exist_ok=True)
        path.rename(examples / "data/rgb" / path.parent.name / path.name)
    words, own = ("run", *TINY), ("--layout", "rgb_maps:RGBMaps")
    assert "has no 1 frames in a row" in trained("data", *words, code=2)
    assert "val: 4 samples of 1 frame in 1 clip; all in order" in trained("data", *words, *own)
    scored = ("--ckpt_path", "run/cube_unet_best.pth", "--data_root", "data", "--height", 24)
    success(ended(evaluate_video.main, *scored, "--split", "val", *own))


def test_a_checkpoint_never_imports_a_backbone(examples):
    BACKBONES.find("strided:STRIDED")
    models.save("own.pth", models.CubeUNet(backbone="strided:STRIDED", height=16, width=32))
    del BACKBONES.known["strided:STRIDED"], sys.modules["strided"]
    (examples / "strided.py").write_text("open('imported', 'w')\n" + example("strided"))
    write_video(Path("clip.mp4"), frames=2)
    words = ("--video_path", "clip.mp4", "--ckpt_path", "own.pth", "--output_dir", "maps")
    code, _, line = ended(infer_video.main, *words)
    assert code == 2 and "its backbone is 'strided:STRIDED', not one of plain, published" in line
    assert "add --backbone package.module:NAME" in line and not Path("imported").exists()
    assert ended(infer_video.main, *words, "--backbone", "strided:STRIDED")[0] == 0


def test_a_loss_of_clips_is_called_with_all_maps_and_with_which_are_valid(examples):
    """By hand: uniform maps have likelihood ln(area / 4π) everywhere and do not change."""
    (examples / "pairs.py").write_text(HEADER + CLIPS)
    data = write_gaze(examples / "data")
    (data / "clip3/0005_gt.npy").unlink()
    MODELS.find("pairs:Net")
    kind = LOSSES.find("steady_gaze:SteadyGaze")
    loss_of, seen = kind(8, 16), []
    loss_of.register_forward_hook(lambda _, given, named, out: seen.append((given, named)),
        with_kwargs=True)  # fmt: skip
    item = SaliencyVideos(data, "val", models.Spec(height=8, width=16, clip_length=2))[0]
    batch = {name: item[name][None] for name in ("target", "fixations", "valid")}
    assert batch["valid"].tolist() == [[True, False]]
    areas = loss_of.areas.expand(8, 16)
    looked_at = batch["fixations"][0, 0, 0]
    expected = -(looked_at * (areas / areas.sum()).log()).sum() / looked_at.sum()
    total = loss_sum(loss_of, torch.full((1, 2, 1, 8, 16), 0.5), batch)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)  # one valid map
    [((pred, target), named)] = seen
    assert pred.shape == target.shape == named["fixations"].shape == (1, 2, 1, 8, 16)
    assert named["valid"].shape == (1, 2) and named.keys() == {"fixations", "valid"}
    words = ("--model", "pairs:Net", "--loss", "steady_gaze:SteadyGaze")
    printed = trained(data, "run", *words, "--batch_size", 2, "--accumulate", 2)
    lines = [json.loads(line) for line in (examples / "run/log.jsonl").read_text().splitlines()]
    assert lines[0]["best_constant"] > 0 and f"{lines[0]['best_constant']:.4g}" in printed


def test_fixations_that_a_loss_needs_are_missing(examples):
    data, loss = write_gaze(examples / "data", clips=3), ("--loss", "steady_gaze:SteadyGaze")
    line = trained(data, "run", *TINY, *loss, code=2)
    assert f"{data}: clip clip3 has no fixations, which --loss steady_gaze:SteadyGaze needs" in line
    line = trained(write_data(examples / "none"), "run", *TINY, *loss, code=2)
    assert "clip clip0 has no fixations" in line and not (examples / "run/log.jsonl").exists()
    data = write_gaze(examples / "all")
    line = trained(data, "run", *TINY, *loss, "--augment", "yaw", "tilt", code=2)
    assert "--augment tilt: drops the fixations, which --loss steady_gaze:SteadyGaze needs" in line


@pytest.mark.slow
def test_a_checkpoint_keeps_the_name_of_a_loss_and_imports_nothing(folder):
    code = "from losses import MSE\nopen('imported', 'a').write('x')\nclass Own(MSE): pass\n"
    (folder / "own_loss.py").write_text(code)
    data, loss = write_data(folder / "data"), ("--loss", "own_loss:Own")
    trained(data, "run", *TINY, *loss)
    line = trained(data, "run", *TINY, code=2)
    assert "belongs to a run with loss own_loss:Own instead of smse" in line
    assert "training is complete" in trained(data, "run", *TINY, *loss)
    del LOSSES.known["own_loss:Own"], sys.modules["own_loss"]
    (folder / "imported").unlink()
    line = trained(data, "next", "--init", "run/cube_unet_best.pth", code=2)
    assert "its loss is 'own_loss:Own'; give --loss again" in line
    assert models.load("run/cube_unet_best.pth").name == "cube_unet"
    assert not (folder / "imported").exists()
    assert "smse and scores" in trained(data, "new", "--init", "run/cube_unet_best.pth",
        "--loss", "smse")  # fmt: skip
    assert "own_loss:Own and" in trained(data, "next", "--init", "run/cube_unet_best.pth", *loss)


def test_a_loss_without_a_value_for_the_constant_map_trains(folder):
    """One that compares maps with their mean over the batch divides zero by zero there."""
    code = """
class Spread(MapLoss):
    def loss(self, pred, target, areas):
        spread = pred.flatten(1).sub(pred.flatten(1).mean(0)).square().sum()
        return (pred - target).square().mean() + 0 * spread / (spread if len(pred) == 1 else 1)
"""
    (folder / "spread.py").write_text(HEADER + "from losses import MapLoss\n" + code)
    data = write_data(folder / "data")
    splits = {"train": ["clip0", "clip1"], "val": ["clip2", "clip3"]}
    (data / "splits.json").write_text(json.dumps(splits))
    printed = trained(data, "run", *TINY, "--loss", "spread:Spread", "--batch_size", 2)
    assert "spread:Spread (not finite, left out) and scores of the best constant" in printed
    assert "best_constant_cc" in printed and "of the best constant map's" not in printed
    log = (folder / "run/log.jsonl").read_text()
    assert '"best_constant":' not in log and "NaN" not in log


@pytest.mark.parametrize("option, name, says", [
    ("--loss", "l2", "no loss 'l2'; give smse, mse, density, spherical_kl or your own"),
    ("--loss", "absent:Loss", "absent:Loss: there is no module 'absent'"),
    ("--loss", "wrong:function", "wrong:function: not a subclass of losses.MapLoss"),
    ("--loss", "wrong:made", "wrong:made: not a subclass of losses.MapLoss"),
    ("--loss", "wrong:Missing", "wrong:Missing: not a subclass of losses.MapLoss"),
    ("--motion", "flow", "no motion 'flow'; give none, difference, steady_difference, "
     "colour_difference, dis, raft or your own as package.module:NAME"),
    ("--motion", "wrong:function", "wrong:function: not a subclass of video.motion.Motion"),
    ("--motion", "wrong:Bare", "wrong:Bare: has no number of channels; set"),
    ("--metric", "l2", "no metric 'l2'; give cc, sim, kld"),
    ("--metric", "wrong:function", "wrong:function: not an instance of metrics.Metric"),
    ("--metric", "wrong:Metric", "wrong:Metric: not an instance of metrics.Metric"),
    ("--metric", "wrong:DEPTH", "wrong:DEPTH: needs ('depth',); give it some of fixations"),
    ("--metric", "wrong:NOTHING", "wrong:NOTHING: needs (); give it some of fixations"),
])  # fmt: skip
def test_what_is_no_loss_metric_or_motion_is_refused_in_one_line(folder, option, name, says):
    (folder / "wrong.py").write_text(
        "import torch\nfrom metrics import Metric\nfrom video.motion import Motion\n"
        "def function(*_): 0\nmade = torch.nn.ReLU()\nclass Bare(Motion): pass\n"
        "DEPTH = Metric('D', function, ('depth',))\nNOTHING = Metric('N', function, ())\n"
    )
    for script in (train_video, infer_video, evaluate_video):
        if option == "--motion" or (option == "--loss") == (script is train_video):
            words = ("--video_path", folder) if script is infer_video else ()
            if option == "--metric" and script is infer_video:
                continue
            refusal(ended(script.main, option, name, *words), says)


@pytest.fixture
def moving(examples):
    """A checkpoint whose motion is the page's."""
    channels = 3 + MOTIONS.find("on_off:OnOff").channels
    models.save("moving.pth", models.CubeUNet(**TINY_MODEL | {"in_channels": channels}))
    return examples / "moving.pth"


def forget_motion():
    del MOTIONS.known["on_off:OnOff"], sys.modules["on_off"]


def test_a_checkpoint_never_imports_a_motion(moving):
    forget_motion()
    Path("on_off.py").write_text("open('imported', 'w')\n" + example("on_off"))
    says = "its motion is 'on_off:OnOff', not one of none, difference, steady_difference, colour"
    write_video(Path("clip.mp4"), frames=2)
    for words in ((infer_video, "--video_path", "clip.mp4"), (evaluate_video,), (train_video,)):
        given = "--init" if words[0] is train_video else "--ckpt_path"
        code, _, line = ended(words[0].main, *words[1:], given, moving)
        assert code == 2 and says in line and "add --motion package.module:NAME" in line
    with pytest.raises(InputError, match="its motion is 'on_off:OnOff'"):
        models.load(moving)
    assert not Path("imported").exists()
    MOTIONS.find("on_off:OnOff")
    assert models.load(moving).spec.motion == "on_off:OnOff"


def test_motion_that_a_model_does_not_take(examples):
    own = ("--motion", "on_off:OnOff")
    line = refusal(ended(train_video.main, "--model", "sst_sal", *own))
    assert "in_channels must be 6 (with flow) or 3 (without), got 5" in line
    line = refusal(ended(infer_video.main, "--video_path", examples, *own))
    assert "motion 'on_off:OnOff' has 2 channels, but this model takes 1" in line
    line = refusal(ended(evaluate_video.main, *own))
    assert "--motion on_off:OnOff: none of these models can use it" in line


def test_models_of_different_motions_are_compared(moving, checkpoint):
    forget_motion()
    data = write_data(Path("data"))
    words = ("--ckpt_path", moving, checkpoint, "--data_root", data, "--split", "val",
        "--height", 24, "--motion", "on_off:OnOff", "--output_dir", "scores")  # fmt: skip
    code, printed, line = ended(evaluate_video.main, *words)
    assert code == 0 and "moving" in printed and "tiny" in printed, line


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_workers_make_ones_own_motion(examples, start, monkeypatch):
    """A spawned process knows none of what the main process has imported."""
    MOTIONS.find("on_off:OnOff")
    data = write_data(examples / "data")
    spec = models.Spec(height=8, width=16, clip_length=2, motion="on_off:OnOff")
    clips = SaliencyVideos(data, "train", spec)
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(start, force=True)
    try:
        [batch] = list(make_loader(clips, [[0, 1]], torch.device("cpu"), workers=1))
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert batch["motion"].shape == (2, 2, 2, 8, 16) and batch["motion"][:, 1].any()
    torch.testing.assert_close(batch["motion"][1], clips[1]["motion"])


def test_flow_pictures_took_the_place_of_a_motion_of_three_channels(folder):
    """Any motion of three channels was taken for the colours of flow."""
    code = """
from video.motion import DISFlow, Motion
class Blue(Motion):
    channels = 3
    def __call__(self, previous, current): return torch.zeros_like(current)
class Mine(DISFlow): pass
"""
    (folder / "blue.py").write_text(HEADER + code)
    MOTIONS.find("blue:Blue"), MOTIONS.find("blue:Mine")
    data = write_data(folder / "data")
    for path in (data / "clip0").glob("*.jpg"):
        Image.new("RGB", (40, 20), "red").save(path.with_name(f"{path.stem}_flow.png"))
    for name, colour in (("blue:Blue", [0, 0, 0]), ("blue:Mine", [1, 0, 0]), ("dis", [1, 0, 0])):
        spec = models.Spec(height=8, width=16, motion=name)
        assert SaliencyVideos(data, "train", spec)[0]["motion"].amax((0, 2, 3)).tolist() == colour
        frame = next(read_frames(data / "clip0", spec))
        assert frame.motion.amax((1, 2)).tolist() == colour


def test_weights_of_a_loss_that_would_not_be_trained_are_refused(folder):
    """They stayed as they were drawn, without a word."""
    code = """
class Scaled(SMSE):
    def __init__(self, height, width):
        super().__init__(height, width)
        self.scale = torch.nn.Parameter(torch.ones(()), requires_grad={})
    def loss(self, pred, target, areas):
        return self.scale * super().loss(pred, target, areas)
"""
    data = write_data(folder / "data")
    for name, learned in (("learned", True), ("fixed", False)):
        text = "import torch\nfrom losses import SMSE\n" + code.format(learned)
        (folder / f"{name}.py").write_text(text)
    line = trained(data, "run", "--loss", "learned:Scaled", *TINY, code=2)
    assert "--loss learned:Scaled: 'scale' would not be trained, only the model; call" in line
    trained(data, "run", "--loss", "fixed:Scaled", *TINY)


def test_a_metric_is_weighted_as_the_others(examples):
    """By hand: densities 1 and 0 against 1/2 and 1/2 are sqrt(1 − sqrt(1/2)) apart."""
    metric = METRICS.find("hellinger:HELLINGER")
    pred, target = torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[1.0], [1.0]]])
    expected = (1 - 0.5**0.5) ** 0.5
    assert metric.function(pred, target).tolist() == [pytest.approx(expected)]
    areas = torch.tensor([[1.0], [3.0]])
    assert metric.function(pred, target, weights=areas).tolist() == [pytest.approx(0.5**0.5)]
    assert metric.function(pred, 0 * target).isnan().all()
