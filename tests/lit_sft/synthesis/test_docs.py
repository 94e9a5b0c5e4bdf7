"""docs/synthesis.md shows the recipes as they are."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from lit_sft.synthesis.recipe import read_recipe, recipe_names
from tests.documents import text_of

PAGE = text_of("docs/synthesis.md")


def test_table_of_recipes_names_every_recipe() -> None:
    table = PAGE.partition("## Recipes")[2].partition("- **Articles**")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE) == [
        "pairs", "paraphrase", "second_turn", "answers", "self_instruct",
    ]  # fmt: skip
    assert len(recipe_names()) == 5


def test_recipe_of_the_page_is_valid(tmp_path: Path) -> None:
    block = next(each for each in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL) if "turns:" in each)
    path = tmp_path / "mine.yaml"
    path.write_text(block, encoding="utf-8")
    recipe = read_recipe(str(path))
    assert recipe.reply.fields == yaml.safe_load(block)["reply"]["fields"]
