from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

from callbacks import LossModeAblation, PerplexityMonitor, SampleGeneration, TrialRecord
from callbacks.output import file_in_run

OUTSIDE = ["../x.jsonl", "a/../../x", "/tmp/x.jsonl", "", ".", "..", "a\0b", "a\nb"]


@pytest.mark.parametrize("file", OUTSIDE)
def test_files_of_callbacks_stay_in_the_run_folder(file: str) -> None:
    made: list[Any] = [
        lambda: LossModeAblation(file=file),
        lambda: PerplexityMonitor(file=file),
        lambda: TrialRecord(file=file),
        lambda: SampleGeneration(prompts=["hi"], file=file),
    ]
    for make in made:
        with pytest.raises(ValueError, match=r" file '.*': expected a name inside the run folder"):
            make()


@pytest.mark.parametrize("file", ["a.jsonl", "logs/a b.jsonl", "结果.jsonl"])
def test_names_inside_the_run_folder_are_accepted(file: str) -> None:
    assert Path("/runs/x/version_0", file_in_run(Callback(), file)).is_relative_to("/runs/x/version_0")
