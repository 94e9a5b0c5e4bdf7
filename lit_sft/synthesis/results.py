"""The files of a synthesis: accepted and refused conversations, subjects that failed, and the totals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from data_modules.wording import counted
from lit_sft.files import json_line
from lit_sft.synthesis.candidate import Article, Candidate
from lit_sft.synthesis.checks.checks import Checks
from lit_sft.synthesis.curve import CostCurve
from lit_sft.synthesis.pipeline import FAILED_REQUEST, NO_REPLY, Outcome
from lit_sft.synthesis.recipe import Recipe
from lit_sft.synthesis.settings import ModelSettings

PAIRS, REFUSED, FAILED = "pairs.jsonl", "refused.jsonl", "failed.jsonl"
SUMMARY, JOURNAL, CONFIG = "summary.json", "journal.jsonl", "config.yaml"


class Results:
    """Takes outcomes in reading order, checks what they hold against the earlier ones, and writes and counts them.

    Args:
        recipe: What was asked.
        checks: The rules.
        model: Who was asked.
        streams: Where to write, by file name.

    Attributes:
        subjects: By what became of them: accepted (at least one conversation), refused, failed, not_reached.
        pairs: Conversations read, accepted and refused.
        failures: Subjects that failed, by fault.
        first_reasons: What went wrong with the first of them.
        attempts: Replies by attempt.
        invalid: Invalid replies, by what was wrong with them.
        curve: What conversations cost as the run goes on.
    """

    def __init__(self, recipe: Recipe, checks: Checks, model: ModelSettings, streams: dict[str, BinaryIO]) -> None:
        self.recipe, self.checks, self.model, self._streams = recipe, checks, model, streams
        self.subjects, self.pairs = (
            dict.fromkeys(names, 0)
            for names in (("read", "accepted", "refused", "failed", "not_reached"), ("read", "accepted", "refused"))
        )
        self.failures: Counter[str] = Counter()
        self.first_reasons: dict[str, str] = {}
        self.attempts: Counter[int] = Counter()
        self.invalid: Counter[str] = Counter()
        self.curve = CostCurve()
        self._made_with = {
            "recipe": recipe.name,
            "recipe_digest": recipe.digest,
            "model": model.title,
            "temperature": model.temperature,
            "checks": list(checks.names),
        }

    def add(self, outcome: Outcome) -> None:
        """Count the next outcome in reading order, and write what it holds."""
        self.subjects["read"] += 1
        self.attempts.update(range(1, outcome.attempts + 1))
        self.invalid.update(outcome.invalid)
        accepted = sum(self._settle(outcome, number) for number in range(len(outcome.made)))
        if not outcome.is_reached:
            self.subjects["not_reached"] += 1
        elif outcome.fault:
            self.subjects["failed"] += 1
            self.failures[outcome.fault] += 1
            self.first_reasons.setdefault(outcome.fault, outcome.reason)
            self._write(FAILED, _failed(outcome))
        else:
            self.subjects["accepted" if accepted else "refused"] += 1
        if outcome.is_reached:
            self.curve.add(
                pairs_read=len(outcome.made),
                pairs_accepted=accepted,
                tokens_read=outcome.tokens_read,
                tokens_written=outcome.tokens_written,
            )

    @property
    def num_unanswered(self) -> int:
        """Subjects without a reply: not reached, or their request failed."""
        return self.subjects["not_reached"] + self.failures[FAILED_REQUEST] + self.failures[NO_REPLY]

    @property
    def first_error(self) -> str:
        """Why the first failed request failed; empty if none did."""
        return self.first_reasons.get(FAILED_REQUEST) or self.first_reasons.get(NO_REPLY, "")

    def of_subjects(self, num: int) -> str:
        """A number of subjects in words, such as `3 of 20 articles`."""
        return f"{num:,} of {counted(self.subjects['read'], self.recipe.subject)}"

    def count_unanswered_as_not_reached(self) -> None:
        """Count subjects that got no reply as not reached, because the model has stopped answering."""
        count = self.failures.pop(NO_REPLY, 0)
        self.subjects["failed"] -= count
        self.subjects["not_reached"] += count
        if count:
            _drop(self._streams[FAILED], NO_REPLY)

    def as_dict(self) -> dict[str, Any]:
        """Everything that was counted, as JSON values."""
        counts = self.checks.counts()
        return {
            "subjects": self.subjects,
            "pairs": self.pairs,
            "failures": dict(self.failures.most_common()),
            "first_reasons": {fault: self.first_reasons[fault] for fault, _ in self.failures.most_common()},
            "invalid": dict(self.invalid.most_common()),
            "attempts": {str(number): count for number, count in sorted(self.attempts.items())},
            "checks": self.checks.identity(),
            "rules": [{"name": name, "what": what, **counts[name]} for name, what in self.checks.describe()],
            "curve": self.curve.points(),
        }

    def _settle(self, outcome: Outcome, number: int) -> bool:
        """Decide about a conversation, and write it; returns whether it is accepted."""
        made = outcome.made[number]
        refusal = self.checks.settle(made.candidate, made.alone)
        record = _record(made.candidate)
        provenance = {**_source(made.candidate), **self._made_with, "attempt": outcome.attempts}
        self.pairs["read"] += 1
        self.pairs["refused" if refusal else "accepted"] += 1
        if refusal is None:
            self._write(PAIRS, {**record, "provenance": provenance})
            return True
        del provenance["checks"]
        self._write(REFUSED, {**record, "rule": refusal.rule, "reason": refusal.reason, "provenance": provenance})
        return False

    def _write(self, name: str, row: dict[str, Any]) -> None:
        self._streams[name].write(json_line(row).encode())


@contextmanager
def written_whole(folder: Path, *names: str) -> Iterator[dict[str, BinaryIO]]:
    """Open files that replace earlier ones of the same names when the block is complete; else those stay.

    Args:
        folder: Their folder; only one process may write there.
        names: Names of the files.
    """
    partial = {name: folder / f".{name}.partial" for name in names}
    try:
        with ExitStack() as stack:
            yield {name: stack.enter_context(path.open("wb")) for name, path in partial.items()}
        for name, path in partial.items():
            path.replace(folder / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


def _drop(stream: BinaryIO, fault: str) -> None:
    """Remove the rows with a fault from a file that is being written."""
    stream.flush()
    with Path(stream.name).open("rb") as reader:
        stream.seek(0)
        for line in reader:  # what is written is never ahead of what was read
            if json.loads(line)["fault"] != fault:
                stream.write(line)
    stream.truncate()


def _record(candidate: Candidate) -> dict[str, Any]:
    """A conversation as `fit` reads it."""
    messages = [
        {"role": role, "content": content}
        for turn in candidate.turns
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]
    return {"messages": messages, "article_id": candidate.article.id}


def _source(candidate: Candidate) -> dict[str, Any]:
    article = candidate.article
    return {"article": article.id, **_place(article), "language": article.language}


def _place(article: Article) -> dict[str, Any]:
    """Where an article was read, the part of it if that is known, and the conversation if one was read."""
    span = {"span": [article.start, article.stop]} if article.stop else {}
    known = {"text_digest": article.digest, "record": article.record}
    return {"origin": article.origin, **span, **{name: value for name, value in known.items() if value}}


def _failed(outcome: Outcome) -> dict[str, Any]:
    article = outcome.subject.article
    return {
        "article_id": article.id,
        **_place(article),
        "fault": outcome.fault,
        "reason": outcome.reason,
        "attempts": outcome.attempts,
        "reply": outcome.reply,
    }
