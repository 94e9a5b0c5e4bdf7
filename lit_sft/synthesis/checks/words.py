"""The words of a question or an answer that carry its content: without function words, endings and question words."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

from data_modules.cleaning.units import is_cjk, units_of


def words_in(words: str) -> list[str]:
    """A list of words, given in one string."""
    return words.split()


_FUNCTION_WORDS = frozenset(
    words_in(
        "a an the this that these those there here it its they them their theirs he him his she her hers we us our "
        "you your i me my of in on at by to for from with into onto as about over under between during after "
        "before through and or because but if than then so such not no nor only also just very more most much many few "
        "some any all both each every other is are was were be been being am do does did doing done have has had "
        "having will would can could shall should may might must s t d ll re ve m what who whom whose when where "
        "why how which"
    )
)
_FUNCTION_CHARACTERS = frozenset(
    "因的了是在于於有为為从由之中被和与與及而也就还還又或等着著过過对對把将將以其这這那该該个個得呢吗嗎吧啊"
)

_KINDS = (
    ("who", r"\b(?:who|whom|whose)\b|\bwh(?:at|ich) (?:person|people)\b|谁|誰|何人|哪位|什么人"),
    (
        "when",
        r"\bwhen\b|\b(?:wh(?:at|ich)) (?:exact )?(?:year|date|day|month|century|time)\b"
        r"|什么时候|什么时间|何时|何年|哪一?[年天日月]|几月几日|哪个世纪",
    ),
    (
        "where",
        r"\bwhere\b|\b(?:in|at|to|from) wh(?:at|ich) (?:city|country|place|town|village|region|location)\b"
        r"|什么地方|哪里|哪儿|何处|何地|何方",
    ),
    ("why", r"\bwhy\b|\bfor what reason\b|为什么|为何|何故|什么原因"),
    # how deep and how large ask for different things, so the adjective counts as content
    (
        "number",
        r"\bhow(?: many| much|(?= (?:long|tall|high|old|far|large|big|deep|heavy|wide|fast|often)\b))"
        r"|多少|几|幾|多(?=[长高大远久深重宽快])",
    ),
    ("how", r"\bhow\b|怎么|怎样|如何"),
)
"""What a question asks for, by the words that ask it; the first that matches."""

_ASKING = re.compile(
    r"^(?:please |(?:can|could) you (?:please )?)?(?:explain|tell me|describe)\b"
    r"|^请(?:问|你|您)?(?:解释|说明|介绍|说说|回答)?|什么|甚么|哪些|哪种|哪个|哪座|哪颗|哪位|哪所|哪部|哪家|哪|\bwh(?:at|ich)\b",
    re.IGNORECASE,
)


def kind_of_question(question: str) -> str:
    """What a question asks for: who, when, where, why, number or how; `what` for any other.

    Args:
        question: A question in English or Chinese.
    """
    return next((kind for kind, pattern in _KINDS if _compiled(pattern).search(question)), "what")


_DIMENSIONS = (
    ("high", r"\bhow (?:high|tall)\b|多高|高度(?=[^座个條条]*(?:多少|几米))"),
    ("long", r"\bhow long\b|多长|多久|长度(?=[^座个条]*(?:多少|几))"),
    ("far", r"\bhow far\b|多远"),
    ("large", r"\bhow (?:large|big)\b|多大"),
    ("deep", r"\bhow deep\b|多深|深度(?=[^座个条]*(?:多少|几))"),
    ("wide", r"\bhow wide\b|多宽|宽度(?=[^座个条]*(?:多少|几))"),
    ("heavy", r"\bhow heavy\b|多重"),
    ("old", r"\bhow old\b"),
    ("fast", r"\bhow fast\b|多快"),
    ("often", r"\bhow often\b"),
    ("much", r"\bhow much\b"),
)
"""What a question for a number measures; any other counts."""


def detailed_kind_of(question: str) -> str:
    """What a question asks for, with what it measures, or which part it has in what happened.

    Args:
        question: A question in English or Chinese.

    Returns:
        A kind of `kind_of_question`; for `number`, a dimension such as `high`, or `many`.
    """
    kind = kind_of_question(question)
    if kind == "number":
        return next((name for name, pattern in _DIMENSIONS if _compiled(pattern).search(question)), "many")
    if kind in ("who", "what"):
        return next((f"{kind} {name}" for name, pattern in _ROLES if _compiled(pattern).search(question)), kind)
    return kind


_ROLES = (
    ("whose", r"\bwhose\b|[谁誰]的"),
    (
        "object",
        r"^(?:whom?|(?:what|which) \w+) (?:do|does|did)\b|^(?:what|which) \w+ (?:is|are|was|were) \w+(?:ed|[eow]n)\b"
        r"|[^是由被和与為为在于於：:](?:谁|誰|何人|(?:哪|什么)[^的，]{0,4})[？?]?\s*$",
    ),
)
"""The part of what is asked for in what happened, if it is not its subject: who beat us is not whom we beat."""


def content_of(text: str) -> list[str]:
    """The words that carry a text's content, in order: stems of words, and characters of Chinese and Japanese.

    Args:
        text: Any text.
    """
    return [stem_of(unit) for unit in units_of(text) if not is_function_word(unit)]


def content_of_question(question: str) -> list[str]:
    """The content of a question, with the kind of the question instead of the words that ask it.

    Args:
        question: A question in English or Chinese.
    """
    kind = kind_of_question(question)
    pattern = next((pattern for name, pattern in _KINDS if name == kind), None)
    rest = _compiled(pattern).sub(" ", question) if pattern else question
    return [*content_of(_ASKING.sub(" ", rest)), f"?{kind}"]


_TURNING = re.compile(
    r"\b(?:not|no|never|nor|without|before|after|more|most|few)\b|n['’]t\b|[不没沒未无無非前后後]"
    r"|\bfrom [\w ]{1,40}? to (?:the )?\w+|[从從由][^，。？]{1,12}?[到至]",
    re.IGNORECASE,
)
"""Words that make another question of one that is otherwise the same."""


def asked_of(question: str) -> str:
    """What must agree before two questions are the same: their kinds, and words such as `not` and `before`.

    Args:
        question: A question in English or Chinese.
    """
    return " ".join([detailed_kind_of(question), *sorted(_TURNING.findall(question.lower()))])


_IRREGULAR = {
    form: verb
    for verb, forms in {
        "begin": "began begun",
        "break": "broke broken",
        "bring": "brought",
        "build": "built",
        "buy": "bought",
        "catch": "caught",
        "choose": "chose chosen",
        "come": "came",
        "cut": "cutting",
        "draw": "drew drawn",
        "drive": "drove driven",
        "eat": "ate eaten",
        "fall": "fell fallen",
        "feed": "fed",
        "fight": "fought",
        "find": "found",
        "fly": "flew flown",
        "forget": "forgot forgotten",
        "freeze": "froze frozen",
        "give": "gave given",
        "go": "went gone",
        "grow": "grew grown",
        "hear": "heard",
        "hold": "held",
        "keep": "kept",
        "know": "knew known",
        "lay": "laid",
        "lead": "led",
        "leave": "left",
        "lie": "lain",
        "lose": "lost",
        "make": "made",
        "mean": "meant",
        "meet": "met",
        "pay": "paid",
        "ride": "rode ridden",
        "rise": "rose risen",
        "run": "ran",
        "say": "said",
        "see": "saw seen",
        "sell": "sold",
        "send": "sent",
        "show": "shown",
        "sing": "sang sung",
        "sink": "sank sunk",
        "speak": "spoke spoken",
        "spend": "spent",
        "stand": "stood",
        "steal": "stole stolen",
        "swim": "swam swum",
        "take": "took taken",
        "teach": "taught",
        "tell": "told",
        "think": "thought",
        "wear": "wore worn",
        "win": "won",
        "write": "wrote written",
    }.items()
    for form in words_in(forms)
}


def is_function_word(unit: str) -> bool:
    """Whether a word, or a character of Chinese, carries no content of its own.

    Args:
        unit: In lower case.
    """
    return unit in _FUNCTION_WORDS or unit in _FUNCTION_CHARACTERS


def stem_of(unit: str) -> str:
    """The stem of an English word in lower case; anything else as it is."""
    return unit if is_cjk(unit) or not unit.isascii() or unit[0].isdigit() else _stem(unit)


@lru_cache(maxsize=2**15)
def _stem(word: str) -> str:
    return str(_stemmer().stem(_IRREGULAR.get(word, word)))


@cache
def _stemmer() -> Any:
    # imported on first use: it imports all of nltk
    from nltk.stem.snowball import EnglishStemmer

    return EnglishStemmer()


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)
