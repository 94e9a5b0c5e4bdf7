"""Lints the labels of any trainer: JSON lines with `input_ids` and `labels`, where -100 means not supervised."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_modules.errors import UserError
from data_modules.progress import Progress
from data_modules.records.data_files import missing
from data_modules.wording import counted, kind_of
from lit_sft.lint.claims import Claim
from lit_sft.lint.findings import Findings, Report
from lit_sft.lint.labels import LabelledRow, faults_of, is_stop_trained
from lit_sft.lint.token_text import Ids, TokenText

IGNORED = -100
"""The label of a token that is not supervised."""

_MOSTLY = 0.95
_NEAR = 8
"""Tokens quoted on either side of a finding."""

_NO_TOKENIZER = "no tokenizer: set --tokenizer FOLDER"
_NEEDS_TOKENIZER = ("end-token-unsupervised", "pad-masks-end", "template-supervised", "tool-result-supervised")


@dataclass(frozen=True, slots=True)
class DumpedRow:
    """One line of a dump.

    Attributes:
        origin: `file:line`.
        ids: Tokens, (T,).
        labels: Labels, (T,).
        attended: Its attention mask, (T,); None if not given.
    """

    origin: str
    ids: Ids
    labels: Ids
    attended: npt.NDArray[np.bool_] | None


def read_dump(path: str) -> Iterator[DumpedRow]:
    """Read a dump line by line.

    Raises:
        FileNotFoundError: If the file does not exist.
        UserError: If a line is not an object with `input_ids` and `labels` of one length, or the file has none.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(missing(path))
    is_empty = True
    with Path(path).open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                is_empty = False
                yield _row(line, f"{path}:{number}")
    if is_empty:
        raise UserError(f"--labels {path}: no rows; expected JSON lines with 'input_ids' and 'labels'.")


def lint_dump(path: str, findings: Findings, text: TokenText | None, claim: Claim | None = None) -> Report:
    """Lint a dump of ids and labels.

    Args:
        path: The file.
        findings: Where to report; says which rules to run.
        text: The text of its tokens. None: no tokenizer is known, and the rules that need one are not run.
        claim: What the labels should be. They are then compared with it, instead of with the label rules.

    Raises:
        UserError: If a line cannot be read.
    """
    findings.skip_unfit(("text", "tokens"), "not with --labels, which looks at ids and labels only")
    if claim:
        findings.skip_unfit(("labels",), "not with --as, which says what is supervised")
    elif text is None:
        findings.skip(_NEEDS_TOKENIZER, _NO_TOKENIZER)
    started, count = time.perf_counter(), 0
    totals = _Totals()
    with Progress("linting labels", "rows") as progress:
        for dumped in read_dump(path):
            count += 1
            progress.update()
            _check(dumped, findings, text, totals, claim)
    totals.report(findings, text)
    remarks = [f"compared with {claim.name}"] if claim else []
    return Report(path, {"labels": count}, findings, time.perf_counter() - started, remarks)


class _Totals:
    """What only all rows together show."""

    def __init__(self) -> None:
        self.num_supervised = self.num_stops = 0
        self.first: list[tuple[str, LabelledRow]] = []

    def add(self, origin: str, row: LabelledRow) -> None:
        """Count a row that supervises something."""
        self.num_supervised += 1
        self.num_stops += is_stop_trained(row)
        if len(self.first) < 3:
            self.first.append((origin, row))

    def report(self, findings: Findings, text: TokenText | None) -> None:
        """Report that no row at all trains an end token, if no other rule has said so."""
        said = findings.counts["end-token-unsupervised"] + findings.counts["pad-masks-end"]
        if text is None or not self.num_supervised or self.num_stops or said:
            return
        for origin, row in self.first:
            findings.add("end-token-unsupervised", origin, "in no row of this dump", "", row)
        findings.count("end-token-unsupervised", self.num_supervised - len(self.first))


