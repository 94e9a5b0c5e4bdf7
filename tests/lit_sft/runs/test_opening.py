"""Opening models: devices that do not exist are refused before anything is read."""

from __future__ import annotations

import pytest

from data_modules.errors import UserError
from lit_sft.runs.opening import device_named, open_model


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "--device cuda: PyTorch finds no such device on this machine; expected auto or cpu"),
        ("cuda:1", "--device cuda:1: PyTorch finds no such device"),
        ("gpu", "--device gpu: no such device; expected auto, cpu, cuda"),
    ],
)
def test_missing_device_is_refused(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(UserError, match=message):
        device_named(name)
    with pytest.raises(UserError, match=message):
        open_model("a", "no/such/model", device=name)


def test_device_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [device_named(name) for name in ("auto", "cpu", "cuda:1")] == ["cpu", "cpu", "cuda:1"]
