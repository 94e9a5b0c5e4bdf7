"""The rule about questions that cannot be understood without their article: pronouns, and references to the text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from data_modules.cleaning.options import option
from lit_sft.synthesis.candidate import Candidate
from lit_sft.synthesis.checks.quoting import quoted
from lit_sft.synthesis.checks.words import content_of_question

_TEXT = "(?:article|text|passage|excerpt|paragraph|snippet)"
_GIVEN = "(?:given |provided |above |following |preceding |present )?"
_TELLS = "(?:mention|say|state|describe|discuss|explain|suggest|claim|argue|write|talk|tell)"
_TO_TEXT = re.compile(
    rf"\b(?:in|from|according to|based on|about|throughout|of|by|does|did|is|was|with|to) (?:the|this) "
    rf"{_GIVEN}{_TEXT}\b(?! (?:of|messag|box|file|edit|field))"
    rf"|\bthis (?:{_TEXT}|section|page|document|story|author|list|table)\b"
    rf"|\bthe (?:article|passage|excerpt)'s\b|\b(?:the|this) (?:{_TEXT}|author) {_TELLS}"
    r"|\b(?:mentioned|described|discussed|listed|stated|noted|given|quoted|shown) (?:above|below|here|earlier)\b"
    r"|\bthe (?:above|aforementioned|above-mentioned)\b|\babove-mentioned\b|\baforementioned\b"
    r"|\baccording to (?:the )?(?:above|information|source|paragraph)\b",
    re.IGNORECASE,
)
"""What refers to the article in a question."""

_TO_CHINESE_TEXT = re.compile(
    "本文|上文|下文|前文|原文中|文中|文内|文章|上述|以上(?:内容|信息|材料|文字|提到|所述|文本)|如上|前述|前面提到|上面(?:提到|说|的)"
    "|本(?:段|节|章|篇|条目|词条|页)|(?:这|该)(?:篇|段|段话|文|文本|材料|条目|词条)|材料(?:中|里)|段落(?:中|里)|短文"
    "|作者(?:认为|指出|提到|说|在文)|所述内容|根据(?:资料|材料|文本|描述|内容|提供)"
)
_NOT_TO_TEXT = re.compile(
    "论文中?|公文|散文|课文|文章学|(?:发表|写)(?:的|过|了)?[^，。？]{0,6}文章|下文化|原文化|本文化|中文中?|语文中|天文中|人文中|英文中?"
)
"""Words that only look like it."""

_IN_ANSWERS = re.compile(
    rf"\b(?:in|from|according to|based on|about|by|as) (?:the|this) {_GIVEN}(?:article|passage|excerpt|text)\b"
    r"(?! (?:of|messag|box|file|edit))"
    rf"|\b(?:the|this) (?:article|passage|excerpt|author) {_TELLS}|\b(?:mentioned|described|stated|noted) above\b"
    r"|\baccording to the (?:above|information|source)\b|\blimited to the (?:article|text|passage)\b",
    re.IGNORECASE,
)
_IN_CHINESE_ANSWERS = re.compile(
    "(?:文章|文中|本文|上文|原文|材料|短文|段落)(?:中|里|内|所)*(?:提到|提及|指出|说|介绍|写|讲|描述|认为|表示|所述|称|明确)"
    "|(?:问题|答案|回答)(?:是|都是)?(?:关于|针对|基于|来自)(?:这篇|该|本)?(?:文章|文本|短文|文)"
    "|(?:根据|按照|据|依据|如|从)(?:文章|本文|上文|原文|文中|材料|该文|以上|上述|短文)|作者(?:认为|指出|提到|在文)|上述(?:文|内容|材料)"
)
"""What refers to the article in an answer, in which "the text" may be another one."""

_PRONOUN = re.compile(
    r"\b(?:he|him|his|she|her|hers|they|them|their|theirs|it|its|itself|himself|herself|themselves"
    r"|this|that|these|those)\b",
    re.IGNORECASE,
)

_EXPLETIVE = re.compile(
    r"\b(?:does|did|would|will|can|could|is|was|has) it (?:(?:usually|typically|normally|originally) )?"
    r"(?:take|cost|mean|possible|important|necessary|called|known|rain|snow|true|make sense|illegal|legal|that|better"
    r"|common)\b|\bis it that\b|\bit(?:'s| is| was) (?:that\b|[\w-]+ (?:to|that|for)\b)",
    re.IGNORECASE,
)
"""An `it` that stands for nothing."""

_THINGS = (
    "(?:year|time|day|place|city|event|period|war|book|film|man|woman|person|team|company|species|song|battle|house|era"
    "|decade|century|same)"
)
_POINTING = re.compile(rf"(?:this|these|those)\b|that\b(?= {_THINGS}\b|\?|$)", re.IGNORECASE)

_CHINESE_PRONOUN = re.compile(
    "(?<!吉)[他她它](?!人|国|乡|杀|律|加)(?:们)?|(?<![尤与極极土何听])其(?![他它中实次余间乐妙事貌名所微先])"
    "|这|那(?![不霍曲坡拉么达吒英])|该(?=[^，。？]{1,6})|此(?![外后前起类处番刻致等])|后者|前者|当时|彼时|两者|二者"
)
_QUOTED = "〇"
"""Stands for every character of quotations and of words in which no pronoun is looked for."""

_BY_THEMSELVES = ("当时", "彼时", "这", "那", "该", "此")
_CONTINUING = re.compile("因此|此外|其中|这样|那样|从此|由此|另外|除此")
_NOT_PRONOUN = re.compile(
    "应该|活该|该隐|该亚|因此|如此|彼此|从此|至此|由此|据此|特此|就此|对此|吉他|其他|其它|尤其|土耳其|与其|极其|莫名其妙|刹那"
    "|印第安那|支那|维也纳|路易斯安那|印地安那|亚利桑那|蒙大那|博茨瓦那|圭亚那|禅那|此外|在此之|这样|那样|怎样|其中"
)


@dataclass(frozen=True)
class References:
    """Refuses questions that are not clear without their article: with pronouns that stand for nothing in the question,
    or references such as "this article" and 上文; and answers with such references. Later questions of a conversation
    may have pronouns, which stand for what was said before."""

    pronouns: bool = option("Whether pronouns in the first question are refused.", bool, True)

    def __call__(self, candidate: Candidate) -> str:
        """Why a conversation is refused; empty if it is not."""
        article = candidate.article.text.lower()
        for number, (question, answer) in enumerate(candidate.turns):
            if found := reference_in(question):
                return f"the question refers to its article: {found!r}"
            given = _IN_ANSWERS.search(answer) or _IN_CHINESE_ANSWERS.search(answer)
            if given and given[0].lower() not in article:  # an article may be about a text
                return f"the answer refers to its article: {quoted(given)!r}"
            if self.pronouns and not number and (found := open_pronoun(question)):
                return f"the question does not say what {found!r} stands for"
        return ""


def reference_in(text: str) -> str:
    """The first words that refer to an article; empty if none do.

    Args:
        text: A question in English or Chinese.
    """
    if found := _TO_TEXT.search(text):
        return quoted(found)
    blanked = _NOT_TO_TEXT.sub(lambda match: _QUOTED * len(match[0]), text)
    found = _TO_CHINESE_TEXT.search(blanked)
    return found[0] if found else ""


def open_pronoun(question: str) -> str:
    """The first pronoun that stands for nothing in the question itself; empty if there is none.

    Args:
        question: A question in English or Chinese.
    """
    found = _CONTINUING.match(question.strip())
    return found[0] if found else _open_english(question) or _open_chinese(question)


def _open_english(question: str) -> str:
    text = _EXPLETIVE.sub(lambda match: " " * len(match[0]), _without_quotes(question))
    for match in _PRONOUN.finditer(text):
        if match[0].lower() in ("this", "that", "these", "those"):
            if not match.start() or _POINTING.match(text, match.start()):
                return match[0]
        elif not _has_noun(text[: match.start()]):
            return match[0]
    return ""


def _has_noun(before: str) -> bool:
    """Whether what comes before a pronoun names something: a word with a capital letter, or one after an article."""
    before = re.sub(r"\b(?:the|a|an) [\w-]+ of $", "", before, flags=re.IGNORECASE)
    names = re.findall(r"(?<=\s)[A-Z][\w.'-]*", before)
    nouns = re.findall(
        r"\b(?:the|a|an|each|every|some|many|most|all|\w+'s) [\w-]+|\b\w{3,}s\b", before, flags=re.IGNORECASE
    )
    return bool(names) or any(noun.lower() not in _NOT_NOUNS for noun in nouns)


_NOT_NOUNS = ("does", "was", "has", "this", "years", "times", "whose")


def _open_chinese(question: str) -> str:
    text = _NOT_PRONOUN.sub(lambda match: _QUOTED * len(match[0]), _without_quotes(question))
    for match in _CHINESE_PRONOUN.finditer(text):
        before = [unit for unit in content_of_question(text[: match.start()]) if not unit.startswith("?")]
        named = [unit for unit in before if not unit[0].isdigit() and unit not in f"{_QUOTED}年月日时候后前来今本"]
        if match[0] == "这" and (
            text[match.start() - 1 : match.start()] == _QUOTED or _is_beside(named, text, match.start())
        ):
            continue  # 长江这条河
        needed = 4 if match[0] in ("前者", "后者", "两者", "二者") else 2
        if match[0] in _BY_THEMSELVES or len(named) < needed:
            return match[0]
    return ""


def _is_beside(named: list[str], text: str, place: int) -> bool:
    """Whether a name of at least two characters ends at a place."""
    return len(named) > 1 and text[:place].endswith("".join(named[-2:]))


def _without_quotes(text: str) -> str:
    return re.sub(r"《[^》]*》|“[^”]*”|「[^」]*」|\"[^\"]*\"", lambda match: _QUOTED * len(match[0]), text)
