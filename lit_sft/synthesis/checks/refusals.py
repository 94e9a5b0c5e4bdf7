"""The rule about answers in which the model refuses or talks about itself or its task."""

from __future__ import annotations

import re
from dataclasses import dataclass

from data_modules.cleaning.options import check_patterns, option
from lit_sft.synthesis.candidate import Candidate
from lit_sft.synthesis.checks.chinese import simplified
from lit_sft.synthesis.checks.quoting import quoted

_MODEL = r"(?:ai|artificial intelligence|(?:large )?language model)"
_MODEL_ZH = "(?:一个|一名|一款)?(?:AI|人工智能|大?语言模型|大型语言模型)(?:语言模型|模型|助手|助理)?"
_TEXT = "(?:article|text|passage|document|context|paragraph|information)s?"
_TEXT_ZH = "(?:文章|文中|原文|本文|上文|文本|材料|资料|段落|文档)"
_HOW = "(?:explicitly |directly |clearly )?"
_TELLS = "(?:mention|say|state|specify|provide|contain|give|include|tell|reveal|indicate|clear|discuss|explain)"
_TOLD = "(?:mentioned|stated|specified|provided|given|found|available|described)"
_NEGATED = "(?:do(?:es)? not|doesn't|don't|did not|didn't|never|is not|isn't)"
_DOES = (
    "(?:answer|provide|determine|find|help|assist|fulfil+|know|have (?:access|enough|any|information)|create|generate"
    "|say|tell)"
)
_UNABLE = "(?:can ?not|can't|could not|couldn't|unable to|not able to|do not|don't|will not|won't)"

_PATTERNS = {
    "talks about itself": (
        rf"\bas an? {_MODEL}(?: (?:language )?(?:model|assistant|chatbot))?(?= ?,| i\b| developed| trained|\.|$)",
        rf"\bi(?:'| a)m (?:just |only )?an? (?:{_MODEL}|chatbot)\b",
        r"\bmy (?:training data|knowledge cut-?off)\b",
        rf"作为{_MODEL_ZH}(?=[，,。我]|$)",
        rf"我(?:只)?是{_MODEL_ZH}",
    ),
    "refuses": (
        r"^(?:i(?:'| a)m )?(?:very |so )?sorry\b[,.]? ?(?:but )?(?:i|there|this|the (?:article|text|passage))\b",
        r"^(?:unfortunately,? |sorry,? |i apologi[sz]e,? ?(?:but )?)?i(?:'m| am)? "
        rf"{_UNABLE}(?: be able to)?(?: \w+)? {_DOES}\b",
        r"^(?:非常|很)?(?:抱歉|对不起|不好意思)[，,。！!]?(?:但)?(?:我|文|根据|由于|这|该|无法|没有)",
        r"^(?:很遗憾，?|遗憾的是，?)?我(?:无法|不能|没有办法|没法|不知道|不清楚|不了解)",
        r"^(?:目前|暂时|很遗憾，?)?(?:无法|不能)(?:回答|提供|确定|判断|得知|从)",
    ),
    "says that there is no answer": (
        rf"\b{_TEXT}\b[^.]{{0,30}}?\b{_NEGATED} ?{_HOW}{_TELLS}",
        rf"\bnot {_HOW}{_TOLD} (?:in|by|within) (?:the|this) (?:given |provided )?{_TEXT}",
        r"^(?:not (?:mentioned|specified|stated|provided|available|given)|no information|unknown|n/?a|none given)\.?$",
        r"^(?:it is |this is )?not in the (?:article|text|passage)\b",
        r"^there is no (?:mention|information)\b",
        rf"{_TEXT_ZH}[^。]{{0,8}}?(?:没有|未|并未|没)[^。]{{0,4}}?(?:提到|提及|提供|说明|给出|指出|介绍|描述|涉及|明确)",
        rf"^{_TEXT_ZH}中?(?:里)?没有(?:答案|相关|这)?",
        r"^(?:未提及|未提到|没有提到|未说明|无相关信息|没有相关信息|不详|未知|暂无信息)。?$",
    ),
    "addresses its user": (
        r"^(?:sure|certainly|of course|absolutely|okay|great question|good question)[!,.:]",
        r"\b(?:let me know if|feel free to ask|i hope (?:this|that) helps|hope this helps|is there anything else)\b",
        r"^(?:当然|好的|没问题|可以的)[，,！!：:。]",
        r"希望(?:这|以上|我的)?[^。]{0,8}(?:对您|对你|能帮|有所?帮助)",
        r"如(?:果您|果你|有)[^。]{0,8}(?:其他|任何|更多)[^。]{0,2}问题[^。]{0,6}(?:随时|请)",
    ),
    "introduces itself": (
        r"^here(?: is|'s| are) (?:the|an?|your|some|\w+) (?:\w+ )?"
        r"(?:answer|question|pair|response|list|summary)s?\b[^.]{0,40}:",
        r"^(?:以下|下面)(?:是|为)[^。]{0,12}(?:回答|答案|问题|问答|总结)[^。]{0,4}[：:]",
    ),
    "is part of a form": (
        r"\A\W*(?:answer|question|response|output|a|q)\s?\d*\s?[:：]",
        r"\A\W*(?:答案|回答|问题|答|问|输出)\s?\d*\s?[:：]",
        r"\[(?:insert|your|name|answer|number|date|placeholder)[^\]]*\]|<(?:answer|question|insert|name)[^>]*>",
        r"[\[【（(](?:此处|请填写|请插入|插入|填写|待补充)[^\]】）)]*[\]】）)]",
        r"```json|\A```[^\n]*```\Z|\"(?:question|answer)\"\s*:|<\|[^|]*\|>",
        r"\A\W*(?:the )?question (?:is|was) (?:about|based on|asking)\b|\bthe answer is\W*\Z",
        r"\A\W*(?:这个|该|此|本)?(?:问题|答案|回答)(?:是|为|如下)?[：:。.…\s]*\Z",
        r"^(?:string|todo|tbd|xxx+|问题内容|答案内容|问题文本|答案文本|[.…。]+)[.。]?$",
    ),
}
"""What a refused text does, and how that is recognised, in English and Chinese."""


