"""Checks the accelerator, devices and strategy before anything is read; Lightning's own errors name its classes."""

from __future__ import annotations

import importlib.util
import re

import torch
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry

from data_modules.errors import UserError
from data_modules.wording import did_you_mean

_NAMES = ("auto", "cpu", "gpu", "cuda")


def accelerator_of(accelerator: object) -> object:
    """The accelerator to use: Lightning's `auto` would choose an Apple GPU, on which runs cannot compute."""
    is_apple = torch.backends.mps.is_available() and not torch.cuda.is_available()
    return "cpu" if accelerator == "auto" and is_apple else accelerator


def check_accelerator(accelerator: object, devices: object, strategy: object) -> None:
    """Check the trainer's settings; objects made in Python are left to Lightning.

    Args:
        accelerator: `--trainer.accelerator`.
        devices: `--trainer.devices`.
        strategy: `--trainer.strategy`.

    Raises:
        UserError: If a name is unknown, or this machine has no such device.
    """
    if isinstance(accelerator, str):
        _check_name(accelerator)
        _check_present(accelerator)
    _check_devices(devices, accelerator)
    if isinstance(strategy, str) and strategy != "auto":
        known = StrategyRegistry.available_strategies()
        if strategy not in known:
            advice = did_you_mean(strategy, known) or "expected one such as auto, ddp or deepspeed_stage_2."
            raise UserError(f"--trainer.strategy {strategy}: unknown; {advice}")


def _check_name(name: str) -> None:
    if name == "mps":
        raise UserError(
            "--trainer.accelerator mps: losses are summed in float64, which Apple's GPUs do not have; "
            "expected cpu or auto."
        )
    if name not in _NAMES and name not in AcceleratorRegistry.available_accelerators():
        raise UserError(f"--trainer.accelerator {name}: unknown; expected one of {', '.join(_NAMES)}.")


def _check_present(name: str) -> None:
    if name in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError(
            f"--trainer.accelerator {name}: PyTorch finds no CUDA GPU on this machine; expected cpu or auto. If it has "
            "one, check the driver and whether this build of PyTorch supports it."
        )
    if name == "tpu" and importlib.util.find_spec("torch_xla") is None:
        raise UserError("--trainer.accelerator tpu: needs the package torch_xla; expected auto, cpu or gpu.")


def _check_devices(devices: object, accelerator: object) -> None:
    expected = "expected the number of devices, at least 1, or auto"
    try:
        count = int(devices) if isinstance(devices, (int, str)) else None
    except ValueError:
        count = None
    if count is not None and (count == 0 or count < -1):
        raise UserError(f"--trainer.devices {devices}: {expected}.")
    if count is None and devices != "auto" and _is_cpu(accelerator):
        raise UserError(f"--trainer.devices {devices}: {expected}; only GPUs are chosen by number, such as 0,1.")
    if isinstance(devices, str) and count is None and not re.fullmatch(r"auto|\d+(, ?\d+)*,?", devices):
        raise UserError(f"--trainer.devices {devices}: {expected}, or numbers of GPUs such as 0,1.")


def _is_cpu(accelerator: object) -> bool:
    return accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
