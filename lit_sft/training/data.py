"""The data module that training needs, as a protocol. `SFTDataModule` and `TextDataModule` implement it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example_store import ExampleStore
from data_modules.records.mix import MixSource
from data_modules.records.splits import Sources
from data_modules.rendering.masking import LossMask, Reduction
from data_modules.rendering.templates import TemplateName


class Store(Protocol):
    """The encoded examples of a split: conversations, documents or blocks."""

    def __len__(self) -> int: ...

    @property
    def mean_length(self) -> float:
        """Mean number of tokens in an example."""


class TrainingData(Protocol):
    """A LightningDataModule whose loaders give lists of micro-batches (see `data_modules`)."""

    batch_size: int
    """Examples per training batch and device."""
    seed: int
    """Seed for the order of the examples."""
    token_budget: int
    """Maximum number of tokens in one forward pass."""
    context_length: int | None
    """Maximum number of tokens the model can read."""
    template_name: TemplateName
    reduction: Reduction
    fingerprint: str
    """Digest of the records and their encoding."""
    mix: tuple[MixSource, ...]
    """The sources of a mixture; none without one."""
    sources: Sources
    """Where the records come from."""
    ledgers: dict[str, dict[str, Any]]
    """What happened to the records of each split."""

    @property
    def stores(self) -> Mapping[str, Store]:
        """The encoded examples of each split."""

    @property
    def max_length(self) -> int:
        """Maximum number of tokens in an example."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""

    @property
    def encoder(self) -> Encoder:
        """Encodes conversations as examples."""

    @property
    def end_token_id(self) -> int:
        """The token that ends an answer."""

    @property
    def pad_token_id(self) -> int:
        """The pad token, or the end token if there is none."""

    @property
    def mask(self) -> LossMask:
        """Which tokens carry the loss."""

    @property
    def predict_store(self) -> ExampleStore:
        """The prompts that `predict` answers."""

    def identity(self) -> Mapping[str, Any]:
        """Everything about the data that a run depends on, by setting."""

    def num_train_batches(self, limit: int | float | None = None) -> int:
        """Training batches per epoch and device."""

    def evaluated(self, split: str, limit: int | float | None = None) -> tuple[int, int]:
        """Rows and tokens of a split that an evaluation reads, over all devices."""

    def length_limit(self, split: str) -> int:
        """Maximum number of tokens per example in a split."""
