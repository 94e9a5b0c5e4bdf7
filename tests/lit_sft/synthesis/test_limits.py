"""A limit that is raised for the prompt is raised in the check `lengths` too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lit_sft.synthesis.checks.checks import read_checks
from lit_sft.synthesis.checks.lengths import Lengths
from lit_sft.synthesis.limits import contradictions, with_room_for
from lit_sft.synthesis.recipe import read_recipe, recipe_names
from lit_sft.synthesis.settings import ModelSettings, SynthesisSettings
from lit_sft.synthesis.synthesize import synthesize
from tests.lit_sft.synthesis.conftest import Run, StartStub
from tests.lit_sft.synthesis.writer import chinese, write_articles


def test_lengths_has_room_for_higher_limits_only() -> None:
    rules = read_checks([{"lengths": {"question_zh": [4, 15]}}, "language"], "checks")
    limits = {"question_length": 50, "answer_length": 200, "paragraph_length": 900}
    [(_, lengths), other] = with_room_for(limits, rules, ["en", "zh"])
    assert lengths == Lengths(question=(3, 50), question_zh=(4, 50))
    assert other == rules[1]
    assert with_room_for(limits, rules, ["en"])[0][1] == Lengths(question=(3, 50), question_zh=(4, 15))


@pytest.mark.parametrize("name", recipe_names())
def test_checks_of_recipes_accept_what_their_prompts_allow(name: str) -> None:
    recipe = read_recipe(name)
    rules = read_checks(recipe.checks, "checks")
    for language in recipe.languages:
        assert with_room_for(recipe.wording(language).limits, rules, [language]) == rules


def test_questions_up_to_a_raised_limit_are_accepted(tmp_path: Path, start_stub: StartStub, run: Run) -> None:
    pair = {"question": "第十号房在哪一年建成而且一直保留到今天供人参观？", "answer": "1704年。"}
    server = start_stub(lambda body: json.dumps({"pairs": [pair] * 3}))
    given = {"articles": write_articles(tmp_path / "a.jsonl", [chinese(1)]), "checks": None}
    refused = [
        run(server, **given, **more)["rules"][0]["refused"] for more in ({}, {"limits": {"question_length": 25}})
    ]
    assert refused == [3, 0]


def test_a_limit_above_that_of_given_checks_is_reported(tmp_path: Path, start_stub: StartStub) -> None:
    lines: list[str] = []
    server = start_stub()
    synthesize(
        SynthesisSettings(
            str(tmp_path / "out"),
            ModelSettings(endpoint=server.address, name="m"),
            articles=write_articles(tmp_path / "a.jsonl", [chinese(1)]),
            language="zh",
            limits={"question_length": 20},
            checks=[{"lengths": {"question_zh": [4, 15]}}],
        ),
        log=lines.append,
    )
    assert lines == [
        "--limits question_length 20: the check lengths refuses more than 15 (question_zh); raise it in --checks"
    ]
    assert contradictions({"question_length": 20}, [("lengths", Lengths(question_zh=(4, 20)))], ["zh"]) == []
