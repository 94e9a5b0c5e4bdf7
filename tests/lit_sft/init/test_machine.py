"""Memory and speed of this machine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lit_sft.init import machine
from lit_sft.init.machine import free_memory, look_around, product_rate


def test_free_memory_is_what_is_available_within_the_limit_of_a_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       2000 kB\nMemFree:         100 kB\nMemAvailable:   1500 kB\n")
    assert free_memory(meminfo, tmp_path) == 1500 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_memory(meminfo, tmp_path) == 1500 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_memory(meminfo, tmp_path) == 4000
    assert free_memory(tmp_path / "none", tmp_path) == 4000
    # files in the cache count as used, and are dropped when a program needs the memory
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 600\nactive_file 50\n")
    assert free_memory(meminfo, tmp_path) == 4600
    (tmp_path / "memory.stat").write_text("anon 100\n")
    assert free_memory(meminfo, tmp_path) == 4000


def test_rate_is_that_of_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    # the limit is at 0.1 s; of the products measured until then, one takes 0.05 s, the other 0.03 s
    clock = iter([0.0, 0.01, 0.01, 0.06, 0.07, 0.07, 0.10, 0.2])
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert product_rate(64, 128, torch.float32, "cpu") == pytest.approx(2 * 512 * 64 * 128 / 0.03)
    assert next(clock, None) is None


@pytest.mark.parametrize(
    ("width", "ratio", "expected"), [(768, 4.0, "bf16-mixed"), (768, 1.2, "32-true"), (64, 4.0, "32-true")]
)
def test_bfloat16_on_a_cpu_only_where_it_is_faster(
    width: int, ratio: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {torch.float32: 1e9, torch.bfloat16: ratio * 1e9}
    monkeypatch.setattr(machine, "product_rate", lambda width, inner, dtype, device: rates[dtype])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = look_around(width, 4 * width)
    assert (found.device, found.precision) == ("cpu", expected)
    assert found.flops == (ratio * 1e9 if expected == "bf16-mixed" else 1e9)
