from __future__ import annotations

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lit_sft.failures import message_of


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MisconfigurationException("no such strategy"), "no such strategy"),
        (
            RuntimeError("Early stopping conditioned on metric `x` which is not available."),
            "Early stopping conditioned",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to"),
            "out of GPU memory (CUDA out of memory). Set `--data.",
        ),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "ran out of memory. Continue from"),
        (
            RuntimeError("Found more than one stateful callback of type `ModelCheckpoint`. In the current"),
            "`trainer.callbacks`: Found more than one stateful callback of type `ModelCheckpoint` with",
        ),
    ],
)
def test_failures_that_a_user_can_mend_are_one_line(error: Exception, message: str) -> None:
    said = message_of(error)
    assert said is not None
    assert message in said
    assert "\n" not in said


def test_other_failures_are_not_hidden() -> None:
    assert message_of(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
