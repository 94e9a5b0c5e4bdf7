"""Record shapes as they are found in public data sets: each is read right, or refused with the field's name."""

from __future__ import annotations

import math

import pytest

from data_modules.records.formats import FORMATS, to_conversation
from data_modules.records.record import Record
from tests.data_modules.records.shapes import (
    HI,
    TALK,
    Fields,
    Write,
    alpaca,
    asked,
    chat,
    completion,
    parts,
    read,
    said,
    shared,
    shown,
)

MEDIA = "only text is supported"
PREFERENCE = r"preference data, which is read as pairs: records with a prompt, `chosen` and `rejected`"

OPENAI_EXPORT = {"refusal": None, "tool_calls": None, "function_call": None, "audio": None, "annotations": None}

PAIR = {"human": "Hi", "assistant": "Hello"}
ONE_CALL = [{"function": {"name": "now", "arguments": "{}"}}]

READ: dict[str, tuple[Fields, list[str]]] = {
    # system messages
    "messages with a system message": (
        {"messages": [said("system", "Brief."), *asked()["messages"]]},
        ["system: Brief.", *HI],
    ),
    "messages with system beside them": (asked(system="Brief."), ["system: Brief.", *HI]),
    "messages with the same system twice": (
        {"messages": [said("system", "Brief."), *asked()["messages"]], "system": "Brief. "},
        ["system: Brief.", *HI],
    ),
    "messages with an empty system beside them": (asked(system=""), HI),
    "messages with null as system": (asked(system=None), HI),
    "an empty system message": ({"messages": [said("system", "  "), *asked()["messages"]]}, HI),
    "null as the content of a system message": ({"messages": [said("system", None), *asked()["messages"]]}, HI),
    "an empty system message, filled beside": (
        {"messages": [said("system", ""), *asked()["messages"]], "system": "Brief."},
        ["system: Brief.", *HI],
    ),
    "developer": ({"messages": [said("developer", "Brief."), *asked()["messages"]]}, ["system: Brief.", *HI]),
    "sharegpt with a system turn": (
        shared(("system", "Brief."), ("human", "Hi"), ("gpt", "Hello")),
        ["system: Brief.", *HI],
    ),
    "sharegpt with system beside": (shared(system="Brief."), ["system: Brief.", *HI]),
    "sharegpt with the same system twice": (
        shared(("system", "Brief."), ("human", "Hi"), ("gpt", "Hello"), system="Brief."),
        ["system: Brief.", *HI],
    ),
    "alpaca with system": (alpaca(system="Brief."), ["system: Brief.", *HI]),
    "prompt and completion with system": (completion(system="Brief."), ["system: Brief.", *HI]),
    "firefly with system": (
        {"conversation": [{"human": "Hi", "assistant": "Hello"}], "system": "Brief."},
        ["system: Brief.", *HI],
    ),
    "ultrachat with system": ({"id": "0", "data": ["Hi", "Hello"], "system": "Brief."}, ["system: Brief.", *HI]),
    # history
    "alpaca with history": (alpaca(instruction="Bye", output="See you", history=[["Hi", "Hello"]]), TALK),
    "alpaca with history, system and input": (
        alpaca(instruction="Bye", input="x", output="See you", history=[["Hi", "Hello"]], system="Brief."),
        ["system: Brief.", *HI, "user: Bye + x", "assistant: See you"],
    ),
    "alpaca with an empty history": (alpaca(history=[]), HI),
    "alpaca with null as history": (alpaca(history=None), HI),
    "prompt and completion with history": (
        completion(prompt="Bye", completion="See you", history=[["Hi", "Hello"]]),
        TALK,
    ),
    "messages with an empty history": (asked(history=[]), HI),
    # weights
    "OpenAI weight 0": (chat(first={"weight": 0}), [HI[0], "assistant, untrained: Hello", *TALK[2:]]),
    "OpenAI weight 1": (chat(first={"weight": 1}, last={"weight": 1}), TALK),
    "weight 0.0": (chat(first={"weight": 0.0}), [HI[0], "assistant, untrained: Hello", *TALK[2:]]),
    "weight null": (chat(first={"weight": None}), TALK),
    "OpenAI weight 0 on the last answer": (chat(last={"weight": 0}), [*TALK[:3], "assistant, untrained: See you"]),
    "weight 0 on a user's message": (asked(user={"weight": 0}), HI),
    "Axolotl train": ({"messages": [said("user", "Hi", train=False), said("assistant", "Hello", train=True)]}, HI),
    "Axolotl train false": (chat(first={"train": False}), [HI[0], "assistant, untrained: Hello", *TALK[2:]]),
    "Axolotl training false": (chat(first={"training": False}), [HI[0], "assistant, untrained: Hello", *TALK[2:]]),
    "LLaMA-Factory loss_weight and parts": (
        {
            "messages": [
                said("system", parts("Brief.", key="value"), loss_weight=0.0),
                said("user", parts("Hi", key="value")),
                said("assistant", parts("Hello", key="value"), loss_weight=0.0),
                said("user", "Bye", loss_weight=0.0),
                said("assistant", parts("See you", key="value"), loss_weight=1.0),
            ]
        },
        ["system: Brief.", HI[0], "assistant, untrained: Hello", *TALK[2:]],
    ),
    "two weights that agree": (
        chat(first={"weight": 0, "train": False}),
        [HI[0], "assistant, untrained: Hello", *TALK[2:]],
    ),
    "sharegpt with weight 0": (
        {
            "conversations": [
                {"from": "human", "value": "Hi"},
                {"from": "gpt", "value": "Hello", "weight": 0},
                {"from": "human", "value": "Bye"},
                {"from": "gpt", "value": "See you"},
            ]
        },
        [HI[0], "assistant, untrained: Hello", *TALK[2:]],
    ),
    "firefly with weight 0": (
        {
            "conversation": [
                {"human": "Hi", "assistant": "Hello", "weight": 0},
                {"human": "Bye", "assistant": "See you"},
            ]
        },
        [HI[0], "assistant, untrained: Hello", *TALK[2:]],
    ),
    # contents of parts
    "a content of one text part": (asked(user={"content": parts("Hi")}), HI),
    "a content of several text parts": (asked(answer={"content": parts("Hel", "lo")}), HI),
    "text parts of the Responses API": (
        asked(
            {"content": [{"type": "input_text", "text": "Hi"}]}, {"content": [{"type": "output_text", "text": "Hello"}]}
        ),
        HI,
    ),
    "text parts with an empty image, as Arrow stores them": (
        asked(user={"content": [{"type": "text", "text": "Hi", "image": None}]}),
        HI,
    ),
    "sharegpt with text parts": (
        {"conversations": [{"from": "human", "value": parts("Hi")}, {"from": "gpt", "value": "Hello"}]},
        HI,
    ),
    # fields that are there but empty
    "empty tool fields": (asked(answer={"tool_calls": []}, tools=[]), HI),
    "an export of OpenAI's": (asked(answer=OPENAI_EXPORT), HI),
    "sharegpt with tools as an empty string": (shared(system="", tools=""), HI),
    "empty images": (asked(images=[], videos=None), HI),
    "empty thinking": (asked(answer={"thinking": "", "reasoning_content": None}), HI),
    "alpaca of a CSV file with empty lists as text": (alpaca(images="[]", tools="null"), HI),
    "NaN where Arrow has no value": (asked(answer={"weight": math.nan}, tools=math.nan), HI),
    "thinking in firefly": ({"conversation": [PAIR | {"reasoning_content": "Hm."}]}, [HI[0], "assistant: (Hm.)Hello"]),
    "a call in firefly": ({"conversation": [PAIR | {"tool_calls": ONE_CALL}]}, [HI[0], "assistant: Hello now{}"]),
    # fields without a meaning, and unknown ones
    "votes beside a label": (completion(label=True, votes={"good": 1, "bad": 0}), HI),
    "ids": (asked(id="1", conversation_id=2, uuid="3"), HI),
    "unknown fields": (asked(answer={"name": "Bo"}, source="web"), HI),
    "a class label": (alpaca(label="greeting"), HI),
    "a number as label": (completion(label=3), HI),
    "plain text with a true or false label": ({"text": "Hi", "label": True}, ["text: Hi"]),
    # rated answers, and the prompt of a bad one
    "a good answer": (completion(label=True), HI),
    "a good answer of a CSV file": (completion(label="True"), HI),
    "a bad answer": (completion(label=False), HI[:1]),
    "a bad answer in alpaca": (alpaca(label=False), HI[:1]),
    "a bad answer in messages": (asked(kto_tag=False), HI[:1]),
    # preference pairs: the chosen answer
    "a pair": ({"prompt": "Hi", "chosen": "Hello", "rejected": "Go", "score_chosen": 3.5}, HI),
    "a pair with a system message": (
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go", "system": "Brief."},
        ["system: Brief.", *HI],
    ),
    "a pair of messages": (
        {"prompt": [said("user", "Hi")], "chosen": [said("assistant", "Hello")], "rejected": [said("assistant", "Go")]},
        HI,
    ),
    "a pair of conversations": (
        {"chosen": asked()["messages"], "rejected": asked(answer={"content": "Go"})["messages"]},
        HI,
    ),
    "a pair of conversations beside their prompt": (
        {"prompt": "Hi", "chosen": asked()["messages"], "rejected": asked(answer={"content": "Go"})["messages"]},
        HI,
    ),
    "a pair of dialogues": (
        {"chosen": chat()["messages"], "rejected": chat(last={"content": "Go"})["messages"]},
        [HI[0], "assistant, untrained: Hello", *TALK[2:]],
    ),
    "a pair of sharegpt": (
        {
            **shared(("human", "Hi")),
            "chosen": {"from": "gpt", "value": "Hello"},
            "rejected": {"from": "gpt", "value": "Go"},
        },
        HI,
    ),
    "a pair of alpaca": (
        {"instruction": "Hi", "input": "", "chosen": "Hello", "rejected": "Go", "history": []},
        HI,
    ),
}

