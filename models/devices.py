"""Where a model runs, and with how many bits."""

import torch

from cli import InputError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """ "auto": the GPU if there is one. Raises InputError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: not available here; use --device cpu") from error
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """ "auto": bfloat16 where the hardware computes in it, else float32."""
    if name != "auto":
        return PRECISIONS[name]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and _cpu_has_bf16()
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Mixed precision in `dtype`; none for float32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def _cpu_has_bf16() -> bool:
    """AVX512-BF16 (which every CPU with AMX has too), as the kernel reports it."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            return any("avx512_bf16" in line for line in file)
    except OSError:
        return False
