from __future__ import annotations

from collections.abc import Callable

import pytest

from lit_sft.settings.run_length import RunLength, run_length

FILES = {
    "epochs": "trainer: {max_epochs: 18}",
    "steps": "trainer: {max_steps: 60}",
    "dotted": "trainer.max_steps: 60",
    "neither": "trainer: {devices: 1}",
    "both": "trainer: {max_epochs: 2, max_steps: 60}",
    "saved": "trainer: {max_epochs: 18, max_steps: -1}",
    "date": "{trainer: {max_steps: 60}, run: {name: 2026-13-45}}",  # a name, not a valid date
}

# arguments (names in FILES are config files), parsed values, resulting limits, unused limits
CASES = [
    ("", 3, -1, (3, -1), ""),
    ("neither", 3, -1, (3, -1), ""),
    ("epochs", 18, -1, (18, -1), ""),
    ("steps", 3, 60, (-1, 60), ""),
    ("dotted", 3, 60, (-1, 60), ""),
    ("date", 3, 60, (-1, 60), ""),
    ("both", 2, 60, (2, 60), ""),
    ("--trainer.max_steps 60", 3, 60, (-1, 60), ""),
    ("--trainer.max_steps=60", 3, 60, (-1, 60), ""),
    ("--trainer.max_steps 60 --trainer.max_epochs 2", 2, 60, (2, 60), ""),
    ("epochs --trainer.max_steps 60", 18, 60, (-1, 60), "max_epochs of epochs"),
    ("saved --trainer.max_steps 60", 18, 60, (-1, 60), "max_epochs of saved"),
    ("steps --trainer.max_epochs 5", 5, 60, (5, -1), "max_steps of steps"),
    ("epochs steps", 18, 60, (-1, 60), "max_epochs of epochs"),
    ("steps neither", 3, 60, (-1, 60), ""),
    ("both --trainer.max_steps 9", 2, 9, (-1, 9), "max_epochs of both"),
    ("steps --trainer.max_steps -1", 3, -1, (3, -1), ""),
    ("epochs --trainer.max_steps -1", 18, -1, (18, -1), ""),
    ("epochs --trainer.max_epochs -1", -1, -1, (-1, -1), ""),
    ("epochs --trainer.max_epochs -1 --trainer.max_steps 60", -1, 60, (-1, 60), ""),
    ("epochs --trainer.max_steps 60 neither", 18, 60, (-1, 60), "max_epochs of epochs"),
    ("--trainer.max_steps 60 epochs", 18, 60, (18, -1), "max_steps of the command line"),
    ('epochs --trainer {"max_steps":60}', 18, 60, (-1, 60), "max_epochs of epochs"),
]


@pytest.mark.parametrize(("typed", "max_epochs", "max_steps", "limits", "unused"), CASES)
def test_last_given_limit_wins(
    write: Callable[..., str], typed: str, max_epochs: int, max_steps: int, limits: tuple[int, int], unused: str
) -> None:
    arguments, paths = [], {}
    for word in typed.split():
        if word in FILES:
            paths[word] = write(f"{word}.yaml", FILES[word])
            arguments += ["--config", paths[word]]
        else:
            arguments.append(word)
    for name, path in paths.items():
        unused = unused.replace(f"of {name}", f"of {path}")
    assert run_length(max_epochs, max_steps, arguments) == RunLength(*limits, unused)
