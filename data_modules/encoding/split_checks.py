"""Checks of encoded splits: whether there is anything to train on or to evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any

from data_modules.encoding.example import Example
from data_modules.encoding.example_store import ExampleStore
from data_modules.encoding.ledger import why_empty
from data_modules.encoding.length_limits import LengthLimits
from data_modules.errors import UserError
from data_modules.rendering.masking import LossMask
from data_modules.rendering.segments import SegmentKind
from data_modules.wording import counted

Stores = Mapping[str, ExampleStore]
Ledgers = Mapping[str, dict[str, Any]]


def check_splits(
    stage: str,
    files: Mapping[str, list[str]],
    stores: Stores,
    ledgers: Ledgers,
    limits: LengthLimits,
    mask_of: Callable[[Example], LossMask],
) -> None:
    """Make all checks that a command needs.

    Args:
        stage: Lightning's `fit`, `validate`, `test` or `predict`.
        files: The user's files, by split.
        stores: Examples by split.
        ledgers: `Ledger.to_dict()` by split.
        limits: The length limits.
        mask_of: The loss mask of an example.

    Raises:
        UserError: If there is nothing to train on or to evaluate, or the mask supervises no token.
    """
    check_given_splits(files, stores, ledgers, limits)
    if stage == "fit":
        check_training_set(files.get("train", []), stores, ledgers, limits)
        check_supervision(files.get("train", []), stores, mask_of)
    elif stage in ("validate", "test"):
        check_evaluation_set(stage.removesuffix("idate"), stores)


def check_given_splits(files: Mapping[str, list[str]], stores: Stores, ledgers: Ledgers, limits: LengthLimits) -> None:
    """Refuse validation, test or prediction files that yield no example.

    Args:
        files: The user's files, by split.
        stores: Examples by split.
        ledgers: `Ledger.to_dict()` by split.
        limits: The length limits.

    Raises:
        UserError: If a split is empty.
    """
    for split, given in files.items():
        if split == "train" or not given or len(stores[split]):
            continue
        ledger = ledgers[split]
        limits.check(split, ledger)
        raise UserError(
            f"{', '.join(given)}: {_unusable(ledger['records_read'], split)} "
            f"({why_empty(ledger, limits.of(split))}). Set `--data.{split}` to other records."
        )


def check_training_set(files: Iterable[str], stores: Stores, ledgers: Ledgers, limits: LengthLimits) -> None:
    """Refuse to train without examples.

    Args:
        files: The user's training files.
        stores: Examples by split.
        ledgers: `Ledger.to_dict()` by split.
        limits: The length limits.

    Raises:
        UserError: If there is no training example.
    """
    if "train" not in stores:
        raise UserError("no training data: set `--data.train FILE`.")
    if len(stores["train"]):
        return
    ledger = ledgers["train"]
    limits.check("train", ledger)
    raise UserError(
        f"{', '.join(files)}: {_unusable(ledger['records_read'] + ledger['left_out'], 'training')} "
        f"({why_empty(ledger, limits.of('train'))}). Provide more or other records."
    )


def check_supervision(files: Iterable[str], stores: Stores, mask_of: Callable[[Example], LossMask]) -> None:
    """Refuse a mask that supervises no token of the training or validation examples.

    Args:
        files: The user's training files.
        stores: Examples by split.
        mask_of: The loss mask of an example.

    Raises:
        UserError: If the mask supervises nothing.
    """
    for split in ("train", "val"):
        examples = stores.get(split)
        halves = (half for each in examples or () for half in (each, each.rejected or each))
        if examples and not any(half.loss_weights(mask_of(half)).any() for half in halves):
            mask = mask_of(examples[0])
            kinds = sorted({SegmentKind(kind).name for kind in examples[0].kinds})
            given = counted(len(examples), f"{split} example")
            raise UserError(
                f"{', '.join(files)}: mask '{mask.name}' supervises no token of the {given} "
                f"(the first contains {', '.join(kinds)}). For plain text, set `--data.mask whole_sequence`."
            )


def check_evaluation_set(split: str, stores: Mapping[str, Sized]) -> None:
    """Refuse to validate or test without examples.

    Args:
        split: `val` or `test`.
        stores: Examples by split.

    Raises:
        UserError: If the split is empty.
    """
    if not len(stores.get(split, ())):
        verb = "validate" if split == "val" else "test"
        raise UserError(
            f"nothing to {verb}: set `--data.{split} FILE`. (To hold out training records instead, start a new run "
            f"with `--data.{split}_fraction 0.1`.)"
        )


def check_pair_settings(ledgers: Ledgers, convention: str | None, over_long: str, samples: str) -> None:
    """Refuse settings that preference pairs do not have.

    Args:
        ledgers: `Ledger.to_dict()` by split.
        convention: The setting.
        over_long: The setting.
        samples: The setting.

    Raises:
        UserError: If there are pairs, and a setting does not apply to them.
    """
    counts = [(ledger.get("pairs", 0), ledger["examples"]) for ledger in ledgers.values()]
    if not any(pairs for pairs, _ in counts):
        return
    if convention is not None:
        raise UserError(
            f"--data.convention {convention}: does not apply to preference pairs (fields `chosen` and `rejected`). "
            "Remove it, and choose `--data.template` and `--data.mask`."
        )
    if over_long == "split":
        raise UserError(
            "--data.over_long split: preference pairs cannot be split. Set `truncate`, which drops the oldest "
            "exchanges of long prompts, or `drop`."
        )
    if samples == "answer" and all(pairs == examples for pairs, examples in counts):
        raise UserError(
            "--data.samples answer: every preference pair is one sample, and answers in its prompt are not trained. "
            "Remove it."
        )


def _unusable(num_records: int, purpose: str) -> str:
    records = "the only record cannot" if num_records == 1 else f"none of the {num_records} records can"
    return f"{records} be used for {purpose}"
