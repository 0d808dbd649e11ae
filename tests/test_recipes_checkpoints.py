"""Recipes that make checkpoints: pretrained, teachers, distill, front; the sample."""

import copy
import math
import struct
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import models
from benchmarks import real_gaze
from common.errors import InputError
from common.files import read_json
from datasets.gaze import gaussian_map
from metrics import cc
from models import CubeUNet, EquatorPrior
from models.checkpoint import read, sha256
from models.efficientnet_lite import STAGES, EfficientNetLite0
from recipes import front, sample
from recipes.distill import main as distill_main
from recipes.distill import training_clips
from recipes.fastgaze import load_fastgaze, panorama_density
from recipes.flat import FlatDensityLoss, FlatUNet, to_tensor
from recipes.flat_photos import HEIGHT, WIDTH, batches
from recipes.gaze_sources import read_sources
from recipes.pretrained import from_pretrained
from recipes.pretrained import main as pretrained_main
from recipes.teachers import lift_of, mean_map
from recipes.teachers import main as teachers_main
from tests.clips import write_data_set, write_video
from tests.commands import ended, run
from tests.scenes import write_photographs
from video.decoding import probe
from video.pictures import read_picture, resize

NAMES = "one", "two"


def package_weights() -> dict[str, torch.Tensor]:
    """Random weights under the names and in the shapes of efficientnet_lite_pytorch."""
    weights, channels = {}, 32

    def conv(name, *shape):
        weights[f"{name}.weight"] = torch.randn(*shape) / 10

    def norm(name, size):
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{name}.{part}"] = torch.rand(size)
        weights[f"{name}.num_batches_tracked"] = torch.tensor(0)

    conv("_conv_stem", 32, 3, 3, 3)
    norm("_bn0", 32)
    number = 0
    for kernel, _, expansion, out, repeats in STAGES:
        for _ in range(repeats):
            block, wide = f"_blocks.{number}", channels * expansion
            if expansion > 1:
                conv(f"{block}._expand_conv", wide, channels, 1, 1)
                norm(f"{block}._bn0", wide)
            conv(f"{block}._depthwise_conv", wide, 1, kernel, kernel)
            norm(f"{block}._bn1", wide)
            conv(f"{block}._project_conv", out, wide, 1, 1)
            norm(f"{block}._bn2", out)
            channels, number = out, number + 1
    conv("_conv_head", 1280, 320, 1, 1)
    norm("_bn1", 1280)
    weights["_fc.weight"], weights["_fc.bias"] = torch.rand(1000, 1280), torch.rand(1000)
    return weights


def test_every_weight_of_the_package_finds_its_place():
    weights = package_weights()
    encoder = EfficientNetLite0()
    encoder.load_state_dict(from_pretrained(weights))  # strict: no name is left over
    first, second = encoder.stages[0][0], encoder.stages[2][1]  # blocks 0 and 4
    layers = {
        "_conv_stem _bn0": encoder.stem,
        "_blocks.0._depthwise_conv _blocks.0._bn1": first.depthwise,
        "_blocks.0._project_conv _blocks.0._bn2": first.project,
        "_blocks.4._expand_conv _blocks.4._bn0": second.expand,
        "_blocks.4._depthwise_conv _blocks.4._bn1": second.depthwise,
        "_blocks.4._project_conv _blocks.4._bn2": second.project,
    }
    for names, layer in layers.items():
        conv, norm = names.split()
        published = nn.Sequential(
            copy.deepcopy(layer.conv), nn.BatchNorm2d(layer.conv.out_channels)
        )
        published[1].eps = 1e-3
        published[1].load_state_dict({k: weights[f"{norm}.{k}"] for k in published[1].state_dict()})
        published[0].load_state_dict(
            {"weight": weights[f"{conv}.weight"], "bias": torch.zeros_like(layer.conv.bias)}
        )
        image = torch.rand(2, layer.conv.in_channels, 9, 9)
        with torch.no_grad():
            torch.testing.assert_close(layer.conv(image), published.eval()(image))


