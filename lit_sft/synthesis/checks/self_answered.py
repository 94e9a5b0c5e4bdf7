"""The rule about questions that are answered by their own text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lit_sft.synthesis.candidate import Candidate
from lit_sft.synthesis.checks.numbers import numbers_in
from lit_sft.synthesis.checks.words import content_of

_ALTERNATIVES = re.compile(
    r"\bor\b|\bwhich of\b|还是|或者"
    r"|[和与、][^，。？]+(?:哪一?[个条座种本颗]|谁)[^，。？]*(?:更|最|较|[大小高低长短多少早晚重轻好快慢远近深][？?]?$)",
    re.IGNORECASE,
)
_ASKS_YES_OR_NO = re.compile(
    r"^(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|should)\b|吗[？?]?$|是否|是不是|有没有|能不能|会不会|([\u4e00-\u9fff])不\1",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class SelfAnswered:
    """Refuses pairs whose answer says nothing that the question does not say already. Answers to yes-or-no questions
    and questions with alternatives stay."""

    def __call__(self, candidate: Candidate) -> str:
        """Why a conversation is refused; empty if it is not."""
        for question, answer in candidate.turns:
            if is_self_answered(question, answer):
                return f"the question contains the answer {answer[:60]!r}"
        return ""


def is_self_answered(question: str, answer: str) -> bool:
    """Whether a question contains all content words and numbers of its answer.

    Args:
        question: A question in English or Chinese.
        answer: Its answer.
    """
    if _ALTERNATIVES.search(question) or _ASKS_YES_OR_NO.search(question):
        return False
    words, asked = content_of(answer), set(content_of(question))
    if not words:
        return answer.strip().lower().strip(".。") in question.lower()
    return set(words) <= asked and set(numbers_in(answer)) <= set(numbers_in(question))
