"""The LightningDataModule for fine-tuning on records of any format under any loss mask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from data_modules.batching.batch import Batch, collate
from data_modules.batching.loaders import batch_loader
from data_modules.batching.sampling import LengthSampler, WindowSampler, limited
from data_modules.encoding.cache import data_fingerprint, data_identity, encode_sources, load_ledgers, load_split
from data_modules.encoding.encoder import Encoder, OverLong
from data_modules.encoding.example import Example
from data_modules.encoding.example_store import ExampleStore
from data_modules.encoding.ledger import is_limit_too_small, is_plain_text, too_small_limit, why_empty
from data_modules.encoding.pool import num_processes
from data_modules.encoding.tokenizers import load_tokenizer
from data_modules.errors import UserError
from data_modules.records.counts import OnInvalid
from data_modules.records.data_files import skipped_files
from data_modules.records.formats import FormatName
from data_modules.records.splits import Samples, Sources, TextUse
from data_modules.rendering.masking import LossMask, MaskName, Reduction, resolve_mask
from data_modules.rendering.segments import SegmentKind
from data_modules.rendering.templates import TemplateName, resolve_template

Paths = str | list[str] | None

_DEFAULT_MAX_LENGTH = 1024


class SFTDataModule(LightningDataModule):
    """Instructions, conversations and plain text, from files to batches.

    Args:
        train: A json, jsonl, csv, parquet or txt file, a folder of them, a hub dataset name, or a list of these.
        val: The same for validation. None: `val_fraction` of `train` is held out.
        test: The same for testing. None: `test_fraction` of `train` is held out.
        predict: What `predict` answers; bare prompts are welcome. None: the test split.
        val_fraction: Share of `train` held out for validation, chosen by a hash of each record's content (or of its
            `article_id`), so that it does not depend on the order of the records.
        test_fraction: Share of `train` held out for testing, likewise.
        train_fraction: Share of the other records that is trained on, chosen likewise: a smaller share is part of every
            larger one, and what is held out stays the same. For studies of how much data is needed.
        tokenizer: Name or folder, or a tokenizer. The command line takes it from the model.
        context_length: Most tokens the model can read. The command line takes it from the model.
        answer_length: Tokens that `predict` leaves free behind a prompt. The command line takes it from the model's
            generation settings.
        format: How records are read. None: recognised from their fields.
        template: How conversations are laid out. `auto`: the tokenizer's own chat template, else `plain`.
        mask: Which tokens the loss is on: all, the final answer of each conversation, or every answer.
        prompt_weight: Weight of prompt tokens in the loss, 0 to 1. None: the mask's own.
        reduction: Whether every supervised token, every sample or every turn counts alike.
        samples: `answer` expands a training conversation into one sample for each of its answers.
        max_length: Most tokens of an example. None: the model's context length, at most 1024.
        over_long: What happens to longer ones: truncate (context first, the answer last), split (between turns),
            drop, or error.
        on_invalid: Whether an invalid record ends the run or is dropped and listed.
        batch_size: Examples of a training batch on each device.
        eval_batch_size: Rows of an evaluation batch. None: twice the training batch.
        packing: Lay the documents of a batch end to end in one row, isolated from one another, instead of padding each
            to the longest. Changes the speed, no metric.
        token_budget: Most tokens that go through the model at once, padding included. A larger batch is cut into
            micro-batches, which bounds the memory and changes no result.
        shuffle: Whether to shuffle the training examples every epoch.
        seed: Determines the order. The command line takes it from `seed_everything`.
        num_workers: Processes that collate batches. None: two beside a GPU, which must not wait; else none.
        encoding_processes: Processes that encode data, where there is enough of it. None: one for each core that may be
            used, at most 16. The encoded data does not depend on it.
        cache_dir: Where encoded data is kept. None: $LIT_SFT_CACHE, else ~/.cache/lit_sft.
        text_prompts: What a line of a .txt file, or a record with nothing but the field `text`, is to `predict`: a
            question, or the beginning of a text to continue. None: a beginning where plain text is trained on.
    """

    def __init__(
        self,
        train: Paths = None,
        val: Paths = None,
        test: Paths = None,
        predict: Paths = None,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        train_fraction: float = 1.0,
        tokenizer: str | PreTrainedTokenizerBase = "",
        context_length: int | None = None,
        answer_length: int = 256,
        format: FormatName | None = None,
        template: TemplateName = "auto",
        mask: MaskName = "output_only",
        prompt_weight: float | None = None,
        reduction: Reduction = "token",
        samples: Samples = "conversation",
        max_length: int | None = None,
        over_long: OverLong = "truncate",
        on_invalid: OnInvalid = "error",
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        packing: bool = True,
        token_budget: int = 16384,
        shuffle: bool = True,
        seed: int = 0,
        num_workers: int | None = None,
        encoding_processes: int | None = None,
        cache_dir: str | None = None,
        text_prompts: Literal["question", "beginning"] | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size is not None and size < 1:
                raise UserError(f"--data.{name} {size}: expected at least 1 row.")
        if token_budget < 1:
            raise UserError(f"--data.token_budget {token_budget}: expected at least 1 token; a usual value is 16384.")
        if not 0 < train_fraction <= 1:
            raise UserError(f"--data.train_fraction {train_fraction}: expected a share, above 0 and at most 1.")
        self.mask: LossMask = resolve_mask(mask, prompt_weight)
        self.mask_name, self.reduction, self._prompt_weight = mask, reduction, prompt_weight
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or 2 * batch_size
        self.packing, self.token_budget = packing, token_budget
        self.shuffle, self.seed = shuffle, seed
        self.num_workers = 2 * torch.cuda.is_available() if num_workers is None else num_workers
        self.encoding_processes = num_processes(encoding_processes)
        self.cache_dir = _cache_folder(cache_dir)
        self.template_name: TemplateName = template
        self.over_long: OverLong = over_long
        self.context_length, self.answer_length = context_length, answer_length
        self.max_length = _resolve_max_length(max_length, context_length)
        self._tokenizer = tokenizer
        files = {"train": train, "val": val, "test": test}
        self.sources = Sources(
            files={split: _as_list(paths) for split, paths in files.items() if paths},
            fractions=_fractions(val_fraction, test_fraction),
            train_fraction=train_fraction,
            format=format,
            on_invalid=on_invalid,
            samples=samples,
        )
        self.predict_sources = Sources(
            files={"predict": _as_list(predict)}, format=format, on_invalid=on_invalid, require_answer=False
        )
        self._text_prompts: TextUse | None = text_prompts
        self.stores: dict[str, ExampleStore] = {}
        self.ledgers: dict[str, dict[str, Any]] = {}
        self.fingerprint = ""
        self._identity: dict[str, Any] = {}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._tokenizer if not isinstance(self._tokenizer, str) else load_tokenizer(self._tokenizer)

    @cached_property
    def encoder(self) -> Encoder:
        """Encodes as training does: also what renders prompts for generation."""
        template = resolve_template(self.template_name, self.tokenizer)
        return Encoder(self.tokenizer, template, self.max_length, self.over_long)

    @property
    def end_token_id(self) -> int:
        return self.encoder.end_token_id

    @property
    def pad_token_id(self) -> int:
        """Padding is known by its length, so the end token serves where there is no pad token."""
        pad = self.tokenizer.pad_token_id
        return self.end_token_id if pad is None else int(pad)

    def prepare_data(self) -> None:
        """Encode everything once, on one process; the others read the cache."""
        for sources, encoder in self._all_sources():
            encode_sources(sources, encoder, self.cache_dir, processes=self.encoding_processes)

    def setup(self, stage: str) -> None:
        """Open the encoded splits.

        Raises:
            UserError: If there is nothing to train on, or no token of it is supervised by the mask.
        """
        if self.stores:
            return
        for sources, encoder in self._all_sources():
            # found encoded, unless the user calls setup alone
            folder = encode_sources(sources, encoder, self.cache_dir, processes=self.encoding_processes)
            stores = {split: load_split(folder, split) for split in sources.splits}
            self.stores |= {split: store for split, store in stores.items() if store is not None}
            self.ledgers |= _with_skipped_files(load_ledgers(folder), sources)
        self.fingerprint = data_fingerprint(self.sources, self.encoder)
        self._identity = data_identity(self.sources, self.encoder)  # now: the files may change or go under way
        self._check_given_splits()
        if stage == "fit":
            self._check_training_set()
        elif stage in ("validate", "test"):
            split = stage.removesuffix("idate")
            if not len(self.stores.get(split, ())):
                verb = "validate" if split == "val" else "test"  # Lightning's stage is an enum that prints otherwise
                raise UserError(
                    f"nothing to {verb}: give `--data.{split} FILE`. (Training rows are held out before training, by "
                    f"`--data.{split}_fraction 0.1` of a new run.)"
                )

    def identity(self) -> dict[str, Any]:
        """Everything of the data that a training run depends on, by the names of the settings."""
        return {
            **self._identity,
            "--data.mask": self.mask_name,
            "--data.prompt_weight": self._prompt_weight,
            "--data.reduction": self.reduction,
            "--data.shuffle": self.shuffle,
            "--data.seed": self.seed,
        }

    def num_train_batches(self, limit: int | float | None = None) -> int:
        """Training batches of an epoch on each device, as far as the trainer's `limit_train_batches` lets it go."""
        return self._train_sampler(limit=limit).num_used

    def evaluated(self, split: str, limit: int | float | None = None) -> tuple[int, int]:
        """Rows and tokens of a split that an evaluation reads, on all devices together.

        Args:
            split: `val` or `test`.
            limit: Lightning's `limit_val_batches` or `limit_test_batches`.
        """
        if not len(self.stores.get(split, ())):
            return 0, 0
        plans = self._eval_sampler(split).plans
        rows = [index for plan in plans[: limited(len(plans), limit)] for index in plan.indices]
        devices = self.trainer.world_size if self.trainer else 1
        return len(rows) * devices, int(self.stores[split].lengths[rows].sum()) * devices

    def train_dataloader(self) -> DataLoader[list[Batch]]:
        """Training batches, each a list of micro-batches."""
        return self._loader("train", self._train_sampler())

    def val_dataloader(self) -> DataLoader[list[Batch]] | list[Any]:
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[list[Batch]] | list[Any]:
        return self._eval_loader("test")

    @property
    def predict_store(self) -> ExampleStore:
        """What `predict` answers: the given prompts, else the test split."""
        store = self.stores.get("predict", self.stores.get("test"))
        if store is None:
            raise UserError("nothing to predict: give `--data.predict FILE`, or a test split.")
        return store

    def predict_dataloader(self) -> DataLoader[list[int]]:
        """Indices into `predict_store`, in the order of the file, so that answers stand beside their prompts."""
        if self.trainer and self.trainer.world_size > 1:
            raise UserError("predict runs on one device: set `--trainer.devices 1`.")
        return DataLoader(range(len(self.predict_store)), batch_size=self.eval_batch_size, collate_fn=list)  # type: ignore[arg-type]

    def length_limit(self, split: str) -> int:
        """Most tokens of an example of a split: a prompt leaves room for its answer."""
        if split != "predict":
            return self.max_length
        room = (self.context_length or 2 * self.max_length) - self.answer_length
        return max(1, min(self.max_length, room))

    def _all_sources(self) -> list[tuple[Sources, Encoder]]:
        sources = [(self.sources, self.encoder)] if self.sources.files else []
        if self.predict_sources.files["predict"]:
            text: TextUse = self._text_prompts or ("beginning" if self._trains_on_text() else "question")
            # prompts are shortened rather than lost
            limit, continues = self.length_limit("predict"), text == "beginning"
            encoder = replace(self.encoder, max_length=limit, over_long="truncate", continues=continues)
            sources.append((replace(self.predict_sources, text=text), encoder))
        if not sources:
            raise UserError("no data: give `--data.train FILE` (json, jsonl, csv, parquet, txt, or a folder of them).")
        return sources

    def _trains_on_text(self) -> bool:
        """Whether the training data is plain text, so that there is no question that the model knows as one."""
        if "train" not in self.sources.files:
            return False
        folder = encode_sources(self.sources, self.encoder, self.cache_dir, processes=self.encoding_processes)
        return is_plain_text(load_ledgers(folder)["train"])

    def _check_given_splits(self) -> None:
        for split, files in {**self.sources.files, **self.predict_sources.files}.items():
            if split != "train" and files and not len(self.stores[split]):
                ledger = self.ledgers[split]
                self._check_limit(split)
                raise UserError(
                    f"{', '.join(files)}: no {split} example is left of {ledger['records_read']} "
                    f"records ({why_empty(ledger, self.length_limit(split))}). Give `--data.{split}` records of its "
                    "own."
                )

    def _check_limit(self, split: str) -> None:
        """Refuse a limit that no record of an empty split fits."""
        ledger, limit = self.ledgers[split], self.length_limit(split)
        if not is_limit_too_small(ledger):
            return
        if limit < self.max_length:  # what the answer needs leaves less
            raise UserError(
                f"--model.generation.max_new_tokens {self.answer_length} leaves {limit} of the model's "
                f"{self.context_length} tokens for a prompt, and no {split} record fits; lower it."
            )
        raise UserError(too_small_limit(ledger, split, limit))

    def _check_training_set(self) -> None:
        store = self.stores.get("train")
        if store is None:
            raise UserError("no training data: give `--data.train FILE`.")
        origin, ledger = ", ".join(self.sources.files["train"]), self.ledgers["train"]
        if not len(store):
            self._check_limit("train")
            raise UserError(
                f"{origin}: no training example is left of {ledger['records_read'] + ledger['left_out']} records "
                f"({why_empty(ledger, self.max_length)}). Give more or other records."
            )
        for split in ("train", "val"):
            examples = self.stores.get(split)
            if examples and not any(self._weight(example) for example in examples):
                kinds = sorted({SegmentKind(kind).name for kind in examples[0].kinds})
                raise UserError(
                    f"{origin}: mask '{self.mask.name}' supervises no token of the {len(examples)} {split} examples "
                    f"(the first holds {', '.join(kinds)}). Plain text needs `--data.mask whole_sequence`."
                )

    def _weight(self, example: Example) -> float:
        return float(self.mask.token_weights(example.kinds, example.turns, self.reduction).sum(dtype="float64"))

    def train_steps(self, accumulate: int = 1, limit: int | float | None = None) -> Iterator[list[list[int]]]:
        """Indices into the training split of the examples of each optimiser step on one device, by batch, for ever.

        Args:
            accumulate: Lightning's `accumulate_grad_batches`.
            limit: Its `limit_train_batches`.

        Raises:
            UserError: If there is no batch in an epoch.
        """
        sampler = self._train_sampler(accumulate, limit)
        while True:
            if not sampler.num_used:
                raise UserError(f"--trainer.limit_train_batches {limit}: no batch is left of {sampler.num_batches}.")
            plans = islice(sampler, sampler.num_used)
            while window := list(islice(plans, accumulate)):
                yield [list(plan.indices) for plan in window]
            sampler.set_epoch(sampler.epoch + 1)

    def _train_sampler(self, accumulate: int = 1, limit: int | float | None = None) -> WindowSampler:
        trainer = self.trainer
        return WindowSampler(
            self.stores["train"].lengths.tolist(),
            batch_size=self.batch_size,
            accumulate=trainer.accumulate_grad_batches if trainer else accumulate,
            weight_of=lambda index: self._weight(self.stores["train"][index]),
            seed=self.seed,
            # to over-fit, every epoch has the same batches
            shuffle=self.shuffle and not (trainer and trainer.overfit_batches),  # type: ignore[attr-defined]
            packed=self.packing,
            token_budget=self.token_budget,
            limit=trainer.limit_train_batches if trainer else limit,
            epoch=trainer.current_epoch if trainer else 0,
            done=_batches_done(trainer) if trainer else 0,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    def _eval_loader(self, split: str) -> DataLoader[list[Batch]] | list[Any]:
        if split not in self.stores or not len(self.stores[split]):
            return []
        return self._loader(split, self._eval_sampler(split), score_all=True)

    def _eval_sampler(self, split: str) -> LengthSampler:
        trainer = self.trainer
        return LengthSampler(
            self.stores[split].lengths.tolist(),
            batch_size=self.eval_batch_size,
            token_budget=self.token_budget,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    def _loader(self, split: str, sampler: Any, *, score_all: bool = False) -> DataLoader[list[Batch]]:
        collate_micro_batch = partial(
            collate,
            mask=self.mask,
            reduction=self.reduction,
            pad_token_id=self.pad_token_id,
            score_all=score_all,
            pack=self.packing,
        )
        return batch_loader(self.stores[split], collate_micro_batch, sampler, num_workers=self.num_workers)


def _with_skipped_files(ledgers: dict[str, dict[str, Any]], sources: Sources) -> dict[str, dict[str, Any]]:
    """Ledgers that name what is skipped in the folders of each split: now, as such files leave the cache valid."""
    skipped = {
        split: [line for file in files for line in skipped_files(file)] for split, files in sources.files.items()
    }
    return {split: {**ledger, "skipped_files": skipped.get(split, [])} for split, ledger in ledgers.items()}


def _cache_folder(given: str | None) -> Path:
    try:
        return Path(given or os.environ.get("LIT_SFT_CACHE", "~/.cache/lit_sft")).expanduser()
    except RuntimeError:
        raise UserError(
            "no home folder to keep encoded data in; give `--data.cache_dir FOLDER` or set LIT_SFT_CACHE."
        ) from None


def _resolve_max_length(max_length: int | None, context_length: int | None) -> int:
    if max_length is None:
        return min(_DEFAULT_MAX_LENGTH, context_length or _DEFAULT_MAX_LENGTH)
    if context_length is not None and max_length > context_length:
        raise UserError(
            f"--data.max_length {max_length}: the model reads at most {context_length} tokens; set it to "
            f"{context_length} or less, or choose a model with a longer context."
        )
    return max_length


def _fractions(val: float, test: float) -> dict[str, float]:
    if min(val, test) < 0 or val + test >= 1:
        raise UserError(
            f"--data.val_fraction {val} --data.test_fraction {test}: expected shares of the training records, from 0, "
            "less than 1 together."
        )
    return {"val": val, "test": test}


def _as_list(paths: Paths) -> list[str]:
    return [paths] if isinstance(paths, str) else list(paths or [])


def _batches_done(trainer: Trainer) -> int:
    """Batches that a run resumed inside an epoch has done of it; Lightning counts on from there."""
    loop = trainer.fit_loop.epoch_loop
    return int(loop.batch_progress.current.ready) if loop.restarting else 0
