"""Rows that begin alike: few-shot prompts, conversations with tools, one sample for each answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.run_lit_sft import check_computed
from benchmarks.rows import draw_rows
from benchmarks.shared_rows import FUNCTIONS, SHOTS, few_shot_records, row_source, tool_records
from data_modules.batching.batch import collate
from data_modules.batching.prefix_tree import common_length
from data_modules.encoding.example import Example
from data_modules.rendering.masking import MASKS

ROOT = Path(__file__).parents[2]
TOKENIZER = str(ROOT / "examples" / "tokenizer")
WORLD = str(ROOT / "examples" / "world" / "train.json")


def test_few_shot_records_differ_only_after_the_solved_examples() -> None:
    prompts = [record["messages"][0]["content"] for record in few_shot_records(WORLD)]
    begin, _, question = prompts[0].rpartition("\n\nQuestion: ")
    assert begin.count("Question: ") == begin.count("Answer: ") == SHOTS
    assert question.endswith("?\nAnswer:")
    assert {prompt.rpartition("\n\nQuestion: ")[0] for prompt in prompts} == {begin}
    assert len(set(prompts)) == len(prompts) > 500


def test_few_shot_rows_need_enough_short_answers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "Why?", "input": "", "output": "So."}\n' * SHOTS)
    with pytest.raises(SystemExit, match=r"rows\.jsonl: 5 questions .* more than 5 are needed"):
        few_shot_records(str(path))


def test_made_conversations_call_functions_that_exist_with_their_arguments() -> None:
    schemas = {tool["function"]["name"]: tool["function"]["parameters"]["properties"] for tool in FUNCTIONS}
    records = tool_records(13)
    assert len(records) == 3
    calls = [call["function"] for r in records for m in r["messages"] for call in m.get("tool_calls", [])]
    assert len(calls) == 9
    for call in calls:
        assert call["arguments"].keys() == schemas[call["name"]].keys()


def test_answers_of_one_conversation_stand_together(tmp_path: Path) -> None:
    source = row_source("per_answer", str(ROOT / "examples" / "world" / "conversations.jsonl"), 96, tmp_path)
    store = draw_rows(source.records, TOKENIZER, 96, 96, tmp_path, max_length=512, samples="answer", together=8)
    places: dict[str, list[int]] = {}
    for place, example in enumerate(store):
        places.setdefault(example.origin, []).append(place)
    spans = [found[-1] - found[0] + 1 for found in places.values() if len(found) > 1]
    assert len(spans) > 20
    assert np.mean(spans) < 8  # at random: about half of the rows


def test_most_of_a_tool_row_is_what_all_have_in_common(tmp_path: Path) -> None:
    source = row_source("tools", "", 12, tmp_path)
    store = draw_rows(source.records, TOKENIZER, 12, 12, tmp_path, max_length=4096, samples=source.samples)
    shared = min(common_length(store.ids(0), store.ids(index)) for index in range(12))
    assert shared > 0.5 * store.lengths.max()


def test_measuring_another_variant_than_the_named_one_is_refused() -> None:
    ids = np.arange(20, dtype=np.int32)
    kinds, turns = np.full(20, 5, dtype=np.uint8), np.zeros(20, dtype=np.int16)
    examples = [Example(ids, kinds, turns, f"r:{number}") for number in range(3)]
    batch = collate(examples, mask=MASKS["output_only"], pack=True, share_prefixes=True)
    check_computed(20, [batch], shares=True)
    check_computed(60, [batch], shares=False)
    with pytest.raises(RuntimeError, match="computed 60 tokens of the first step; expected 20"):
        check_computed(60, [batch], shares=True)
