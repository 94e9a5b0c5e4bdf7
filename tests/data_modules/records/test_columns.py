from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.cache import cache_key, data_identity, encode_sources
from data_modules.encoding.encoder import Encoder
from data_modules.records.column_proposals import proposal
from data_modules.records.conversation import Conversation
from data_modules.records.counts import RecordCounts
from data_modules.records.splits import Sources, read_conversations
from data_modules.rendering.templates import resolve_template
from tests.conftest import alpaca_rows

Write = Callable[..., str]

QA = {"instruction": "question", "output": "answer"}


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer, resolve_template("chatml", tokenizer), 200)


def read(path: str, columns: dict[str, str], **settings: Any) -> list[Conversation]:
    return list(read_conversations("train", Sources({"train": [path]}, columns=columns, **settings), RecordCounts()))


def texts(conversation: Conversation) -> list[str]:
    return [turn.content + (f" + {turn.context}" if turn.context else "") for turn in conversation.turns]


@pytest.mark.parametrize("format", [None, "alpaca"])
def test_csv_of_questions_and_answers_needs_only_its_columns(write: Write, format: str | None) -> None:
    path = write("qa.csv", "question,answer\nWhat is 1+1?,2\nWhat is 2+2?,4\n")
    assert list(map(texts, read(path, QA, format=format))) == [["What is 1+1?", "2"], ["What is 2+2?", "4"]]


CASES: dict[str, tuple[dict[str, Any], dict[str, str], list[str]]] = {
    "alpaca with context": (
        {"q": "Hi", "c": "x", "a": "Yo", "s": "Brief."},
        {"instruction": "q", "input": "c", "output": "a", "system": "s"},
        ["Brief.", "Hi + x", "Yo"],
    ),
    "swapped": ({"input": "Yo", "output": "Hi"}, {"instruction": "output", "output": "input"}, ["Hi", "Yo"]),
    "history": (
        {"prompt": "Bye", "response": "See you", "past": [["Hi", "Yo"]]},
        {"completion": "response", "history": "past"},
        ["Hi", "Yo", "Bye", "See you"],
    ),
    "messages": (
        {"chat": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]},
        {"messages": "chat"},
        ["Hi", "Yo"],
    ),
    "fields of messages": (
        {"chat": [{"who": "user", "what": "Hi"}, {"who": "assistant", "what": "Yo"}]},
        {"messages": "chat", "role": "who", "content": "what"},
        ["Hi", "Yo"],
    ),
    "sharegpt with the fields of messages": (
        {"conversations": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]},
        {"from": "role", "value": "content"},
        ["Hi", "Yo"],
    ),
    "plain text": ({"body": "Once."}, {"text": "body"}, ["Once."]),
    "a column with odd characters": (
        {"the, 'question'": "Hi", "ä b": "Yo"},
        {"instruction": "the, 'question'", "output": "ä b"},
        ["Hi", "Yo"],
    ),
    "records without any of the columns": ({"instruction": "Hi", "output": "Yo"}, QA, ["Hi", "Yo"]),
}


@pytest.mark.parametrize("case", CASES)
def test_fields_of_any_format_are_read_from_columns(write: Write, case: str) -> None:
    fields, columns, expected = CASES[case]
    (conversation,) = read(write("rows.jsonl", [fields]), columns)
    assert texts(conversation) == expected


def test_weight_is_read_from_a_column(write: Write) -> None:
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]
    turns[1]["learn"] = False  # type: ignore[assignment]
    (conversation,) = read(write("rows.jsonl", [{"messages": turns}]), {"train": "learn"})
    assert [turn.is_trained for turn in conversation.turns] == [True, False, True, True]


