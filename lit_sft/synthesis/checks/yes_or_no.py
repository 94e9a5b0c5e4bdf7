"""Questions that are answered with yes or no, and what they claim."""

from __future__ import annotations

import re

from lit_sft.synthesis.checks.words import content_of

_AUXILIARY = "is|are|was|were|do|does|did|has|have|had|can|could|will|would|should"
_ASKS = re.compile(
    rf"^(?:{_AUXILIARY})\b|吗[？?]?$|是否|是不是|有没有|能不能|会不会|([\u4e00-\u9fff])不\1",
    re.IGNORECASE,
)
_ALTERNATIVES = re.compile(
    r"\bor\b|\bwhich of\b|还是|或者"
    r"|[和与、][^，。？]+(?:哪一?[个条座种本颗]|谁)[^，。？]*(?:更|最|较|[大小高低长短多少早晚重轻好快慢远近深][？?]?$)",
    re.IGNORECASE,
)
_END = r"(?=[\s,，.。!！;；:：]|$)[\s,，.。!！;；:：]*"
_YES = re.compile(
    r"^\s*(?:yes|yeah|correct|indeed|true|that(?:'s| is) (?:right|correct|true)"
    r"|是的?|是啊|对的?|没错|正确|有的?|会的?|能|可以)" + _END,
    re.IGNORECASE,
)
_NO = re.compile(
    r"^\s*(?:no|nope|false|incorrect|not (?:at all|really)"
    r"|不是的?|不|否|没有|不对|错误|错|不会|不能|不可以|并非|并没有|并不是?)" + _END,
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(?:not|no|never|nor|none)\b|n['’]t\b|[不没未非无]", re.IGNORECASE)
_FORM = re.compile(
    rf"^(?:{_AUXILIARY})\b|吗(?=[？?]?\s*$)|是否|(?:是不是|有没有|能不能|会不会)|[\u4e00-\u9fff]不(?=[\u4e00-\u9fff])",
    re.IGNORECASE,
)


def asks_yes_or_no(question: str) -> bool:
    """Whether a question is answered with yes or no."""
    return bool(_ASKS.search(question.strip()))


def has_alternatives(question: str) -> bool:
    """Whether a question names what its answer may be."""
    return bool(_ALTERNATIVES.search(question))


def claim_of(question: str, answer: str) -> str:
    """What a question claims if its answer says yes, or repeats it; empty if it says no, or anything else.

    Args:
        question: A question in English or Chinese.
        answer: Its answer.
    """
    question = question.strip()
    if not asks_yes_or_no(question) or has_alternatives(question) or _NO.match(answer):
        return ""
    repeats = set(content_of(answer)) <= set(content_of(question)) and not _NEGATED.search(answer)
    return _FORM.sub(" ", question, count=1) if _YES.match(answer) or repeats else ""


def without_yes_or_no(question: str, answer: str) -> str:
    """An answer without the yes or no that it begins with.

    Args:
        question: Its question; answers to others stay as they are.
        answer: The answer.
    """
    return _YES.sub("", _NO.sub("", answer)) if asks_yes_or_no(question) else answer