@dataclass(frozen=True)
class Refusals:
    """Refuses pairs in which the model refuses, says that the article has no answer, talks about itself or to its user,
    or leaves parts of a form. Words that the article itself contains do not count."""

    patterns: tuple[str, ...] = option("More regular expressions, looked for in answers.", str, (), many=-1)

    def __post_init__(self) -> None:
        check_patterns(self.patterns)

    def __call__(self, candidate: Candidate) -> str:
        """Why a conversation is refused; empty if it is not."""
        article = candidate.article.text.lower()
        for question, answer in candidate.turns:
            for what, text, kinds in (("question", question, _OF_QUESTIONS), ("answer", answer, _ALL)):
                for kind, pattern in (*kinds, *self._own(what)):
                    found = pattern.search(text.strip())
                    words = found[0].lower().strip(" ,.，。…") if found else ""
                    if found and (not words or words not in article):
                        return f"the {what} {kind}: {quoted(found)!r}"
        return ""

    def _own(self, what: str) -> list[tuple[str, re.Pattern[str]]]:
        patterns = {form: None for each in self.patterns for form in (each, simplified(each))}
        return [("has words to refuse", re.compile(each)) for each in patterns] if what == "answer" else []


def _compiled(*kinds: str) -> list[tuple[str, re.Pattern[str]]]:
    return [
        (kind, re.compile(pattern, re.IGNORECASE | re.MULTILINE * (kind == "is part of a form")))
        for kind in kinds
        for pattern in _PATTERNS[kind]
    ]


def says_no_answer(reply: str) -> bool:
    """Whether a model's reply says that it cannot answer, or that the article does not.

    Args:
        reply: An answer in English or Chinese.
    """
    return any(pattern.search(reply.strip()) for _, pattern in _NO_ANSWER)


_ALL = _compiled(*_PATTERNS)
_NO_ANSWER = _compiled("refuses", "says that there is no answer")
_OF_QUESTIONS = _compiled("talks about itself", "is part of a form", "introduces itself")