def test_command_makes_a_checkpoint_to_begin_from(tmp_path):
    weights = package_weights()
    torch.save(weights, tmp_path / "lite.pth")
    run(pretrained_main, tmp_path / "lite.pth", tmp_path / "init.pth")
    model = models.load(tmp_path / "init.pth")
    for name, value in from_pretrained(weights).items():
        assert torch.equal(model.backbone.encoder.state_dict()[name], value), name
    assert model.arguments["local_prior"]
    (tmp_path / "other.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match="other.pth: not the weights of EfficientNet-Lite0"):
        run(pretrained_main, tmp_path / "other.pth", tmp_path / "init.pth")


@pytest.fixture
def teacher(tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.distill.COARSEST", 36)
    torch.manual_seed(0)
    model = CubeUNet(base_channels=2, height=72, width=144, front=0.5).eval()
    with torch.no_grad():
        model.head.weight *= 1000  # so that image logits matter
    models.save(tmp_path / "net.pth", model)
    return tmp_path / "net.pth"


@pytest.fixture
def data(tmp_path):
    return write_data_set(tmp_path / "data", numbers=(1, 2), height=32, width=64)


@pytest.fixture
def student(teacher, data, tmp_path):
    """The command that trains a network on the data, up to its options."""
    write_photographs(tmp_path / "sources" / "osie")
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "a.npy", np.full((16, 32), 0.1, np.float16))
    words = "--data_root", data, "--sources", tmp_path / "sources", "--maps", tmp_path / "maps"
    return lambda *options: run(distill_main, teacher, tmp_path / "new.pth", *words, *options)


@torch.no_grad()
def test_teacher_is_the_mean_of_logits_without_a_front(teacher):
    """A frame of one colour looks the same at every size, so the mean is each of them."""
    same = [models.load(teacher, height=h, width=2 * h) for h in (72, 72)]
    frames = torch.rand(1, 1, 3, 72, 144)
    alone = models.load(teacher, front=0.0)(frames, torch.zeros(1, 1, 1, 72, 144))
    torch.testing.assert_close(mean_map(same, frames), alone[0], atol=1e-5, rtol=0)
    grey = torch.full((1, 1, 3, 72, 144), 0.4)
    sizes = [models.load(teacher, height=h, width=2 * h) for h in (48, 72, 96)]
    mean, first = mean_map(sizes, grey), mean_map(sizes[1:2], grey)
    assert (mean - first).abs().max() < 0.1 * first.max()
    row = mean[0, 0, 36]
    assert row[72].item() == pytest.approx(row[0].item(), rel=0.05)  # front and back


@pytest.mark.slow
def test_a_network_learns_the_scenes_own_maps(student, teacher, data, tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.distill.TEACHER", 0.0)
    before = {name: tensor.clone() for name, tensor in models.load(teacher).state_dict().items()}
    losses, truth = [], torch.from_numpy(np.load(data / "a" / "0002_gt.npy"))
    for steps in (1, 60):
        student("--steps", steps, "--rate", 1e-4)
        model = models.load(tmp_path / "new.pth", front=0.0)
        losses.append(score_student(model, data, truth))
    assert losses[1] < losses[0]
    after = model.state_dict()
    fixed = [name for name in after if "running" in name]
    assert fixed and all(torch.equal(after[name], before[name]) for name in fixed)
    assert read(tmp_path / "new.pth")["history"] == [{
        "recipe": "distill", "steps": 60, "rate": 1e-4, "flat": 0.2, "seed": 0,
        "photographs": 4, "sha256": sha256(teacher),
    }]  # fmt: skip
    assert models.load(tmp_path / "new.pth").arguments["front"] == 0.5


@pytest.mark.slow
def test_a_network_learns_what_teachers_have_written(student, teacher, data, tmp_path, monkeypatch):
    """Of a teacher with FastGaze, by whom people are lifted twice."""
    monkeypatch.setattr("recipes.teachers.HEIGHTS", (72, 96))
    monkeypatch.setattr("recipes.distill.TEACHER", 1.0)
    (tmp_path / "maps" / "a.npy").unlink()
    write_fastgaze(tmp_path / "fastgaze.vxm")
    words = "--data_root", data, "--checkpoint", teacher, "--fastgaze", tmp_path / "fastgaze.vxm"
    run(teachers_main, tmp_path / "maps", *words)
    said = np.load(tmp_path / "maps" / "a.npy")
    assert (said.shape, said.dtype) == ((256, 512), np.float16) and (said >= 0).all()
    monkeypatch.setattr("recipes.teachers.FASTGAZE", 0.0)
    lift = np.float16([[1, 2, 9, 0.5]]).repeat(8, axis=1).repeat(16, axis=0)
    np.save(data / "a" / "0002_lift.npy", lift)
    for folder in ("lifted", "plain"):
        run(teachers_main, tmp_path / folder, *words)
        (data / "a" / "0002_lift.npy").unlink(missing_ok=True)
    lifted, plain = (np.load(tmp_path / f / "a.npy").astype(float) for f in ("lifted", "plain"))
    ratio = (lifted / plain)[100, [64, 192, 320, 448]]
    assert ratio == pytest.approx([1, 4, 64, 1], rel=0.004)
    losses = []
    for steps in (1, 40):
        student("--steps", steps, "--rate", 1e-3, "--seed", 1)
        model = models.load(tmp_path / "new.pth", front=0.0)
        losses.append(score_student(model, data, torch.from_numpy(said.astype(np.float32))))
    assert losses[1] < losses[0]
    (tmp_path / "maps" / "a.npy").unlink()
    with pytest.raises(InputError, match="run recipes.teachers"):
        student()


def test_a_lift_has_a_limit(data):
    """At most eight times; a clip without a lift has 1."""
    clip = training_clips(data)[0]
    assert lift_of(clip, 4, 8) == 1.0
    np.save(data / "a" / "0002_lift.npy", np.float16([[1, 4, 16, 64]]).repeat(2, 0))
    assert lift_of(clip, 2, 4)[1] == pytest.approx([1, 4, 8, 8])


@pytest.mark.slow
def test_each_of_two_looks_learns_by_itself(student, tmp_path, monkeypatch):
    """A share of the frames is seen by the second look alone, here all or none."""
    seen = []
    read_faces = CubeUNet.read

    def counting(self, faces):
        if len(faces) == 6:  # not the photographs
            seen.append(faces.shape[-1])
        return read_faces(self, faces)

    monkeypatch.setattr(CubeUNet, "read", counting)
    found = {}
    for share, size in ((0.0, 36), (1.0, 18)):
        monkeypatch.setattr("recipes.distill.SECOND", share)
        student("--steps", 3)
        assert seen == [size] * 3
        seen.clear()
        found[share] = models.load(tmp_path / "new.pth")
        assert found[share].arguments["second_look"] == 0.0
    first, second = (model.backbone.stem[1].weight for model in found.values())
    assert not torch.equal(first, second)


@pytest.mark.slow
def test_photographs_are_learned_beside_the_scenes(student, tmp_path):
    found = []
    for weight in (0.0, 100.0):
        student("--steps", 40, "--rate", 1e-3, "--flat", weight)
        flat = FlatUNet(models.load(tmp_path / "new.pth"))
        pictures = read_sources(tmp_path / "sources")["train"].photographs
        with torch.no_grad():
            loss = FlatDensityLoss(HEIGHT, WIDTH)
            found.append(sum(loss(flat(x), y).item() for x, y in batches(pictures, 1)))
    assert found[1] < found[0] - 0.05, found


def write_fastgaze(path):
    """A network of one convolution that sums the colours, one pooling and one blur."""

    def entry(name, value):
        name = name.encode() + b"\0"
        return struct.pack("<I", len(name)) + name + struct.pack("<I", len(value)) + value

    def number(name, value, kind="<i"):
        return entry(name, struct.pack(kind, value))

    content = number("layerCount", 3) + number("0Type", 0) + number("0Act", 4)
    content += number("0alpha", 0.25, "<f") + entry("0w.shape", struct.pack("<4i", 1, 3, 1, 1))
    content += entry("0w", struct.pack("<3f", 1, 2, 3)) + entry("0b", struct.pack("<f", 4))
    content += number("1Type", 2) + number("1Pool", 2)
    content += number("2Type", 3) + number("2KernelSize", 3) + number("2Std", 1)
    path.write_bytes(struct.pack("<2I", 1, 17) + content)


def test_fastgaze_is_read_layer_by_layer(tmp_path):
    """Against the same three layers, computed by hand; another file is refused."""
    write_fastgaze(tmp_path / "fastgaze.vxm")
    network = load_fastgaze(tmp_path / "fastgaze.vxm")
    image = torch.zeros(1, 3, 6, 6)
    image[..., 2, 2] = torch.tensor([1.0, 1, 1])  # 1 + 2 + 3 + 4 = 10 against 4
    image[..., 0, 0] = -2.0  # (−12 + 4) · 0.25 = −2, which the pooling hides
    side = math.exp(-0.5) / (1 + 2 * math.exp(-0.5))
    weights = torch.tensor([side, 1 - 2 * side, side])
    expected = 4 + 6 * weights[:, None] * weights
    torch.testing.assert_close(network(image)[0, 0], expected)
    density = panorama_density(network, np.full((32, 64, 3), 90, np.uint8), 16, 32)
    assert density == pytest.approx(np.ones((16, 32)), rel=1e-5)
    (tmp_path / "fastgaze.vxm").write_bytes(b"something else that is longer")
    with pytest.raises(InputError, match="fastgaze.vxm: not"):
        load_fastgaze(tmp_path / "fastgaze.vxm")


@torch.no_grad()
def score_student(model, data, truth):
    """1 − CC of the model's map of the last training frame."""
    frame = to_tensor(resize(read_picture(data / "a" / "0002.jpg"), 72, 144))[None, None]
    maps = model(frame, torch.zeros_like(frame[:, :, :1]))[0, 0, 0]
    target = torch.from_numpy(resize(truth.numpy(), 72, 144))
    return 1 - cc(maps, target).item()


def test_other_models_and_data_without_maps_are_refused(student, teacher, data):
    (data / "a" / "0002_gt.npy").unlink()
    with pytest.raises(InputError, match="no training frame with a map"):
        student()
    models.save(teacher, EquatorPrior(8, 16))
    with pytest.raises(InputError, match="give one of a CubeUNet"):
        student()


@pytest.fixture
def folder(tmp_path):
    """Two panoramas at which four people look at one point each, five times."""
    content = {}
    for k, name in enumerate(NAMES):
        place = np.array([40.0 - 120 * k, 10.0])
        fixations = np.repeat(place + 3 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]]), 5, axis=0)
        content[f"{name}_rgb"] = np.full((24, 48, 3), 90, np.uint8)
        content[f"{name}_fix"] = fixations.astype(np.float32)
        content[f"{name}_gt"] = gaussian_map(*np.radians(fixations).T, 32, 64, 5).numpy()
        content[f"{name}_user"] = np.repeat(np.arange(4), 5).astype(np.int16)
    (tmp_path / "sets").mkdir()
    np.savez(tmp_path / "sets/a.npz", **content)
    np.savez(tmp_path / "sets/b.npz", heads=np.zeros(3))
    (tmp_path / "perfect").mkdir()
    for name in NAMES:
        np.save(tmp_path / f"perfect/{name}.npy", content[f"{name}_gt"])
    return tmp_path


