"""`grounded` compares units by what they mean, however they are written."""

from __future__ import annotations

import pytest

from lit_sft.scripts import language_of
from lit_sft.synthesis.candidate import Article, Candidate
from lit_sft.synthesis.checks.grounded import Grounded

SAME = [
    ("Unemployment was 12%.", "12 per cent."),
    ("Unemployment was 12 percent.", "It was 12 per cent."),
    ("The park covers 40 km².", "40 square kilometres."),
    ("The park covers 40 square kilometres.", "40 km2."),
    ("It was 20 °C at noon.", "20 degrees Celsius."),
    ("It was 20 degrees Celsius at noon.", "20°C."),
    ("The bridge cost $5 million.", "5 million US dollars."),
    ("The bridge cost $5m.", "5 million dollars."),
    ("The bridge cost £3bn.", "3 billion pounds."),
    ("The train reaches 90 km/h.", "90 kilometres per hour."),
    ("The train reaches 90 mph.", "90 miles an hour."),
    ("The crossing takes 3 hrs.", "3 hours."),
    ("通过率为12%。", "百分之十二"),
    ("通过率为百分之十二。", "12％"),
    ("塔高九十六米。", "96公尺。"),
    ("占地12平方公里。", "12平方千米。"),
    ("占地12平方米。", "12平方公尺。"),
    ("学校举行了50周年校庆。", "50年。"),
    ("重5公斤。", "5千克。"),
    ("重5千克。", "5公斤。"),
    ("气温20℃。", "20摄氏度。"),
    ("气温摄氏20度。", "20摄氏度。"),
    ("历时3小时。", "三个钟头。"),
    ("价格是100元。", "人民币100元。"),
    ("价格是100元。", "100块钱。"),
    ("会上展出了型号S3010周年纪念机。", "型号S3010周年纪念机。"),
]
OTHER = [
    ("Unemployment was 12%.", "12 degrees Celsius."),
    ("Unemployment was 12%.", "13 per cent."),
    ("The race is 10 nautical miles long.", "10 miles."),
    ("The park covers 40 km².", "40 kilometres."),
    ("The bridge cost $5m.", "5 metres."),
    ("The train reaches 90 km/h.", "90 miles per hour."),
    ("通过率为12%。", "百分之十三"),
    ("航程12海里。", "12英里。"),
    ("价格500日元。", "500天。"),
    ("价格500克朗。", "500克。"),
    ("重5千克。", "5克。"),
    ("学校举行了50周年校庆。", "50周。"),
]


def refusal(article: str, answer: str) -> str:
    """Why an answer from an article is refused."""
    language = language_of(article) or "en"
    question = "What is it?" if language == "en" else "是多少？"
    return Grounded()(Candidate(((question, answer),), Article("a", article, language)))


@pytest.mark.parametrize(("article", "answer"), SAME)
def test_the_same_measure_in_another_spelling_is_accepted(article: str, answer: str) -> None:
    assert refusal(article, answer) == ""


@pytest.mark.parametrize(("article", "answer"), OTHER)
def test_another_number_or_unit_is_refused(article: str, answer: str) -> None:
    assert "number" in refusal(article, answer)
