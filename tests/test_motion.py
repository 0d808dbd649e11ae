"""Motion images: flow colours, the seam of flow, RAFT's weight files."""

import pytest
import torch
import torch.nn.functional as F

from common.errors import InputError
from tests.shared import reference
from video.motion import DISFlow, FlowImage, RAFTFlow, flow_colours
from video.raft import load_raft, torchvision_names


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


def authors_raft_names() -> list[str]:
    """Parameter names of raft-sintel.pth, by the structure of its network."""
    names = []

    def add(prefix, norm=False):
        kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        names.extend(f"module.{prefix}.{kind}" for kind in (kinds if norm else kinds[:2]))

    for net in ("fnet", "cnet"):
        for part in ("conv1", "conv2"):
            add(f"{net}.{part}")
        blocks = [f"{net}.layer{n}.{b}" for n in (1, 2, 3) for b in (0, 1)]
        for block in blocks:
            add(f"{block}.conv1")
            add(f"{block}.conv2")
        for block in (blocks[2], blocks[4]):
            add(f"{block}.downsample.0")
        if net == "cnet":
            add(f"{net}.norm1", norm=True)
            for block in blocks:
                add(f"{block}.norm1", norm=True)
                add(f"{block}.norm2", norm=True)
            for block in (blocks[2], blocks[4]):
                add(f"{block}.norm3", norm=True)
                add(f"{block}.downsample.1", norm=True)
    for part in ("encoder.convc1", "encoder.convc2", "encoder.convf1", "encoder.convf2"):
        add(f"update_block.{part}")
    for gate in ("convz1", "convr1", "convq1", "convz2", "convr2", "convq2"):
        add(f"update_block.gru.{gate}")
    for part in ("encoder.conv", "flow_head.conv1", "flow_head.conv2", "mask.0", "mask.2"):
        add(f"update_block.{part}")
    return names


def test_rafts_own_names_become_torchvisions(tmp_path):
    from torchvision.models.optical_flow import raft_large

    expected = raft_large(weights=None).state_dict()
    names = authors_raft_names()
    target = {name: next(iter(torchvision_names({name: name})), None) for name in names}
    assert {v for v in target.values() if v} == set(expected)
    theirs = {name: expected[t] for name, t in target.items() if t}
    torch.save(theirs, tmp_path / "raft-sintel.pth")
    network = load_raft(tmp_path / "raft-sintel.pth")
    for name, tensor in network.cpu().state_dict().items():
        assert torch.equal(tensor, expected[name])


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
    with pytest.raises(InputError, match=r"raft_large_C_T_SKHT_V2.*princeton-vl/RAFT"):
        RAFTFlow()
    torch.save({"other": torch.zeros(1)}, tmp_path / "raft-other.pth")
    with pytest.raises(InputError, match="raft-other.pth: not the weights of a RAFT"):
        load_raft(tmp_path / "raft-other.pth")
