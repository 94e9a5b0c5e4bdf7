"""Prints a report on the data before training: the ledger as a table, and what was lost and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import GenerationConfig, PreTrainedTokenizerBase

from data_modules.encoding.counting import ANSWERS_READ
from data_modules.encoding.encoder import OverLong
from data_modules.encoding.ledger import ledger_rows, unused_fields
from data_modules.encoding.mixture import Mixture
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.records.rejections import count_reasons, without_advice
from data_modules.rendering.templates import AnyTemplate, resolve_template
from data_modules.sft_data_module import SFTDataModule
from lit_sft.console import cell
from lit_sft.printable import printable
from lit_sft.runs.shared_remarks import budget_remarks, group_remarks, held_out_remarks
from lit_sft.training.data import TrainingData

_FEW = 0.1
"""A mask for several answers is pointless if at most this fraction of conversations keeps several answers."""


def print_ledger(console: Console, data: SFTDataModule) -> None:
    """Print the ledgers of all splits as one table, with remarks below."""
    header, *rows = ledger_rows(data.ledgers, "whole_sequence" if data.convention else data.mask_name)
    how = f"{'convention' if data.convention else 'mask'} {data.mask.name}"
    table = Table(title=f"data: template {data.encoder.template.name}, {how}", title_justify="left")
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left")
    for row in rows:
        table.add_row(*map(cell, row))
    console.print(table)
    if data.mixture:
        console.print(_mixture_table(data.mixture, data.ledgers["train"]["sources"]))
    for split, ledger in data.ledgers.items():
        for line in ledger["formats"]:
            console.print(f"  {split}: {printable(line)}", style="dim", markup=False, soft_wrap=True)
        print_unread(console, split, ledger)
    for remark in (*data_remarks(data), *held_out_remarks(data), *budget_remarks(data), *group_remarks(data)):
        console.print(printable(remark), style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_unread(console: Console, split: str, ledger: Mapping[str, Any]) -> None:
    """Print what was not read of the files of a split, or should perhaps be read differently: skipped files, notices
    about .txt files, unused fields, the first invalid records.

    Args:
        console: Where to print.
        split: The split.
        ledger: Its ledger.
    """
    lines = [f"{split}: {line}" for line in unread_lines(ledger)]
    lines += [f"dropped: {without_advice(message)}" for message in ledger["invalid"]["first"][:5]]
    for line in lines:
        console.print(f"  {printable(line)}", style="yellow", markup=False, soft_wrap=True)


def unread_lines(ledger: Mapping[str, Any]) -> list[str]:
    """Skipped files, notices about .txt files, and unused fields, one line each.

    Args:
        ledger: That of a split.
    """
    return [*ledger["skipped_files"], *ledger["notices"], *unused_fields(ledger)]


def _mixture_table(mixture: Mixture, ledgers: dict[str, Any]) -> Table:
    """What every source contributes to an epoch."""
    table = Table(title="mixture: one epoch", title_justify="left")
    for name in ("source", "records", "examples", "repeats", "per epoch", "share", "tokens", "template", "mask"):
        table.add_column(name, justify="left" if name in ("source", "template", "mask") else "right")
    total = sum(ledger["epoch"]["examples"] for ledger in ledgers.values())
    for source, encoder, mask in zip(mixture.mix, mixture.encoders, mixture.masks, strict=True):
        ledger = ledgers[source.name]
        epoch = ledger["epoch"]
        counts = (ledger["records_read"], ledger["examples"], epoch["repeats"], epoch["examples"])
        share = f"{epoch['examples'] / total:.1%}"
        cells = (*(f"{count:,}" for count in counts), share, f"{epoch['tokens']:,}", encoder.template.name, mask.name)
        table.add_row(cell(source.name), *map(cell, cells))
    return table


def dropped_lines(data: TrainingData, split: str) -> list[str]:
    """How many records of a split were dropped as invalid, and why, with the first of them; empty if all are valid.

    Args:
        data: Data module, set up.
        split: Name of the split. Splits held out of the training records are counted with them.
    """
    counted_in = split if split in data.ledgers and (data.sources.files.get(split) or split == "predict") else "train"
    invalid = data.ledgers[counted_in]["invalid"]
    if not invalid["count"]:
        return []
    read = data.ledgers[counted_in]["records_read"]
    of = "" if counted_in == split else f" of --data.{counted_in}"
    return [
        f"{split}: {invalid['count']:,} of {read:,} records{of} {_were(invalid['count'])} dropped as invalid: "
        f"{count_reasons(invalid['reasons'], invalid['first'])}"
    ]


def data_remarks(data: SFTDataModule, splits: list[str] | None = None) -> list[str]:
    """What was lost to the length limit, and warnings about the template and the mask.

    Args:
        data: Data module, set up.
        splits: Which splits. None: all.
    """
    remarks: list[str] = []
    for split in splits or data.ledgers:
        report = SplitReport(
            split=split,
            ledger=data.ledgers[split],
            mask=data.mask_name,
            limit=data.length_limit(split),
            over_long=data.over_long,
            context_length=data.context_length,
            convention=data.convention,
        )
        remarks += report.remarks(advise=not remarks)
    warning = template_warning(data.template_name, data.encoder.template, data.tokenizer)
    return [*remarks, *([f"warning: {warning}"] if warning else [])]


@dataclass(frozen=True)
class SplitReport:
    """What happened to the records of one split.

    Attributes:
        split: Name of the split.
        ledger: `Ledger.to_dict()`, perhaps from an older version that counted less.
        mask: Name of the training mask.
        limit: Maximum number of tokens per example.
        over_long: What happens to longer records.
        context_length: The model's context length, if known.
        convention: The other trainer by whose rules records are cut, if any. Prompts to predict are not.
    """

    split: str
    ledger: dict[str, Any]
    mask: str
    limit: int
    over_long: OverLong
    context_length: int | None = None
    convention: str | None = None

    def remarks(self, *, advise: bool = True) -> list[str]:
        """One sentence per line; empty if nothing was lost.

        Args:
            advise: Whether to advise on how to lose less.
        """
        if self.convention and self.split != "predict":
            return [*self._of_convention(), *self._of_turns(), *self._of_unknown_text()]
        return [
            *self._of_chats(advise),
            *self._of_texts(),
            *self._of_mask(),
            *self._of_turns(),
            *self._of_unknown_text(),
        ]

    def _of_convention(self) -> list[str]:
        before, dropped = self._before("conversations"), self.ledger["dropped"]
        if not before.get("over_long"):
            return []
        of_them = f", of which {dropped:,} {_were(dropped)} dropped" if dropped else ""
        return [
            f"{self.split}: {before['over_long']:,} of {before['count']:,} conversations are longer than "
            f"--data.max_length {self.limit:,}; {self.convention} cuts them as that trainer does{of_them}."
        ]

    def _of_chats(self, advise: bool) -> list[str]:
        before = self._before("conversations")
        if not before.get("over_long"):
            return []
        if self.split == "predict":
            return [
                f"predict: {before['over_long']:,} of {before['count']:,} prompts {_were(before['over_long'])} "
                f"shortened to {self.limit:,} tokens, to leave room for the answer."
            ]
        lost = self._lost(before)
        return [f"{self.split}: {lost}", *(self._advice(before) if advise else [])] if lost else []

    def _lost(self, before: dict[str, int]) -> str:
        """What happened to conversations that are too long; empty if splitting lost no answer."""
        answers, count = self.ledger["answers"][self.mask], before["over_long"]
        missing, read = answers["cut"] + answers["lost"], answers["read"]
        shortened, they_are = f"{count:,} of {before['count']:,} {self._noun}", "it is" if count == 1 else "they are"
        if self.over_long == "drop":
            return (
                f"{shortened} {_were(count)} dropped with {missing:,} of {read:,} answers, {self._because(they_are)}."
            )
        if missing:
            return (
                f"{missing:,} of {read:,} answers {_were(missing)} cut or lost, {self._because(f'{self._noun} are')}."
            )
        if self.over_long == "split":
            return ""
        return (
            f"{shortened} lost earlier turns or part of their prompt, {self._because(they_are)}; no answer "
            f"supervised by the mask {self.mask} was cut."
        )

    def _because(self, they_are: str) -> str:
        return f"because {they_are} longer than --data.max_length {self.limit}"

    def _advice(self, before: dict[str, int]) -> list[str]:
        which = "before truncation" if self.over_long == "truncate" else f"of all {self._noun}"
        lengths = (
            f"  Lengths {which}: median {before['p50']:,}, 95th percentile {before['p95']:,}, 99th {before['p99']:,}, "
            f"maximum {before['max']:,} tokens."
        )
        advice = " ".join(filter(None, (self._longer(before), self._split())))
        return [lengths, f"  {advice}"]

    def _longer(self, before: dict[str, int]) -> str:
        """Which limits within the model's context length would keep most conversations whole."""
        shares = {before["p95"]: "95%", before["p99"]: "99%"}
        if self.limit >= before["p99"] or before["max"] in shares:
            shares[before["max"]] = "all"
        wanted = {length: share for length, share in shares.items() if length > self.limit}
        most = self.context_length or max(wanted)
        possible = [f"{length} keeps {share}" for length, share in wanted.items() if length <= most]
        advice = [f"--data.max_length {', '.join(possible)} of the {self._noun} whole."] if possible else []
        too_long = next(((length, share) for length, share in wanted.items() if length > most), None)
        if too_long:
            length, share = too_long
            advice.append(f"Keeping {share} whole takes {length:,} tokens, but the model's context length is {most:,}.")
        return " ".join(advice)

    def _split(self) -> str:
        if self.over_long == "split" or not self.ledger["dialogues"]["read"]:
            return ""
        return (
            "`--data.over_long split` cuts between turns instead and loses only answers that are too long on their own."
        )

    def _of_texts(self) -> list[str]:
        before = self._before("documents")
        read, kept = (self.ledger["tokens"][reason]["text"] for reason in ("read", "kept"))
        if not before.get("over_long") or self.over_long == "split" or read == kept:
            return []
        is_one = before["over_long"] == 1
        are, keep = ("is", "keeps only its beginning") if is_one else ("are", "keep only their beginning")
        return [
            f"{self.split}: {_percent(read - kept, read)} of the text was discarded ({read - kept:,} of {read:,} "
            f"tokens), because {before['over_long']:,} of {before['count']:,} documents {are} longer than "
            f"--data.max_length {self.limit} and {f'{are} dropped' if self.over_long == 'drop' else keep}. "
            "`--data.over_long split` cuts them into blocks instead and keeps all of it."
        ]

    def _of_mask(self) -> list[str]:
        """Warn if a mask for several answers has too few conversations with several."""
        dialogues = self.ledger.get("dialogues", {"read": 0, "kept": 0})
        alone = dialogues["read"] - dialogues["kept"]
        if self.split != "train" or self.mask != "firefly_multi_turn" or self.over_long not in ("truncate", "split"):
            return []
        if not alone or dialogues["kept"] > _FEW * dialogues["read"]:
            return []
        return [
            f"warning: {alone:,} of {dialogues['read']:,} conversations with several answers "
            f"{'is' if alone == 1 else 'are'} left with one answer per example, so the mask {self.mask} trains them as "
            "output_only would, without the earlier turns."
        ]

    def _of_turns(self) -> list[str]:
        """Turns that were dropped or joined, and examples whose last answer is not trained."""
        turns = dict(self.ledger.get("changed_turns", {}))
        if self.ledger["samples_added"]:
            turns.pop(ANSWERS_READ, None)  # each is trained in a sample of its own
        changes = [f"{count:,} {what}" for what, count in turns.items()]
        ends = self.ledger.get("untrained_ends", 0)
        untrained = (
            f"warning: {self.split}: {ends:,} of {self.ledger['examples']:,} examples end with an answer of weight 0, "
            "so the mask output_only trains nothing in them. `--data.samples answer` or another mask trains their "
            "other answers."
        )
        is_lost = ends and self.mask == "output_only"
        return [
            *([f"{self.split}: {', '.join(changes)}."] if changes else []),
            *([untrained] if is_lost else []),
        ]

    def _of_unknown_text(self) -> list[str]:
        unknown = self.ledger.get("unknown_text", {"count": 0})
        if not unknown["count"]:
            return []
        contain = "contains" if unknown["count"] == 1 else "contain"
        total = sum(entry.get("count", 0) for entry in self.ledger.get("length_before", {}).values())
        return [
            f"warning: {self.split}: {unknown['count']:,} of {total:,} records {contain} text that the tokenizer "
            f"cannot represent, so the model never sees it (first: {unknown['first'][0]}). Clean the records, or "
            "choose a model whose tokenizer covers it."
        ]

    def _before(self, records: str) -> dict[str, int]:
        found: dict[str, int] = self.ledger.get("length_before", {}).get(records, {})
        return found

    @property
    def _noun(self) -> str:
        return "samples" if self.ledger["samples_added"] else "conversations"


