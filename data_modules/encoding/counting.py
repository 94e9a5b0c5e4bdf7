"""Counts in the ledger what encoding did to a conversation: what it read, and what is left in the examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from data_modules.encoding.ledger import Ledger
from data_modules.encoding.losses import Part, account_of
from data_modules.encoding.strings import EncodedSegment, length
from data_modules.records.conversation import Conversation
from data_modules.rendering.segments import ANSWER_KINDS, FINAL_KINDS, TRAINED_KINDS, SegmentKind

ANSWERS_READ = (
    "earlier answers are context, because the chat template renders them differently once the conversation goes on; "
    "`--data.samples answer` trains each in a sample of its own"
)
"""What is done with answers that were not emitted as they are rendered."""


_TRAINED_KINDS = frozenset(TRAINED_KINDS)
_ENDING_KINDS = _TRAINED_KINDS | {SegmentKind.TEXT}


def count_tokens(ledger: Ledger, whole: Sequence[EncodedSegment], parts: Sequence[Part], end_token_id: int) -> None:
    """Count the tokens, answers and end tokens of one conversation.

    Args:
        ledger: Counts them.
        whole: The conversation before shortening.
        parts: Its parts, one for each example; none if it was left out.
        end_token_id: The token that ends answers.
    """
    if len(parts) == 1 and parts[0].kept is whole:
        _count_whole(ledger, whole, end_token_id)
        return
    account = account_of(whole, parts)
    flat = [item for part in parts for item in part.kept]
    ledger.count_tokens(_tokens_by_kind(whole), _tokens_by_kind(flat), account)
    ends, ends_left = _ends(whole, end_token_id), _turns_of_ends(parts, end_token_id)
    ledger.count_end_tokens(Counter(kind for turn, kind in ends.items() if turn not in ends_left))
    _count_answers(ledger, ends, {part.turns[turn] for part in parts for turn in _answers_in(part.kept)}, ends_left)
    if _has_several_answers(whole):
        ledger.dialogues_read += 1
        ledger.dialogues_kept += any(_has_several_answers(part.kept) for part in parts)
    ledger.untrained_ends += sum(_ends_untrained(part.kept) for part in parts)
    ledger.dropped += not parts
    ledger.split += len(parts) > 1
    ledger.truncated += bool(parts) and account.is_shortened()
    ledger.examples += len(parts)
    ledger.lengths.update(length(part.kept) for part in parts)


def _count_whole(ledger: Ledger, whole: Sequence[EncodedSegment], end_token_id: int) -> None:
    """Count a conversation that is its own example, as most are: nothing is cut, lost or repeated."""
    ledger.count_kept_tokens(_tokens_by_kind(whole))
    answers = [kind for kind in _ends(whole, end_token_id).values() if kind in ANSWER_KINDS]
    ledger.count_answers(read=answers)
    is_dialogue = _has_several_answers(whole)
    ledger.dialogues_read += is_dialogue
    ledger.dialogues_kept += is_dialogue
    ledger.untrained_ends += _ends_untrained(whole)
    ledger.examples += 1
    ledger.lengths[length(whole)] += 1


def count_answers_read(ledger: Ledger, conversation: Conversation, whole: Iterable[EncodedSegment]) -> None:
    """Count the answers that are to be trained, but that the template renders in another way later.

    Args:
        ledger: Counts them.
        conversation: The conversation.
        whole: The same before shortening.
    """
    read = {item.segment.turn for item in whole if item.segment.is_read}
    if trained := sum(conversation.turns[turn].is_trained for turn in read):
        ledger.changed_turns[ANSWERS_READ] += trained


def _count_answers(ledger: Ledger, ends: dict[int, SegmentKind], started: set[int], ended: set[int]) -> None:
    answers = {turn: kind for turn, kind in ends.items() if kind in ANSWER_KINDS}
    ledger.count_answers(
        read=answers.values(),
        cut=[kind for turn, kind in answers.items() if turn in started - ended],
        lost=[kind for turn, kind in answers.items() if turn not in started | ended],
    )


def _tokens_by_kind(encoded: Iterable[EncodedSegment]) -> Counter[SegmentKind]:
    counts: Counter[SegmentKind] = Counter()
    for item in encoded:
        counts[item.segment.kind] += len(item.ids)
    return counts


def _ends(encoded: Iterable[EncodedSegment], end_token_id: int) -> dict[int, SegmentKind]:
    """The turns that end with an end token, and what it ends: TEXT, ANSWER or FINAL_ANSWER."""
    ended = [item.segment for item in encoded if item.ids and item.ids[-1] == end_token_id]
    return {each.turn: _of_answer(each.kind) for each in ended if each.kind in _ENDING_KINDS}


def _turns_of_ends(parts: Iterable[Part], end_token_id: int) -> set[int]:
    return {part.turns[turn] for part in parts for turn in _ends(part.kept, end_token_id)}


def _answers_in(encoded: Iterable[EncodedSegment]) -> set[int]:
    """The turns with at least one token of an answer: of its thinking, its text or its tool calls."""
    return {item.segment.turn for item in encoded if item.segment.kind in _TRAINED_KINDS and item.ids}


def _has_several_answers(encoded: Iterable[EncodedSegment]) -> bool:
    return len(_answers_in(encoded)) > 1


def _ends_untrained(encoded: Sequence[EncodedSegment]) -> bool:
    kinds = {item.segment.kind for item in encoded if item.segment.turn == encoded[-1].segment.turn}
    return SegmentKind.CONTEXT_ANSWER in kinds and kinds.isdisjoint(_TRAINED_KINDS)


def _of_answer(kind: SegmentKind) -> SegmentKind:
    """The kind that stands for a whole answer with its thinking and tool calls."""
    if kind not in _TRAINED_KINDS:
        return kind
    return SegmentKind.FINAL_ANSWER if kind in FINAL_KINDS else SegmentKind.ANSWER
