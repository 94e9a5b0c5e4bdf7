"""Compares what is trained with a family's chat template with `apply_chat_template` of transformers."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerFast

from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example import Example
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.chat_template import ChatTemplate, own_template
from data_modules.rendering.generation_marks import has_marks
from data_modules.rendering.segments import ANSWER_KINDS, SegmentKind

_QUESTIONS = ("What is 2 + 2?", " a leading space", "two\n\nlines", "你好,世界", "a colon:", "emoji 🙂 and é")
_ANSWERS = ("4", "It is:\n\n- one\n- two", " starts with a space", ":)", "好的。", "🙂 yes", "ends with a line\n")


@dataclass
class Compared:
    """Counts for one family.

    Attributes:
        rows: Conversations that are rendered, and those that are refused, by reason.
        system: Whether system messages are accepted.
        prompts: Prompts with equal ids, of all.
        texts: How the trained text compares with that of `apply_chat_template` for the whole conversation.
        earlier: Earlier answers that are trained in place, of all.
        marks: What `{% generation %}` marks and what we train have in common.
    """

    rows: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    system: bool = True
    prompts: list[bool] = field(default_factory=list)
    texts: Counter[str] = field(default_factory=Counter)
    earlier: list[bool] = field(default_factory=list)
    marks: Counter[str] = field(default_factory=Counter)

    @property
    def is_accepted(self) -> bool:
        """Whether every conversation without a system message is rendered, and every prompt has the same ids."""
        return not self.refused and bool(self.rows) and all(self.prompts)


def conversations() -> list[Conversation]:
    """Conversations of one to three exchanges, some with a system message or context."""
    found = []
    pairs = list(itertools.islice(itertools.product(_QUESTIONS, _ANSWERS), 42))
    for length, system, context in itertools.product((1, 2, 3), ("", "Be brief."), ("", "with context")):
        for start in range(0, 42 - length, 7 - length):
            turns = [Message(Role.SYSTEM, system)] if system else []
            for question, answer in pairs[start : start + length]:
                turns += [Message(Role.USER, question, context), Message(Role.ASSISTANT, answer)]
            found.append(Conversation(tuple(turns), f"row:{len(found)}"))
    return found


def compared(tokenizer: PreTrainedTokenizerFast) -> Compared:
    """Compare on all conversations.

    Raises:
        UserError: If the whole template is refused.
        AssertionError: If what is trained contradicts `apply_chat_template`.
    """
    template = own_template(tokenizer)
    encoder = Encoder(tokenizer, template, 10**6, "error")
    result = Compared()
    for conversation in conversations():
        try:
            (example,) = encoder.encode(conversation)
        except UserError as error:
            if conversation.system_turns:
                result.system = False
            else:
                result.refused[str(error).partition(": ")[2]] += 1
            continue
        result.rows += 1
        _compare(conversation, example, template, encoder, result)
    return result


def messages_of(conversation: Conversation, *, joined: bool = True) -> list[dict[str, str]]:
    """Messages for `apply_chat_template`, with contexts joined to their contents or as `input`."""
    found = []
    for turn in conversation.turns:
        content = f"{turn.content}\n{turn.context}" if turn.context and joined else turn.content
        found.append({"role": turn.role.value, "content": content, **({} if joined else {"input": turn.context})})
    return found


def _compare(
    conversation: Conversation, example: Example, template: ChatTemplate, encoder: Encoder, result: Compared
) -> None:
    tokenizer, messages = encoder.tokenizer, messages_of(conversation)
    render: Any = tokenizer.apply_chat_template
    source = {"chat_template": template.source}
    asked = {"add_generation_prompt": True, "return_dict": False}
    segments = template.render(conversation)
    text = "".join(part.text for part in segments)
    prompt = render(messages[:-1], tokenize=False, **source, **asked)
    assert text.startswith(prompt), (prompt, text)
    (asks,) = encoder.encode(conversation.prompt())
    assert asks.input_ids.tolist() == example.input_ids[: len(asks)].tolist()
    result.prompts.append(asks.input_ids.tolist() == render(messages[:-1], **source, **asked))
    full = render(messages, tokenize=False, **source)
    result.texts[_difference(text, full, template.end)] += 1
    exported = messages_of(conversation.prompt(), joined=False)
    assert render(exported, chat_template=template.exported, tokenize=False, **asked) == prompt
    _compare_earlier(conversation, segments, lambda some: render(some, tokenize=False, **source, **asked), result)
    if has_marks(template.source):
        result.marks[_marks(messages, segments, template, tokenizer)] += 1


def _difference(text: str, full: str, end: str) -> str:
    if text == full:
        return "the same"
    return "the end token is added" if text == full + end else "the prompt differs"


def _compare_earlier(conversation: Conversation, segments: list[Any], prompt_of: Any, result: Compared) -> None:
    """Every earlier answer that is trained follows exactly its own prompt."""
    text, seen = "", {}
    for part in segments:
        if part.kind is SegmentKind.ANSWER and part.turn not in seen:
            seen[part.turn] = text
        text += part.text
    for index, turn in enumerate(conversation.turns[:-1]):
        if turn.role is Role.ASSISTANT:
            result.earlier.append(index in seen)
            if index in seen:
                before = messages_of(conversation)[:index]
                assert seen[index] == prompt_of(before), (seen[index], prompt_of(before))


def _marks(messages: list[dict[str, str]], segments: list[Any], template: ChatTemplate, tokenizer: Any) -> str:
    """The last answer as `return_assistant_tokens_mask` marks it, against what we train."""
    found = tokenizer.apply_chat_template(
        messages, chat_template=template.source, return_dict=True, return_assistant_tokens_mask=True
    )
    runs = itertools.groupby(zip(found["input_ids"], found["assistant_masks"], strict=True), lambda pair: pair[1])
    marked = [tokenizer.decode([index for index, _ in run]) for is_marked, run in runs if is_marked]
    ours = "".join(part.text for part in segments if part.kind is SegmentKind.FINAL_ANSWER)
    if not marked:
        return "nothing is marked"
    theirs = marked[-1]
    if theirs.strip() == ours.strip():
        return "the same"
    if theirs.strip() in ours:
        return f"ours also has {ours.replace(theirs.strip(), '', 1).strip()!r}"
    if ours.strip() in theirs:
        return f"the marks also have {theirs.replace(ours.strip(), '', 1).strip()!r}"
    return f"{theirs!r} is marked, {ours!r} is trained"


def kinds_trained(example: Example) -> int:
    """Tokens of answers."""
    return sum(int((example.kinds == kind).sum()) for kind in ANSWER_KINDS)
