"""The LightningDataModule for fine-tuning, on records of any format and under any loss mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from data_modules.batching.batch import Batch, collate
from data_modules.batching.batch_settings import BatchSettings
from data_modules.batching.loaders import batch_loader, loader_processes
from data_modules.batching.pairs import extents
from data_modules.batching.prefix_plans import Families, IdsOf
from data_modules.batching.sampling import WindowSampler, windows
from data_modules.encoding.cache import (
    cache_folder,
    data_identity,
    encode_sources,
    identity_digest,
    load_ledgers,
    open_splits,
)
from data_modules.encoding.encoder import Encoder, OverLong
from data_modules.encoding.example import Example
from data_modules.encoding.example_store import ExampleStore
from data_modules.encoding.ledger import is_plain_text
from data_modules.encoding.length_limits import LengthLimits, resolve_max_length
from data_modules.encoding.mixture import Mixture, mixture_of
from data_modules.encoding.new_tokens import GivenTokenizer
from data_modules.encoding.pool import num_processes
from data_modules.encoding.split_checks import check_pair_settings, check_splits
from data_modules.errors import UserError
from data_modules.records.content_keys import KeepTogether
from data_modules.records.counts import OnInvalid
from data_modules.records.formats import FormatName
from data_modules.records.mix import files_of, read_mix
from data_modules.records.splits import Paths, Samples, Sources, TextUse, as_list, given_files, held_out_fractions
from data_modules.records.thinking import Thinking
from data_modules.records.turn_order import Consecutive, FirstAnswer, TurnRules
from data_modules.rendering.conventions import resolve_mask, template_and_convention
from data_modules.rendering.jinja_source import Argument, ChatOptions
from data_modules.rendering.masking import LossMask, MaskName, Reduction, weights_identity
from data_modules.rendering.templates import TemplateName, tokenizer_with_options
from data_modules.sft_choices import TextPrompts, check_sft_choices


class SFTDataModule(LightningDataModule):
    """Turns files of instructions, conversations and plain text into batches.

    Example:
        >>> data = SFTDataModule("examples/world/train.json", tokenizer="examples/tokenizer", template="chatml")
        >>> data.setup("fit")
        >>> example = data.stores["train"][0]
        >>> print(data.tokenizer.decode(example.input_ids).strip())
        <|im_start|>user
        Where did Rowan grow up as a baby?<|im_end|>
        <|im_start|>assistant
        Rowan was born in Far Orchard.<|im_end|>
        >>> weights = example.loss_weights(data.mask)
        >>> data.tokenizer.decode(example.input_ids[weights > 0])
        'Rowan was born in Far Orchard.<|im_end|>'

    Args:
        train: A json, jsonl, csv, tsv, parquet or txt file, a folder of them, a hub dataset name, or a list of these.
        val: The same for validation. None: hold out `val_fraction` of `train`.
        test: The same for testing. None: hold out `test_fraction` of `train`.
        predict: Prompts for `predict` to answer; they need no answers. None: the test split.
        val_fraction: Share of `train` held out for validation, chosen by a hash of each record's content (or of its
            `article_id`), so that the order of the records does not matter.
        test_fraction: Share of `train` held out for testing, chosen in the same way.
        train_fraction: Share of the remaining records to train on, chosen in the same way: a larger share contains
            every smaller one, and the held-out records stay the same. For studies of how much data is needed.
        mix: Several sources instead of `train`, each with `name`, `files`, and optionally `weight`, `repeats`, `cap`,
            `format`, `columns`, `template` or `mask`. See docs/mixtures.md.
        keep_together: Which records count as the same, so that all of them are in one split: those with the same text,
            with the same words (`normalized`: case, punctuation and white space aside), or with the same `prompt`.
        tokenizer: Name or folder, or a tokenizer. On the command line, the model's.
        add_tokens: Words to add to it as tokens. On the command line, the model's.
        add_special_tokens: Markers to add to it as special tokens. On the command line, the model's.
        context_length: Maximum number of tokens the model can read. On the command line, the model's.
        answer_length: Tokens that `predict` reserves for the answer to a prompt. On the command line, taken from the
            model's generation settings.
        format: Format of the records. None: detected from their fields.
        columns: Fields of the format that have other names in your files, such as
            `{instruction: question, output: answer}`.
        template: How conversations are rendered. `auto`: the tokenizer's own chat template, else `plain`.
        template_date: The date that the tokenizer's own chat template prints instead of today's, as YYYY-MM-DD. None:
            2025-01-01, so that the data does not depend on the day.
        chat_template_kwargs: Values for variables of the tokenizer's own chat template, such as
            `{enable_thinking: false}`. Exported tokenizers have them as defaults.
        mask: Which tokens are supervised: all, the final answer of each conversation, or every answer.
        convention: Train as another trainer would, such as `trl:assistant_only` or `axolotl`, instead of by a mask.
        prompt_weight: Weight of prompt tokens (tool results too) in the loss, 0 to 1. None: the mask's own.
        answer_weight: Weight of answer tokens, 0 to 1; only the ratio of the two matters. None: 1.
        reduction: Whether every supervised token, every sample or every turn counts equally.
        samples: `answer` expands a training conversation into one sample per answer.
        max_length: Maximum number of tokens in an example. None: the model's context length, at most 1024.
        over_long: What to do with longer examples: truncate (context first, the answer last), split (between turns),
            drop, or error.
        on_invalid: Whether an invalid record stops the run or is dropped and listed.
        consecutive: Whether several messages of one role in a row are an error, or joined with a blank line.
        first_answer: Whether a conversation that begins with an answer is an error, or loses this answer.
        thinking: Whether thinking before an answer is trained, only context for the answer (mask), or left out (strip).
        batch_size: Training examples per batch on each device.
        eval_batch_size: Rows per evaluation batch. None: twice the training batch.
        packing: Concatenate the documents of a batch in one row, isolated from one another, instead of padding each to
            the longest. Changes the speed, not the metrics.
        token_budget: Maximum tokens in a forward pass, padding included. Larger batches are split into micro-batches,
            which limits memory without changing results.
        share_prefixes: Compute once what the documents of a row have in common at their beginning, such as a system
            prompt. Changes the speed, not the loss. Needs packing; off in training with dropout, which differs in each.
        group_by_prefix: Let examples that share at least half of their tokens follow one another, mostly in the same
            optimiser step, so that more is computed once. Changes which examples form a step, and so the result.
        shuffle: Whether to shuffle the training examples every epoch.
        seed: Seed for the order of the training examples. On the command line, taken from `seed_everything`.
        num_workers: Processes that collate batches. None: two with a GPU, else none.
        encoding_processes: Processes that encode large data sets. None: one per available core, at most 16. The
            encoded data does not depend on it.
        cache_dir: Folder for encoded data. None: $LIT_SFT_CACHE, else ~/.cache/lit_sft.
        text_prompts: How `predict` treats a line of a .txt file, or a record with only the field `text`: as a question,
            or as the beginning of a text to continue. None: as a beginning if the training data is plain text.
    """

    stores: dict[str, ExampleStore]
    ledgers: dict[str, dict[str, Any]]
    fingerprint: str
    _identity: dict[str, Any]

    def __init__(
        self,
        train: Paths = None,
        val: Paths = None,
        test: Paths = None,
        predict: Paths = None,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        train_fraction: float = 1.0,
        mix: list[dict[str, Any]] | None = None,
        keep_together: KeepTogether = "exact",
        tokenizer: str | PreTrainedTokenizerBase = "",
        add_tokens: list[str] | None = None,
        add_special_tokens: list[str] | None = None,
        context_length: int | None = None,
        answer_length: int = 256,
        format: FormatName | None = None,
        columns: dict[str, str] | None = None,
        template: TemplateName = "auto",
        template_date: str | None = None,
        chat_template_kwargs: dict[str, Argument] | None = None,
        mask: MaskName = "output_only",
        convention: str | None = None,
        prompt_weight: float | None = None,
        answer_weight: float | None = None,
        reduction: Reduction = "token",
        samples: Samples = "conversation",
        max_length: int | None = None,
        over_long: OverLong = "truncate",
        on_invalid: OnInvalid = "error",
        consecutive: Consecutive = "error",
        first_answer: FirstAnswer = "error",
        thinking: Thinking = "train",
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        packing: bool = True,
        token_budget: int = 16384,
        share_prefixes: bool = True,
        group_by_prefix: bool = False,
        shuffle: bool = True,
        seed: int = 0,
        num_workers: int | None = None,
        encoding_processes: int | None = None,
        cache_dir: str | None = None,
        text_prompts: TextPrompts | None = None,
    ) -> None:
        super().__init__()
        check_sft_choices(template, mask, reduction, over_long, text_prompts)
        self.mask_name, self.reduction, self._weights = mask, reduction, (prompt_weight, answer_weight)
        self.mask, self.convention = resolve_mask(mask, *self._weights, convention, over_long), convention
        sharing = (share_prefixes, group_by_prefix)
        self._set_batches(BatchSettings(batch_size, eval_batch_size, packing, token_budget, shuffle, seed, *sharing))
        self.encoding_processes, self.cache_dir = num_processes(encoding_processes), cache_folder(cache_dir)
        self.template_name, self.over_long, self.answer_length = template, over_long, answer_length
        self.context_length, self.max_length = context_length, resolve_max_length(max_length, context_length)
        self.mix, self.num_workers = read_mix(mix, train), loader_processes(num_workers)
        shares, rules = held_out_fractions(val_fraction, test_fraction), TurnRules(consecutive, first_answer, thinking)
        reading = (train_fraction, format, on_invalid, samples, columns or {}, rules, keep_together)
        self.sources = Sources(given_files(train=train or files_of(self.mix), val=val, test=test), shares, *reading)
        self.predict_sources, self._text_prompts = self.sources.of_prompts(as_list(predict)), text_prompts
        self._tokenizer = GivenTokenizer(tokenizer, add_tokens, add_special_tokens)
        self._chat_options = ChatOptions(template_date, chat_template_kwargs or {})
        self.stores, self.ledgers, self._identity, self.fingerprint = {}, {}, {}, ""

    def _set_batches(self, settings: BatchSettings) -> None:
        self._batches, self._families = settings, dict[bool, Families]()
        self.share_prefixes = settings.share_prefixes and settings.packing
        self.batch_size, self.token_budget, self.seed = settings.batch_size, settings.token_budget, settings.seed

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded when first used."""
        return tokenizer_with_options(self._tokenizer.load(), self.template_name, self._chat_options)

    @cached_property
    def encoder(self) -> Encoder:
        """Encodes conversations for training and prompts for generation."""
        template, convention = template_and_convention(self.convention, self.tokenizer, self.template_name)
        return Encoder(self.tokenizer, template, self.max_length, self.over_long, convention=convention)

    @property
    def end_token_id(self) -> int:
        """The token that ends every answer."""
        return self.encoder.end_token_id

    @property
    def pad_token_id(self) -> int:
        """The pad token, or the end token if there is none: padding is identified by its kind, not its id."""
        pad = self.tokenizer.pad_token_id
        return self.end_token_id if pad is None else int(pad)

    @cached_property
    def mixture(self) -> Mixture | None:
        """The sources of `mix`, each with its encoder and its mask; None without."""
        return mixture_of(self.mix, self.sources, self.encoder, self.mask, self._weights)

    def mask_of(self, example: Example) -> LossMask:
        """The loss mask of an example: that of its source, or of all."""
        return self._masks[example.source]

    @property
    def _masks(self) -> tuple[LossMask, ...]:
        return (*(self.mixture.masks if self.mixture else ()), self.mask)  # the last: examples of no source, -1

    def prepare_data(self) -> None:
        """Encode all data once, on one process; the others read the cache."""
        for sources, encoder in self._all_sources():
            self._encode(sources, encoder)

    def _encode(self, sources: Sources, encoder: Encoder) -> Path:
        if self.mixture and sources is self.sources:
            return self.mixture.encode(self.cache_dir, processes=self.encoding_processes)
        return encode_sources(sources, encoder, self.cache_dir, processes=self.encoding_processes)

    def setup(self, stage: str) -> None:
        """Open the encoded splits.

        Raises:
            UserError: If there is nothing to train on or to evaluate, or the mask supervises no token.
        """
        if self.stores:
            return
        for sources, encoder in self._all_sources():
            folder = self._encode(sources, encoder)  # already in the cache, unless setup is called alone
            stores, ledgers = open_splits(folder, sources)
            self.stores, self.ledgers = self.stores | stores, self.ledgers | ledgers
        # now: the files may change or vanish during the run
        if self.mixture:
            self.stores["train"], self._identity = self.mixture.begin(self.stores, self.ledgers)
        else:
            self._identity = data_identity(self.sources, self.encoder)
        self.fingerprint = identity_digest(self._identity)
        check_pair_settings(self.ledgers, self.convention, self.over_long, self.sources.samples)
        files = self.sources.files | self.predict_sources.files
        check_splits(stage, files, self.stores, self.ledgers, self._limits, self.mask_of)

    def identity(self) -> dict[str, Any]:
        """Everything about the data that a training run depends on, by setting."""
        return {
            **self._identity,
            "--data.mask": self.mask_name,
            **weights_identity(*self._weights),
            "--data.reduction": self.reduction,
            "--data.shuffle": self._batches.shuffle,
            **({"--data.group_by_prefix": True} if self._batches.group_by_prefix else {}),
            "--data.seed": self.seed,
        }

    def num_train_batches(self, limit: int | float | None = None) -> int:
        """Training batches per epoch on each device, up to the trainer's `limit_train_batches`."""
        return self.train_sampler(limit=limit).num_used

    def evaluated(self, split: str, limit: int | float | None = None) -> tuple[int, int]:
        """Rows and tokens of a split that an evaluation reads, over all devices.

        Args:
            split: `val` or `test`.
            limit: Lightning's `limit_val_batches` or `limit_test_batches`.
        """
        if not len(self.stores.get(split, ())):
            return 0, 0
        return self._batches.eval_sampler(self._extents(split)[0], self.trainer).extent(limit)

    def train_dataloader(self) -> DataLoader[list[Batch]]:
        """Training batches, each a list of micro-batches."""
        return self._loader("train", self.train_sampler())

    def val_dataloader(self) -> DataLoader[list[Batch]] | list[Any]:
        """Validation batches, or an empty list."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[list[Batch]] | list[Any]:
        """Test batches, or an empty list."""
        return self._eval_loader("test")

    @property
    def predict_store(self) -> ExampleStore:
        """The prompts that `predict` answers: your own, else the test split."""
        store = self.stores.get("predict", self.stores.get("test"))
        if store is None:
            raise UserError("nothing to predict: set `--data.predict FILE`, or use a run with a test split.")
        return store

    def predict_dataloader(self) -> DataLoader[list[int]]:
        """Indices into `predict_store`, in file order, so that answers can be matched to prompts."""
        if self.trainer and self.trainer.world_size > 1:
            raise UserError("predict runs on one device: set `--trainer.devices 1`.")
        return DataLoader(range(len(self.predict_store)), batch_size=self._batches.eval_rows, collate_fn=list)  # type: ignore[arg-type]

    def length_limit(self, split: str) -> int:
        """Maximum number of tokens in an example of a split, less the room for the answer when predicting."""
        return self._limits.of(split)

    @property
    def _limits(self) -> LengthLimits:
        return LengthLimits(self.max_length, self.context_length, self.answer_length)

    def _all_sources(self) -> list[tuple[Sources, Encoder]]:
        sources = [(self.sources, self.encoder)] if self.sources.files else []
        if self.predict_sources.files["predict"]:
            text: TextUse = self._text_prompts or ("beginning" if self._trains_on_text() else "question")
            # prompts are truncated, never dropped
            encoder = self.encoder.for_prompts(self.length_limit("predict"), continues=text == "beginning")
            sources.append((replace(self.predict_sources, text=text), encoder))
        if not sources:
            raise UserError(
                "no data: set `--data.train FILE` (json, jsonl, csv, tsv, parquet, txt, or a folder of them)."
            )
        return sources

    def _trains_on_text(self) -> bool:
        """Whether the training data is plain text, so that the model has not learned to answer questions."""
        if "train" not in self.sources.files:
            return False
        return is_plain_text(load_ledgers(self._encode(self.sources, self.encoder))["train"])

    def _weight(self, index: int) -> float:
        if self._batches.trains_on_pairs(self.trainer):
            return 1.0
        example = self.stores["train"][index]
        return float(example.loss_weights(self.mask_of(example), self.reduction).sum(dtype="float64"))

    def train_steps(self, accumulate: int = 1, limit: int | float | None = None) -> Iterator[list[list[int]]]:
        """Yield the examples of each optimiser step on one device, forever: indices into the training split, by batch.

        Args:
            accumulate: Lightning's `accumulate_grad_batches`.
            limit: Lightning's `limit_train_batches`.

        Raises:
            UserError: If an epoch has no batch.
        """
        return windows(self.train_sampler(accumulate, limit), accumulate, limit)

    def train_sampler(self, accumulate: int = 1, limit: int | float | None = None) -> WindowSampler:
        """Plans the training batches; arguments as in `train_steps`."""
        lengths, ids = self._extents("train")
        # searched for once: as pairs and as chosen answers alone, examples share other tokens
        families = self._families.setdefault(self._batches.trains_on_pairs(self.trainer), Families(len(lengths), ids))
        window = (self.trainer, accumulate, limit)
        return self._batches.train_sampler(lengths, self._weight, *window, ids_of=ids, families=families)

    def _extents(self, split: str) -> tuple[list[int], IdsOf]:
        pairs = self._batches.has_pairs(self.trainer, split, self.stores[split])
        return extents(self.stores[split], pairs=pairs, packed=self._batches.packs(self.trainer))

    def _eval_loader(self, split: str) -> DataLoader[list[Batch]] | list[Any]:
        if split not in self.stores or not len(self.stores[split]):
            return []
        lengths, ids_of = self._extents(split)
        sampler = self._batches.eval_sampler(lengths, self.trainer, split=split, ids_of=ids_of)
        return self._loader(split, sampler, score_all=True)

    def _loader(self, split: str, sampler: Any, *, score_all: bool = False) -> DataLoader[list[Batch]]:
        collate_micro_batch = partial(
            collate,
            mask=self._masks,
            reduction=self.reduction,
            pad_token_id=self.pad_token_id,
            score_all=score_all,
            pack=self._batches.packs(self.trainer),
            share_prefixes=self._batches.shares(self.trainer, split),
            pairs=self._batches.has_pairs(self.trainer, split, self.stores[split]),
        )
        return batch_loader(self.stores[split], collate_micro_batch, sampler, num_workers=self.num_workers)
