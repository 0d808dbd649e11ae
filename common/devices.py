"""The device and the number format of a network's computations."""

from pathlib import Path

import torch

from common.errors import InputError
from common.options import PRECISIONS


def choose_device(name: str, option: str = "--device ") -> torch.device:
    """Return the device of this name.

    Raises InputError if it is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"{option}{name}: not available here; use {option}cpu") from error
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the data type of a --precision on a device."""
    if name != "auto":
        return getattr(torch, PRECISIONS[name])
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # AVX512-BF16, which every CPU with AMX has
        facts = Path("/proc/cpuinfo")
        fast = device.type == "cpu" and facts.exists() and b"avx512_bf16" in facts.read_bytes()
    return torch.bfloat16 if fast else torch.float32


def choose_kernels(device: torch.device, dtype: torch.dtype) -> None:
    """Let cuDNN choose kernels by timing, and use TF32 unless the precision is float32."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        tf32 = dtype != torch.float32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the context for mixed precision in `dtype`, a null context for float32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
