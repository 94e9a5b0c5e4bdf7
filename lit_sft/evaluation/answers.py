"""Answers: scored against references, or side by side for fixed prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from data_modules.encoding.example import Example
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.records.thinking import without_thinking
from data_modules.records.tools import call_text
from data_modules.rendering.segments import ASSISTANT_KINDS
from lit_sft.evaluation.scores import Metrics, Scored, Skipped, read_items
from lit_sft.evaluation.suite import AnswerSet, PromptSet
from lit_sft.metrics.text import chrf, distinct, exact_match, repetition, rouge
from lit_sft.models.generation import Generated, GenerationSettings
from lit_sft.models.loaded import LoadedModel

_ANSWERS_AT_ONCE = 16


def score_answers(model: LoadedModel, settings: AnswerSet, skipped: Skipped) -> Iterator[Scored]:
    """Answer the last turn of every record and compare with the record's own answer.

    Metrics: `exact_match`, `rouge1_mixed` ... `rougeL_word`, `chrf`, `num_tokens`, `ended`, `repetition`, `distinct_2`.

    Raises:
        UserError: If nothing can be read.
    """
    how = GenerationSettings(settings.max_new_tokens, settings.temperature, settings.top_p, _ANSWERS_AT_ONCE)
    asked: list[tuple[Conversation, Example]] = []
    for conversation in read_items(settings.data, settings.rows, skipped, settings.format, settings.columns):
        if conversation.is_text:
            skipped.add(f"{conversation.origin}: plain text, with nothing to answer.")
            continue
        prompt = replace(conversation, turns=conversation.turns[:-1])
        asked += [(conversation, example) for example in _encoded(model, prompt, how, skipped)]
    for start in range(0, len(asked), _ANSWERS_AT_ONCE):
        chunk = asked[start : start + _ANSWERS_AT_ONCE]
        answers = model.answer([example.prompt_ids() for _, example in chunk], how, settings.seed)
        for (conversation, _), answer in zip(chunk, answers, strict=True):
            reference = _reference(conversation, model)
            if conversation.turns[-1].thinking:
                answer = replace(answer, text=without_thinking(answer.text))
            details = {"question": _asked(conversation), "answer": answer.text, "reference": reference}
            yield Scored(conversation.origin, _metrics(answer, reference), details=details)


def answer_prompts(model: LoadedModel, settings: PromptSet, skipped: Skipped) -> Iterator[Scored]:
    """Answer every prompt. Metrics: `num_tokens`, `ended`, `repetition`, `distinct_2`."""
    how = GenerationSettings(settings.max_new_tokens, settings.temperature, batch_size=_ANSWERS_AT_ONCE)
    asked: list[tuple[str, Example]] = []
    for number, text in enumerate(settings.prompts, start=1):
        prompt = Conversation((Message(Role.USER, text),), f"prompt {number}")
        asked += [(text, example) for example in _encoded(model, prompt, how, skipped)]
    answers = model.answer([example.prompt_ids() for _, example in asked], how, settings.seed)
    for (text, _), answer in zip(asked, answers, strict=True):
        yield Scored(text, _own_metrics(answer), details={"question": text, "answer": answer.text})


def _reference(conversation: Conversation, model: LoadedModel) -> str:
    """The record's own answer as the model would emit it, without thinking, which differs every time."""
    turn, last = conversation.turns[-1], len(conversation.turns) - 1
    if not (turn.thinking or turn.tool_calls):
        return turn.content
    rendered = model.encoder.template.render(conversation)
    emitted = [part.text for part in rendered if part.turn == last and part.kind in ASSISTANT_KINDS]
    return without_thinking("".join(emitted).removesuffix(str(model.encoder.template.end)))


def _asked(conversation: Conversation) -> str:
    """The conversation before the answer."""
    turns = conversation.turns[:-1]
    texts = [
        "\n\n".join(filter(None, (turn.content, turn.context, *map(call_text, turn.tool_calls)))) for turn in turns
    ]
    if len(turns) == 1:
        return texts[0]
    return "\n\n".join(f"{turn.role.value}: {text}" for turn, text in zip(turns, texts, strict=True))


def _encoded(model: LoadedModel, prompt: Conversation, how: GenerationSettings, skipped: Skipped) -> list[Example]:
    """Encode a prompt, leaving room for the answer; it is never truncated, as that would change the question."""
    room = max(1, model.context_length - how.max_new_tokens)
    try:
        return replace(model.encoder, max_length=room, over_long="error").encode(prompt)
    except UserError as error:
        skipped.add(str(error).partition(" Raise `")[0])
        return []


def _metrics(answer: Generated, reference: str) -> Metrics:
    values = {
        "exact_match": float(exact_match(answer.text, reference)),
        **rouge(answer.text, reference, "mixed"),
        "rougeL_character": rouge(answer.text, reference, "character")["rougeL_character"],
        "rougeL_word": rouge(answer.text, reference, "word")["rougeL_word"],
        "chrf": chrf(answer.text, reference),
    }
    return {**{name: (value, 1.0) for name, value in values.items()}, **_own_metrics(answer)}


def _own_metrics(answer: Generated) -> Metrics:
    count, total = distinct(answer.text, 2)
    return {
        "num_tokens": (float(answer.num_tokens), 1.0),
        "ended": (float(answer.ended), 1.0),
        "repetition": (repetition(answer.text), 1.0),
        **({"distinct_2": (float(count), float(total))} if total else {}),
    }