def _check(dumped: DumpedRow, findings: Findings, text: TokenText | None, totals: _Totals, claim: Claim | None) -> None:
    row = _labelled(dumped, text)
    if shift := _shift(dumped):
        findings.add(*shift[:1], dumped.origin, shift[1], _quote(dumped, shift[2], text), row)
        return
    if claim:
        if difference := claim.difference(row.ids, row.is_supervised, row.is_padding):
            quote = _quote(dumped, difference[1], text)
            findings.add("labels-not-as-claimed", dumped.origin, difference[0], quote, row)
        return
    for rule, place in faults_of(row):
        if text is not None or rule not in _NEEDS_TOKENIZER:
            where = f"at token {place:,} of {len(row.ids):,}"
            findings.add(rule, dumped.origin, where, _quote(dumped, place, text), row)
    if row.is_supervised.any():
        totals.add(dumped.origin, row)


def _shift(dumped: DumpedRow) -> tuple[str, str, int] | None:
    """Whether labels are other than the tokens at their place: the rule, what was found, and where."""
    ids, labels = dumped.ids, dumped.labels
    supervised = labels != IGNORED
    wrong = supervised & (labels != ids)
    if not wrong.any():
        return None
    place = int(np.flatnonzero(wrong)[0])
    for rolled, what in ((-1, "next"), (1, "previous")):
        # the token rolled around the edge has no neighbour
        inside = supervised.copy()
        inside[-1 if rolled < 0 else 0] = False
        if inside.any() and (labels == np.roll(ids, rolled))[inside].mean() >= _MOSTLY:
            return "labels-shifted", f"labels are the {what} token, from token {place:,}", place
    count = int(wrong.sum())
    share = f"{counted(count, 'label')} of {int(supervised.sum()):,}"
    return "labels-differ", f"{share}: token {place:,} is {ids[place]}, its label {labels[place]}", place


def _labelled(dumped: DumpedRow, text: TokenText | None) -> LabelledRow:
    none = np.zeros(len(dumped.ids), dtype=bool)
    weights = (dumped.labels != IGNORED).astype(np.float32)
    padding = none if text is None else text.is_padding(dumped.ids)
    is_end = none if text is None else text.is_end(dumped.ids)
    if dumped.attended is not None:
        # an attention mask that was made by id also leaves out the end of the answer
        padding = ~dumped.attended & ~(is_end & ~padding)
    template, results = (none, none) if text is None else text.template_and_tool_results(dumped.ids)
    return LabelledRow(
        ids=dumped.ids,
        weights=weights,
        is_end=is_end & ~padding,
        is_padding=padding,
        is_template=template & ~padding,
        is_tool_result=results,
        pad_id=_pad_id(dumped.ids, padding, text),
    )


def _pad_id(ids: Ids, padding: npt.NDArray[np.bool_], text: TokenText | None) -> int | None:
    """The token that pads: the one seen, else the tokenizer's."""
    if padding.any():
        return int(ids[np.flatnonzero(padding)[-1]])
    return None if text is None else text.pad_id


def _quote(dumped: DumpedRow, place: int, text: TokenText | None) -> str:
    ids = dumped.ids[max(0, place - _NEAR) : place + _NEAR]
    return text.decode(ids) if text else f"ids {' '.join(map(str, ids.tolist()))}"


def _row(line: str, origin: str) -> DumpedRow:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"{origin}: not valid JSON; expected an object with 'input_ids' and 'labels'.") from None
    if not isinstance(value, dict):
        raise UserError(f"{origin}: found {kind_of(value)}; expected an object with 'input_ids' and 'labels'.")
    ids, labels = (_numbers(value, name, origin) for name in ("input_ids", "labels"))
    given = value.get("attention_mask")
    attended = None if given is None else _numbers(value, "attention_mask", origin)
    for name, other in (("labels", labels), ("attention_mask", attended)):
        if other is not None and len(other) != len(ids):
            raise UserError(f"{origin}: {name} has {len(other):,} numbers, input_ids {len(ids):,}; expected as many.")
    return DumpedRow(origin, ids, labels, None if attended is None else attended != 0)


def _numbers(value: dict[str, Any], name: str, origin: str) -> Ids:
    if name not in value:
        raise UserError(f"{origin}: no field '{name}'; expected a list of numbers.")
    found = value[name]
    while isinstance(found, list) and len(found) == 1 and isinstance(found[0], list):
        found = found[0]  # a batch of one row
    if not isinstance(found, list) or not found or not all(type(number) is int for number in found):
        raise UserError(f"{origin}: '{name}' is {kind_of(found)}; expected a list of whole numbers, not empty.")
    return np.array(found, dtype=np.int64)
