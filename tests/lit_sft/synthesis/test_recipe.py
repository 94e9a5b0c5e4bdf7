"""The recipes of the project, and recipes of one's own: right ones and wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_modules.errors import UserError
from lit_sft.synthesis.checks.checks import Checks
from lit_sft.synthesis.parsing import ReplyText, read_items
from lit_sft.synthesis.recipe import FOLDER, PLACEHOLDERS, all_recipes, read_recipe, recipe_names

OWN: dict[str, Any] = {
    "about": "One question.",
    "reads": "article",
    "reply": {"fields": ["question", "answer"]},
    "turns": [["$question", "$answer"]],
    "en": {"prompt": "Ask about: $article $format", "again": "$reason"},
}


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_of_the_project_has_both_languages_and_its_checks_are_read(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.languages == ["en", "zh"]
    given = {placeholder: f"<{placeholder} $1>" for placeholder in PLACEHOLDERS[recipe.reads]}
    for language in recipe.languages:
        prompt = recipe.prompt(language, given)
        shown = [value for name, value in given.items() if name != "article" or recipe.shows_article]
        assert all(value in prompt for value in shown)  # a $ in an article is only a $
        assert recipe.reply.example() in prompt
        assert all(str(limit) in prompt for limit in recipe.wording(language).limits.values())
        assert "because" in recipe.again(language, "because")
    Checks.from_settings(recipe.checks, ask=lambda messages: "")


def test_recipes_make_the_turns_that_they_are_for() -> None:
    made = {recipe.name: recipe for recipe in all_recipes()}
    given = {"question": "q", "answer": "a"}
    assert made["pairs"].conversation({}, {"question": "q $1", "answer": "a"}) == (("q $1", "a"),)
    assert made["paraphrase"].conversation(given, {"paraphrase": "p"}) == (("p", "a"),)
    second = made["second_turn"].conversation(given, {"next_question": "r", "next_answer": "b"})
    assert second == (("q", "a"), ("r", "b"))
    assert made["answers"].conversation({"question": "q"}, {"answer": "a"}) == (("q", "a"),)
    assert made["self_instruct"].conversation({}, {"task": "t", "result": "r"}) == (("t", "r"),)
    assert made.keys() == {"pairs", "paraphrase", "second_turn", "answers", "self_instruct"}


@pytest.mark.parametrize("name", recipe_names())
def test_schema_allows_what_the_parser_reads(name: str) -> None:
    form = read_recipe(name).reply
    item = dict.fromkeys(form.fields, "text")
    reply = item if form.items is None else {form.items: [item] * form.count[1]}
    assert len(read_items(ReplyText(json.dumps(reply)), form)) == form.count[1]
    schema = form.schema()
    assert schema["required"] == list(reply)
    assert schema["additionalProperties"] is False
    if form.items is not None:
        inner = schema["properties"][form.items]
        assert (inner["minItems"], inner["maxItems"]) == form.count
        assert inner["items"]["required"] == form.fields


def test_other_limits_change_prompt_and_digest() -> None:
    recipe = read_recipe("pairs")
    other = recipe.with_limits({"question_length": 77})
    assert "77" in other.prompt("zh", {"article": "x"})
    assert other.digest != recipe.digest
    assert recipe.with_limits({}).digest == recipe.digest


def test_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(OWN), encoding="utf-8")
    recipe = read_recipe(str(path))
    assert (recipe.name, recipe.languages) == ("mine", ["en"])
    assert recipe.prompt("en", {"article": "A."}) == 'Ask about: A. {"question": "...", "answer": "..."}'


WRONG = {
    "reads: letters": ({"reads": "letters"}, "reads 'letters': expected one of 'article', 'pair'"),
    "no reads": ({"reads": None}, "reads: missing; expected a value"),
    "no language": ({"en": None}, "no prompts: expected `en`, `zh` or both"),
    "unknown setting": ({"promt": "x"}, "unknown setting promt"),
    "a name": ({"name": "x"}, "name: not a setting"),
    "unknown in prompt": (
        {"en": {"prompt": "$article $artikel", "again": "$reason"}},
        r"en\.prompt: \$artikel is not known here; did you mean \$article\?",
    ),
    "prompt without article": ({"en": {"prompt": "x", "again": "$reason"}}, r"does not show \$article"),
    "prompt without format": (
        {"en": {"prompt": "$article", "again": "$reason"}},
        r"en\.prompt: does not show \$format, the form that the reply must have",
    ),
    "again without reason": (
        {"en": {"prompt": "$article $format", "again": "x"}},
        r"en\.again: does not show \$reason",
    ),
    "lone dollar": ({"en": {"prompt": "$article costs 5 $", "again": "$reason"}}, r"write \$\$ for a dollar sign"),
    "limit zero": (
        {"en": {"prompt": "$article", "again": "$reason", "limits": {"length": 0}}},
        r"en\.limits: length: 0; expected",
    ),
    "unknown in turns": ({"turns": [["$question", "$reply"]]}, r"turns: \$reply is not known here"),
    "article in turns": ({"turns": [["$article $question", "$answer"]]}, r"turns: \$article is not known here"),
    "field in no turn": ({"turns": [["$question", "yes"]]}, r"the reply's field \$answer is in no turn"),
    "turn of three": ({"turns": [["a", "b", "c"]]}, r"turns: expected a list of \[question, answer\]"),
    "field twice": ({"reply": {"fields": ["question", "question"]}}, "each once"),
    "field of what is read": (
        {"reply": {"fields": ["article", "answer"]}},
        "reply.fields article: also what the recipe reads; choose another name, such as new_article",
    ),
    "count without items": ({"reply": {"fields": ["question", "answer"], "count": [1, 3]}}, "needs `items`"),
    "count reversed": (
        {"reply": {"fields": ["question", "answer"], "items": "pairs", "count": [3, 1]}},
        r"count \[3, 1\]: expected the fewest and the most",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_recipe_is_refused_with_its_file(case: str, tmp_path: Path) -> None:
    change, message = WRONG[case]
    values = {name: value for name, value in {**OWN, **change}.items() if value is not None or name == "reads"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(UserError, match=rf"mine\.yaml: .*{message}"):
        read_recipe(str(path))


def test_unknown_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--recipe pears: no such recipe; did you mean pairs\?"):
        read_recipe("pears")
    with pytest.raises(UserError, match=r"mine\.yaml: no such file"):
        read_recipe(str(tmp_path / "mine.yaml"))


def test_recipes_are_in_the_package() -> None:
    import tomllib

    setuptools = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    package = ".".join(FOLDER.parts[-3:])
    assert package in setuptools["packages"]
    assert setuptools["package-data"][package] == ["*.yaml"]
