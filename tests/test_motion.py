"""Motion images: flow colours, the seam of flow, RAFT's weight files."""

import math

import pytest
import torch
import torch.nn.functional as F

from common.components import MOTIONS
from common.errors import InputError
from tests.shared import reference
from video.motion import DISFlow, FlowImage, RAFTFlow, flow_colours
from video.raft import load_raft


def scene(height=64, width=128) -> torch.Tensor:
    """A smooth texture without an edge at ±180°, (3, H, W)."""
    coarse = torch.rand(1, 1, height // 8, width // 8, generator=torch.Generator().manual_seed(0))
    coarse = F.pad(coarse, (4, 4, 0, 0), mode="circular")
    fine = F.interpolate(coarse, scale_factor=8, mode="bicubic")
    return fine[0, :, :, 32:-32].clamp(0, 1).expand(3, -1, -1).contiguous()


@pytest.mark.parametrize("name", ["rand0", "smooth", "zero", "tiny"])
def test_colours_are_rafts(name):
    stored = reference("flow_colours.npz")
    smooth = stored["flow_smooth"]
    flows = {"zero": 0 * smooth, "tiny": 1e-4 * smooth}
    flow = flows[name] if name in flows else stored[f"flow_{name}"]
    colours = flow_colours(torch.from_numpy(flow).float().permute(2, 0, 1))
    expected = torch.from_numpy(stored[f"{name}_24x32__raft_rgb"]).permute(2, 0, 1)
    difference = ((255 * colours).round() - expected).abs()
    if name == "tiny":  # a few thousandths of a pixel
        assert difference.max() < 8
    else:
        assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01


def test_first_frame_and_stillness_are_white():
    frame, dis = scene(), DISFlow()
    assert dis.channels == 3
    assert torch.equal(dis(None, frame), torch.ones(3, 64, 128))
    assert torch.equal(dis(frame, frame), torch.ones(3, 64, 128))


@pytest.mark.parametrize("shift", [3, -2])
def test_a_turning_scene_flows_alike_at_every_longitude(shift):
    class Seen(DISFlow):
        def flow(self, current, previous):
            self.back = super().flow(current, previous)
            return self.back

    frame, dis = scene(), Seen()
    colours = dis(frame, frame.roll(shift, -1))
    flow = -dis.back[..., 32:-32]
    assert flow.shape == (2, 64, 128)
    assert (flow[0].mean(0) - shift).abs().max() < 0.1
    assert flow[1].abs().mean() < 0.1
    # To the right is red, to the left cyan.
    assert (colours[0] > colours[1]).float().mean() == (1 if shift > 0 else 0)
    assert (colours[..., 0] - colours[..., -1]).abs().mean() < 0.05


def test_flow_is_at_the_pixels_of_the_current_frame():
    class Fixed(FlowImage):
        def flow(self, current, previous):
            back = torch.zeros(2, *current.shape[-2:])
            back[0, :, current.shape[-1] // 2] = -1  # there, it came from the left
            return back

    colours = Fixed()(torch.rand(3, 4, 16), torch.rand(3, 4, 16))
    moved = (colours < 1).any(0).any(0).nonzero().flatten()
    assert moved.tolist() == [8]


def test_raft_runs_across_the_seam(tmp_path, monkeypatch):
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    torch.save(raft_small(weights=None).state_dict(), tmp_path / "raft_small.pth")
    monkeypatch.setattr("video.raft.CHECKPOINTS", tmp_path)
    frame = scene(136, 96)[:, :132]
    colours = RAFTFlow()(frame, frame.roll(2, -1))
    assert colours.shape == (3, 132, 96) and colours.min() >= 0 and colours.max() <= 1


def test_raft_without_weights_names_where_they_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr("video.raft.CHECKPOINTS", tmp_path)
    with pytest.raises(InputError, match=r"raft_large_C_T_SKHT_V2.*pytorch.org"):
        RAFTFlow()
    torch.save({"other": torch.zeros(1)}, tmp_path / "raft-other.pth")
    with pytest.raises(InputError, match="raft-other.pth: not the weights of a supported RAFT"):
        load_raft(tmp_path / "raft-other.pth")


def test_the_steady_difference_counts_less_the_more_everything_moves():
    """One grey level everywhere: the mean over every 90° is that level."""
    steady = MOTIONS["steady_difference"]()
    black = torch.zeros(3, 64, 128)
    assert steady(None, black).abs().max() == 0
    for level in (0.005, 0.03, 0.1):
        expected = level * math.exp(-((level / 0.03) ** 2))
        found = steady(black, torch.full_like(black, level))
        torch.testing.assert_close(found, torch.full((1, 64, 128), expected), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("turn", [0, 37, 100, 127])
def test_the_steady_difference_takes_the_quarter_of_the_horizon_that_moves_most(turn):
    """32 of 128 columns move, within 45° of the horizon, wherever they are: also at the seam."""
    steady, rows, level = MOTIONS["steady_difference"](), slice(16, 48), 0.02
    frame = torch.zeros(3, 64, 128)
    frame[:, rows, :32] = level
    frame[:, :8] = 0.9  # near the pole, where it does not count
    found = steady(torch.zeros_like(frame), frame.roll(turn, -1)).roll(-turn, -1)
    expected = level * math.exp(-((level / 0.03) ** 2))
    torch.testing.assert_close(found[0, rows, :32], torch.full((32, 32), expected))
    assert found[0, rows, 32:].abs().max() == 0


def test_the_rows_of_the_steady_difference_count_by_their_areas():
    """A band moves from the equator to 30° north: sin 30° / (2 sin 45°) of the zone."""
    frame = torch.zeros(3, 180, 360)
    frame[:, 60:90] = 0.05
    found = MOTIONS["steady_difference"]()(torch.zeros_like(frame), frame)
    mean = 0.05 * 0.5 / math.sqrt(2)
    expected = 0.05 * math.exp(-((mean / 0.03) ** 2))
    assert found[0, 75, 0].item() == pytest.approx(expected, rel=1e-3)
