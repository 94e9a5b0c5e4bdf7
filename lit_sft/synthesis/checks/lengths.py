"""The rule about lengths of questions and answers."""

from __future__ import annotations

from dataclasses import dataclass, fields

from data_modules.cleaning.options import option
from data_modules.cleaning.units import units_of
from data_modules.errors import UserError
from data_modules.wording import counted
from lit_sft.synthesis.candidate import Candidate


@dataclass(frozen=True)
class Lengths:
    """Refuses questions and answers that are too short or too long, in words, or in characters of Chinese, without
    punctuation. Other characters of Chinese text count too: 1990 is four."""

    question: tuple[int, int] = option("Fewest and most words of a question.", int, (3, 40), least=1, many=2)
    answer: tuple[int, int] = option("Fewest and most words of an answer.", int, (1, 300), least=1, many=2)
    question_zh: tuple[int, int] = option("Fewest and most characters in Chinese.", int, (4, 15), least=1, many=2)
    answer_zh: tuple[int, int] = option("Fewest and most characters in Chinese.", int, (1, 300), least=1, many=2)

    def __post_init__(self) -> None:
        for each in fields(self):
            low, high = getattr(self, each.name)
            if low > high:
                raise UserError(f"{each.name} [{low}, {high}]: expected the smaller number first.")

    def __call__(self, candidate: Candidate) -> str:
        """Why a conversation is refused; empty if it is not."""
        is_chinese = candidate.article.language == "zh"
        limits = (self.question_zh, self.answer_zh) if is_chinese else (self.question, self.answer)
        unit = "character" if is_chinese else "word"
        for turn in candidate.turns:
            for what, text, (low, high) in zip(("question", "answer"), turn, limits, strict=True):
                num = length_of(text, is_chinese=is_chinese)
                if not low <= num <= high:
                    return f"{what} of {counted(num, unit)}; expected {low} to {high}"
        return ""


def length_of(text: str, *, is_chinese: bool) -> int:
    """Words of a text, or letters and digits of Chinese text, without punctuation.

    Args:
        text: Any text.
        is_chinese: Whether the text is to be counted in characters.
    """
    units = units_of(text)
    return sum(map(len, units)) if is_chinese else len(units)
