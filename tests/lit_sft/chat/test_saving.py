"""Saved conversations: every answer with what the model was really given for it, in a file of such records only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_modules.errors import UserError
from lit_sft.chat.saving import append_records, records_of
from lit_sft.chat.session import ChatSession
from lit_sft.models.generation import GenerationSettings
from lit_sft.models.loaded import LoadedModel

SETTINGS = GenerationSettings(max_new_tokens=8)


def said(session: ChatSession, *messages: str, ended: bool = True) -> None:
    """Send messages; the model with random weights never ends its answers, so say that it did."""
    for message in messages:
        exchange = session.ask(message)
        session.exchanges[-1] = replace(exchange, answer=replace(exchange.answer, ended=ended))


def weights(record: dict[str, Any]) -> list[int]:
    return [message.get("weight", 1) for message in record["messages"] if message["role"] == "assistant"]


def trained_prompts(record: dict[str, Any], make_data: Any) -> list[list[int]]:
    """What `fit` puts before each answer that it trains on."""
    data = make_data([record], mask="firefly_multi_turn")
    (example,) = data.stores["train"]
    trained = example.loss_weights(data.mask) > 0
    starts = [place for place in range(1, len(trained)) if trained[place] and not trained[place - 1]]
    return [example.input_ids[:start].tolist() for start in starts]


def test_saved_conversation_is_read_for_training(model: LoadedModel, make_data: Any) -> None:
    session = ChatSession(model, SETTINGS, system="Be brief.", seed=4)
    said(session, "Hello")
    said(session, "Again", ended=False)
    (record,) = records_of(session)
    assert [message["role"] for message in record["messages"]] == ["system", *("user", "assistant") * 2]
    assert "weight" not in record["messages"][2]
    answer = session.exchanges[1].answer.text
    assert record["messages"][4] == {"role": "assistant", "content": answer, "weight": 0}
    made_with = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 8, "seed": 4}
    assert record["provenance"] == {
        "model": "tiny",
        "template": "chatml",
        "answers": [{**made_with, "end": "done"}, {**made_with, "end": "cut"}],
    }
    assert trained_prompts(record, make_data) == [session.exchanges[0].prompt.prompt_ids()]


def test_what_is_set_after_an_answer_is_not_said_of_it(model: LoadedModel) -> None:
    session = ChatSession(model, SETTINGS, seed=1)
    said(session, "Hello")
    session.system, session.seed = "You are a pirate", 2
    session.settings = replace(SETTINGS, temperature=1.3, top_p=0.5, max_new_tokens=4)
    (record,) = records_of(session)
    assert [message["role"] for message in record["messages"]] == ["user", "assistant"]
    assert record["provenance"]["answers"] == [
        {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 8, "seed": 1, "end": "done"}
    ]


def test_settings_are_those_of_each_answer(model: LoadedModel) -> None:
    session = ChatSession(model, SETTINGS, seed=1)
    said(session, "Hello")
    session.settings, session.seed = replace(SETTINGS, temperature=1.3, top_p=0.5, max_new_tokens=4), 2
    said(session, "Again")
    asked = iter(range(9))
    session.ask("Stop", None, lambda: next(asked) >= 2)
    (record,) = records_of(session)
    after = {"temperature": 1.3, "top_p": 0.5, "max_new_tokens": 4, "seed": 2}
    assert record["provenance"]["answers"] == [
        {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 8, "seed": 1, "end": "done"},
        {**after, "end": "done"},
        {**after, "end": "stopped"},
    ]
    assert weights(record) == [1, 1, 0]


def test_a_new_system_message_begins_a_record_with_what_the_model_was_given(model: LoadedModel, make_data: Any) -> None:
    session = ChatSession(model, SETTINGS)
    said(session, "Hello", "Again")
    session.system = "Be brief."
    said(session, "你好", "And?")
    session.system = ""
    said(session, "Last")
    records = records_of(session)
    assert [record["messages"][0]["role"] for record in records] == ["user", "system", "user"]
    assert [weights(record) for record in records] == [[1, 1], [0, 0, 1, 1], [0, 0, 0, 0, 1]]
    made_with = [[each is not None for each in record["provenance"]["answers"]] for record in records]
    assert made_with == [[True, True], [False, False, True, True], [False, False, False, False, True]]
    trained = [prompt for record in records for prompt in trained_prompts(record, make_data)]
    assert trained == [exchange.prompt.prompt_ids() for exchange in session.exchanges]


def test_exchanges_that_no_longer_fitted_are_not_saved_as_context(model: LoadedModel, make_data: Any) -> None:
    session = ChatSession(model, replace(SETTINGS, max_new_tokens=30), system="S")
    said(session, *(f"{number}" * 60 for number in range(5)))
    assert session.exchanges[-1].num_left_out
    trained = [prompt for record in records_of(session) for prompt in trained_prompts(record, make_data)]
    assert trained == [exchange.prompt.prompt_ids() for exchange in session.exchanges]


def test_after_a_reset_only_the_new_conversation_is_saved(model: LoadedModel) -> None:
    session = ChatSession(model, SETTINGS, system="S")
    said(session, "Hello")
    session.reset()
    with pytest.raises(UserError, match="there is nothing to save yet"):
        records_of(session)
    said(session, "New")
    (record,) = records_of(session)
    assert [message["content"] for message in record["messages"][:2]] == ["S", "New"]


def test_an_empty_answer_which_later_prompts_leave_out_is_not_saved(model: LoadedModel, make_data: Any) -> None:
    session = ChatSession(model, SETTINGS)
    said(session, "Hello", "Empty")
    session.exchanges[-1] = replace(session.exchanges[-1], answer=replace(session.exchanges[-1].answer, text=" "))
    said(session, "Again")
    (record,) = records_of(session)
    assert trained_prompts(record, make_data) == [session.exchanges[i].prompt.prompt_ids() for i in (0, 2)]


def test_conversations_are_added_to_a_file_of_conversations(model: LoadedModel, tmp_path: Path) -> None:
    path, session = tmp_path / "chat.jsonl", ChatSession(model, SETTINGS)
    said(session, "Hello")
    records = records_of(session)
    path.touch()
    append_records(path, records)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # as some editors leave it
    append_records(path, records)
    assert [json.loads(line) for line in path.read_text().splitlines()] == records * 2


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", 1),
        (b"\xff\x00", 1),
        (b"\n", 1),
        (b'{"instruction": "Who?", "output": "Me."}\n', 1),
        (b'{"messages": [], "provenance": {"model": "a", "template": "b"}}\n{"mess', 2),
        (b"[" * 100_000, 1),
        (b'{"messages": [], "provenance": "mine"}\n', 1),
    ],
)
def test_nothing_is_added_to_any_other_file(content: bytes, line: int, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"mine:{line}: not a conversation that `/save` wrote"):
        append_records(path, [{"messages": []}])
    assert path.read_bytes() == content


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/null"), Path("a\0b")):
        with pytest.raises(UserError, match="not a file; choose another name"):
            append_records(path, [])
