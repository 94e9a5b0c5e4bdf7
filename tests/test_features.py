"""The table of features: every cell of ours that does not say no leads to a test or a config that exists."""

from __future__ import annotations

import ast
import re

import pytest

from tests.documents import ROOT, text_of

HEADER = ["", "lit_sft", "TRL", "LLaMA-Factory", "Axolotl", "Unsloth", "LitGPT"]
PAGE = text_of("docs/features.md")
LINK = re.compile(r"\[[^\]]+\]\(\.\./([^)#]+)(?:#(\w+))?\)")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


ROWS = [cells(line) for line in PAGE.splitlines() if line.startswith("|") and not line.startswith(("| |", "|--"))]
OURS = {row[0]: row[1] for row in ROWS}


def names_of_tests(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_table_has_the_same_columns_and_every_row_all_of_them() -> None:
    headers = [cells(line) for line in PAGE.splitlines() if line.startswith("| |")]
    assert headers == [HEADER] * PAGE.count("\n## ")
    assert [row for row in ROWS if len(row) != len(HEADER) or not all(row)] == []
    assert len(OURS) == len(ROWS) > 40


@pytest.mark.parametrize("feature", OURS)
def test_our_cell_leads_to_a_test_or_a_config_unless_it_is_no(feature: str) -> None:
    links = LINK.findall(OURS[feature])
    assert bool(links) != (OURS[feature] == "no")
    for path, test in links:
        assert re.match(r"tests/.*test_\w+\.py$|configs/.*\.yaml$", path)
        assert (ROOT / path).is_file()
        if path.startswith("tests/"):
            assert names_of_tests(path)
            assert not test or test in names_of_tests(path)
        else:
            assert not test
