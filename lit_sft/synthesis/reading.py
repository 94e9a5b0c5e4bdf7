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
from lit_sft.scripts import Language, language_of, script_shares
from lit_sft.synthesis.articles import Articles
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
        fault: Why nothing can be asked about it; empty if something can.
    """

    article: Article
    given: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""


class Subjects:
    """Reads the subjects of all requests, in order, a few at a time.

    Args:
        settings: What to read.
        recipe: What it reads.

    Attributes:
        counts: Invalid records, and the fields that are not used, as far as they were read the last time.

    Raises:
        UserError: If files that the recipe needs are not given, or others are.
    """

    def __init__(self, settings: SynthesisSettings, recipe: Recipe) -> None:
        self.settings, self.recipe = settings, recipe
        self.counts = RecordCounts(settings.on_invalid)
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
        self.counts = RecordCounts(self.settings.on_invalid)
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
                article = Article(document.group or document.origin, text, "en", document.origin, start, stop)
                yield self._subject(text, article, {"article": text})

    def _records(self) -> Iterator[Subject]:
        with Articles() as articles:
            if self.settings.articles:
                for document in read_documents("train", self._sources(self.settings.articles), self.counts):
                    articles.add(document.group or document.origin, document.text, document.origin)
            for conversation in self._conversations():
                try:
                    given, article = self._given(conversation, articles)
                except UserError as error:
                    self.counts.reject(f"{conversation.origin}: {error}")
                    continue
                yield self._subject(given["question"], article, given)

    def _given(self, conversation: Conversation, articles: Articles) -> tuple[dict[str, str], Article]:
        """What a prompt shows of a conversation, and its article."""
        question, answer = _pair(conversation, is_answered=self.recipe.reads == "pair")
        article = self._article(conversation, articles)
        given = {"article": article.text, "question": question, "answer": answer}
        if self.recipe.reads == "question":
            del given["answer"]
        return given, article

    def _article(self, conversation: Conversation, articles: Articles) -> Article:
        """The part of an article that a conversation was made from; else the article's beginning.

        Raises:
            UserError: If the recipe needs the article and it is not there, or several have its id.
        """
        name, passage = conversation.group, conversation.passage or Passage(conversation.origin)
        found = articles.get(name, passage.origin) if name else None
        if found is None:
            if self.recipe.shows_article:
                raise UserError(
                    f"no article has the article_id {name!r}; expected it in --articles."
                    if name
                    else "no 'article_id'; expected the one of its article."
                )
            known = passage.start, passage.stop
            return Article(name or conversation.origin, "", "en", passage.origin, *known, record=conversation.origin)
        text, origin = found
        start, stop = self._part(text, passage)
        return Article(name or "", text[start:stop], "en", origin, start, stop, record=conversation.origin)

    def _part(self, text: str, passage: Passage) -> tuple[int, int]:
        """Start and stop of a passage in its article; of the article's beginning if the article does not have it."""
        has_passage = passage.start < passage.stop <= len(text) and text[passage.start : passage.stop].strip()
        start, stop = (passage.start, passage.stop) if has_passage else (0, len(text))
        ((first, last),) = passages(text[start:stop], self.settings.max_characters, split=False)
        return start + first, start + last

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
        return Subject(replace(article, language=language), given, fault)

    def _language(self, sample: str) -> tuple[Language, str]:
        if self.settings.language != "auto":
            return self.settings.language, ""
        found, known = language_of(sample), self.recipe.languages
        if found in known:
            return found, ""
        script = next(iter(script_shares(sample)), "no")
        what = f"language: mostly {script} letters" if found is None else f"language: {found}"
        return found or known[
            0
        ], f"{what}; recipe {self.recipe.name} has prompts in {' and '.join(known)}. Set --language."


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
