"""Lints the records of a data module in one pass: text, duplicates, tokens, labels. Memory does not grow with texts."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example import Example
from data_modules.encoding.ledger import Ledger
from data_modules.encoding.tokenizers import special_ids
from data_modules.encoding.unknown_text import TextCheck
from data_modules.errors import UserError
from data_modules.progress import Progress
from data_modules.records.conversation import Conversation, Message, Role, expand_answers
from data_modules.records.counts import RecordCounts
from data_modules.records.rejections import without_advice
from data_modules.records.splits import Sources, read_conversations
from data_modules.rendering.masking import MASKS, Weights
from data_modules.rendering.segments import SegmentKind
from data_modules.sft_data_module import SFTDataModule
from data_modules.wording import counted
from lit_sft.lint.duplicates import DuplicateIndex
from lit_sft.lint.findings import Findings, Report
from lit_sft.lint.labels import LabelledRow, faults_of, is_stop_trained, row_of_example
from lit_sft.lint.prompts import PromptCheck, has_prompt
from lit_sft.lint.repeats import report_repeats
from lit_sft.lint.rules import RULES
from lit_sft.lint.stopping import check_stopping
from lit_sft.lint.text_checks import MarkerSearch, faults_in_text, marker_search

_NO_ANSWER = re.compile(r"turn \d+ \(assistant\) is empty|no answer to train on \(")
_UNLIMITED = 2**31 - 1
_SYSTEM_PROMPTS = 10_000
"""System prompts counted separately, at most."""

_DUPLICATE_RULES = ("duplicate", "duplicate-normalised", "near-duplicate", "contradictory-answers", "split-leak")
_NO_TOKENIZER = "no tokenizer: set --tokenizer FOLDER, or --config FILE"


@dataclass
class _Counts(RecordCounts):
    """Counts records, and reports invalid ones."""

    findings: Findings = field(default_factory=lambda: Findings(frozenset()))

    def reject(self, message: str) -> None:
        super().reject(message)
        _report_invalid(self.findings, without_advice(message))


def lint_data(data: SFTDataModule, findings: Findings, *, has_tokenizer: bool, is_random: bool = False) -> Report:
    """Lint every split of a data module.

    Args:
        data: The data module; it need not be set up.
        findings: Where to report; says which rules to run.
        has_tokenizer: Whether a tokenizer is known. Without one, only the rules about text are run.
        is_random: Whether the model has random weights.

    Raises:
        UserError: If a file cannot be read, or no record is valid.
    """
    findings.skip_unfit(("dump",), "only with --labels")
    if not has_tokenizer:
        findings.skip((rule.name for rule in RULES.values() if rule.subject in ("tokens", "labels")), _NO_TOKENIZER)
    if has_tokenizer and findings.wants("end-token-mismatch", "pad-is-end"):
        check_stopping(data, data.encoder.end_token_id, findings, is_random=is_random)
    sources = data.sources
    started = time.perf_counter()
    walk = _Walk(data, findings, has_tokenizer=has_tokenizer)
    with _one_thread():
        rows = {split: walk.read(number, split) for number, split in enumerate(sources.splits)}
    walk.finish()
    return Report(
        subject=", ".join(file for split in reversed(sources.splits) for file in sources.files.get(split, [])),
        rows=dict(reversed(rows.items())),
        findings=findings,
        seconds=time.perf_counter() - started,
        remarks=_remarks(data) if has_tokenizer else [],
    )


class _Walk:
    """One pass over all splits."""

    def __init__(self, data: SFTDataModule, findings: Findings, *, has_tokenizer: bool) -> None:
        self.data, self.findings = data, findings
        # those of each source of a mixture, then those of all other rows
        self.tokens = [_TokenRules(data, findings, index) for index in (*range(len(data.mix)), -1) if has_tokenizer]
        self.index = DuplicateIndex()
        self.systems: Counter[str] = Counter()
        self.first_system: dict[str, str] = {}
        self.num_conversations = 0
        self.markers = marker_search()

    def read(self, number: int, split: str) -> int:
        """Lint a split; returns the number of rows read."""
        return sum(self._read_part(number, split, *part) for part in _parts(self.data, split))

    def _read_part(self, number: int, split: str, index: int, sources: Sources) -> int:
        counts, tokens = _Counts("drop", findings=self.findings), self.tokens[index] if self.tokens else None
        compares, nearly = self.findings.wants(*_DUPLICATE_RULES), self.findings.wants("near-duplicate")
        markers = tokens.markers if tokens else self.markers
        with Progress(f"linting {split}", "rows") as progress:
            for read in read_conversations(split, sources, counts):
                progress.update()
                conversation = read.with_its_answer()
                self._check_text(conversation, markers)
                if compares and not _is_rated_bad(read):
                    self.index.add(conversation, number, nearly=nearly)
                if tokens:
                    tokens.check(conversation, split)
        if self.findings.wants("unused-fields"):
            for file, names in counts.unknown_fields.items():
                self.findings.counts["unused-fields"] += max(names.values()) - 1
                listed = ", ".join(f"{name} ({counted(count, 'record')})" for name, count in names.items())
                self.findings.add("unused-fields", file, listed)
        return counts.records_read

    def finish(self) -> None:
        """Report what only all rows together show."""
        if self.findings.wants(*_DUPLICATE_RULES):
            report_repeats(self.index, self._again(), self.findings)
        self._report_systems()
        for tokens in self.tokens:
            tokens.finish()

    def _again(self) -> Iterator[Conversation]:
        """Every conversation that is compared, once more, in the order in which they were read."""
        for split in self.data.sources.splits:
            for _, sources in _parts(self.data, split):
                read = read_conversations(split, sources, RecordCounts("drop"))
                yield from (each.with_its_answer() for each in read if not _is_rated_bad(each))

    def _check_text(self, conversation: Conversation, markers: MarkerSearch) -> None:
        for rule, detail, quote in faults_in_text(conversation, markers):
            self.findings.add(rule, conversation.origin, detail, quote)
        if not conversation.is_text:
            self.num_conversations += 1
            system = conversation.system_turns[0].content if conversation.system_turns else ""
            if system in self.systems or len(self.systems) < _SYSTEM_PROMPTS:
                self.systems[system] += 1
                self.first_system.setdefault(system, conversation.origin)

    def _report_systems(self) -> None:
        if len(self.systems) < 2 or not self.findings.wants("system-prompts"):
            return
        for system, count in self.systems.most_common():
            share = f"{count:,} of {self.num_conversations:,} ({count / self.num_conversations:.1%})"
            what = "this system prompt" if system else "no system prompt"
            self.findings.add("system-prompts", self.first_system[system], f"{share} with {what}", system)
        self.findings.counts["system-prompts"] = self.num_conversations


def _is_rated_bad(conversation: Conversation) -> bool:
    """Whether its answer is a bad one: several to one prompt do not contradict each other, nor a good one."""
    return conversation.is_unpaired and not conversation.is_answered


def _parts(data: SFTDataModule, split: str) -> list[tuple[int, Sources]]:
    """What a split is read from: the index of each source of a mixture and how it is read; -1 outside mixtures."""
    shared = replace(data.sources, on_invalid="drop")
    if not data.mix or (split != "train" and split in shared.files):
        return [(-1, shared)]
    return [(index, source.sources(shared)) for index, source in enumerate(data.mix)]


class _TokenRules:
    """The rules that need a tokenizer, for one source of a mixture or (-1) for what belongs to none."""

    def __init__(self, data: SFTDataModule, findings: Findings, source: int = -1) -> None:
        self.data, self.findings = data, findings
        mixture = data.mixture if source >= 0 else None
        self.encoder: Encoder = mixture.encoders[source] if mixture else data.encoder
        self.mask = mixture.masks[source] if mixture else data.mask
        self.whole = replace(self.encoder, max_length=_UNLIMITED)
        self.end_token_id = self.whole.end_token_id  # now: the encoder looks at every token when first used
        self.prompts = PromptCheck(self.whole)
        self.knows_all = TextCheck(data.tokenizer).knows_every_byte
        self.num_supervised = self.num_stops = 0
        self.unstopped: list[tuple[str, LabelledRow]] = []
        self.mask_of_ledger = self.mask.name if self.mask.name in MASKS else "firefly_multi_turn"

    @cached_property
    def markers(self) -> MarkerSearch:
        """Finds the markers of this tokenizer and template."""
        tokenizer = self.data.tokenizer
        special = [str(tokenizer.convert_ids_to_tokens(index)) for index in sorted(special_ids(tokenizer))]
        return marker_search(special, _template_lines(self.encoder))

    def check(self, conversation: Conversation, split: str) -> None:
        """Check the tokens of a conversation, and of every sample made of it."""
        is_expanded = split == "train" and self.data.sources.samples == "answer"
        seen: set[str] = set()
        for sample in expand_answers(conversation) if is_expanded else [conversation]:
            try:
                self._check_sample(sample, seen)
            except UserError as error:
                if "invalid-record" not in seen:
                    _report_invalid(self.findings, str(error))
                seen.add("invalid-record")

    def _check_sample(self, sample: Conversation, seen: set[str]) -> None:
        ledger = None if self.knows_all else Ledger()
        examples = self.whole.encode(sample, ledger)
        if not examples:
            if "nothing-supervised" not in seen:
                seen.add("nothing-supervised")
                self.findings.add("nothing-supervised", sample.origin, f"{self.data.convention} drops the record")
            return
        whole = examples[0]
        if ledger and ledger.unknown_text:
            self._add("unknown-text", sample.origin, ledger.unknown_first[0].partition(": ")[2], "", whole, seen)
        if has_prompt(sample) and self.findings.wants("prompt-differs", "merged-border"):
            self._check_prompt(sample, whole, seen)
        if len(whole) <= self.encoder.max_length:
            self._check_labels(whole, is_text=sample.is_text, seen=seen)
        else:
            self._check_truncated(sample, whole, seen)

    def _check_prompt(self, sample: Conversation, whole: Example, seen: set[str]) -> None:
        text = self.prompts.text_of(sample)
        if text is None:
            return
        difference = self.prompts.difference(text, whole)
        if difference:
            self._add("prompt-differs", sample.origin, *difference, whole, seen)
        elif joined := self.prompts.merge(text, sample.turns[-1].content):
            self._add("merged-border", sample.origin, repr(joined), sample.turns[-1].content[:40], whole, seen)

    def _check_truncated(self, sample: Conversation, whole: Example, seen: set[str]) -> None:
        ledger, mask = Ledger(), self.mask_of_ledger
        examples = self.encoder.encode(sample, ledger)
        cut, lost = ledger.answers_cut[mask], ledger.answers_lost[mask]
        length = f"{len(whole):,} tokens, at most {self.encoder.max_length:,}"
        if sample.is_text:
            if self.encoder.over_long != "split":
                self._add("answer-truncated", sample.origin, f"document of {length}", "", whole, seen)
        elif cut or lost:
            what = " and ".join([*([f"{counted(cut, 'answer')} cut"] * bool(cut)), *([f"{lost:,} lost"] * bool(lost))])
            self._add(
                "answer-truncated", sample.origin, f"{what}: {length}", sample.turns[-1].content[-60:], whole, seen
            )
        elif self.encoder.over_long != "split":
            self._add("prompt-truncated", sample.origin, length, sample.turns[0].content[:60], whole, seen)
        for example in examples:
            self._check_labels(example, is_text=sample.is_text, seen=seen)

    def _check_labels(self, example: Example, *, is_text: bool, seen: set[str]) -> None:
        if is_text or not self.findings.wants(*_LABEL_RULES):
            return
        row = row_of_example(example, self._weights(example), self.end_token_id)
        for rule, place in faults_of(row):
            self._add(
                rule, example.origin, f"at token {place:,} of {len(row.ids):,}", self._near(row, place), row, seen
            )
        if row.is_supervised.any():
            self.num_supervised += 1
            if is_stop_trained(row):
                self.num_stops += 1
            elif len(self.unstopped) < 3:
                self.unstopped.append((example.origin, row))

    def finish(self) -> None:
        """Report that no row at all trains an end token, if no rule has said so."""
        reported = self.findings.counts["end-token-unsupervised"] + self.findings.counts["pad-masks-end"]
        if self.num_supervised and not self.num_stops and not reported:
            for origin, row in self.unstopped:
                self.findings.add("end-token-unsupervised", origin, "in no row of this data", "", row)
            self.findings.count("end-token-unsupervised", self.num_supervised - len(self.unstopped))

    def _weights(self, example: Example) -> Weights:
        return example.loss_weights(self.mask)

    def _add(self, rule: str, origin: str, detail: str, quote: str, row: Example | LabelledRow, seen: set[str]) -> None:
        if rule in seen:
            return
        seen.add(rule)
        if isinstance(row, Example):
            row = row_of_example(row, self._weights(row), self.end_token_id)
        self.findings.add(rule, origin, detail, quote, row)

    def _near(self, row: LabelledRow, place: int) -> str:
        return str(self.data.tokenizer.decode(row.ids[max(0, place - 8) : place + 8].tolist()))


_LABEL_RULES = tuple(rule.name for rule in RULES.values() if rule.subject == "labels")


def _template_lines(encoder: Encoder) -> list[str]:
    """The lines of fixed text around the messages of a conversation."""
    turns = (Message(Role.USER, "\ue000", context="\ue000"), Message(Role.ASSISTANT, "\ue000"))
    try:
        segments = encoder.template.render(Conversation(turns, "the template"))
    except UserError:
        return []  # each record reports it
    fixed = "".join(part.text if part.kind is SegmentKind.TEMPLATE else "\ue000" for part in segments)
    return [line.strip() for line in fixed.split("\n") if "\ue000" not in line and line.strip()]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Encode on this thread: handing short texts to others takes longer than encoding them."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        os.environ.pop(name)
        os.environ |= {} if before is None else {name: before}


def _report_invalid(findings: Findings, message: str) -> None:
    place = re.match(r"(.*?:(?:row )?\d+)(?: \(record \d+\))?: ", message, re.DOTALL)
    origin, rest = (place[1], message[place.end() :]) if place else ("", message)
    findings.add("empty-answer" if _NO_ANSWER.search(rest) else "invalid-record", origin, rest)


def _remarks(data: SFTDataModule) -> list[str]:
    sources = zip(data.mix, data.mixture.encoders, data.mixture.masks, strict=True) if data.mixture else ()
    return [
        f"template {data.encoder.template.name}",
        f"mask {data.mask.name}",
        f"at most {data.max_length:,} tokens",
        *(
            f"{source.name}: template {encoder.template.name}, mask {mask.name}"
            for source, encoder, mask in sources
            if source.template or source.mask
        ),
    ]
