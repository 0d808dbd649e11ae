"""Recipes that make checkpoints: average, calibrate, pretrained, distill, front; the sample."""

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
from recipes.average import main as average_main
from recipes.calibrate import calibrate
from recipes.calibrate import main as calibrate_main
from recipes.distill import lift_of, no_motion, teacher_map, training_clips
from recipes.distill import main as distill_main
from recipes.fastgaze import load_fastgaze, panorama_density
from recipes.flat import FlatDensityLoss, FlatUNet, to_tensor
from recipes.flat_photos import HEIGHT, WIDTH, batches
from recipes.gaze_sources import read_sources
from recipes.pretrained import from_pretrained
from recipes.pretrained import main as pretrained_main
from recipes.teachers import main as teachers_main
from tests.clips import write_data_set, write_video
from tests.commands import ended, run
from tests.scenes import write_photographs
from video.decoding import probe
from video.pictures import read_picture, resize

NAMES = "one", "two"


def test_mean_of_checkpoints(tmp_path):
    """Frames may differ in size; another network is refused."""
    sizes = ((2, 68, 136), (2, 72, 144), (3, 68, 136))
    networks = [CubeUNet(base_channels=c, height=h, width=w) for c, h, w in sizes]
    paths = [tmp_path / name for name in ("1.pth", "2.pth", "other.pth")]
    for path, network, lr in zip(paths, networks, (1, 2, 3), strict=True):
        models.save(path, network, run={"loss": "density", "learning_rate": lr})
    run(average_main, tmp_path / "mean.pth", *paths[:2])
    first, second = (network.state_dict() for network in networks[:2])
    mean = models.load(tmp_path / "mean.pth")
    assert mean.arguments == networks[0].arguments
    assert read(tmp_path / "mean.pth")["run"] == {"loss": "density"}  # it was lost
    for name, value in mean.state_dict().items():
        expected = (first[name] + second[name]).div(2).to(value.dtype)
        torch.testing.assert_close(value, expected)
    with pytest.raises(InputError, match="other.pth: not the same kind of model"):
        run(average_main, tmp_path / "mean.pth", *paths)


def network() -> CubeUNet:
    torch.manual_seed(0)
    model = CubeUNet(base_channels=2, height=72, width=144).eval()
    with torch.no_grad():
        model.head.weight *= 5000  # so that image logits matter
    return model


@torch.no_grad()
def clips_of(model, factors, count=6) -> list[dict]:
    """Frames of noise; their ground truth is the model's map with factors and offset applied."""
    clips = []
    for seed in range(count):
        random = torch.Generator().manual_seed(seed)
        coarse = torch.rand(1, 3, 6, 12, generator=random)
        frames = torch.nn.functional.interpolate(coarse, size=(72, 144), mode="bilinear")
        motion = torch.zeros(1, 1, 72, 144)
        image_logits, latitude_bias = model.logits(frames[None], motion[None])
        truth = (factors[0] * image_logits + factors[1] * latitude_bias + factors[2]).sigmoid()
        valid = torch.tensor([seed != 1])
        truth = truth if valid else torch.rand(truth.shape)
        clips.append({"frames": frames, "motion": motion, "target": truth, "valid": valid})
    return clips


def test_known_factors_are_found_and_become_part_of_the_weights():
    model, factors = network(), (0.7, 0.8, 0.5)
    clips = clips_of(model, factors)
    fitted = calibrate(model, clips)
    assert fitted[:3] == pytest.approx(factors, abs=0.05)
    assert fitted.after < 0.02 * fitted.before
    item = clips[0]
    with torch.no_grad():
        maps = model(item["frames"][None], item["motion"][None])[0]
    torch.testing.assert_close(maps, item["target"], atol=0.01, rtol=0)


