"""Every model on a GPU that is only imagined: no step of its work touches the CPU."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

import models
import projection.cube_pad
from common.devices import choose_device, choose_kernels
from common.errors import InputError
from common.options import CHECKPOINT
from losses import LOSSES
from models import MODELS

LITE, SMALL = {"backbone": "efficientnet_lite0"}, {"height": 8, "width": 16}
CASES = {
    "plain": ("cube_unet", "smse", {"base_channels": 2, "height": 68, "width": 136}),
    "efficientnet_lite0": ("cube_unet", "density", LITE | {"height": 192, "width": 384}),
    "equator": ("equator", "smse", SMALL),
}
for _sampling in ("seamless", "reference"):
    for _channels, _hidden in ((6, 16), (3, 2)):
        _size = SMALL | {"in_channels": _channels, "hidden_channels": _hidden}
        _case = "sst_sal", "spherical_kl", _size | {"sampling": _sampling}
        CASES[f"sst_sal {_sampling} {_channels}"] = _case


class OnlyCuda(TorchDispatchMode):
    """Raises AssertionError at an operation that makes a tensor elsewhere."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            assert not isinstance(made, Tensor) or made.device.type == "cuda", operation
        return result


def on_cuda(tensor: Tensor) -> Tensor:
    """A fake tensor on the GPU with everything but the values of a real one."""
    kept = {"dtype": tensor.dtype, "requires_grad": tensor.requires_grad}
    return torch.empty_strided(tensor.shape, tensor.stride(), device="cuda", **kept)


@pytest.fixture
def fake_cuda(monkeypatch):
    """A mode in which tensors have no values. Cached indices are made for the CPU, then moved."""
    for name, function in list(vars(projection.cube_pad).items()):
        if hasattr(function, "cache_clear"):
            monkeypatch.setattr(projection.cube_pad, name, made_for_the_cpu(function))
    return FakeTensorMode(allow_non_fake_inputs=True)  # constants such as the cube's axes


def made_for_the_cpu(function):
    """Wrap a cached function of a device, so that its cache keeps no fake tensor."""

    def moved(*arguments):
        cpu = torch.device("cpu")
        if cpu in arguments:  # called by another one
            return function(*arguments)
        with _disable_current_modes():
            made = function(*(cpu if isinstance(a, torch.device) else a for a in arguments))
        return tree_map(on_cuda, made)

    return moved


class Step(nn.Module):
    """A forward pass, its loss and, where wanted, the gradients of all weights."""

    def __init__(self, model: nn.Module, loss: nn.Module):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, frames, motion, target):
        maps = self.model(frames, motion)
        loss = self.loss(maps, target)
        return maps, loss, gradients(loss) if loss.requires_grad else {}


@torch.no_grad()
def gradients(loss: Tensor) -> dict[Tensor, Tensor]:
    """The gradient of each leaf, by a walk over the graph.

    Autograd's own engine refuses tensors of a GPU that the machine does not have.
    """
    order, seen = [], set()

    def visit(node):
        if node is not None and node not in seen:
            seen.add(node)
            for following, _ in node.next_functions:
                visit(following)
            order.append(node)

    visit(loss.grad_fn)
    leaves, sums = {}, {loss.grad_fn: {0: torch.ones_like(loss)}}
    for node in reversed(order):
        known = sums.pop(node, {})
        if hasattr(node, "variable"):
            leaves[node.variable] = known[0]
            continue
        inputs = [
            known.get(k, torch.zeros(of.shape, dtype=of.dtype, device=of.device))
            for k, of in enumerate(node._input_metadata)
        ]
        outputs = (node.apply if hasattr(node, "apply") else node)(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        for (following, k), gradient in zip(node.next_functions, outputs):
            if following is not None and gradient is not None:
                gradient = gradient.sum_to_size(following._input_metadata[k].shape)
                found = sums.setdefault(following, {})
                found[k] = found[k] + gradient if k in found else gradient
    return leaves


def build(case: str) -> tuple[nn.Module, tuple]:
    """A real model with its loss on the CPU, and the shapes of frames, motion and target."""
    name, loss, arguments = CASES[case]
    size = arguments["height"], arguments["width"]
    model = MODELS[name](**arguments)
    motion = {"none": 0, "difference": 1, "dis": 3}[model.spec.motion]
    return Step(model, LOSSES[loss](*size)), tuple((1, 2, c, *size) for c in (3, motion, 1))


def state_on_cuda(step: nn.Module) -> dict[str, Tensor]:
    return {n: on_cuda(t) for n, t in [*step.named_parameters(), *step.named_buffers()]}


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("case", CASES)
def test_nothing_stays_on_the_cpu(case, train, fake_cuda):
    step, shapes = build(case)
    step.train(train)
    trained = [p for p in step.parameters() if p.requires_grad] if train else []
    with fake_cuda, torch.set_grad_enabled(train), OnlyCuda():
        clip = tuple(torch.rand(shape, device="cuda") for shape in shapes)
        maps, loss, found = functional_call(step, state_on_cuda(step), clip)
        assert maps.shape == shapes[2]
        assert maps.device.type == loss.device.type == "cuda"
        assert len(found) == len(trained)
        assert all(gradient.device.type == "cuda" for gradient in found.values())


@pytest.mark.parametrize("case", ["plain", "sst_sal seamless 6"])
def test_the_walk_over_the_graph_gives_autograds_gradients(case):
    step, shapes = build(case)
    step.eval()
    clip = tuple(torch.rand(s) for s in shapes)
    _, loss, found = step(*clip)
    step(*clip)[1].backward()
    for parameter in step.parameters():
        torch.testing.assert_close(found[parameter], parameter.grad)


@pytest.mark.parametrize("name", ["meta", "tpu", "cuda:99", "", "cpu:x", "7"])
def test_devices_that_are_not_there(name):
    with pytest.raises(InputError, match="--device .*; use --device cpu"):
        choose_device(name)
    with pytest.raises(InputError, match=f"^device {name}: not available here; use device cpu$"):
        models.load(CHECKPOINT, name)


@pytest.fixture
def flags():
    """The settings of kernels, which are as before after the test."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    yield cudnn, matmul
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


def test_kernels_of_a_gpu(flags):
    """TF32 rounds to ten bits: not for those who ask for float32."""
    cudnn, matmul = flags
    for dtype, tf32 in ((torch.bfloat16, True), (torch.float32, False)):
        choose_kernels(torch.device("cuda"), dtype)
        assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == (True, tf32, tf32)
    cudnn.benchmark = False
    choose_kernels(torch.device("cpu"), torch.bfloat16)
    assert not cudnn.benchmark
