"""The device and the number format of a network's computations."""

from pathlib import Path

import torch

from common.errors import InputError
from common.options import PRECISIONS


def choose_device(name: str, option: str = "--device ") -> torch.device:
    """Return the device of this name, which an option or argument gives.

    Raises InputError where it is not there.
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
    """Return the number format that --precision names on a device."""
    if name != "auto":
        return getattr(torch, PRECISIONS[name])
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and _cpu_has_bf16()
    return torch.bfloat16 if fast else torch.float32


def choose_kernels(device: torch.device, dtype: torch.dtype) -> None:
    """Let a GPU time its kernels, as frames have one size, and use TF32 unless all is float32."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        tf32 = dtype != torch.float32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the context of mixed precision in `dtype`; float32 needs none."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def _cpu_has_bf16() -> bool:
    """Return whether the kernel reports AVX512-BF16, which every CPU with AMX has too."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text(errors="ignore")
