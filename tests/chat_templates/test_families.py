"""Trains with the chat templates of known model families, in comparison with `apply_chat_template`. Needs PyPI.

`make test-templates` prints a table.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from data_modules.errors import UserError
from tests.chat_templates.comparison import Compared, compared
from tests.chat_templates.families import FAMILIES, Family
from tests.chat_templates.small_tokenizers import small_tokenizer
from tests.chat_templates.sources import templates_of

pytestmark = pytest.mark.slow

_REFUSED = {"Baichuan 2": "its prompt ends with '<reserved_107>\\n', but an answer follows '\\n\\n<reserved_107>\\n'"}
_NO_SYSTEM = ("Gemma 1", "Gemma 2")

_ROWS: list[str] = []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("LIT_SFT_TEMPLATES")  # to keep the downloads, 200 MB
    if given:
        Path(given).mkdir(parents=True, exist_ok=True)
    return Path(given) if given else tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="module", autouse=True)
def table(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    accepted = sum("| accepted" in row for row in _ROWS)
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(
            "\n\n| family | result | equal prompts | earlier answers trained in place | whole text | generation marks |"
        )
        print("|---|---|---|---|---|---|")
        print("\n".join(_ROWS))
        print(f"\n{accepted} of {len(_ROWS)} accepted")


@cache
def _templates(package: str, folder: Path) -> dict[str, str]:
    return templates_of(package, folder)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_family_is_trained_as_apply_chat_template_renders_it(family: Family, folder: Path) -> None:
    tokenizer = small_tokenizer(family.pieces, eos=family.eos, bos=family.bos, specials=family.specials.split())
    tokenizer.chat_template = _templates(family.package, folder)[family.template]
    try:
        found = compared(tokenizer)
    except UserError as error:
        found = Compared()
        found.refused[str(error)] += 1
    _ROWS.append(_row(family, found))
    if family.name in _REFUSED:
        assert all(_REFUSED[family.name] in reason for reason in found.refused), found.refused
        assert found.refused
        return
    assert found.is_accepted, found
    assert found.system is (family.name not in _NO_SYSTEM)
    assert len(found.prompts) == (100 if found.system else 50)
    assert all(found.prompts)
    assert bool(found.marks) is ("marked" in family.name or family.name == "Phi-4")


def _row(family: Family, found: Compared) -> str:
    if found.refused:
        reason = next(iter(found.refused)).partition("exactly: ")[2].partition(". Use ")[0]
        return f"| {family.name} | refused: {reason} | | | | |"
    texts = "; ".join(f"{text}: {count}" for text, count in sorted(found.texts.items()))
    earlier = f"{sum(found.earlier)} of {len(found.earlier)}"
    marks = "; ".join(sorted({_shortened(text) for text in found.marks}))
    result = "accepted" if found.system else "accepted, without system messages"
    prompts = f"{sum(found.prompts)} of {len(found.prompts)}"
    return f"| {family.name} | {result} | {prompts} | {earlier} | {texts} | {marks} |"


def _shortened(text: str) -> str:
    return "begin before the prompt's end" if "is marked" in text else text