def score_people(folder, *more):
    return ended(real_gaze.main, folder / "sets", "--height", 32, *more)


def test_the_table(folder):
    models.save(folder / "prior.pth", models.EquatorPrior(24, 48))
    words = ("--ckpt_path", folder / "prior.pth", "--pred_dir", folder / "perfect")
    code, text, _ = score_people(folder, *words)
    assert code == 0 and "a.npz: 2 panoramas" in text and "b.npz: gaze without panoramas" in text
    rows = {line[:14].strip(): line[14:].split() for line in text.splitlines() if line[:1].strip()}
    assert rows["perfect"][:3] == ["1.000", "1.000", "0.000"]  # CC, SIM, KLD
    assert rows["uniform"][0] == "0.000" and rows["uniform"][4:] == ["0.500", "0.500"]
    for cell, other in zip(rows["prior"], rows["equator prior"]):  # on another grid
        assert abs(float(cell.replace("−", "-")) - float(other.replace("−", "-"))) < 0.03
    assert float(rows["inter-observer"][0]) > 0.5 and float(rows["perfect"][5]) > 0.95


def test_what_can_not_be_scored_is_named(folder):
    code, _, line = score_people(folder, "--ckpt_path", "--pred_dir", folder)
    assert code == 2 and "no one.npy, .exr or .png" in line
    (folder / "sets/c.npz").write_bytes(b"PK no more")
    code, _, line = score_people(folder, "--ckpt_path", "--pred_dir", folder / "perfect")
    assert code == 2 and "c.npz: not a set of panoramas with gaze" in line


