"""Wrong arguments end in one line that says what to give."""

from __future__ import annotations

import pytest

from lit_sft.__main__ import main

REPORT = "`python -m lit_sft report runs/loss_masks`"
ABLATE = "`python -m lit_sft ablate --config configs/ablation/loss_masks.yaml`"
EVALUATE = (
    "`python -m lit_sft evaluate --models base=gpt2 tuned=runs/quickstart/version_0 "
    "--suite configs/evaluate/quickstart.yaml`"
)
LISTED = "`--help` lists all options."

MISTAKES: dict[str, tuple[list[str], str]] = {
    "report alone": (["report"], f"RUN: not given. Example: {REPORT}; {LISTED}"),
    "ablate alone": (["ablate"], f"--config: not given. Example: {ABLATE}; {LISTED}"),
    "evaluate alone": (["evaluate"], f"--models and --suite: not given. Example: {EVALUATE}; {LISTED}"),
    "no value": (["ablate", "--config"], f"--config: expected one argument. Example: {ABLATE}."),
    "no number": (
        ["ablate", "--config", "x", "--jobs", "two"],
        f"--jobs: invalid int value: 'two'. Example: {ABLATE}.",
    ),
    "misspelt option": (["report", "x", "--ouput", "y"], "--ouput: no such option; did you mean --output?"),
    "cut option": (["export", "--out=y"], "--out=y: no such option; did you mean --output or --root?"),
    "one run too many": (["export", "a", "b"], f"b: not expected here; {LISTED}"),
    "root without value": (
        ["test", "--run.root"],
        "--run.root: expected one argument. Example: `python -m lit_sft test --run.root runs`.",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_argument_ends_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = MISTAKES[name]
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"lit_sft {arguments[0]}: {message}\n"
