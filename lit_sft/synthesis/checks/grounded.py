"""The rule about answers that the article does not support: numbers, names and words that do not occur in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from data_modules.cleaning.options import option
from data_modules.cleaning.units import is_cjk, units_of
from lit_sft.synthesis.candidate import Candidate
from lit_sft.synthesis.checks.numbers import Written, normal, without_numbers, written_in
from lit_sft.synthesis.checks.source import Source, pairs_of, source_of
from lit_sft.synthesis.checks.units import has_other_unit, includes_a_year, unit_of, without_measures
from lit_sft.synthesis.checks.words import content_of, stem_of, words_in
from lit_sft.synthesis.checks.yes_or_no import claim_of, without_yes_or_no

_QUOTED = re.compile(r"《([^》]{1,40})》|“([^”]{2,30})”|「([^」]{2,30})」|『([^』]{2,30})』|\"([^\"]{2,60})\"")
_WORD = re.compile(r"(?<!\w)[^\W\d_][\w'’-]*")
_SENTENCE_END = re.compile(r"[.!?:;\n\"“(]\s*$")
_OPENERS = frozenset(
    words_in(
        "a an the this that these those it its he she they his her their there here i we you in on at by to for "
        "from with as about after before during since until while when where why how what which who because "
        "although though if however therefore thus also and but or so then yes no not only both each every some "
        "many most all one two three four five six seven eight nine ten first second third according based due "
        "being although despite instead unlike people it's there's today now later over under between within "
        "without"
    )
)
_SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康"
    "毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文張劉陳楊趙黃吳孫馬羅鄭謝韓馮蕭鄧許呂蘇盧蔣賈葉閻鍾範陸顧龍萬錢湯詹温施柳章倪严牛樊兰殷翁"
)
_PERSON = re.compile(
    rf"(?:^|[是由叫为為，、：和与與被向请請名]|作者|先生|画家|畫家|作家|诗人|詩人|皇帝|将军|將軍|教授|博士|校长|校長|总统|總統|工程师|建筑师)"
    rf"((?:[{_SURNAMES}]|欧阳|司马|上官|诸葛)[\u4e00-\u9fff]{{1,2}}?)(?=$|[，。、；！？和与與在于於的等及是主发創创设設撰修所建写寫])"
)
_PLACE = re.compile(
    "([\u4e00-\u9fff]{2})(?:市|省|县|縣|镇|鎮|村|州|国|國|河|湖|江|岛|島|寺|大学|大學|公司|学院|學院|山脉|王朝)"
)
_FORMED = re.compile("[是在于於和与與的由从從为為到了有位一这這那该該各全两三座个個条條向自该其过過]")


@dataclass(frozen=True)
class Grounded:
    """Refuses answers with numbers, names or quotations that occur neither in the article nor in the question, and
    answers of which too few words occur there. Numbers are compared by value, 1,200 and 一千二百 are the same, and
    by their unit. If the answer says yes, the question is judged in the same way. Without an article, nothing is
    refused."""

    numbers: bool = option("Whether numbers must occur.", bool, True)
    names: bool = option("Whether names and quotations must occur.", bool, True)
    share: float = option(
        "Least share of an answer's content words, or pairs of characters in Chinese, that occur.",
        float,
        0.5,
        least=0,
        most=1,
    )
    run: int = option("Most content words, or characters of Chinese, in a row that do not occur.", int, 6, least=1)

    def __call__(self, candidate: Candidate) -> str:
        """Why a conversation is refused; empty if it is not."""
        if not candidate.article.text:
            return ""
        source = source_of(candidate.article.text)
        for question, answer in candidate.turns:
            earlier, source = source, source + Source.of(question)
            if fault := self._fault(without_yes_or_no(question, answer), source, "answer"):
                return fault
            claim = claim_of(question, answer)
            if claim and (fault := self._fault(claim, earlier, "question")):
                return f"the question is answered with yes, and {fault}"
        return ""

    def _fault(self, text: str, source: Source, what: str) -> str:
        plain = normal(text)
        if self.numbers:
            for number in written_in(plain):
                spelling = plain[number.start : number.stop].strip()
                if number.value not in source.values and not _is_dated(number, plain, source):
                    return f"the article does not contain the number {spelling!r}"
                if has_other_unit(number, plain, source.measured) and not _is_dated(number, plain, source):
                    return f"the article gives the number {spelling!r} in another unit"
        if self.names and (name := next(missing_names(text, source), "")):
            return f"the article does not contain {name!r}"
        share, longest = support_of(text, source)
        if share < self.share:
            return f"the article contains {share:.0%} of the {what}'s words"
        return f"{longest} words in a row are not in the article" if longest > self.run else ""


def _is_given(number: Written, text: str, source: Source) -> bool:
    return number.value in source.values or _is_dated(number, text, source)


def _is_dated(number: Written, text: str, source: Source) -> bool:
    """Whether years of a source are so many years apart, or in this decade or century."""
    years = {int(year) for year in source.values if year.isdecimal() and len(year) == 4}
    if includes_a_year(number, text, years):
        return True
    is_span = number.value.isdecimal() and unit_of(number, text) == "year"
    return is_span and any(year + int(number.value) in years for year in years)


def missing_names(answer: str, source: Source) -> Iterator[str]:
    """Names and quotations of an answer that do not occur in its source.

    Args:
        answer: The answer, in English or Chinese.
        source: The article and the question.
    """
    for match in _QUOTED.finditer(answer):
        quoted = next(filter(None, match.groups())).strip(" ,.，。")
        if "".join(quoted.lower().split()) not in source.squeezed:
            yield quoted
    for name in _capitalised(without_measures(answer)):
        if not set(map(stem_of, units_of(name))) <= source.stems:
            yield name
    for match in _PERSON.finditer(answer):
        if match[1] not in source.text:
            yield match[1]
    for match in _PLACE.finditer(answer):
        if match[1] not in source.text and match[0][1:] not in source.text and not _FORMED.search(match[1]):
            yield match[0]


def _capitalised(answer: str) -> Iterator[str]:
    """Words with a capital letter: all inside sentences, and those at their start that do not look like openers."""
    is_short = len(units_of(answer)) <= 12
    for match in _WORD.finditer(answer):
        word = match[0].removesuffix("'s").removesuffix("’s")
        if not word[0].isupper() or not word.isascii() or word == "I":
            continue
        is_start = not match.start() or _SENTENCE_END.search(answer[: match.start()])
        has_capitals = any(map(str.isupper, word[1:]))
        if not is_start or has_capitals or (is_short and word.lower() not in _OPENERS):
            yield word


def support_of(answer: str, source: Source) -> tuple[float, int]:
    """How much of an answer occurs in its source.

    Args:
        answer: The answer, in English or Chinese.
        source: The article and the question.

    Returns:
        The share of its content words and numbers, 0 to 1, and the most words in a row that do not occur. A Chinese
        character occurs if a pair of characters with it does.
    """
    plain = without_numbers(without_measures(normal(answer)))
    words = content_of(plain)
    if not words:
        return 1.0, 0
    paired = {character for pair in pairs_of(plain) & source.pairs for character in pair}
    found = [word in source.stems and (not is_cjk(word) or word in paired) for word in words]
    runs = "".join("x" if each else "." for each in found).split("x")
    text = normal(answer)
    given = [_is_given(number, text, source) for number in written_in(text)]
    return (sum(found) + sum(given)) / (len(found) + len(given)), max(map(len, runs))
