"""The rule about questions that are answered by their own text."""

from __future__ import annotations

from dataclasses import dataclass

from lit_sft.synthesis.candidate import Candidate
from lit_sft.synthesis.checks.numbers import numbers_in
from lit_sft.synthesis.checks.words import content_of
from lit_sft.synthesis.checks.yes_or_no import asks_yes_or_no, has_alternatives


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
    if has_alternatives(question) or asks_yes_or_no(question):
        return False
    words, asked = content_of(answer), set(content_of(question))
    if not words:
        return answer.strip().lower().strip(".。") in question.lower()
    return set(words) <= asked and set(numbers_in(answer)) <= set(numbers_in(question))
