"""What this machine can do: its memory, and how fast it multiplies matrices in each precision."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

_ROWS = 512
_SECONDS = 0.1
_ROUNDS = 3
_FASTER = 1.5
"""How much faster bfloat16 must be than float32 on a CPU to be worth its rounding."""

_WIDE = 512
"""Models that are narrower spend more time on converting numbers than on products."""

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """A device to train on.

    Attributes:
        device: `cpu` or `cuda`.
        name: As people call it.
        memory: Free memory, in bytes.
        precision: The fastest that is safe, as `--trainer.precision` takes it.
        why: Why this one.
        flops: Floating-point operations a second in a product of matrices of the model's size, measured.
    """

    device: str
    name: str
    memory: int
    precision: str
    why: str
    flops: float


def look_around(width: int, inner: int) -> Machine:
    """Look at the GPU if there is one, else at the processor. Takes a second.

    Args:
        width: Hidden width of the model.
        inner: Width inside its layers.
    """
    if torch.cuda.is_available():
        is_new = torch.cuda.get_device_capability()[0] >= 8
        precision = "bf16-mixed" if is_new else "16-mixed"
        rate = product_rate(width, inner, torch.bfloat16 if is_new else torch.float16, "cuda")
        why = "this GPU multiplies in bfloat16" if is_new else "this GPU has no bfloat16"
        name = torch.cuda.get_device_name()
        return Machine("cuda", name, torch.cuda.mem_get_info()[0], precision, why, rate)
    rates = dict.fromkeys((torch.float32, torch.bfloat16), 0.0)
    for dtype in [*rates] * _ROUNDS:  # in turn, because other programs slow this one down
        rates[dtype] = max(rates[dtype], product_rate(width, inner, dtype, "cpu"))
    ratio = rates[torch.bfloat16] / rates[torch.float32]
    is_faster = ratio >= _FASTER and width >= _WIDE
    why = f"this processor multiplies in bfloat16 {ratio:.1f} times as fast as in float32"
    if width < _WIDE:
        why = "the model is too small to gain from bfloat16"
    name = f"CPU, {torch.get_num_threads()} threads"
    precision, dtype = ("bf16-mixed", torch.bfloat16) if is_faster else ("32-true", torch.float32)
    return Machine("cpu", name, free_memory(), precision, why, rates[dtype])


def product_rate(width: int, inner: int, dtype: torch.dtype, device: str) -> float:
    """Floating-point operations a second of a product of (512, width) and (width, inner): the best of several."""
    rows, matrix = (torch.ones(shape, dtype=dtype, device=device) for shape in ((_ROWS, width), (width, inner)))
    best, until = float("inf"), time.perf_counter() + _SECONDS
    rows @ matrix
    while time.perf_counter() < until:
        wait(device)
        began = time.perf_counter()
        rows @ matrix
        wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * _ROWS * width * inner / best


def free_memory(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Memory that this process could still use, in bytes: what is available, within the limit of a container.

    Args:
        meminfo: Linux's table of memory; without it, all memory of the machine counts.
        cgroup: The folder with the container's limit.
    """
    if meminfo.is_file():
        sizes = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        free = 1024 * int(sizes["MemAvailable"].split()[0])
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit, used = (int((cgroup / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no container, or `max`
        return free
    return min(free, limit - used + _reclaimable(cgroup))


def _reclaimable(cgroup: Path) -> int:
    """Bytes of cached files that the kernel drops when a program needs memory; `memory.current` counts them as used."""
    try:
        lines = (cgroup / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return int(dict(line.split() for line in lines).get("inactive_file", 0))


def wait(device: str) -> None:
    """Wait until the device has computed everything."""
    if device == "cuda":
        torch.cuda.synchronize()
