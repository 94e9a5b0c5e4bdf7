"""What training asks of a data module. `SFTDataModule` is one; another need only offer the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example_store import ExampleStore
from data_modules.records.splits import Sources
from data_modules.rendering.masking import LossMask, Reduction
from data_modules.rendering.templates import TemplateName


class TrainingData(Protocol):
    """A LightningDataModule whose loaders give lists of micro-batches (see `data_modules`)."""

    batch_size: int
    """Examples of a training batch on each device."""
    seed: int
    """Determines the order."""
    token_budget: int
    """Most tokens that go through the model at once."""
    context_length: int | None
    """Most tokens the model can read."""
    template_name: TemplateName
    reduction: Reduction
    fingerprint: str
    """Digest of the records and how they are encoded."""
    sources: Sources
    """Where the records come from."""
    stores: dict[str, ExampleStore]
    """The encoded examples of each split."""
    ledgers: dict[str, dict[str, Any]]
    """What became of the records of each split."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""

    @property
    def encoder(self) -> Encoder:
        """Turns conversations into examples."""

    @property
    def end_token_id(self) -> int:
        """Ends an answer."""

    @property
    def mask(self) -> LossMask:
        """Which tokens carry the loss."""

    @property
    def predict_store(self) -> ExampleStore:
        """What `predict` answers."""

    def identity(self) -> Mapping[str, Any]:
        """Everything of the data that a run depends on, by the names of the settings."""

    def num_train_batches(self, limit: int | float | None = None) -> int:
        """Training batches of an epoch on each device."""

    def evaluated(self, split: str, limit: int | float | None = None) -> tuple[int, int]:
        """Rows and tokens of a split that an evaluation reads, on all devices together."""

    def length_limit(self, split: str) -> int:
        """Most tokens of an example of a split."""
