"""Models, their checkpoints, and the way of a stream through them."""

import pickle
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import models
from common.errors import InputError
from losses import SMSE
from models import CubeUNet, SaliencyModel, Spec, predict
from models.checkpoint import MODELS
from models.equator_prior import gaze_density
from video import Frame


def small_unet(**arguments):
    torch.manual_seed(0)
    return CubeUNet(**{"base_channels": 4, "height": 40, "width": 80, **arguments})


@pytest.mark.parametrize(
    ("height", "width", "face_size"),
    [(80, 160, None), (68, 140, 35), (61, 123, 31), (60, 120, 17)],
)
def test_unet_at_any_size(height, width, face_size):
    """Among them faces that do not halve evenly."""
    model = small_unet(height=height, width=width, face_size=face_size)
    maps = model(torch.rand(2, 3, 3, height, width), torch.rand(2, 3, 1, height, width))
    assert maps.shape == (2, 3, 1, height, width)
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_unet_takes_frames_of_another_size_than_it_was_built_for():
    built, other = small_unet(), small_unet(height=72, width=144)
    frames, motion = torch.rand(1, 1, 3, 72, 144), torch.rand(1, 1, 1, 72, 144)
    torch.testing.assert_close(built.eval()(frames, motion), other.eval()(frames, motion))


def test_published_size():
    model = CubeUNet()
    assert (model.spec.height, model.spec.width) == (240, 480)
    assert model.to_cube.face_size == 120
    assert model.spec.motion == "difference"
    bytes_of_weights = sum(p.numel() * p.element_size() for p in model.state_dict().values())
    assert bytes_of_weights < 16 * 2**20