def test_field_that_is_read_from_another_column_is_reported_as_not_used(write: Write) -> None:
    rows = [{"instruction": "Translate.", "question": "Hi", "answer": "Yo"}]
    counts = RecordCounts()
    sources = Sources({"train": [write("rows.jsonl", rows)]}, columns=QA)
    (conversation,) = read_conversations("train", sources, counts)
    assert texts(conversation) == ["Hi", "Yo"]
    assert [dict(names) for names in counts.unknown_fields.values()] == [{"instruction (own column)": 1}]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"instrution": "question"},
            r"no format has the field 'instrution'; expected FIELD: COLUMN .*did you mean instruc",
        ),
        ({"images": "question"}, r"no format has the field 'images'"),
        ({"instruction": "q", "prompt": "q"}, r"instruction and prompt are both read from the column 'q'; expected"),
        ({"role": "q", "from": "q"}, r"role and from are both read from the column 'q'"),
        ({"instruction": ""}, r"the column of 'instruction' is ''; expected the name of a column"),
        ({"instruction": 3}, r"the column of 'instruction' is 3; expected the name of a column"),
    ],
)
def test_impossible_columns_are_refused(columns: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^--data\.columns: {message}"):
        Sources({"train": ["rows.jsonl"]}, columns=columns)


def test_columns_of_another_format_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^--data\.columns: format 'messages' has no field 'output'; correct one of"):
        Sources({"train": ["rows.jsonl"]}, format="messages", columns={"messages": "chat", "output": "answer"})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"instruction": "qestion", "output": "answer"},
            r"the fields question, answer, topic;.*did you mean question\?",
        ),
        ({"instruction": "question", "output": "anser"}, r"no answer to train on .*output from 'anser'.*mean answer\?"),
    ],
)
def test_misspelt_column_of_a_field_that_is_needed_is_refused_at_the_first_record(
    write: Write, columns: dict[str, str], message: str
) -> None:
    path = write("rows.jsonl", [{"question": "Hi", "answer": "Yo", "topic": "x"}])
    with pytest.raises(ValueError, match=rf"rows\.jsonl:1: .*{message}"):
        read(path, columns)


def test_column_that_no_record_has_is_refused(tmp_path: Path, write: Write, encoder: Encoder) -> None:
    rows = [{"question": f"q{n}", "answer": "a", "topic": "x"} for n in range(30)]
    path = write("rows.jsonl", rows)
    sources = Sources({"train": [path]}, {"val": 0.2}, columns={**QA, "input": "topc"})
    with pytest.raises(ValueError, match=r"reads input from 'topc', which no record has; did you mean topic\?$"):
        encode_sources(sources, encoder, tmp_path)
    assert not list(tmp_path.glob("*/digests.json"))
    prompts = Sources({"predict": [path]}, columns={**QA, "input": "topc"}, require_answer=False)
    assert encode_sources(prompts, encoder, tmp_path).is_dir()


def test_errors_name_the_column(write: Write) -> None:
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: field 'answer' is the number 3; expected a string"):
        read(write("rows.jsonl", [{"question": "Hi", "answer": 3}]), QA)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"question": "a", "answer": "b"}, "'{instruction: question, output: answer}'"),
        ({"Question": "a", "Answer": "b"}, "'{instruction: Question, output: Answer}'"),
        (
            {"system_prompt": "s", "question": "a", "response": "b", "id": 1},
            "'{instruction: question, output: response, system: system_prompt}'",
        ),
        ({"input": "x", "query": "a", "output": "b"}, "'{instruction: query}'"),
        ({"dialog": [{"role": "user", "content": "a"}]}, "'{messages: dialog}'"),
        ({"turns": [{"from": "human", "value": "a"}]}, "'{conversations: turns}'"),
        ({"content": "a", "url": "b"}, "'{text: content}'"),
        ({"document": "a"}, "'{text: document}'"),
        ({"x": "a", "y": "b"}, ""),
        ({"question": 1, "answer": 2}, ""),
    ],
)
def test_proposal_is_an_option_that_reads_the_record(write: Write, fields: dict[str, Any], expected: str) -> None:
    assert proposal(fields) == (f"`--data.columns {expected}`" if expected else "")
    with pytest.raises(ValueError, match=r"no known format has the fields") as error:
        read(write("rows.jsonl", [fields]), {})
    assert (f"Set {proposal(fields)}, or rename the fields." in str(error.value)) == bool(expected)


def test_proposed_names_that_yaml_would_read_as_something_else_are_quoted() -> None:
    assert proposal({"Q": "a", "A": "b"}) == "`--data.columns '{instruction: Q, output: A}'`"
    assert proposal({"it's": "a", "answer": "b"}) == ""


def test_missing_answer_proposes_its_column(write: Write) -> None:
    rows = [{"instruction": "Hi", "context": "", "response": "Yo", "category": "x"}]
    with pytest.raises(
        ValueError, match=r"no answer to train on .*set `--data\.columns '\{output: response\}'`, or set"
    ):
        read(write("rows.jsonl", rows), {})


def test_columns_change_the_identity_only_if_given(write: Write, encoder: Encoder) -> None:
    path = write("rows.jsonl", alpaca_rows(3))
    plain, mapped = Sources({"train": [path]}), Sources({"train": [path]}, columns=QA)
    assert not [name for name in data_identity(plain, encoder) if "column" in name]
    assert data_identity(mapped, encoder)["--data.columns"] == QA
    assert cache_key(plain, encoder) != cache_key(mapped, encoder)
    json.dumps(data_identity(mapped, encoder))
