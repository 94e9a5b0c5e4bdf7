"""Articles, and the conversations that a model made from them."""

from __future__ import annotations

from dataclasses import dataclass

from lit_sft.scripts import Language

Turn = tuple[str, str]
"""A question and its answer."""


@dataclass(frozen=True, slots=True)
class Article:
    """What a request is about: an article, or the part of one that the model was given.

    Attributes:
        id: The article's `article_id`, else its origin. Parts of one article share it.
        text: The text that the model was given. Empty if it was given none: seed tasks, pairs without their articles.
        language: The language of the recipe's prompt.
        origin: Where the article was read, `file:line`; if it is not given, where the conversation says that it was.
        start: Where the text starts in the article, in characters.
        stop: Where it ends; 0 if unknown.
        record: Where the conversation was read that the request is about, `file:line`; empty if it is about none.
        digest: Of the text; if it is not given, of the text that the conversation was made from. Empty if unknown.
    """

    id: str
    text: str
    language: Language
    origin: str = ""
    start: int = 0
    stop: int = 0
    record: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A conversation that a model made, before it is checked.

    Attributes:
        turns: Its questions and answers, in order; at least one.
        article: What it was made from.
        asked: The question that the request was about; empty if it was about none.
    """

    turns: tuple[Turn, ...]
    article: Article
    asked: str = ""
