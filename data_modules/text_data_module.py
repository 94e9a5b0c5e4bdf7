"""The LightningDataModule for pretraining, on plain text in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from data_modules.batching.batch import Batch
from data_modules.batching.batch_settings import BatchSettings
from data_modules.batching.loaders import batch_loader, loader_processes
from data_modules.batching.sampling import EvaluationSampler, WindowSampler, windows
from data_modules.batching.text_batches import collate_texts
from data_modules.encoding.block_plans import BlockPolicy
from data_modules.encoding.cache import cache_folder, identity_digest
from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example import Example
from data_modules.encoding.example_store import ExampleStore
from data_modules.encoding.length_limits import resolve_block_size
from data_modules.encoding.new_tokens import GivenTokenizer
from data_modules.encoding.pool import num_processes
from data_modules.encoding.split_checks import check_evaluation_set
from data_modules.encoding.text_cache import encode_texts, text_identity
from data_modules.encoding.text_encoder import TextEncoder
from data_modules.encoding.text_epoch import block_ledgers, training_blocks
from data_modules.encoding.text_split_checks import check_documents
from data_modules.encoding.text_store import DocumentAttention, EvaluationWindows, TrainingBlocks
from data_modules.encoding.token_shards import TokenShards, open_shards, read_manifest
from data_modules.errors import UserError
from data_modules.records.content_keys import KeepTogether
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.records.counts import OnInvalid
from data_modules.records.mix import files_of, read_mix
from data_modules.records.splits import Paths, Sources, given_files, held_out_fractions, notices_in, skipped_in
from data_modules.records.text_lines import TxtDocuments
from data_modules.rendering.masking import LossMask, Reduction, resolve_mask
from data_modules.rendering.segments import SegmentKind
from data_modules.rendering.templates import TemplateName, resolve_template
from data_modules.setting_checks import check_choices

_BEGINNING = 32
"""Maximum number of tokens in the beginning of a validation document."""

_CHOICES = {"blocks": get_args(BlockPolicy), "document_attention": get_args(DocumentAttention)}


class TextDataModule(LightningDataModule):
    """Turns plain text into blocks of tokens to train on, and into windows of whole documents to evaluate on.

    Every token but the first of a block is predicted; with isolated documents, every token but the first of a document
    in a block.

    Args:
        train: A txt, json, jsonl, csv, tsv or parquet file, a folder of them, a hub dataset name, or a list of these.
        val: The same for validation. None: hold out `val_fraction` of `train`.
        test: The same for testing. None: hold out `test_fraction` of `train`.
        val_fraction: Share of the training documents held out for validation, chosen by a hash of each one's content.
        test_fraction: Share of the training documents held out for testing, chosen in the same way.
        train_fraction: Share of the remaining documents to train on, chosen in the same way: a larger share contains
            every smaller one.
        mix: Several sources instead of `train`, each with `name`, `files`, and optionally `weight` (its share of the
            tokens of an epoch), `repeats`, `cap`, `columns` or `cleaning`.
        columns: The field of the records that holds the text, if it has another name: `{text: content}`.
        cleaning: Cleaning rules, in order. See docs/cleaning.md.
        on_invalid: Whether an invalid record stops the run or is dropped and listed.
        txt_documents: What a document is in a txt file: a line, the lines between two blank ones, or the file.
        keep_together: Which documents count as the same, so that all of them are in one split: those with the same
            text, or with the same words (`normalized`, which ignores case, punctuation and white space; `prompt` is the
            same for documents).
        tokenizer: Name or folder, or a tokenizer. On the command line, the model's.
        add_tokens: Words to add to it as tokens. On the command line, the model's.
        add_special_tokens: Markers to add to it as special tokens. On the command line, the model's.
        context_length: Maximum number of tokens the model can read. On the command line, the model's.
        blocks: How documents form blocks. `stream`: one after the other, cut anywhere. `best_fit`: packed whole, only
            documents longer than a block are cut. `sentence_end`: one document a block, cut at the last sentence end
            that fits. `document`: one document a block, cut at the block size.
        block_size: Maximum number of tokens in a block. None: the model's context length, at most 1024.
        keep_rest: With `sentence_end` and `document`: whether the rest of a long document forms further blocks instead
            of being dropped.
        document_attention: `isolated`: documents in a block do not see each other. `across`: they are one sequence.
        eval_window: Maximum number of tokens in an evaluation window. Documents are evaluated completely, each on its
            own, whatever the blocks. None: the block size.
        batch_size: Blocks per batch on each device.
        eval_batch_size: Windows per evaluation batch. None: twice the training batch.
        token_budget: Maximum tokens in a forward pass. Larger batches are split into micro-batches, which limits memory
            without changing results.
        shuffle: Whether to shuffle the blocks every epoch.
        seed: Seed for the order of the blocks. On the command line, taken from `seed_everything`.
        num_workers: Processes that collate batches. None: two with a GPU, else none.
        encoding_processes: Processes that encode large data sets. None: one per available core, at most 16. The
            encoded data does not depend on it.
        cache_dir: Folder for encoded data. None: $LIT_SFT_CACHE, else ~/.cache/lit_sft.
    """

    stores: dict[str, TrainingBlocks | EvaluationWindows]
    ledgers: dict[str, dict[str, Any]]
    fingerprint: str
    _identity: dict[str, Any]
    template_name: TemplateName = "plain"
    reduction: Reduction = "token"

    def __init__(
        self,
        train: Paths = None,
        val: Paths = None,
        test: Paths = None,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        train_fraction: float = 1.0,
        mix: list[dict[str, Any]] | None = None,
        columns: dict[str, str] | None = None,
        cleaning: list[Any] | None = None,
        on_invalid: OnInvalid = "error",
        txt_documents: TxtDocuments = "line",
        keep_together: KeepTogether = "exact",
        tokenizer: str | PreTrainedTokenizerBase = "",
        add_tokens: list[str] | None = None,
        add_special_tokens: list[str] | None = None,
        context_length: int | None = None,
        blocks: BlockPolicy = "stream",
        block_size: int | None = None,
        keep_rest: bool = False,
        document_attention: DocumentAttention = "isolated",
        eval_window: int | None = None,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        token_budget: int = 16384,
        shuffle: bool = True,
        seed: int = 0,
        num_workers: int | None = None,
        encoding_processes: int | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        check_choices(_CHOICES, blocks=blocks, document_attention=document_attention)
        if keep_rest and blocks in ("stream", "best_fit"):
            raise UserError(f"--data.keep_rest true: --data.blocks {blocks} drops nothing; leave it out.")
        self.blocks, self.keep_rest, self.document_attention = blocks, keep_rest, document_attention
        self.block_size = resolve_block_size("block_size", block_size, context_length)
        self.eval_window = resolve_block_size(
            "eval_window", self.block_size if eval_window is None else eval_window, context_length
        )
        self._batches = BatchSettings(batch_size, eval_batch_size, True, token_budget, shuffle, seed)
        self.batch_size, self.token_budget, self.seed = batch_size, token_budget, seed
        self.num_workers = loader_processes(num_workers)
        self.encoding_processes, self.cache_dir = num_processes(encoding_processes), cache_folder(cache_dir)
        self.context_length, self.cleaning = context_length, cleaning
        self.mix = read_mix(mix, train, shares="tokens")
        files = given_files(train=train or files_of(self.mix), val=val, test=test)
        shares = held_out_fractions(val_fraction, test_fraction)
        reading: dict[str, Any] = {"columns": columns or {}, "txt_documents": txt_documents, "on_invalid": on_invalid}
        self.sources = Sources(files, shares, train_fraction, "text", keep_together=keep_together, **reading)
        self._tokenizer = GivenTokenizer(tokenizer, add_tokens, add_special_tokens)
        self._shards = dict[str, TokenShards]()
        self.stores, self.ledgers, self._identity, self.fingerprint = {}, {}, {}, ""

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded when first used."""
        return self._tokenizer.load()

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """Encodes documents."""
        return TextEncoder(self.tokenizer)

    @cached_property
    def encoder(self) -> Encoder:
        """Encodes beginnings of texts, for the model to continue."""
        return Encoder(self.tokenizer, resolve_template("plain", self.tokenizer), self.max_length, continues=True)

    @property
    def mask(self) -> LossMask:
        """Every token is supervised."""
        return resolve_mask("whole_sequence")

    @property
    def max_length(self) -> int:
        """Maximum number of tokens in a sequence."""
        return self.block_size

    @property
    def end_token_id(self) -> int:
        """The token that ends every document."""
        return self.encoder.end_token_id

    @property
    def pad_token_id(self) -> int:
        """The pad token, or the end token if there is none. Training needs neither: there is no padding."""
        pad = self.tokenizer.pad_token_id
        return self.end_token_id if pad is None else int(pad)

    @property
    def predict_store(self) -> ExampleStore:
        """There are no prompts in a text run.

        Raises:
            UserError: Always.
        """
        raise UserError("predict answers prompts, and this run trains on text; SampleGeneration continues texts.")

    def length_limit(self, split: str) -> int:
        """Maximum number of tokens in a sequence of a split."""
        return self.block_size if split == "train" else self.eval_window

    def prompt(self, text: str, origin: str) -> Example:
        """The beginning of a text, for the model to continue; not shortened.

        Args:
            text: The beginning.
            origin: Where it is from.
        """
        encoder = self.encoder.for_prompts(10**9, continues=True)
        (example,) = encoder.encode(Conversation((Message(Role.TEXT, text),), origin))
        return example

    def beginnings(self, count: int) -> list[Example]:
        """The beginnings of the first validation documents, each with what follows as its reference.

        Args:
            count: How many.
        """
        if "val" not in self.stores:
            return []
        examples = []
        for window in islice(self._windows("val").of_documents(), count):
            num = min(_BEGINNING, len(window.input_ids) // 2)
            kinds = np.full(len(window.input_ids), SegmentKind.FINAL_ANSWER, dtype=np.uint8)
            kinds[:num] = SegmentKind.TEXT
            turns = (kinds == SegmentKind.FINAL_ANSWER).astype(np.int16)
            examples.append(Example(window.input_ids, kinds, turns, f"val {window.origin}", source=window.source))
        return examples

    def prepare_data(self) -> None:
        """Encode all documents once, on one process; the others read the cache."""
        if not self.sources.files:
            raise UserError(
                "no data: set `--data.train FILE` (txt, json, jsonl, csv, tsv, parquet, or a folder of them)."
            )
        self._folder()

    def _folder(self) -> Path:
        arguments = (self.sources, self.mix, self.cleaning, self.text_encoder)
        return encode_texts(*arguments, self.cache_dir, processes=self.encoding_processes)

    def setup(self, stage: str) -> None:
        """Open the encoded splits and plan the blocks.

        Raises:
            UserError: If there is nothing to train on or to evaluate.
        """
        if not self._shards:
            self._open()
        splits = {"train": self._shards.get("train", ()), **self.stores}
        check_documents(stage, self.sources, self.mix, splits, self.ledgers)
        if stage == "fit" and "train" not in self.stores:
            self._plan_blocks(self._shards["train"])
        if stage in ("validate", "test"):
            check_evaluation_set(stage.removesuffix("idate"), self.stores)

    def _open(self) -> None:
        folder = self._folder()  # already in the cache, unless setup is called alone
        self._shards, splits = open_shards(folder), read_manifest(folder)["splits"]
        # not cached: they do not invalidate the cache
        skipped, notices = skipped_in(self.sources), notices_in(self.sources, asks_for_unit=True)
        self.ledgers = {
            split: {
                **splits[split]["ledger"],
                "skipped_files": skipped.get(split, []),
                "notices": notices.get(split, []),
            }
            for split in ("train", "val", "test")
            if split in splits
        }
        # computed now, because the files may change or vanish during the run
        self._identity = text_identity(self.sources, self.mix, self.cleaning, self.text_encoder)
        self.fingerprint = identity_digest(self._identity)
        for split, shards in self._shards.items():
            if split != "train":
                self.stores[split] = found = EvaluationWindows(shards, self.eval_window)
                self.ledgers[split]["windows"] = {"size": self.eval_window, "count": len(found)}

    def _plan_blocks(self, shards: TokenShards) -> None:
        """Plan the training blocks, which evaluation does not need."""
        self.stores["train"] = blocks = training_blocks(
            shards,
            self.mix,
            policy=self.blocks,
            size=self.block_size,
            attention=self.document_attention,
            keep_rest=self.keep_rest,
        )
        ledger = self.ledgers["train"]
        ledger["blocks"], sources = block_ledgers(blocks, self.mix)
        for name, of_source in sources.items():
            ledger.setdefault("sources", {}).setdefault(name, {}).update(of_source)

    def identity(self) -> dict[str, Any]:
        """Everything about the data that a training run depends on, by setting."""
        shares = {
            f"--data.mix {each.name}": {name: getattr(each, name) for name in ("weight", "repeats", "cap")}
            for each in self.mix
        }
        return {
            **self._identity,
            **shares,
            "--data.blocks": self.blocks,
            "--data.block_size": self.block_size,
            "--data.keep_rest": self.keep_rest,
            "--data.document_attention": self.document_attention,
            "--data.eval_window": self.eval_window,
            "--data.shuffle": self._batches.shuffle,
            "--data.seed": self.seed,
        }

    @property
    def training_blocks(self) -> TrainingBlocks:
        """The blocks of an epoch, once `setup` has planned them."""
        blocks = self.stores["train"]
        assert isinstance(blocks, TrainingBlocks)
        return blocks

    def num_train_batches(self, limit: int | float | None = None) -> int:
        """Training batches per epoch on each device, up to the trainer's `limit_train_batches`."""
        return self._train_sampler(limit=limit).num_used

    def evaluated(self, split: str, limit: int | float | None = None) -> tuple[int, int]:
        """Windows and tokens of a split that an evaluation reads, over all devices.

        Args:
            split: `val` or `test`.
            limit: Lightning's `limit_val_batches` or `limit_test_batches`.
        """
        if not len(self.stores.get(split, ())):
            return 0, 0
        return self._eval_sampler(split).extent(limit)

    def train_dataloader(self) -> DataLoader[list[Batch]]:
        """Training batches, each a list of micro-batches."""
        return batch_loader(self.training_blocks, collate_texts, self._train_sampler(), num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[list[Batch]] | list[Any]:
        """Validation batches, or an empty list."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[list[Batch]] | list[Any]:
        """Test batches, or an empty list."""
        return self._eval_loader("test")

    def train_steps(self, accumulate: int = 1, limit: int | float | None = None) -> Iterator[list[list[int]]]:
        """Yield the blocks of each optimiser step on one device, forever: indices into the training split, by batch.

        Args:
            accumulate: Lightning's `accumulate_grad_batches`.
            limit: Lightning's `limit_train_batches`.

        Raises:
            UserError: If an epoch has no batch.
        """
        return windows(self._train_sampler(accumulate, limit), accumulate, limit)

    def _train_sampler(self, accumulate: int = 1, limit: int | float | None = None) -> WindowSampler:
        blocks = self.training_blocks
        return self._batches.train_sampler(
            blocks.lengths, blocks.num_targets, self.trainer, accumulate=accumulate, limit=limit
        )

    def _windows(self, split: str) -> EvaluationWindows:
        found = self.stores[split]
        assert isinstance(found, EvaluationWindows)
        return found

    def _eval_loader(self, split: str) -> DataLoader[list[Batch]] | list[Any]:
        if not len(self.stores.get(split, ())):
            return []
        sampler = self._eval_sampler(split)
        return batch_loader(self._windows(split), collate_texts, sampler, num_workers=self.num_workers)

    def _eval_sampler(self, split: str) -> EvaluationSampler:
        return self._batches.eval_sampler(self._windows(split).lengths.tolist(), self.trainer)
