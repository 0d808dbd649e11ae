"""Random changes of clips: right on the sphere, and fixed by seed, epoch and index."""

import math

import numpy as np
import pytest
import torch

from common.components import AUGMENTATIONS
from datasets.augment import MAX_TILT, Augmented, light, mirror, possible, tilt, yaw
from losses import SMSE
from models import Spec
from projection import directions
from video.motion import GREY, ColourDifference, Difference


class Clips:
    """Clips of two smooth frames, with the difference of their grey values and a truth."""

    def __init__(self, motion="difference", height=32, width=64):
        self.spec = Spec(height=height, width=width, clip_length=2, motion=motion)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        points = directions(self.spec.height, self.spec.width, torch.float64)
        colours = torch.linspace(0.1, 0.4, 18, dtype=torch.float64).view(2, 3, 3) * (index + 1) / 3
        frames = (0.5 + torch.einsum("hwx,tcx->tchw", points, colours)).float()
        target = 0.5 + 0.5 * points[None, None, ..., 1].float().repeat(2, 1, 1, 1)
        motion = torch.stack([Difference()(None, frames[0]), Difference()(*frames)])
        channels = {"none": 0, "difference": 1, "dis": 3}[self.spec.motion]
        motion = motion[:, :1].repeat(1, channels, 1, 1) if channels else motion[:, :0]
        counts = torch.arange(64.0).expand(2, 1, self.spec.height, 64)
        return {"frames": frames, "motion": motion, "target": target / target.max(),
                "fixations": counts}  # fmt: skip


def random(seed=0):
    return np.random.default_rng(seed)


def rotation(angle, azimuth):
    """By an angle about the horizontal axis at a longitude, as a matrix exponential: (3, 3)."""
    x, z = math.sin(azimuth), math.cos(azimuth)
    cross = torch.tensor([[0, -z, 0], [z, 0, -x], [0, x, 0]], dtype=torch.float64)
    return torch.linalg.matrix_exp(angle * cross)


def test_yaw_rolls_everything_alike():
    item = Clips()[0]
    shift = int(random(4).integers(64))
    assert shift
    turned = yaw(item, random(4), Difference)
    for name in ("frames", "motion", "target", "fixations"):
        assert torch.equal(turned[name].roll(-shift, -1), item[name])


def test_mirror_every_other_time():
    item = Clips()[0]
    mirrored = 0
    for seed in range(200):
        changed = mirror(item, random(seed), Difference)
        flipped = not torch.equal(changed["frames"], item["frames"])
        mirrored += flipped
        for name in ("frames", "motion", "target", "fixations"):
            expected = item[name].flip(-1) if flipped else item[name]
            assert torch.equal(changed[name], expected)
    assert 70 < mirrored < 130


def test_tilt_is_a_rotation_of_the_sphere():
    """Frames that are linear in the direction, c·x, become linear again, with c turned."""
    item = Clips(height=64, width=128)[0] | {"fixations": None}
    draws = random(1)
    angle, azimuth = draws.uniform(0, MAX_TILT), draws.uniform(0, 2 * math.pi)
    points = directions(64, 128, torch.float64)
    turned = (points.view(-1, 3) @ rotation(angle, azimuth)).view_as(points)
    colours = torch.linspace(0.1, 0.4, 18, dtype=torch.float64).view(2, 3, 3) / 3
    expected = 0.5 + torch.einsum("hwx,tcx->tchw", turned, colours)
    tilted = tilt(item, random(1), Difference)
    torch.testing.assert_close(tilted["frames"].double(), expected, atol=2e-3, rtol=0)
    assert tilted["target"].amax((-2, -1)).flatten().tolist() == [1, 1]
    assert "fixations" not in tilted


@pytest.mark.parametrize("change", [yaw, mirror, tilt])
def test_a_loss_on_the_sphere_does_not_notice_where_things_are(change):
    """Frames and truth move together, so what compares them stays, with exact areas."""
    item = Clips(height=64, width=128)[1] | {"fixations": torch.zeros(2, 1, 64, 128)}
    changed = change(item, random(5), Difference)
    before, after = (
        SMSE()(i["frames"][:, :1], i["target"] / i["target"].mean()) for i in (item, changed)
    )
    assert after.item() == pytest.approx(before.item(), rel=5e-3)


def test_light_changes_grey_values_linearly_and_their_difference_with_them():
    for seed in range(20):
        item = Clips()[0]
        item["frames"] = 0.4 + 0.2 * item["frames"]  # far from black and white
        item["motion"][1] = Difference()(*item["frames"])
        draws = random(seed)
        contrast, _ = draws.uniform(0.75, 1.33), draws.uniform(0.6, 1.4)
        brightness = draws.uniform(-0.1, 0.1)
        changed = light(item, random(seed), Difference)
        old, new = (
            torch.einsum("c,tchw->thw", GREY, frames)
            for frames in (item["frames"], changed["frames"])
        )
        expected = old.mean() + contrast * (old - old.mean()) + brightness
        torch.testing.assert_close(new, expected, atol=1e-5, rtol=0)
        moved = Difference()(*changed["frames"])
        torch.testing.assert_close(changed["motion"][1], moved, atol=1e-6, rtol=0)
        assert changed["target"] is item["target"]
        assert not torch.allclose(changed["frames"], item["frames"], atol=1e-2)


def test_light_stays_in_range():
    item = Clips()[2]
    item["frames"] = (3 * item["frames"] - 1).clamp(0, 1)
    for seed in range(20):
        frames = light(item, random(seed), Difference)["frames"]
        assert frames.min() >= 0 and frames.max() <= 1


def test_an_item_depends_on_seed_epoch_and_index_alone():
    names = list(AUGMENTATIONS)
    one = Augmented(Clips(), names, seed=3)
    first = one[2, 1]["frames"]
    for key in ((1, 1), (2, 2), (2, 0)):
        assert not torch.equal(one[key]["frames"], first)
    assert torch.equal(one[2, 1]["frames"], first)
    assert torch.equal(Augmented(Clips(), names[::-1], seed=3)[2, 1]["frames"], first)
    assert not torch.equal(Augmented(Clips(), names, seed=4)[2, 1]["frames"], first)
    assert torch.equal(Augmented(Clips(), (), seed=3)[2, 1]["frames"], Clips()[1]["frames"])


def test_models_without_motion_and_with_flow():
    frames = Augmented(Clips("none"), list(AUGMENTATIONS), 0)[1, 0]
    assert frames["motion"].shape == (2, 0, 32, 64)
    flow = Augmented(Clips("dis"), ["yaw", "light"], 0)[1, 0]
    assert flow["motion"].shape == (2, 3, 32, 64)
    for name in ("mirror", "tilt"):
        with pytest.raises(ValueError, match=f"{name}: not valid with motion dis"):
            Augmented(Clips("dis"), [name], 0)


def test_the_default_recipe_fits_every_motion():
    """Mirroring by default once would have refused to train with flow."""
    names = ["yaw", "mirror", "tilt", "light"]
    assert possible(names, "difference") == possible(names, "none") == names
    assert possible(names, "dis") == possible(names, "raft") == ["yaw", "light"]
    assert possible(names, "colour_difference") == ["yaw", "mirror", "tilt"]


def test_light_scaled_any_motion_of_one_channel():
    """It took the number of channels for the difference of grey values."""
    item = Clips()[0]
    assert not torch.equal(light(item, random(3), Difference)["motion"], item["motion"])
    assert torch.equal(light(item, random(3), ColourDifference)["motion"], item["motion"])