REFUSED: dict[str, tuple[Fields, str]] = {
    "a call of the user": (
        asked({"tool_calls": ONE_CALL}),
        r"messages\[0\].tool_calls is given, but the message is the user's",
    ),
    "an image in a list of prompts": (
        {"prompt": [said("user", "Hi", images=["a.png"])], "completion": [said("assistant", "Hello")]},
        rf"prompt\[0\].images is a list; {MEDIA}",
    ),
    "a refusal in a list of completions": (
        {"prompt": [said("user", "Hi")], "completion": [said("assistant", "Hello", refusal="No.")]},
        r"completion\[0\].refusal is the string 'No.'; a refusal is read only",
    ),
    "two different system messages": (
        {"messages": [said("system", "Brief."), *asked()["messages"]], "system": "Long."},
        "field 'system' differs from the system message of the conversation",
    ),
    "two different system messages in sharegpt": (
        shared(("system", "Brief."), ("human", "Hi"), ("gpt", "Hello"), system="Long."),
        "field 'system' differs",
    ),
    "a list as system": (asked(system=["Brief."]), "field 'system' is a list; expected a string"),
    "plain text with system": ({"text": "Hi", "system": "Brief."}, "plain text has no system message"),
    "history of messages": (
        asked(history=[["Hi", "Hello"]]),
        "field 'history' is a list; a record of this format already lists all of its turns",
    ),
    "history as text": (alpaca(history="Hi"), "field 'history' is the string 'Hi'; expected a list of turns"),
    "history of three": (
        alpaca(history=[["a", "b", "c"]]),
        r"history\[0\] is a list of 3; expected \[question, answer",
    ),
    "history of objects": (alpaca(history=[{"q": "a"}]), r"history\[0\] is an object; expected \[question, answer"),
    "history without an answer": (alpaca(history=[["Hi", ""]]), r"turn 2 \(assistant\) is empty"),
    # media
    "images of the record": (alpaca(images=["a.png"]), rf"field 'images' is a list; {MEDIA}"),
    "an image of the record": (completion(image="a.png"), rf"field 'image' is the string 'a.png'; {MEDIA}"),
    "audios beside sharegpt": (shared(audios=["a.wav"]), rf"field 'audios' is a list; {MEDIA}"),
    "videos beside messages": (asked(videos=["a.mp4"]), rf"field 'videos' is a list; {MEDIA}"),
    "an image as a part": (
        asked({"content": [*parts("Hi"), {"type": "image_url", "image_url": {"url": "a.png"}}]}),
        rf"messages\[0\].content\[1\].type is 'image_url'; {MEDIA}",
    ),
    "sound as a part": (
        asked({"content": [{"type": "input_audio", "input_audio": {}}]}),
        rf"content\[0\].type is 'input_audio'; {MEDIA}",
    ),
    "an image inside a text part": (
        asked({"content": [{"type": "text", "text": "Hi", "image": "a.png"}]}),
        rf"content\[0\].image is .*; {MEDIA}",
    ),
    "sound of a message": (asked(answer={"audio": {"id": "1"}}), rf"messages\[1\].audio is an object; {MEDIA}"),
    "a part of an unknown type": (
        asked({"content": [{"type": "card"}]}),
        r"content\[0\].type is 'card'; expected text",
    ),
    "text as a part": (
        asked({"content": ["Hi"]}),
        r"messages\[0\].content\[0\] is the string 'Hi'; expected an object",
    ),
    "a content without parts": (asked({"content": []}), r"turn 1 \(user\) is empty"),
    "null as the content of an answer": (
        asked(answer={"content": None}),
        r"messages\[1\].content is null; expected a string",
    ),
    # weights
    "a weight above 1": (
        asked(answer={"loss_weight": 2}),
        r"messages\[1\].loss_weight is the number 2; expected a number from 0 to 1",
    ),
    "a weight as text": (
        asked(answer={"weight": "0"}),
        r"messages\[1\].weight is the string '0'; expected a number",
    ),
    "weights that differ": (
        asked(answer={"weight": 1, "train": False}),
        r"messages\[1\]: weight and train contradict each other",
    ),
    "a user's message to be trained": (
        asked(user={"train": True}),
        r"messages\[0\].train is true, but the message is the user's",
    ),
    "a system message to be trained": (
        {"messages": [said("system", "Brief.", loss_weight=1.0), *asked()["messages"]]},
        r"messages\[0\].loss_weight is the number 1.0, but the message is the system's",
    ),
    "parts of an answer to be trained": (
        asked(answer={"train_detail": [{"begin_offset": 0}]}),
        r"messages\[1\].train_detail is a list; training on part of",
    ),
    "no answer to be trained": (
        asked(answer={"weight": 0}),
        "every answer has the weight 0, so nothing would be trained",
    ),
    "a refusal": (
        asked(answer={"refusal": "No."}),
        r"messages\[1\].refusal is the string 'No.'; a refusal is read only",
    ),
    # preference data
    "a pair without a prompt": ({"chosen": "Hi Hello", "rejected": "Hi Go"}, "are strings, and there is no prompt"),
    "a pair without a rejected answer": ({"prompt": "Hi", "chosen": "Hello", "rejected": []}, "'rejected' is empty"),
    "a pair of equal answers": ({"prompt": "Hi", "chosen": "Hello", "rejected": "Hello"}, "are the same answer"),
    "pairs of different prompts": (
        {"chosen": asked()["messages"], "rejected": asked(user={"content": "Ho"})["messages"]},
        "begin with different messages",
    ),
    "a pair with another prompt inside": (
        {"prompt": "Ho", "chosen": asked()["messages"], "rejected": "Go"},
        "'chosen' has a message of the user that is not in the prompt",
    ),
    "a pair that goes on": (
        {"prompt": "Hi", "chosen": asked()["messages"] * 2, "rejected": "Go"},
        "'chosen' has a message of the user that is not in the prompt",
    ),
    "a weight in a pair": (
        {"prompt": "Hi", "chosen": [said("assistant", "Hello", weight=0.5)], "rejected": "Go"},
        "'chosen' has a message of weight 0.5",
    ),
    "half a pair": ({"prompt": "Hi", "chosen": "Hello"}, f"field 'chosen' is .*; {PREFERENCE}"),
    "DPO beside messages": (asked(score_chosen=8.5, score_rejected=1), f"field 'score_chosen' is .*; {PREFERENCE}"),
    "a rating that is a number": (asked(kto_tag=1), "field 'kto_tag' is the number 1; expected true or false"),
    "ratings that contradict each other": (completion(label=True, kto_tag=False), "contradict each other"),
    "a rated answer with a weight": (asked(answer={"weight": 0.5}, label=True), "a rated answer has a weight"),
    "a rated text": ({"text": "Hi", "kto_tag": True}, "field 'kto_tag' is true; it rates a single answer to a prompt"),
    "rewards of steps": (
        {"prompt": "Hi", "completions": ["a", "b"], "labels": [True, False]},
        f"field 'completions' is a list; {PREFERENCE}",
    ),
    "options for a chat template": (
        asked(chat_template_kwargs={"enable_thinking": False}),
        "set them for all records with `--data.chat_template_kwargs`",
    ),
    # order of turns
    "two messages of the user": (
        {"messages": [said("user", "Hi"), *asked()["messages"]]},
        "turn 2 is 'user' after 'user'.*--data.consecutive merge",
    ),
    "an answer at the start": (
        {"messages": [said("assistant", "Welcome"), *asked()["messages"]]},
        "turn 1 .* at the start.*--data.first_answer drop",
    ),
}


