"""Mixtures: training examples of several sources, each with a share of the epoch.

    alpaca     repeats 1      a b c d e f         a b c d e f
    chats      repeats 0.5    g h i j             h i               -> one epoch, shuffled
    zh         repeats 2.5    k l                 k l k l k

Every source is encoded once. An epoch is a list of indices into these examples, so that other weights and repeats need
no encoding. Held-out records come from every source, each once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from data_modules.encoding.cache import (
    cache_key,
    check_columns_found,
    check_outside,
    data_identity,
    encode_split,
    identity_digest,
    records_digest,
)
from data_modules.encoding.cache_entries import is_whole, new_folder
from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example_store import ExampleStore
from data_modules.encoding.ledger import Ledger
from data_modules.errors import UserError
from data_modules.records.kept_records import KeptRecords
from data_modules.records.mix import MixSource
from data_modules.records.splits import Sources
from data_modules.rendering.masking import LossMask, MaskName, resolve_mask
from data_modules.rendering.templates import TemplateName, resolve_template
from data_modules.setting_checks import check_choice


@dataclass(frozen=True)
class Mixture:
    """The sources of a mixture and how each is encoded.

    Attributes:
        mix: The sources, sorted by name.
        shared: The settings of the run: the training files of all sources, and its own files for other splits.
        encoder: Encodes these other files.
        encoders: Encodes each source.
        masks: The loss mask of each source.
    """

    mix: tuple[MixSource, ...]
    shared: Sources
    encoder: Encoder
    encoders: tuple[Encoder, ...]
    masks: tuple[LossMask, ...]

    def encode(self, cache_dir: Path, *, processes: int = 1) -> Path:
        """Encode every split of every source, or find it in the cache.

        Args:
            cache_dir: The cache folder.
            processes: Maximum number of encoding processes. The result does not depend on it.

        Returns:
            A folder with one `<split>.<source>.arrow` per split and source, one `<split>.arrow` for each split with its
            own files, and `ledgers.json`.

        Raises:
            UserError: If a record is invalid and `on_invalid` is `error`, or a file cannot be read.
            ChildProcessError: If a process died.
        """
        check_outside(cache_dir, self.shared)
        feeds = zip(self.mix, self.feeds("train"), strict=True)
        # with the names, by which the ledgers list the sources
        keys = [(source.name, cache_key(sources, encoder)) for source, (_, sources, encoder) in feeds]
        folder = cache_dir / identity_digest({"mixture": [*keys, cache_key(self.shared, self.encoder)]})
        files = [name for split in self.shared.splits for name, _, _ in self.feeds(split)]
        if is_whole(folder, names := [*files, "ledgers.json"]):
            return folder
        with new_folder(folder, names) as partial:
            ledgers = self._encode(partial, processes)
            (partial / "ledgers.json").write_text(json.dumps(ledgers, indent=1, ensure_ascii=False), encoding="utf-8")
        return folder

    def feeds(self, split: str) -> list[tuple[str, Sources, Encoder]]:
        """For each source of a split, the file of its examples, its records and its encoder."""
        if split != "train" and split in self.shared.files:
            own = replace(self.shared, files={split: self.shared.files[split]})
            return [(f"{split}.arrow", own, self.encoder)]
        pairs = zip(self.mix, self.encoders, strict=True)
        return [(f"{split}.{i}.arrow", source.sources(self.shared), to) for i, (source, to) in enumerate(pairs)]

    def _encode(self, folder: Path, processes: int) -> dict[str, Any]:
        """Write the examples of all splits; returns their ledgers, each with those of its sources."""
        ledgers: dict[str, Any] = {}
        by_source: list[list[Ledger]] = [[] for _ in self.mix]
        taken: set[str] = set()
        kept = KeptRecords()
        for split in self.shared.splits:
            whole, own, parts = Ledger(self.shared.on_invalid), set[str](), {}
            for index, (name, sources, encoder) in enumerate(self.feeds(split)):
                # a copy: a record may be in the same split of several sources, as it may be in several files
                keys = set(taken)
                ledger = encode_split(split, sources, encoder, folder / name, keys, kept, processes=processes)
                own |= keys
                whole.add(ledger)
                if not name.startswith(f"{split}.arrow"):
                    by_source[index].append(ledger)
                    parts[self.mix[index].name] = ledger.to_dict()
            taken |= own
            ledgers[split] = {**whole.to_dict(), **({"sources": parts} if parts else {})}
        for (_, sources, _), found in zip(self.feeds("train"), by_source, strict=True):
            check_columns_found(sources, found)
        return ledgers

    def begin(
        self, stores: Mapping[str, ExampleStore], ledgers: dict[str, dict[str, Any]]
    ) -> tuple[ExampleStore, dict[str, Any]]:
        """What a run needs: the training examples of an epoch, and the identity of the mixture.

        Args:
            stores: The examples of all sources, by split.
            ledgers: `Ledger.to_dict()` by split; the shares of an epoch are added.

        Raises:
            UserError: If a source has no training examples, or its mask supervises none of their tokens.
        """
        store = self.epoch(stores["train"])
        self._check_supervision(stores["train"])
        for index, source in enumerate(self.mix):
            rows = store.sources == index
            ledgers["train"]["sources"][source.name]["epoch"] = {
                "examples": int(rows.sum()),
                "tokens": int(store.lengths[rows].sum()),
                "repeats": round(float(rows.sum() / (stores["train"].sources == index).sum()), 4),
            }
        return store, self.identity()

    def _check_supervision(self, store: ExampleStore) -> None:
        for index, (source, mask) in enumerate(zip(self.mix, self.masks, strict=True)):
            examples = (store[int(row)] for row in np.flatnonzero(store.sources == index))
            halves = (half for each in examples for half in (each, each.rejected or each))
            if not any(half.loss_weights(mask).any() for half in halves):
                raise UserError(
                    f"--data.mix {source.name}: mask '{mask.name}' supervises no token of {', '.join(source.files)}. "
                    "Set 'mask' of this source; for plain text, `mask: whole_sequence`."
                )

    def epoch(self, store: ExampleStore) -> ExampleStore:
        """The training examples of an epoch, some of them several times, some of them not at all.

        Args:
            store: The training examples of all sources.

        Raises:
            UserError: If a source has no training examples.
        """
        sizes = np.bincount(store.sources, minlength=len(self.mix)).tolist()
        for source, size in zip(self.mix, sizes, strict=True):
            if not size:
                raise UserError(
                    f"--data.mix {source.name}: none of its records can be used for training "
                    f"({', '.join(source.files)}); see `preview`, or remove the source."
                )
        parts, start = [], 0
        for size, wanted in zip(sizes, wanted_examples(self.mix, sizes), strict=True):
            parts.append(start + chosen(store.hashes[start : start + size], wanted))
            start += size
        return ExampleStore(store.path, np.concatenate(parts))

    def identity(self) -> dict[str, Any]:
        """Everything about the mixture that a training run depends on, by setting."""
        identity = data_identity(self.shared, self.encoder)
        del identity["records of --data.train"]
        for source, encoder, mask in zip(self.mix, self.encoders, self.masks, strict=True):
            of_source = data_identity(source.sources(self.shared), encoder)
            identity |= {
                f"records of --data.mix {source.name}": records_digest(source.files),
                f"--data.mix {source.name}": {
                    **{name: value for name in _SHARES if (value := getattr(source, name)) is not None},
                    "mask": mask.name,
                    **{name: of_source[name] for name in _OF_SOURCE if of_source.get(name) != identity.get(name)},
                },
            }
        return identity


def mixture_of(
    mix: tuple[MixSource, ...],
    shared: Sources,
    encoder: Encoder,
    mask: LossMask,
    weights: tuple[float | None, float | None],
) -> Mixture | None:
    """The mixture of a run; None without sources.

    Args:
        mix: The sources.
        shared: The settings of the run, with the training files of all sources.
        encoder: Encodes sources without a template of their own.
        mask: The mask of sources without one.
        weights: Weights of prompt and answer tokens under every mask.

    Raises:
        UserError: If a template or a mask is not known, or no source has the template of the run.
    """
    if not mix:
        return None
    for source in mix:
        check_choice(f"mix {source.name}: template", source.template, (None, *get_args(TemplateName)))
        check_choice(f"mix {source.name}: mask", source.mask, (None, *get_args(MaskName)))
        if source.cleaning is not None:
            raise UserError(f"--data.mix {source.name}: cleaning is for text runs (`data_module: text`); remove it.")
        if encoder.convention is not None and (source.template or source.mask):
            raise UserError(
                f"--data.mix {source.name}: has its own template or mask, but --data.convention sets both for all "
                "sources. Remove one of the two."
            )
    templates = [resolve_template(source.template, encoder.tokenizer) for source in mix if source.template]  # type: ignore[arg-type]
    if len(templates) == len(mix) and encoder.template.name not in {template.name for template in templates}:
        names = sorted({template.name for template in templates})
        raise UserError(
            f"--data.template {encoder.template.name}: no source of --data.mix has this template, but answers are "
            f"generated with it. Set `--data.template` to {' or '.join(names)}."
        )
    own = iter(templates)
    return Mixture(
        mix,
        shared,
        encoder,
        tuple(replace(encoder, template=next(own)) if source.template else encoder for source in mix),
        tuple(resolve_mask(source.mask, *weights) if source.mask else mask for source in mix),  # type: ignore[arg-type]
    )


_SHARES = ("weight", "repeats", "cap")

_OF_SOURCE = ("--data.format", "--data.columns", "--data.template", "layout of the template")
"""Settings that a source may have of its own."""


def wanted_examples(mix: Sequence[MixSource], sizes: Sequence[int]) -> list[int]:
    """How many examples of each source an epoch has.

    With weights, an epoch has as many examples as all sources together, divided by weight.

    Args:
        mix: The sources.
        sizes: Examples of each source.
    """
    if mix[0].weight is None:
        return [max(1, round(source.repeats * size)) for source, size in zip(mix, sizes, strict=True)]
    weights = [source.weight or 0.0 for source in mix]
    shares = [sum(sizes) * weight / sum(weights) for weight in weights]
    counts = [max(1, int(share)) for share in shares]
    # what is left after rounding down goes to the largest remainders; sources are in order of their names
    for index in sorted(range(len(mix)), key=lambda each: int(shares[each]) - shares[each]):
        counts[index] += sum(counts) < sum(sizes)
    return counts


def chosen(hashes: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.int64]:
    """Which examples of a source an epoch has: all of them as often as possible, then those with the lowest hashes.

    Args:
        hashes: The hash of each example's record.
        count: Number of examples in an epoch.

    Returns:
        (count,) indices.
    """
    times, rest = divmod(count, len(hashes))
    lowest = np.sort(np.argsort(hashes, kind="stable")[:rest])
    return np.concatenate([np.tile(np.arange(len(hashes)), times), lowest]).astype(np.int64)