def test_command_lowers_the_loss_and_refuses_other_models(tmp_path, capsys):
    write_data_set(tmp_path / "data", ["clip"], train=[], val=["clip"])
    model = network()
    models.save(tmp_path / "in.pth", model, mean_of=["a", "b"], run={"loss": "density"})
    models.save(tmp_path / "equator.pth", EquatorPrior())

    rest = tmp_path / "out.pth", "--data_root", tmp_path / "data"
    with pytest.raises(InputError, match="give one of a CubeUNet"):
        run(calibrate_main, tmp_path / "equator.pth", *rest)
    assert not (tmp_path / "out.pth").exists()
    run(calibrate_main, tmp_path / "in.pth", *rest)
    assert "image factor" in capsys.readouterr().out
    facts = models.checkpoint.read(tmp_path / "out.pth")
    fitted = facts["calibrated"]
    assert fitted["after"] < fitted["before"] and len(fitted["sha256"]) == 64
    assert facts["mean_of"] == ["a", "b"] and facts["run"] == {"loss": "density"}
    after = models.load(tmp_path / "out.pth")
    assert after.spec == model.spec
    torch.testing.assert_close(after.head.weight, model.head.weight * fitted["image"])


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
    (tmp_path / "other.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match="other.pth: not the weights of EfficientNet-Lite0"):
        run(pretrained_main, tmp_path / "other.pth", tmp_path / "init.pth")


@pytest.fixture
def teacher(tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.distill.HEIGHTS", (72, 96))
    torch.manual_seed(0)
    model = CubeUNet(base_channels=2, height=72, width=144, front=0.5).eval()
    with torch.no_grad():
        model.head.weight *= 1000  # so that image logits matter
    models.save(tmp_path / "net.pth", model)
    return tmp_path / "net.pth"


@pytest.fixture
def data(tmp_path):
    return write_data_set(tmp_path / "data", numbers=(1, 2), height=32, width=64)


@torch.no_grad()
def test_teacher_is_the_mean_of_logits_without_a_front(teacher):
    """A frame of one colour looks the same at every size, so the mean is each of them."""
    same = [models.load(teacher, height=h, width=2 * h) for h in (72, 72)]
    frames = torch.rand(1, 1, 3, 72, 144)
    alone = models.load(teacher, front=0.0)(frames, no_motion(same[0], frames))
    torch.testing.assert_close(teacher_map(same, frames), alone, atol=1e-5, rtol=0)
    grey = torch.full((1, 1, 3, 72, 144), 0.4)
    sizes = [models.load(teacher, height=h, width=2 * h) for h in (48, 72, 96)]
    mean, first = teacher_map(sizes, grey), teacher_map(sizes[1:2], grey)
    assert (mean - first).abs().max() < 0.1 * first.max()
    row = mean[0, 0, 0, 36]
    assert row[72].item() == pytest.approx(row[0].item(), rel=0.05)  # front and back


@pytest.mark.slow
def test_a_network_learns_the_target(teacher, data, tmp_path):
    """With no share of the teacher, it comes nearer to the map of its only training frame."""
    before = {name: tensor.clone() for name, tensor in models.load(teacher).state_dict().items()}
    losses = []
    for steps in (1, 60):
        output = tmp_path / f"{steps}.pth"
        words = "--data_root", data, "--steps", steps, "--teacher", 0
        run(distill_main, teacher, output, *words)
        model = models.load(output, front=0.0)
        frames = torch.from_numpy(np.load(data / "a" / "0002_gt.npy"))
        losses.append(score_student(model, data, frames))
    assert losses[1] < losses[0]
    after = model.state_dict()
    fixed = [name for name in after if "running" in name]
    assert fixed and all(torch.equal(after[name], before[name]) for name in fixed)
    content = read(output)
    assert content["distilled"] == {
        "teacher": 0.0, "steps": 60, "rate": 1e-4, "varied": False, "looks": False, "lift": 0.0,
        "seed": 0, "photographs": 0, "sha256": sha256(teacher),
    }  # fmt: skip
    assert model.arguments["front"] == 0.0 and models.load(output).arguments["front"] == 0.5


@pytest.mark.slow
def test_a_network_learns_what_teachers_have_written(teacher, data, tmp_path, monkeypatch):
    """From the maps of recipes.teachers, where people count more, with small frames and motion."""
    monkeypatch.setattr("recipes.teachers.HEIGHTS", (72, 96))
    monkeypatch.setattr("recipes.distill.COARSEST", 36)
    write_fastgaze(tmp_path / "fastgaze.vxm")
    words = "--data_root", data, "--checkpoint", teacher, "--fastgaze", tmp_path / "fastgaze.vxm"
    run(teachers_main, tmp_path / "maps", *words)
    said = np.load(tmp_path / "maps" / "a.npy")
    assert (said.shape, said.dtype) == ((256, 512), np.float16) and (said >= 0).all()
    lift = np.float16([[1, 2, 9, 0.5]]).repeat(8, axis=1).repeat(16, axis=0)
    np.save(data / "a" / "0002_lift.npy", lift)
    monkeypatch.setattr("recipes.teachers.FASTGAZE", 0.0)
    for folder in ("lifted", "plain"):
        run(teachers_main, tmp_path / folder, *words)
        (data / "a" / "0002_lift.npy").unlink(missing_ok=True)
    lifted, plain = (np.load(tmp_path / f / "a.npy").astype(float) for f in ("lifted", "plain"))
    ratio = (lifted / plain)[100, [64, 192, 320, 448]]
    assert ratio == pytest.approx([1, 2, 8, 1], rel=0.002)
    losses = []
    for steps in (1, 40):
        words = "--maps", tmp_path / "maps", "--steps", steps, "--teacher", 1, "--rate", 1e-3
        more = "--varied", "--seed", 1
        run(distill_main, teacher, tmp_path / "new.pth", "--data_root", data, *words, *more)
        model = models.load(tmp_path / "new.pth", front=0.0)
        losses.append(score_student(model, data, torch.from_numpy(said.astype(np.float32))))
    assert losses[1] < losses[0]
    (tmp_path / "maps" / "a.npy").unlink()
    again = "--data_root", data, "--maps", tmp_path / "maps"
    code, _, line = ended(distill_main, teacher, tmp_path / "new.pth", *again)
    assert (code, "run recipes.teachers" in line) == (2, True)


def test_a_lift_has_a_limit_and_a_power(data):
    """At most eight times, before the power is taken; a clip without a lift has 1."""
    clip = training_clips(data)[0]
    assert lift_of(clip, 4, 8) == 1.0
    np.save(data / "a" / "0002_lift.npy", np.float16([[1, 4, 16, 64]]).repeat(2, 0).repeat(1, 1))
    assert lift_of(clip, 2, 4, 0.5)[0] == pytest.approx([1, 2, 8**0.5, 8**0.5], rel=1e-3)
    assert lift_of(clip, 2, 4)[1] == pytest.approx([1, 4, 8, 8])


@pytest.mark.slow
def test_each_of_two_looks_learns_by_itself(teacher, data, tmp_path, monkeypatch):
    """A share of the frames is seen by the second look alone, here all or none."""
    seen = []
    read_faces = CubeUNet.read

    def counting(self, faces):
        seen.append(faces.shape[-1])
        return read_faces(self, faces)

    monkeypatch.setattr(CubeUNet, "read", counting)
    found = {}
    for share, size in ((0.0, 36), (1.0, 18)):
        monkeypatch.setattr("recipes.distill.SECOND", share)
        words = "--data_root", data, "--teacher", 0, "--steps", 3, "--looks"
        run(distill_main, teacher, tmp_path / "new.pth", *words)
        assert seen == [size] * 3
        seen.clear()
        found[share] = models.load(tmp_path / "new.pth")
        assert found[share].arguments["second_look"] == 0.0
    first, second = (model.backbone.stem[1].weight for model in found.values())
    assert not torch.equal(first, second)


@pytest.mark.slow
def test_photographs_are_learned_beside_the_scenes(teacher, data, tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.distill.FLAT", 100.0)
    write_photographs(tmp_path / "sources" / "osie")
    pictures = read_sources(tmp_path / "sources")["train"].photographs
    found = []
    for more in ((), ("--photographs", tmp_path / "sources")):
        words = "--data_root", data, "--teacher", 0, "--steps", 40, "--rate", 1e-3
        run(distill_main, teacher, tmp_path / "new.pth", *words, *more)
        flat = FlatUNet(models.load(tmp_path / "new.pth"))
        with torch.no_grad():
            loss = FlatDensityLoss(HEIGHT, WIDTH)
            found.append(sum(loss(flat(x), y).item() for x, y in batches(pictures, 1)))
    assert found[1] < found[0] - 0.05, found
    assert read(tmp_path / "new.pth")["distilled"]["photographs"] == len(pictures)


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
    maps = model(frame, no_motion(model, frame))[0, 0, 0]
    target = torch.from_numpy(resize(truth.numpy(), 72, 144))
    return 1 - cc(maps, target).item()


def test_other_models_and_data_without_maps_are_refused(teacher, data, tmp_path):
    models.save(tmp_path / "equator.pth", EquatorPrior(8, 16))
    words = tmp_path / "out.pth", "--data_root", data
    code, _, line = ended(distill_main, tmp_path / "equator.pth", *words)
    assert (code, "give one of a CubeUNet" in line) == (2, True)
    (data / "a" / "0002_gt.npy").unlink()
    code, _, line = ended(distill_main, teacher, *words)
    assert (code, "no training frame with a map" in line) == (2, True)


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
    assert models.checkpoint.read(tmp_path / "b.pth")["run"] == {"loss": "density"}


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
