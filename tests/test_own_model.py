"""A model of one's own: one file, named with --model, never imported by a checkpoint."""

import re
import subprocess
import sys
from unittest import mock

import pytest
import torch

import evaluate_video
import infer_video
import models
import train_video
from common import errors
from common.errors import InputError
from models.registry import MODELS, find_model
from tests.clips import write_video
from tests.commands import ended
from tests.trainings import ROOT, write_data

HEADER = "import torch\nfrom models import CubeUNet, SaliencyModel, Spec\n"
NET = """
class Net(SaliencyModel):
    def __init__(self, scale: float = 1.0, deep: bool = False):
        super().__init__(Spec(height=8, width=16), scale=scale, deep=deep)
        self.bias = torch.nn.Parameter(torch.zeros(()))
    def forward(self, frames, motion):
        return (frames.mean(2, keepdim=True) + self.bias).sigmoid() * self.arguments["scale"]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with what an import leaves behind taken back at the end."""
    imported = set(sys.modules)
    monkeypatch.setattr(errors, "_own_code", False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with mock.patch.dict(MODELS):
        yield tmp_path
    for name in set(sys.modules) - imported:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def test_the_file_on_the_page_works_as_it_says(folder):
    """Nothing told how to bring a model, and --model refused all but two names."""
    page = (ROOT / "docs/own_model.md").read_text(encoding="utf-8")
    (folder / "tiny.py").write_text(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])
    commands = re.search(r"```sh\n(.*?)```", page, re.DOTALL)[1].splitlines()
    data, clip = write_data(folder / "data"), write_video(folder / "clip.mp4", frames=4, fps=8)
    more = {
        "train_video.py": "--workers 0 --epochs 1 --samples 4 --model_args height=40 width=80",
        "infer_video.py": "--output_dir maps",
        "evaluate_video.py": "--split val --height 24",
    }
    for command in commands:
        python, script, *words = command.replace("DATA", str(data)).split()
        words += more.pop(script).split()
        if script == "evaluate_video.py":  # in this process, to save time
            assert ended(evaluate_video.main, *words)[0] == 0
            continue
        command = [sys.executable, str(ROOT / script), *words]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        if script == "train_video.py":
            next_step = "infer_video.py --ckpt_path runs/tiny/tiny_best.pth --model tiny:Tiny"
            assert next_step in result.stdout
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
    code, _, line = ended(infer_video.main, *words)
    assert code == 2 and "its model is 'evil:Net', not one of cube_unet" in line
    assert "if you trust" in line and "--model package.module:Class" in line
    for load in (models.load, models.checkpoint.read):
        with pytest.raises(InputError, match="evil:Net"):
            load("foreign.pth")
    assert not (folder / "imported").exists()


def test_a_class_without_a_name_is_called_after_its_module(folder):
    (folder / "nameless.py").write_text(HEADER + NET)
    (folder / "two.py").write_text("from nameless import Net\n")
    kind = find_model("nameless:Net")
    assert kind is find_model("two:Net") is find_model("nameless:Net")
    models.save("net.pth", kind(scale=0.5))
    assert models.checkpoint.read("net.pth")["model"] == "nameless:Net"
    assert isinstance(models.load("net.pth"), kind)
    del MODELS["nameless:Net"]
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


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("resnet", "", "no model 'resnet'; give cube_unet, sst_sal, equator or your own"),
        ("wrong.py", "", "no model 'wrong.py'; give"),
        ("absent:Net", "", "there is no module 'absent'"),
        ("wrong.sub:Net", "", "there is no module 'wrong.sub'"),
        ("wrong:Net", "", "wrong:Net: not a subclass of models.SaliencyModel"),
        ("wrong:Spec", "", "wrong:Spec: not a subclass"),
        ("wrong:torch", "", "wrong:torch: not a subclass"),
        ("wrong:Net", "class Net(SaliencyModel):\n def __init__(self, size): 0\n", "takes 'size'"),
        ("wrong:Net", "class Net(CubeUNet):\n name = 'cube_unet'\n", "has the name 'cube_unet'"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_refused_in_one_line(folder, name, code, says):
    (folder / "wrong.py").write_text(HEADER + code)
    for script in (train_video, infer_video, evaluate_video):
        words = ("--video_path", folder) if script is infer_video else ()
        exit_code, _, line = ended(script.main, "--model", name, *words)
        assert exit_code == 2 and says in line


def test_a_constructor_that_a_checkpoint_could_not_call_is_refused(folder):
    net = (
        "class Net(SaliencyModel):\n    def __init__(self, size: int = 8): super().__init__(Spec())"
    )
    (folder / "wrong.py").write_text(HEADER + net)
    code, _, line = ended(train_video.main, "--model", "wrong:Net", "--output_dir", "run")
    assert code == 2 and "--model wrong:Net: 'size' is not among the arguments of both" in line


@pytest.mark.parametrize(
    ("constructor", "error"),
    [("super().__init__(size=size)", TypeError), ("raise ValueError", ValueError)],
)
def test_an_error_in_the_users_constructor_is_not_hidden(folder, constructor, error):
    net = f"class Net(SaliencyModel):\n    def __init__(self, size: int = 8): {constructor}\n"
    (folder / "broken.py").write_text(HEADER + net)
    with pytest.raises(error):
        train_video.make_model(train_video.parse_args(["--model", "broken:Net"]))


@pytest.mark.parametrize(
    ("code", "error"),
    [("import not_installed", ModuleNotFoundError), ("torch.zeros(-1)", RuntimeError),
     ("int('x')", ValueError), ("class", SyntaxError)],
)  # fmt: skip
def test_errors_of_the_users_own_code_are_not_hidden(folder, code, error):
    (folder / "broken.py").write_text(HEADER + code)
    for script in (train_video, infer_video):
        words = ("--video_path", folder) if script is infer_video else ()
        with pytest.raises(error):
            ended(script.main, "--model", "broken:Net", *words)


def test_a_class_in_models_needs_no_more_than_its_name(folder, monkeypatch):
    (folder / "listed.py").write_text(HEADER + NET)
    kind = find_model("listed:Net")
    monkeypatch.setattr(kind, "name", "net")
    monkeypatch.setitem(MODELS, "net", kind)
    args = train_video.parse_args(["--model", "net", "--model_args", "scale=2"])
    assert (args.epochs, args.learning_rate, args.optimizer) == (10, 2e-3, "adamw")
    model = train_video.make_model(args)
    assert model.arguments == {"scale": 2.0, "deep": False}
    models.save("net.pth", model)
    assert isinstance(models.load("net.pth"), kind)


def test_motion_of_a_model_that_has_no_variants(folder):
    (folder / "still.py").write_text(HEADER + NET)
    code, _, line = ended(train_video.main, "--model", "still:Net", "--motion", "dis")
    assert code == 2 and "--motion dis: motion 'dis' has 3 channels, but this model takes 0" in line


def test_a_checkpoint_of_another_model_than_the_one_named(folder, checkpoint):
    (folder / "other.py").write_text(HEADER + NET)
    words = ("--video_path", folder, "--ckpt_path", checkpoint, "--model", "other:Net")
    code, _, line = ended(infer_video.main, *words)
    assert code == 2 and "holds a cube_unet; leave out --model" in line
