"""Checks of the encoded splits of text runs: whether files that the user named have documents, and why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

from data_modules.errors import UserError
from data_modules.records.mix import MixSource
from data_modules.records.rejections import count_reasons
from data_modules.records.splits import Sources

Ledgers = Mapping[str, dict[str, Any]]

_PURPOSES = {"train": "training", "val": "validation", "test": "testing"}


def check_documents(
    stage: str, sources: Sources, mix: Sequence[MixSource], splits: Mapping[str, Sized], ledgers: Ledgers
) -> None:
    """Refuse files of a split, of those that a command needs, that yield no document.

    Args:
        stage: Lightning's `fit`, `validate` or `test`.
        sources: The user's files.
        mix: The sources of a mixture; none without.
        splits: What there is of each split.
        ledgers: `text_ledger` by split.

    Raises:
        UserError: If there are no training files, or a split or a source of the mixture is empty.
    """
    if stage == "fit" and "train" not in sources.files:
        raise UserError("no training data: set `--data.train FILE`.")
    for split in ("val", "test", "train") if stage == "fit" else (stage.removesuffix("idate"),):
        if not sources.files.get(split):
            continue
        if not len(splits.get(split, ())):
            raise _empty(", ".join(sources.files[split]), split, sources, ledgers)
        for source in mix if split == "train" else ():
            own = {name: ledger.get("sources", {}).get(source.name) for name, ledger in ledgers.items()}
            if own["train"] and not own["train"]["documents"]:
                raise _empty(
                    f"--data.mix {source.name}: {', '.join(source.files)}",
                    split,
                    sources,
                    {name: ledger for name, ledger in own.items() if ledger},
                )


def why_no_document(split: str, ledgers: Ledgers, held_out: Mapping[str, float]) -> str:
    """Explain why a split has no document.

    Args:
        split: `train`, `val` or `test`.
        ledgers: `text_ledger` by split.
        held_out: The splits whose documents come from the training files.
    """
    ledger = ledgers[split]
    invalid, others = ledger["invalid"], [ledgers[name] for name in held_out if name in ledgers]
    parts = {
        "without a token to predict": ledger["documents"],
        "also in the test split" if split == "val" else "also in a held-out split": ledger["duplicates"],
        f"dropped by cleaning{_most(ledger)}": ledger["dropped"],
        "left out by `--data.train_fraction` or a `cap`": ledger["left_out"],
        "held out": sum(other["records_read"] for other in others) if split == "train" else 0,
        "invalid": invalid["count"],
    }
    why = ", ".join(f"{count:,} {what}" for what, count in parts.items() if count) or "none were read"
    return f"{why}: {count_reasons(invalid['reasons'], invalid['first'])}" if invalid["count"] else why


def _most(ledger: Mapping[str, Any]) -> str:
    """The rule that dropped most of the documents that cleaning dropped."""
    dropped = {label: counts["dropped"] for label, counts in ledger["cleaning"]["rules"].items() if counts["dropped"]}
    if not dropped:
        return ""
    label = max(dropped, key=lambda each: dropped[each])
    return f" (the rule `{label}`)" if len(dropped) == 1 else f" ({dropped[label]:,} of them by the rule `{label}`)"


def _empty(where: str, split: str, sources: Sources, ledgers: Ledgers) -> UserError:
    why = why_no_document(split, ledgers, sources.shares)
    advice = _advice(split, ledgers[split], list(sources.shares))
    return UserError(f"{where}: no document is left for {_PURPOSES[split]}: {why}. {advice}")


def _advice(split: str, ledger: Mapping[str, Any], held_out: Sequence[str]) -> str:
    others = max(ledger["duplicates"], ledger["left_out"], ledger["invalid"]["count"])
    if ledger["dropped"] and ledger["dropped"] >= others:
        return "Change the cleaning rules, or provide other documents."
    if split != "train":
        return f"Set `--data.{split}` to other documents."
    return f"Provide more documents{''.join(f', or lower `--data.{name}_fraction`' for name in held_out)}."
