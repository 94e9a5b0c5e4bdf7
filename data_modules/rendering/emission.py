"""What a model must emit for an answer, according to its chat template.

A template renders a prompt, and a conversation that includes the answer. Generation starts where the prompt ends, so
the model emits whatever the conversation has after that: often only the answer and its end token, but with some
templates also a space, an empty block of thinking or a channel's name.

Contents are marks here, see `mark`, so that they can be found in rendered text.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

MARK = re.compile("\ue000(\\d+)\ue001")

_THINKS = re.compile(r"<(?P<tag>[\w:]*think[\w:]*)>|<\|START_THINKING\|>|\[THINK\]|<\|channel>thought\n", re.IGNORECASE)
_CLOSINGS = {"<|start_thinking|>": "<|END_THINKING|>", "[think]": "[/THINK]", "<|channel>thought\n": "<channel|>"}
"""How thinking begins, and how it ends if not as in XML."""


class Unclear(ValueError):
    """It is not clear what the model must emit. The message completes "cannot be used for training: "."""


def mark(index: int) -> str:
    """A text that no template changes and no record contains, for the content of this index."""
    return f"\ue000{index}\ue001"


@dataclass(frozen=True, slots=True)
class Emission:
    """What a model emits after a prompt.

    Attributes:
        text: Everything from the end of the prompt to the end token, which it includes.
        closing: What the template writes after that.
        rendered: What the template writes after the last content of the prompt.
    """

    text: str
    closing: str
    rendered: str


@dataclass(frozen=True, slots=True)
class End:
    """How answers end.

    Attributes:
        token: The special token.
        is_rendered: Whether the template writes it after the last answer too, rather than only before the next turn.
    """

    token: str
    is_rendered: bool


def emission(prompt: str, full: str, end: End, *, thinking: str = "", has_calls: bool = False) -> Emission:
    """What the model emits for the last message of a conversation.

    Args:
        prompt: The messages before it, rendered with the generation prompt.
        full: All messages, rendered.
        end: How answers end.
        thinking: The mark of the message's thinking, if it has any.
        has_calls: Whether the message calls tools.

    Raises:
        Unclear: If the template renders the prompt and the conversation too differently, or the answer has no clear
            end.
    """
    *_, last = MARK.finditer(prompt)
    header = prompt[last.end() :]
    place = full.rfind(last[0])
    if place < 0:
        raise Unclear("it drops the message before an answer")
    rendered = full[place + len(last[0]) :]
    emitted = _after_header(header, rendered)
    opened = _open_block(header)
    before_answer = MARK.split(emitted.replace(thinking, "") if thinking else emitted)[0]
    if opened and opened not in before_answer:
        emitted = _closed(header, emitted, opened, thinking)
    if thinking and thinking not in emitted:
        raise Unclear("it does not render the thinking of an answer; set `--data.thinking strip`")
    if has_calls and not end.is_rendered:
        raise Unclear("it does not write how a message with tool calls ends")
    text, closing = _until_end(emitted, end, has_calls=has_calls)
    return Emission(text, closing, rendered)


def find_end(after_last: str, after_earlier: str, specials: Collection[str], eos: str | None) -> End:
    """How answers end.

    Args:
        after_last: What the template writes after the last answer.
        after_earlier: What it writes after an earlier one, up to the next message.
        specials: The tokenizer's special tokens.
        eos: One of them, or None.

    Raises:
        Unclear: If no special token follows an answer.
    """
    last, earlier = _leading(after_last, specials), _leading(after_earlier, specials)
    if last:
        # several in a row: the one that stops generation for every other client
        return End(eos if eos in last and eos in earlier else last[0], is_rendered=True)
    if after_last:
        raise Unclear(f"an answer is followed by {after_last[:20]!r}, which is not a special token")
    token = eos if eos in earlier or not earlier else earlier[0]
    if token is None:
        raise Unclear("nothing follows an answer, and the tokenizer has no eos token")
    return End(token, is_rendered=False)


def _leading(text: str, specials: Collection[str]) -> list[str]:
    """The special tokens at the start of a text, after white space."""
    ordered = sorted(specials, key=len, reverse=True)
    rest, found = text.lstrip(), []
    while token := next((token for token in ordered if rest.startswith(token)), None):
        found.append(token)
        rest = rest.removeprefix(token)
    return found


def _after_header(header: str, rendered: str) -> str:
    """The rendered text after the generation prompt.

    A prompt may begin thinking, or have an empty block of it, where the template writes no thinking before an answer.
    """
    if rendered.startswith(header):
        return rendered[len(header) :]
    thinks = _THINKS.search(header)
    if thinks and rendered.startswith(header[: thinks.start()]):
        rest = rendered[thinks.start() :]
        before_answer = MARK.split(rest)[0]
        if not _THINKS.search(before_answer):
            return rest
        if _open_block(header) and rest.startswith(thinks[0]) and not header[thinks.end() :].strip():
            return rest.removeprefix(thinks[0]).lstrip()
    raise Unclear(f"its prompt ends with {header[-60:]!r}, but an answer follows {MARK.split(rendered)[0][-60:]!r}")


def _open_block(header: str) -> str:
    """The marker that ends the thinking that a generation prompt begins; empty if it begins none."""
    *_, thinks = [None, *_THINKS.finditer(header)]
    if thinks is None:
        return ""
    closing = _closing_marker(thinks)
    return "" if closing in header[thinks.end() :] else closing


def _closing_marker(opening: re.Match[str]) -> str:
    return f"</{opening['tag']}>" if opening["tag"] else _CLOSINGS[opening[0].lower()]


def _closed(header: str, emitted: str, closing: str, thinking: str) -> str:
    """An answer after the end of the thinking, which may be empty: the prompt has begun it, so the model must end it.

    White space as in Qwen3's own answers: a line break on each side of the thinking, an empty line after it.
    """
    opening = max(_THINKS.finditer(header), key=lambda match: match.start())
    space = header[opening.end() :]
    if space.strip() or (thinking and thinking in emitted):
        raise Unclear(f"its prompt ends with {header[-60:]!r}, inside of thinking, and it does not write the end of it")
    return thinking + space + closing + 2 * space + emitted


def _until_end(emitted: str, end: End, *, has_calls: bool) -> tuple[str, str]:
    """The text up to the end token, with it, and the text after it."""
    start = max((match.end() for match in MARK.finditer(emitted)), default=0)
    if end.token in emitted[:start]:
        raise Unclear(f"an answer has its end token {end.token!r} before its text too")
    between, token, closing = emitted[start:].partition(end.token)
    if token and (has_calls or not _has_text(between)):
        return emitted[:start] + between + token, closing
    if end.is_rendered or between:
        raise Unclear(f"an answer is followed by {emitted[start : start + 20]!r}, not by its end token {end.token!r}")
    return emitted + end.token, ""


def _has_text(between: str) -> bool:
    """Whether there is more than white space and markers."""
    return bool(re.sub(r"<[^<>\s]*>|\[[^\[\]\s]*\]", "", between).strip())
