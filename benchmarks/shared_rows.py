"""Records whose beginnings are alike: few-shot prompts, conversations with tools, one sample for each answer."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_modules.records.conversation import Role
from data_modules.records.counts import RecordCounts
from data_modules.records.splits import Samples, Sources, read_conversations

RowKind = Literal["records", "few_shot", "tools", "per_answer"]

SHOTS = 5
"""Solved examples in a few-shot prompt."""

MOST_ANSWER, MOST_QUESTION = 100, 300
"""Maximum characters in the answers and the questions of few-shot prompts."""

INSTRUCTION = (
    "Answer the last question as in the examples: briefly, in one sentence at most, without an explanation and without "
    "repeating the question."
)


@dataclass(frozen=True)
class RowSource:
    """Where the rows of a comparison come from.

    Attributes:
        records: File of records.
        samples: Whether every answer is a row of its own.
        is_grouped: Whether rows that share at least half of their tokens are moved together, as under
            `--data.group_by_prefix`.
    """

    records: str
    samples: Samples = "conversation"
    is_grouped: bool = False


def row_source(kind: RowKind, records: str, most: int, folder: Path) -> RowSource:
    """The records of one kind, made from a file or from scratch.

    Args:
        kind: `records`: those of the file; `few_shot`: its short answers after five solved examples; `tools`: made
            conversations, one row for each call and answer; `per_answer`: one row for each answer of the file.
        records: File of records; not used by `tools`.
        most: Rows that are needed at most.
        folder: Folder for records that are made.

    Raises:
        SystemExit: If the file has too few short answers.
    """
    if kind == "few_shot":
        return RowSource(_written(few_shot_records(records), folder / "few_shot.jsonl"))
    if kind == "tools":
        return RowSource(_written(tool_records(most), folder / "tools.jsonl"), "answer", is_grouped=True)
    if kind == "per_answer":
        return RowSource(records, "answer", is_grouped=True)
    return RowSource(records)


def few_shot_records(records: str) -> list[dict[str, Any]]:
    """An instruction, five solved examples and a question, with a short answer; the examples are the same in all.

    Questions and answers are the first of each conversation in the file, if both are short.
    """
    conversations = read_conversations("train", Sources({"train": [records]}), RecordCounts("error"))
    pairs = []
    for conversation in conversations:
        turns = [turn for turn in conversation.turns if turn.role is not Role.SYSTEM]
        if [turn.role for turn in turns[:2]] != [Role.USER, Role.ASSISTANT]:
            continue
        question = "\n".join(filter(None, (turns[0].content, turns[0].context)))
        if len(question) <= MOST_QUESTION and len(turns[1].content) <= MOST_ANSWER:
            pairs.append((question, turns[1].content))
    if len(pairs) <= SHOTS:
        raise SystemExit(
            f"{records}: {len(pairs)} questions of at most {MOST_QUESTION} characters have an answer of at most "
            f"{MOST_ANSWER}; more than {SHOTS} are needed for --rows few_shot. Provide other records."
        )
    solved = "\n\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in pairs[:SHOTS])
    return [_said(f"{INSTRUCTION}\n\n{solved}\n\nQuestion: {question}\nAnswer:", answer) for question, answer in
            pairs[SHOTS:]]  # fmt: skip


def _said(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


SYSTEM = (
    "You are the assistant of a railway company. Help passengers to find trains, prices and seats. Look up every fact "
    "with a function before you state it, and never guess a time or a price. If a function fails, say so and offer "
    "another way. Answer politely, in one or two sentences, in the language of the passenger."
)

CITIES = ("Alder Bay", "Birchford", "Cloverton", "Dunmore", "Elmstead", "Foxhill", "Grantham", "Hazelbrook")


def tool_records(num_rows: int) -> list[dict[str, Any]]:
    """Made conversations with the same system prompt and six functions; each has three calls and three answers.

    Args:
        num_rows: Calls and answers that are needed in all.
    """
    draw = random.Random(0)
    return [_tool_conversation(draw) for _ in range(-(-num_rows // 6))]


def _tool_conversation(draw: random.Random) -> dict[str, Any]:
    start, end = draw.sample(CITIES, 2)
    date, train = f"2026-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}", f"R{draw.randint(100, 999)}"
    leaves, arrives = (f"{draw.randint(low, low + 5):02}:{draw.randint(0, 59):02}" for low in (6, 13))
    price, seats = round(draw.uniform(9, 90), 2), draw.randint(0, 40)
    messages = [{"role": "system", "content": SYSTEM}]
    messages += _exchange(
        f"Which train goes from {start} to {end} on {date} before noon?",
        "find_trains", {"origin": start, "destination": end, "date": date, "latest_departure": "12:00"},
        [{"train": train, "departs": leaves, "arrives": arrives, "changes": draw.randint(0, 2)}],
        f"Train {train} leaves {start} at {leaves} and arrives in {end} at {arrives}.",
    )  # fmt: skip
    messages += _exchange(
        draw.choice(("What does a ticket cost?", "And the price in second class?", "How much would I pay?")),
        "ticket_price", {"train": train, "date": date, "travel_class": 2},
        {"price": price, "currency": "EUR"}, f"A ticket for {train} in second class costs {price:.2f} EUR.",
    )  # fmt: skip
    messages += _exchange(
        draw.choice(("Are there seats left?", "Can I still reserve a seat by the window?", "Is it fully booked?")),
        "free_seats", {"train": train, "date": date}, {"window": seats, "aisle": draw.randint(0, 40)},
        f"{seats} seats by the window are free on {train}." if seats else f"No window seat is free on {train}.",
    )  # fmt: skip
    return {"messages": messages, "tools": FUNCTIONS}


def _exchange(question: str, name: str, arguments: dict[str, Any], result: Any, answer: str) -> list[dict[str, Any]]:
    """A question, the call of a function, its result, and the answer."""
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": json.dumps(result)},
        {"role": "assistant", "content": answer},
    ]


def _function(name: str, description: str, **parameters: tuple[str, str]) -> dict[str, Any]:
    """A function as JSON schema; parameters are given as type and description."""
    properties = {key: {"type": kind, "description": text} for key, (kind, text) in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


_TRAIN = ("string", "Number of the train, such as R123.")
_DATE = ("string", "Day of travel, as YYYY-MM-DD.")

FUNCTIONS = [
    _function(
        "find_trains", "Find the trains between two cities on one day, in order of departure.",
        origin=("string", "City where the journey begins."), destination=("string", "City where the journey ends."),
        date=_DATE, latest_departure=("string", "Latest time of departure, as HH:MM."),
    ),
    _function(
        "ticket_price", "The price of a ticket for one passenger, without reductions.",
        train=_TRAIN, date=_DATE, travel_class=("integer", "1 for first class, 2 for second class."),
    ),
    _function("free_seats", "How many seats are free on a train, by the window and by the aisle.",
              train=_TRAIN, date=_DATE),
    _function("reserve_seat", "Reserve a seat for a passenger who has a ticket.",
              train=_TRAIN, date=_DATE, passenger=("string", "Full name of the passenger."),
              place=("string", "`window` or `aisle`.")),
    _function("delays", "Current delays of a train, in minutes at each stop.", train=_TRAIN, date=_DATE),
    _function("refund", "Cancel a ticket and pay back what the conditions of the ticket allow.",
              ticket=("string", "Number of the ticket."), reason=("string", "Why the passenger cancels.")),
]  # fmt: skip
"""The functions of all made conversations."""


def _written(records: Iterable[dict[str, Any]], path: Path) -> str:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return str(path)