def template_warning(name: str, chosen: AnyTemplate, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A warning if a chat model is trained with a template other than its own; None if not.

    A chat template does not prove a chat model: base models such as Qwen2.5-0.5B ship one they were never trained on.
    A chat model has its template's end of turn as its eos token, or in its generation config.

    Args:
        name: The user's choice.
        chosen: The template of that name.
        tokenizer: The model's tokenizer.
    """
    if chosen.name == "tokenizer" or not tokenizer.chat_template:
        return None
    try:
        own = resolve_template("tokenizer", tokenizer)
    except UserError:
        return None  # its own template cannot be used for training
    if not _stops_on(str(own.end), tokenizer) or _render_the_same(own, chosen):
        return None
    ends = f" and ends answers with {chosen.end!r} instead of {own.end!r}" if chosen.end != own.end else ""
    return (
        f"this is a chat model with its own chat template, and --data.template {name} formats conversations "
        f"differently{ends}, so the model must relearn how conversations are formatted. Use --data.template auto to "
        "train with its own."
    )


def _stops_on(end: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a model stops on a token, according to its tokenizer and generation config."""
    try:
        found = GenerationConfig.from_pretrained(tokenizer.name_or_path, local_files_only=True).eos_token_id
    except Exception:  # no generation config, or one that transformers cannot read
        found = None
    ids = found if isinstance(found, list) else [found]
    return end == tokenizer.eos_token or tokenizer.convert_tokens_to_ids(end) in ids


def _render_the_same(own: AnyTemplate, chosen: AnyTemplate) -> bool:
    """Whether two templates give the same text, apart from a default system turn."""
    turns = (Message(Role.SYSTEM, "a"), Message(Role.USER, "b"), Message(Role.ASSISTANT, "c"))
    for given in (turns, turns[1:]):
        try:
            text = _text(own, given)
        except UserError:
            continue  # it does not accept system turns
        return text == _text(chosen, given)
    return True  # its own template cannot be used for training, so there is no better choice


def _text(template: AnyTemplate, turns: tuple[Message, ...]) -> str:
    return "".join(segment.text for segment in template.render(Conversation(turns, "the template")))


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _percent(part: int, whole: int) -> str:
    """Rounded down, so that 100% means all."""
    return f"{100 * part // whole}%" if 100 * part >= whole else "less than 1%"