@pytest.mark.parametrize("shape", READ)
def test_a_record_is_read_with_everything_that_changes_its_meaning(write: Write, shape: str) -> None:
    fields, expected = READ[shape]
    (conversation,) = read(write, fields)
    assert shown(conversation) == expected


@pytest.mark.parametrize("shape", REFUSED)
def test_a_record_that_cannot_be_read_is_refused_with_the_name_of_the_field(write: Write, shape: str) -> None:
    fields, message = REFUSED[shape]
    with pytest.raises(ValueError, match=rf"rows\.jsonl:1: .*{message}.*`--data\.on_invalid drop`\.$"):
        read(write, fields)


def test_there_are_many_shapes_of_every_format() -> None:
    assert len(READ) + len(REFUSED) >= 60
    seen = {name for fields, _ in (*READ.values(), *REFUSED.values()) for name in FORMATS if name in _formats(fields)}
    assert seen == set(FORMATS)


def _formats(fields: Fields) -> list[str]:
    return [layout.name for layout in FORMATS.values() if all(name in fields for name in layout.fields)][:1]


def test_refusals_without_a_known_format_name_no_way_to_map_columns() -> None:
    with pytest.raises(ValueError, match=PREFERENCE) as error:
        to_conversation(Record({"prompt": "Hi", "chosen": "a"}, "f.json:7"), "prompt_completion")
    assert "--data.columns" not in str(error.value)