def test_gradient_reaches_every_weight_through_the_projection():
    """Regression: the published script detaches the map before its loss and never learns."""
    model = small_unet()
    maps = model(torch.rand(1, 2, 3, 40, 80), torch.rand(1, 2, 1, 40, 80))
    SMSE()(maps, torch.rand_like(maps)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_unet_learns_to_find_a_bright_spot():
    torch.manual_seed(0)
    model = small_unet()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        target = torch.zeros(2, 1, 1, 40, 80)
        for clip in target:
            row, column = torch.randint(8, 32, ()), torch.randint(80, ())
            clip[0, 0, row - 4 : row + 4, :8] = 1
            clip.copy_(clip.roll(int(column), -1))
        maps = model(target.expand(-1, -1, 3, -1, -1), torch.zeros_like(target))
        loss = SMSE()(maps, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.25 * sum(losses[:5])


def test_what_lies_across_an_edge_of_the_cube_matters():
    """With zero padding one 3×3 convolution sees nothing of the neighbouring face."""
    model = small_unet().eval()
    faces = torch.rand(6, 4, 20, 20)
    changed = faces.clone()
    changed[4, :, 10, 0] += 1  # right face, next to the front
    with torch.no_grad():
        difference = (model.backbone.stem(changed) - model.backbone.stem(faces)).abs().sum(1)
    assert difference[2, 10, -1] > 0
    assert difference[2, :, :17].max() == 0  # two convolutions reach two pixels


def test_latitude_prior_is_where_the_rows_are_and_the_network_can_outvote_it():
    """With a network that says nothing, rows follow the prior; with a logit of 9, it wins."""
    model = CubeUNet(base_channels=4, height=48, width=96).eval()
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    torch.nn.init.zeros_(model.latitude_bias)
    with torch.no_grad():
        model.latitude_bias[..., 16] = 3.0  # the equator
        row = model(torch.rand(1, 1, 3, 48, 96), torch.zeros(1, 1, 1, 48, 96))[0, 0, 0]
        assert torch.allclose(row, row[:, :1].expand_as(row), atol=1e-6)
        assert torch.allclose(row[:23], row[25:].flip(0), atol=1e-6)
        assert row[23, 0] > 0.85 and row[0, 0] == 0.5
        model.head.bias.fill_(9.0)
        assert model(torch.rand(1, 1, 3, 48, 96), torch.zeros(1, 1, 1, 48, 96)).min() > 0.99


def test_faces_that_do_not_halve_evenly_are_refused():
    for width in (240, 256, 480):
        with pytest.raises(ValueError, match="96, 128"):
            CubeUNet(backbone="efficientnet_lite0", height=width // 2, width=width)
    model = CubeUNet(backbone="efficientnet_lite0", height=192, width=384)
    with pytest.raises(ValueError, match="multiples of 32"):
        model(torch.rand(1, 1, 3, 240, 480), torch.rand(1, 1, 1, 240, 480))
    with pytest.raises(ValueError, match="one of plain, efficientnet_lite0"):
        CubeUNet(backbone="resnet")


def test_another_motion_image_must_have_as_many_channels():
    model = CubeUNet(in_channels=6, base_channels=4, height=68, width=136)
    model.use_motion("raft")
    assert model.spec.motion == "raft"
    with pytest.raises(ValueError, match="1 channels, but this model takes 3"):
        model.use_motion("difference")


def test_wrong_channels_are_refused():
    with pytest.raises(ValueError, match="3 \\+ 0"):
        small_unet()(torch.rand(1, 1, 3, 40, 80), torch.rand(1, 1, 0, 40, 80))
    with pytest.raises(ValueError, match="in_channels"):
        CubeUNet(in_channels=7)


def test_bfloat16_is_close_to_float32():
    model = small_unet().eval()
    frames, motion = torch.rand(1, 1, 3, 40, 80), torch.rand(1, 1, 1, 40, 80)
    exact = model(frames, motion)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(frames, motion)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05


def test_checkpoint_builds_its_model_again(tmp_path):
    model = small_unet().eval()
    model.spec = Spec(height=40, width=80, motion="difference", fps=5.0)
    models.save(tmp_path / "m.pth", model, epoch=3, val_loss=0.5)
    again = models.load(tmp_path / "m.pth")
    assert not again.training
    assert again.spec == model.spec
    frames, motion = torch.rand(1, 1, 3, 40, 80), torch.rand(1, 1, 1, 40, 80)
    torch.testing.assert_close(again(frames, motion), model(frames, motion), rtol=0, atol=0)
    larger = models.load(tmp_path / "m.pth", height=80, width=160)
    assert larger.to_cube.height == larger.spec.height == 80


def test_another_size_does_not_drop_the_rest_of_the_stored_spec(tmp_path):
    """With any override, the rate and the motion of the checkpoint became the defaults."""
    model = small_unet(in_channels=6)
    model.spec = Spec(height=40, width=80, fps=5.0, motion="raft")
    models.save(tmp_path / "m.pth", model)
    again = models.load(tmp_path / "m.pth", height=80, width=160)
    assert again.spec == replace(model.spec, height=80, width=160)
    model.spec = replace(model.spec, height=60)  # frames of another size than it was built for
    models.save(tmp_path / "m.pth", model)
    assert models.load(tmp_path / "m.pth", face_size=24).spec == model.spec
    assert models.load(tmp_path / "m.pth", height=40).spec == replace(model.spec, height=40)


def test_a_stored_spec_that_an_override_makes_impossible_is_refused(tmp_path):
    model = models.SSTSal(3, 2, height=8, width=16)
    model.spec = replace(model.spec, warm_up=17, fade=2)
    models.save(tmp_path / "m.pth", model)
    reference = models.load(tmp_path / "m.pth", sampling="reference")
    assert (reference.spec.warm_up, reference.spec.fade) == (17, 0)  # as this sampling has it
    model = models.SSTSal(3, 2, "reference", height=8, width=16)
    model.spec = replace(model.spec, warm_up=19)
    models.save(tmp_path / "m.pth", model)
    with pytest.raises(InputError, match="warm_up and fade"):
        models.load(tmp_path / "m.pth", sampling="seamless")


class Attack:
    def __reduce__(self):
        return eval, ("print('executed')",)


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "attack", "other model", "tensor"])
def test_files_that_are_no_checkpoint_are_refused_and_never_executed(kind, tmp_path, capfd):
    path = tmp_path / "m.pth"
    if kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "empty":
        path.touch()
    elif kind == "attack":
        path.write_bytes(pickle.dumps(Attack()))
    elif kind == "other model":
        torch.save({"model": "resnet", "arguments": {}, "weights": {}}, path)
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    with pytest.raises(InputError, match="m.pth"):
        models.load(path)
    assert "executed" not in capfd.readouterr().out


def test_weights_that_do_not_fit_are_refused(tmp_path):
    models.save(tmp_path / "m.pth", small_unet())
    with pytest.raises(InputError, match="do not fit"):
        models.load(tmp_path / "m.pth", base_channels=8)


def test_a_failed_save_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    models.save(tmp_path / "m.pth", small_unet(), epoch=1)
    before = (tmp_path / "m.pth").read_bytes()

    def full_disk(path, content):
        path.write_text("half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        models.save(tmp_path / "m.pth", small_unet(), epoch=2)
    assert (tmp_path / "m.pth").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.pth"]


class Echo(SaliencyModel):
    """Says for each frame which it is and how many frames it had seen in its clip."""

    name = "echo"

    def __init__(self, clip_length, warm_up, fade=0):
        super().__init__(Spec(clip_length=clip_length, warm_up=warm_up, fade=fade))
        self.device_of = nn.Parameter(torch.zeros(()))

    def forward(self, frames, motion):
        assert frames.shape[1] <= self.spec.clip_length
        seen = torch.arange(frames.shape[1]).expand(len(frames), -1)
        return torch.stack([frames[:, :, 0, 0, 0], seen.float()], dim=-1)[:, :, None, None]


def stream(count, taken):
    for number in range(count):
        taken.append(number)
        yield SimpleNamespace(
            number=number, rgb=torch.full((3, 1, 1), float(number)), motion=torch.empty(0, 1, 1)
        )


WINDOWS = [(1, 0, 0), (5, 0, 0), (20, 4, 0), (20, 4, 8), (3, 2, 0), (9, 4, 2), (20, 4, 3)]


@pytest.mark.parametrize(("length", "warm_up", "fade"), WINDOWS)
@pytest.mark.parametrize("count", [0, 1, 7, 16, 20, 21, 53])
def test_one_map_for_each_frame_in_order_after_the_warm_up(length, warm_up, fade, count):
    pairs = list(predict(Echo(length, warm_up, fade), stream(count, [])))
    maps = [saliency for _, saliency in pairs]
    assert [frame.number for frame, _ in pairs] == list(range(count))
    assert [m[0, 0, 0].item() for m in maps] == pytest.approx(list(range(count)))
    settled = maps if fade else maps[warm_up:]
    assert all(m[0, 0, 1] >= warm_up for m in settled)


def test_clips_are_cut_as_published_without_fade():
    """Windows of 20 from frame 0, 16, 32 … with a fresh memory, four frames dropped."""
    seen = [m[0, 0, 1].item() for _, m in predict(Echo(20, 4), stream(50, []))]
    assert seen == [*range(20), *range(4, 20), *range(4, 18)]


def test_clips_fade_into_each_other():
    """What a clip makes of its age turns up in no step larger than the fade allows."""
    seen = [m[0, 0, 1].item() for _, m in predict(Echo(20, 4, 8), stream(60, []))]
    steps = [abs(b - a) for a, b in zip(seen, seen[1:])]
    hard = [m[0, 0, 1].item() for _, m in predict(Echo(20, 4), stream(60, []))]
    assert max(steps) <= 1.0 + 1e-5
    assert max(abs(b - a) for a, b in zip(hard, hard[1:])) == 15


def test_the_stream_is_read_no_further_than_needed():
    taken: list[int] = []
    maps = predict(Echo(20, 4, 8), stream(10**9, taken))
    for made in range(100):
        next(maps)
        assert len(taken) <= made + 32


@pytest.mark.parametrize(("height", "together"), [(40, 8), (240, 8), (320, 4), (512, 1), (2048, 1)])
def test_single_frames_come_in_batches_of_no_more_than_so_many_pixels(height, together):
    model, sizes = Echo(1, 0), []
    model.spec = replace(model.spec, height=height, width=2 * height)
    model.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    assert len(list(predict(model, stream(17, [])))) == 17
    assert max(sizes) == sizes[0] == together


@pytest.mark.parametrize("skip", [0, 1, 13, 16, 17, 35, 52, 53])
def test_skipping_gives_the_same_maps(skip):
    for model in (Echo(20, 4), Echo(1, 0), Echo(20, 4, 8)):
        whole = list(predict(model, stream(53, [])))
        rest = list(predict(model, stream(53, []), lambda f: f.number >= skip))
        assert len(rest) == 53 - skip
        for (frame, a), (other, b) in zip(whole[skip:], rest):
            assert frame.number == other.number and torch.equal(a, b)


def test_every_model_has_its_own_name():
    assert all(model.name == name for name, model in MODELS.items())


def test_the_front_is_favoured_by_the_density_over_longitude():
    """With power f, log odds gain f times the logarithm of the prior's density over longitude."""
    torch.manual_seed(0)
    model = models.CubeUNet(height=40, width=80, base_channels=2, front=0.5).eval()
    frames, motion = torch.rand(1, 1, 3, 40, 80), torch.rand(1, 1, 1, 40, 80)
    plain = models.CubeUNet(height=40, width=80, base_channels=2).eval()
    plain.load_state_dict(model.state_dict())
    gained = (model(frames, motion).logit() - plain(frames, motion).logit())[0, 0, 0]
    density = gaze_density(40, 80)[20]
    expected = 0.5 * (density / density.mean()).log().float()
    torch.testing.assert_close(gained, expected.expand(40, 80), atol=1e-4, rtol=0)
    assert expected[39] == expected.max() and torch.allclose(expected, expected.flip(0))
    # Clips are turned to any side in training, where there is no front.
    assert torch.equal(model.train()(frames, motion), plain.train()(frames, motion))
    # Frames of another width have their own columns.
    wide = torch.rand(1, 1, 3, 60, 120), torch.rand(1, 1, 1, 60, 120)
    gained = (model.eval()(*wide).logit() - plain.eval()(*wide).logit())[0, 0, 0]
    density = gaze_density(60, 120)[30]
    expected = 0.5 * (density / density.mean()).log().float()
    torch.testing.assert_close(gained, expected.expand(60, 120), atol=1e-4, rtol=0)
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="front is from 0 to 1"):
            models.CubeUNet(height=40, width=80, base_channels=2, front=wrong)


def test_logits_of_several_scales_are_their_mean():
    torch.manual_seed(0)
    model = CubeUNet(base_channels=4, height=80, width=160).eval()
    clip = torch.rand(1, 2, 3, 80, 160), torch.rand(1, 2, 1, 80, 160)
    with torch.no_grad():
        own = model.logits(*clip)[0]
        halves = (nn.functional.avg_pool2d(part[0], 2)[None] for part in clip)
        half = model.logits(*halves)[0]
        half = nn.functional.interpolate(half, (80, 160), mode="bilinear")
        model.scales = (1, 0.5)
        torch.testing.assert_close(model.logits(*clip)[0], (own + half) / 2)


def test_projections_for_another_size_are_made_once_and_can_be_trained():
    model = small_unet()
    frames, motion = torch.rand(1, 1, 3, 72, 144), torch.rand(1, 1, 1, 72, 144)
    with torch.inference_mode():
        wanted = model.eval()(frames, motion)
    made = next(iter(model._others.values()))
    model(frames, motion.requires_grad_()).sum().backward()
    assert motion.grad.any()
    assert torch.equal(model(frames, motion), wanted)
    assert next(iter(model._others.values())) is made


def test_qualities(tmp_path):
    """The fast one looks at smaller frames, the best one at larger ones and again at the former."""
    path = tmp_path / "m.pth"
    models.save(path, CubeUNet(base_channels=4, height=80, width=160))
    kinds = [models.load(path, quality=quality) for quality in (None, "fast", "best")]
    found = [(kind.spec.width, kind.scales) for kind in kinds]
    assert found == [(160, (1,)), (120, (1,)), (200, (1, 0.6))]
    frame = torch.rand(1, 1, 3, 100, 200), torch.rand(1, 1, 1, 100, 200)
    assert kinds[2](*frame).shape == (1, 1, 1, 100, 200)
    content = torch.load(path, weights_only=True)
    del content["arguments"]["height"], content["arguments"]["width"]  # which are 240 and 480 then
    torch.save(content, path)
    assert models.load(path, quality="fast").spec.width == 360
    assert models.load(path, quality="fast", width=320).spec.width == 240
    models.save(path, models.EquatorPrior(8, 16))
    with pytest.raises(ValueError, match="quality is one of fast, best, got 'good'"):
        models.load(path, quality="good")
    with pytest.raises(InputError, match="'equator', of one quality"):
        models.load(path, quality="fast")


@pytest.mark.parametrize("threads", [1, 2, 3, 9])
def test_threads_that_compute_different_frames_change_no_map(threads):
    """In order, in mixed precision too, and the threads of whoever calls stay as many."""
    model, number = (
        models.CubeUNet(height=40, width=80, base_channels=2).eval(),
        torch.get_num_threads(),
    )
    torch.manual_seed(0)
    frames = [Frame(n, n / 8, torch.rand(3, 40, 80), torch.rand(1, 40, 80)) for n in range(1, 60)]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        wanted = [model(f.rgb[None, None], f.motion[None, None])[0, 0].float() for f in frames]
        try:
            torch.set_num_threads(threads)
            found = list(predict(model, frames))
            assert torch.get_num_threads() == threads
            with pytest.raises(ValueError, match="expected 3"):
                list(
                    predict(model, [*frames[:32], *(replace(f, motion=f.rgb) for f in frames[32:])])
                )
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(number)
    assert [frame for frame, _ in found] == frames
    for (_, saliency), map_alone in zip(found, wanted, strict=True):
        torch.testing.assert_close(saliency, map_alone, atol=0.01, rtol=0)


def test_a_model_of_ones_own_is_called_by_one_thread_at_a_time():
    class Own(Echo):
        busy = False

        def forward(self, frames, motion):
            assert not self.busy
            self.busy = True
            time.sleep(0.002)
            self.busy = False
            return super().forward(frames, motion)

    assert len(list(predict(Own(1, 0), stream(50, [])))) == 50
