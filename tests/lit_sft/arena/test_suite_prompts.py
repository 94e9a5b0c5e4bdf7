"""Prompts of a suite."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from data_modules.errors import UserError
from lit_sft.arena.suite_prompts import read_prompts

ROWS = [
    {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    {"messages": [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]},
    {"instruction": "Name a colour.", "output": "red"},
]


def test_prompts_and_single_questions_are_offered_once(write: Callable[..., str]) -> None:
    rows = [ROWS[0], ROWS[3], ROWS[0]]
    suite = (
        f"prompts:\n  fixed: {{prompts: [Who?, Name a colour.]}}\nanswers:\n  mine: {{data: {write('a.json', rows)}}}\n"
    )
    assert read_prompts(write("suite.yaml", suite)) == ["Who?", "Name a colour.", "Add.\n\n1 and 2"]


def test_questions_of_several_turns_are_left_out_and_rows_are_limited(write: Callable[..., str]) -> None:
    data = write("a.json", ROWS[1:3])
    assert read_prompts(write("all.yaml", f"answers:\n  mine: {{data: [{data}]}}\n")) == ["Hi"]
    data = write("b.json", [ROWS[3], ROWS[0]])
    assert read_prompts(write("one.yaml", f"answers:\n  mine: {{data: {data}, rows: 1}}\n")) == ["Name a colour."]


def test_the_suites_of_this_project_have_prompts() -> None:
    assert len(read_prompts("configs/evaluate/prompts.yaml")) == 10
    assert len(read_prompts("configs/evaluate/quickstart.yaml")) > 20


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("choices: {general: {}}", "no prompts; expected sets of `prompts` or `answers`."),
        ("prompts: {a: {prompts: [1]}}", "prompts.a.prompts: expected a list of texts, none of them empty."),
        ("prompts: [a]", "prompts: found a list; expected names of sets"),
        ("answers: {a: {rows: 3}}", "answers.a.data: expected a file or a list of files."),
        ("answers: {a: {data: x.json, rows: 0}}", "answers.a.rows: found 0"),
        ("- a", "found a list; expected a suite"),
    ],
)
def test_mistakes_in_a_suite_are_explained(write: Callable[..., str], suite: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read_prompts(write("suite.yaml", suite))
    assert "suite.yaml" in str(error.value)
    assert message in str(error.value)
