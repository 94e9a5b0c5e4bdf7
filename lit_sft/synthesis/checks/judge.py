"""The rule that asks a model the question again, with the article, and compares its answer with the pair's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from data_modules.cleaning.options import option
from lit_sft.synthesis.candidate import Candidate
from lit_sft.synthesis.checks.asking import Ask, Messages
from lit_sft.synthesis.checks.chinese import simplified
from lit_sft.synthesis.checks.numbers import numbers_in
from lit_sft.synthesis.checks.refusals import says_no_answer
from lit_sft.synthesis.checks.words import content_of
from lit_sft.synthesis.thoughts import answer_of

_INSTRUCTIONS = {
    "en": "Answer the question from the article alone, in one short sentence. If the article does not contain the "
    'answer, reply "not in the article".\n\nArticle:\n{article}\n\n{before}Question: {question}\nAnswer:',
    "zh": "只根据下面的文章回答问题，用一句简短的话。如果文章中没有答案，请回答“文章中没有”。\n\n文章：\n{article}\n\n"
    "{before}问题：{question}\n回答：",
}
_EARLIER = {"en": "Question: {question}\nAnswer: {answer}\n", "zh": "问题：{question}\n回答：{answer}\n"}


@dataclass(frozen=True)
class Judge:
    """Asks the model each question once more, with its article, and refuses pairs whose answer is not the reply: other
    numbers, too few common words, or no answer in the article. Without an article, nothing is refused or asked."""

    agreement: float = option(
        "Least share of the content words of the shorter of answer and reply that the other has too.",
        float,
        0.5,
        least=0,
        most=1,
    )

    def __call__(self, candidate: Candidate, ask: Ask) -> str:
        """Why a conversation is refused; empty if it is not.

        Raises:
            EndpointError: If a request fails.
        """
        if not candidate.article.text:
            return ""
        for number, (question, answer) in enumerate(candidate.turns):
            reply = answer_of(ask(messages_for(candidate, number)))
            if fault := self._compared(simplified(question), simplified(answer), simplified(reply)):
                return f"{fault}: {reply[:100]!r}"
        return ""

    def _compared(self, question: str, answer: str, reply: str) -> str:
        if not reply:
            return "the judge gave no answer"
        if says_no_answer(reply):
            return "the judge finds no answer in the article"
        known = set(numbers_in(question))
        one, other = set(numbers_in(answer)) - known, set(numbers_in(reply)) - known
        if one and other and not (one <= other or other <= one):
            return "the judge answers with other numbers"
        if one and one == other:
            return ""
        share = agreement(answer, reply, question)
        return "" if share >= self.agreement else f"the judge answers differently (agreement {share:.2f})"


def messages_for(candidate: Candidate, number: int) -> Messages:
    """What the judge is asked about a question.

    Args:
        candidate: The conversation.
        number: Which of its questions, from 0.
    """
    language: Literal["en", "zh"] = candidate.article.language
    earlier = "".join(_EARLIER[language].format(question=q, answer=a) for q, a in candidate.turns[:number])
    text = _INSTRUCTIONS[language].format(
        article=candidate.article.text, before=earlier, question=candidate.turns[number][0]
    )
    return (("user", text),)


def agreement(answer: str, reply: str, question: str) -> float:
    """The share of the content words of the shorter of two answers that the other has too, 0 to 1.

    Words of the question count only if an answer has no others.

    Args:
        answer: An answer.
        reply: Another answer to the same question.
        question: The question.
    """
    one, other = _new(answer, question), _new(reply, question)
    shorter = min(one.total(), other.total())
    if not shorter:
        return float(answer.strip().lower() == reply.strip().lower() or one.total() != other.total())
    return (one & other).total() / shorter


def _new(text: str, question: str) -> Counter[str]:
    words, asked = content_of(text), set(content_of(question))
    return Counter([word for word in words if word not in asked] or words)
