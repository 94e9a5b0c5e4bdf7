"""A device that is not there is refused in words of the command line; independent of the machine's real devices."""

from __future__ import annotations

import pytest

from data_modules.errors import UserError
from lit_sft.training.accelerators import accelerator_of, check_accelerator


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Which kinds of device PyTorch finds."""
    found = {"cuda": False, "mps": False}
    monkeypatch.setattr("torch.cuda.is_available", lambda: found["cuda"])
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: found["mps"])
    return found


@pytest.mark.parametrize("name", ["gpu", "cuda"])
def test_a_device_that_is_not_there_is_refused(present: dict[str, bool], name: str) -> None:
    message = rf"^--trainer\.accelerator {name}: PyTorch finds no CUDA GPU on this machine; expected cpu or auto\."
    with pytest.raises(ValueError, match=message):
        check_accelerator(name, 1, "auto")


def test_available_device_is_accepted(present: dict[str, bool]) -> None:
    present["cuda"] = True
    for name in ("gpu", "cuda", "cpu", "auto"):
        check_accelerator(name, 1, "auto")


def test_gpus_of_apple_are_refused_and_never_chosen(present: dict[str, bool]) -> None:
    present["mps"] = True
    with pytest.raises(UserError, match=r"^--trainer\.accelerator mps: .* float64, .*; expected cpu or auto\.$"):
        check_accelerator("mps", 1, "auto")
    with pytest.raises(UserError, match=r"^--trainer\.accelerator gpu: PyTorch finds no CUDA GPU"):
        check_accelerator("gpu", 1, "auto")
    assert accelerator_of("auto") == "cpu"


def test_other_accelerators_are_left_to_lightning(present: dict[str, bool]) -> None:
    assert [accelerator_of(name) for name in ("auto", "cpu", "gpu")] == ["auto", "cpu", "gpu"]
    present |= {"cuda": True, "mps": True}
    assert accelerator_of("auto") == "auto"


@pytest.mark.parametrize("devices", [1, 2, -1, "auto", "1", "-1"])
def test_lightnings_device_formats_are_accepted(present: dict[str, bool], devices: object) -> None:
    check_accelerator("cpu", devices, "ddp")


@pytest.mark.parametrize("devices", ["0,1", [0]])
def test_only_gpus_are_chosen_by_number(present: dict[str, bool], devices: object) -> None:
    with pytest.raises(UserError, match=r"^--trainer\.devices .*: expected the number .*; only GPUs are chosen"):
        check_accelerator("auto", devices, "ddp")
    present["cuda"] = True
    check_accelerator("gpu", devices, "ddp")


def test_devices_that_are_not_numbers_are_refused(present: dict[str, bool]) -> None:
    present["cuda"] = True
    with pytest.raises(UserError, match=r"^--trainer\.devices abc: expected .*, or numbers of GPUs such as 0,1\.$"):
        check_accelerator("gpu", "abc", "auto")


@pytest.mark.parametrize("devices", [0, "0", -3, "-3"])
def test_impossible_number_of_devices_is_refused(present: dict[str, bool], devices: object) -> None:
    with pytest.raises(ValueError, match=rf"^--trainer\.devices {devices}: expected the number of devices, at least 1"):
        check_accelerator("cpu", devices, "auto")


def test_unknown_names_are_refused(present: dict[str, bool]) -> None:
    with pytest.raises(ValueError, match=r"^--trainer\.accelerator xyz: unknown; expected one of auto, cpu, gpu, cuda"):
        check_accelerator("xyz", 1, "auto")
    with pytest.raises(ValueError, match=r"^--trainer\.strategy dpp: unknown; did you mean ddp"):
        check_accelerator("cpu", 1, "dpp")
