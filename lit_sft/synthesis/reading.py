"""Reads what requests are about: articles, conversations with their articles, or seed tasks."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from data_modules.errors import UserError
from data_modules.progress import with_progress
from data_modules.records.columns import check_found
from data_modules.records.conversation import Conversation, Message, Passage, Role
from data_modules.records.counts import RecordCounts
from data_modules.records.documents import TO_FINE_TUNE, read_documents
from data_modules.records.splits import Sources, as_list, read_conversations
from data_modules.wording import counted
from lit_sft.files import digest
from lit_sft.scripts import Language, language_of, script_shares
from lit_sft.synthesis.articles import Articles, OtherTextError
from lit_sft.synthesis.candidate import Article
from lit_sft.synthesis.inputs import check_inputs
from lit_sft.synthesis.passages import passages
from lit_sft.synthesis.recipe import Recipe
from lit_sft.synthesis.settings import SynthesisSettings

_CONVERSATION = re.compile(re.escape(TO_FINE_TUNE) + r"To read .*?`\.")
"""Advice about a conversation where a text was expected."""
_TO_RECORDS = (
    "This is a conversation, not an article: give conversations as --records, to a recipe that reads them, such as "
    "second_turn."
)

_MOST_TASKS = 10_000
"""Seed tasks in memory; of more, a random sample is kept."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request is about.

    Attributes:
        article: The article, or the part of one.
        given: What the recipe's prompt shows, by placeholder.
        fault: The name of what is wrong, such as `language`, so that nothing can be asked; empty if nothing is.
        reason: What is wrong, in sentences.
    """

    article: Article
    given: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""
    reason: str = ""


class Subjects:
    """Reads the subjects of all requests, in order, a few at a time.

    Args:
        settings: What to read.
        recipe: What it reads.

    Attributes:
        counts: Invalid records, and the fields that are not used, as far as they were read the last time.
        num_unproven: Conversations, read the last time, whose provenance has no digest of their article's text.

    Raises:
        UserError: If files that the recipe needs are not given, or others are.
    """

    def __init__(self, settings: SynthesisSettings, recipe: Recipe) -> None:
        self.settings, self.recipe = settings, recipe
        self.counts, self.num_unproven = RecordCounts(settings.on_invalid), 0
        check_inputs(settings, recipe)

    def count(self) -> int:
        """Read everything once, so that mistakes in the files are found before a request is paid for.

        Returns:
            The number of subjects, at least one.

        Raises:
            UserError: If there is none, and as in `__iter__`.
        """
        count = sum(1 for _ in with_progress(self, "reading", f"{self.recipe.subject}s"))
        if not count:
            invalid = f"{counted(self.counts.num_invalid, 'invalid record')}, first: {self.counts.invalid[0]}"
            raise UserError(f"nothing to ask about: {invalid}")
        return count

    def __iter__(self) -> Iterator[Subject]:
        """Every subject.

        Raises:
            UserError: If files cannot be read, a record is invalid and `on_invalid` is `error`, or no record has a
                column of `columns`.
        """
        self.counts, self.num_unproven = RecordCounts(self.settings.on_invalid), 0
        try:
            yield from islice(self._all(), self.settings.max_articles)
            self._check_columns()
        except UserError as error:
            message = _CONVERSATION.sub(_TO_RECORDS, str(error))
            raise UserError(message.replace("--data.", "--")) from None

    def _all(self) -> Iterator[Subject]:
        if self.recipe.reads == "article":
            yield from self._articles()
        elif self.recipe.reads == "tasks":
            yield from self._tasks()
        else:
            yield from self._records()

    def _articles(self) -> Iterator[Subject]:
        is_split = self.settings.long_articles == "split"
        for document in read_documents("train", self._sources(self.settings.articles), self.counts):
            for start, stop in passages(document.text, self.settings.max_characters, split=is_split):
                text = document.text[start:stop]
                name, origin = document.group or document.origin, document.origin
                article = Article(name, text, "en", origin, start, stop, digest=digest(text))
                yield self._subject(text, article, {"article": text})

    def _records(self) -> Iterator[Subject]:
        with Articles() as articles:
            if self.settings.articles:
                for document in read_documents("train", self._sources(self.settings.articles), self.counts):
                    articles.add(document.group or document.origin, document.text, document.origin)
            for conversation in self._conversations():
                try:
                    subject = self._about(conversation, articles)
                except UserError as error:
                    self.counts.reject(f"{conversation.origin}: {error}")
                    continue
                yield subject

    def _about(self, conversation: Conversation, articles: Articles) -> Subject:
        """What a request about a conversation shows.

        Raises:
            UserError: If the conversation does not suit the recipe, or several articles may be its own.
        """
        question, answer = _pair(conversation, is_answered=self.recipe.reads == "pair")
        try:
            article = self._article(conversation, articles)
        except OtherTextError as error:
            return Subject(_unread(conversation), fault=error.fault, reason=error.reason)
        given = {"article": article.text, "question": question, "answer": answer}
        if self.recipe.reads == "question":
            del given["answer"]
        return self._subject(question, article, given)

    def _article(self, conversation: Conversation, articles: Articles) -> Article:
        """The part of an article that a conversation was made from; else the article's beginning.

        Raises:
            OtherTextError: If the recipe needs the article and it is not there, or has changed.
            UserError: If it has no name, or several articles have that.
        """
        name, passage = conversation.group, conversation.passage or Passage(conversation.origin)
        is_needed = self.recipe.shows_article or (passage.digest and self.settings.articles)
        if is_needed and not name:
            raise UserError("no 'article_id'; expected the one of its article.")
        if not name or not (is_needed or articles.get(name, passage.origin)):
            return _unread(conversation)
        part = articles.part(name, passage)
        self.num_unproven += bool(passage.stop and not passage.digest)
        longest = self.settings.max_characters
        ((first, last),) = passages(part.article[part.start : part.stop], longest, split=False)
        start, stop = part.start + first, part.start + last
        text = part.article[start:stop]
        return Article(name, text, "en", part.origin, start, stop, conversation.origin, digest(text))

    def _tasks(self) -> Iterator[Subject]:
        draw = random.Random(self.settings.seed)
        tasks = self._sample(draw)
        if len(tasks) < self.settings.examples:
            raise UserError(
                f"--records: {counted(len(tasks), 'seed task')}; expected at least {self.settings.examples}, as in "
                "--examples."
            )
        for number in range(1, (self.settings.requests or 0) + 1):
            chosen = draw.sample(tasks, self.settings.examples)
            shown = "\n\n".join(f"{place}.\n{task}\n---\n{answer}" for place, (task, answer) in enumerate(chosen, 1))
            name = f"seed tasks {number}"
            yield self._subject(shown, Article(name, "", "en", name), {"examples": shown})

    def _sample(self, draw: random.Random) -> list[tuple[str, str]]:
        tasks: list[tuple[str, str]] = []
        for number, conversation in enumerate(self._conversations()):
            try:
                task = _pair(conversation, is_answered=True)
            except UserError as error:
                self.counts.reject(f"{conversation.origin}: {error}")
                continue
            if len(tasks) < _MOST_TASKS:
                tasks.append(task)
            elif (place := draw.randrange(number + 1)) < _MOST_TASKS:
                tasks[place] = task
        self._check_columns()
        return tasks

    def _conversations(self) -> Iterator[Conversation]:
        return read_conversations("train", self._sources(self.settings.records), self.counts)

    def _sources(self, files: list[str] | str | None) -> Sources:
        settings, is_question = self.settings, self.recipe.reads == "question"
        return Sources(
            {"train": as_list(files)},
            format=settings.format if files is settings.records else None,
            columns=settings.columns,
            on_invalid=settings.on_invalid,
            txt_documents=settings.txt_documents,
            require_answer=not is_question,
            text="question" if is_question else "document",
        )

    def _check_columns(self) -> None:
        names = {name for fields in self.counts.unknown_fields.values() for name in fields}
        check_found(self.settings.columns, self.counts.columns_found, names, option="--columns")

    def _subject(self, sample: str, article: Article, given: Mapping[str, str]) -> Subject:
        """A subject, in the language of a sample of its text."""
        language, fault = self._language(sample)
        return Subject(replace(article, language=language), given, fault and "language", fault)

    def _language(self, sample: str) -> tuple[Language, str]:
        if self.settings.language != "auto":
            return self.settings.language, ""
        found, known = language_of(sample), self.recipe.languages
        if found in known:
            return found, ""
        script = next(iter(script_shares(sample)), "")
        letters = f"mostly {script} letters" if script else "the text has no letters"
        what = f"language: {letters if found is None else found}"
        return found or known[
            0
        ], f"{what}; recipe {self.recipe.name} has prompts in {' and '.join(known)}. Set --language."


def _unread(conversation: Conversation) -> Article:
    """The article of a conversation as its provenance tells, without the text."""
    passage = conversation.passage or Passage(conversation.origin)
    return Article(
        conversation.group or conversation.origin,
        "",
        "en",
        passage.origin,
        passage.start,
        passage.stop,
        conversation.origin,
        passage.digest,
    )


def _pair(conversation: Conversation, *, is_answered: bool) -> tuple[str, str]:
    """The question and the answer of a conversation of one turn; the answer is empty if none is needed."""
    roles = [turn.role for turn in conversation.turns]
    answered = [Role.USER, Role.ASSISTANT]
    if roles != answered and (is_answered or roles != [Role.USER]):
        shown = ", ".join(roles)
        expected = "a question and its answer" if is_answered else "a question, perhaps with its answer"
        raise UserError(f"the messages are {shown}; expected {expected}, and nothing else.")
    if conversation.tools or any(turn.tool_calls for turn in conversation.turns):
        raise UserError("has tools, which this recipe would lose; expected text only.")
    question, *rest = conversation.turns
    return _content(question), rest[0].content if rest else ""


def _content(question: Message) -> str:
    return "\n\n".join(filter(None, (question.content, question.context)))
