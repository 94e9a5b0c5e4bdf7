"""Wrong arguments give a one-line error that says what is expected."""

from __future__ import annotations

import pytest

from lit_sft.__main__ import main
from lit_sft.settings.arguments import check_run_first

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
    "cut option": (["export", "--out=y"], "--out: no such option; did you mean --output?"),
    "one run too many": (["export", "a", "b"], f"b: not expected here; {LISTED}"),
    "root without value": (
        ["test", "--run.root"],
        "--run.root: expected one argument. Example: `python -m lit_sft test --run.root runs`.",
    ),
}


MISPLACED: dict[str, tuple[list[str], str]] = {
    "run after a value": (
        ["predict", "--data.predict", "my questions.txt", "RUN"],
        "RUN: not expected here; a run goes before the options: "
        "`python -m lit_sft predict RUN --data.predict 'my questions.txt'`.",
    ),
    "run after a joined value": (["test", "--run.root=x", "RUN"], "`python -m lit_sft test RUN --run.root=x`."),
    "run after a flag": (["preview", "--json", "RUN"], "`python -m lit_sft preview RUN --json`."),
    "two runs": (["validate", "A", "B"], "B: not expected here; you have already named the run A."),
}


@pytest.mark.parametrize("name", MISPLACED)
def test_run_named_after_the_options_is_refused_instead_of_using_the_newest(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = MISPLACED[name]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"lit_sft {arguments[0]}: ")
    assert said.err.endswith(f"{message}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["RUN"],
        ["RUN", "--data.predict", "f"],
        ["--run.root", "x", "--data.predict=f"],
        ["RUN", "--masks", "output_only", "whole_sequence", "--num", "2"],
        ["--json", "--num", "2"],
    ],
)
def test_run_in_the_right_position_is_accepted(arguments: list[str]) -> None:
    check_run_first("predict", arguments)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_argument_ends_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = MISTAKES[name]
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"lit_sft {arguments[0]}: {message}\n"