def test_latitudes_beyond_the_limit_do_not_count(folder):
    for name in NAMES:
        path = folder / f"perfect/{name}.npy"
        saliency = np.load(path)
        saliency[:4] = 9  # above 67°
        np.save(path, saliency)
    words = ("--ckpt_path", "--pred_dir", folder / "perfect", "--latitude")
    for latitude in (60, 90):
        text = score_people(folder, *words, latitude)[1]
        found = float(text.split("perfect")[1].split()[0].replace("−", "-"))
        assert found > 0.9 if latitude == 60 else found < 0.5


def test_a_checkpoint_gets_a_front_and_smoothing(tmp_path):
    torch.manual_seed(0)
    model = models.CubeUNet(height=40, width=80, base_channels=2)
    models.save(tmp_path / "a.pth", model, run={"loss": "density"})
    words = (tmp_path / "a.pth", tmp_path / "b.pth", "--front", 0.3, "--latitude", 2)
    assert ended(front.main, *words)[0] == 0
    found = models.load(tmp_path / "b.pth")
    assert (found.arguments["front"], found.spec.smoothing) == (0.3, 0.75)
    assert torch.equal(found.latitude_bias, 2 * model.latitude_bias)
    assert torch.equal(found.head.weight, model.head.weight)
    content = read(tmp_path / "b.pth")
    assert content["run"] == {"loss": "density"}
    made = {"recipe": "front", "latitude": 2.0, "sha256": sha256(tmp_path / "a.pth")}
    assert content["history"] == [made]


@pytest.mark.slow
def test_a_part_of_a_clip_becomes_a_page_and_an_animation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = write_video(tmp_path / "hall_64x32.mp4", frames=40, fps=8)
    (tmp_path / "docs").mkdir()
    words = ["sample.py", str(clip), "--output_dir", "docs"]
    with mock.patch.multiple(sample, START=1, SECONDS=2), mock.patch.object(sys, "argv", words):
        sample.main()
        sample.main()  # replaces its files
    assert probe(tmp_path / "outputs/hall.mp4").fps == 8
    record = read_json(tmp_path / "outputs/hall_saliency/saliency.json")
    assert record["complete"] and record["frame_count"] == 24  # from the keyframe before second 1
    page = (tmp_path / "docs/sample.html").read_text(encoding="utf-8")
    assert "<title>hall" in page and '<script type="text/plain" class="clip">' in page
    with Image.open(tmp_path / "docs/overlay.webp") as picture:
        picture.load()
        assert picture.n_frames == 6 and picture.width == 640 and picture.info["duration"] == 500
