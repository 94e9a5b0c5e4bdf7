"""A model ready for evaluation, with everything needed to score it and to answer with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from data_modules.batching.batch import Batch, collate
from data_modules.batching.packing import best_fit
from data_modules.batching.prefix_plans import ByPrefix
from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example import Example
from data_modules.encoding.tokenizers import token_sizes
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import SegmentKind
from data_modules.rendering.templates import AnyTemplate, TemplateName, resolve_template
from lit_sft.models.adapters import causal_lm
from lit_sft.models.attention import can_share_prefixes
from lit_sft.models.generation import (
    Generated,
    GenerationRequest,
    GenerationSettings,
    answer_requests,
    generate,
    undisturbed,
)
from lit_sft.models.loss import token_nll

_USUAL_LENGTH = 1024
"""Tokens per window for models without a context limit."""

_MOST_EXAMPLES = 256
"""Examples of a batch: of those that share nearly all of their tokens, the token budget allows any number."""

Nats = npt.NDArray[np.float64]


@dataclass
class LoadedModel:
    """A model, and all that is needed to score it.

    Attributes:
        name: Name in tables.
        backbone: A causal language model, with or without adapters.
        tokenizer: Its own.
        template: Renders conversations, or its name.
        token_budget: Tokens that are computed in a batch, unless it is a single sequence.
    """

    name: str
    backbone: nn.Module
    tokenizer: PreTrainedTokenizerBase
    template: TemplateName | AnyTemplate = "auto"
    token_budget: int = 4096

    def __post_init__(self) -> None:
        template = self.template
        if isinstance(template, str):
            template = resolve_template(template, self.tokenizer)
        self.encoder = Encoder(self.tokenizer, template, self.context_length)
        rows = causal_lm(self.backbone).get_input_embeddings().weight.shape[0]
        self.token_sizes = token_sizes(self.tokenizer, rows, self.encoder.end_token_id)

    @property
    def context_length(self) -> int:
        """Maximum number of tokens that the model reads; 1024 if unknown."""
        length = getattr(causal_lm(self.backbone).config, "max_position_embeddings", None)
        return int(length or _USUAL_LENGTH)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.backbone.parameters()).device

    def length(self, wanted: int | None) -> int:
        """Tokens per sequence: as requested, or the context length up to 1024.

        Raises:
            UserError: If the model cannot read that many.
        """
        if wanted is not None and wanted > self.context_length:
            raise UserError(f"{wanted} tokens: this model reads at most {self.context_length}.")
        return wanted or min(self.context_length, _USUAL_LENGTH)

    def scored(self, examples: Sequence[Example]) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Every example once: batches, and the (N,) nats of their targets.

        Examples that begin alike stand together, and their beginnings are computed once.
        """
        if shares := can_share_prefixes(causal_lm(self.backbone)):
            division = ByPrefix(lambda index: examples[index].input_ids, self.token_budget)
            groups = division.groups(range(len(examples)), most=_MOST_EXAMPLES)
        else:
            groups = [tuple(group) for group in best_fit(list(map(len, examples)), self.token_budget)]
        for group in groups:
            yield self._score([examples[index] for index in group], shares=shares)

    def nats(self, sequences: Iterable[Sequence[int]]) -> list[Nats]:
        """Negative log-likelihood of each token, given those before it.

        Args:
            sequences: Token ids, T per sequence.

        Returns:
            (T,) nats for each sequence. The first is 0: nothing predicts it.
        """
        examples = [_document(index, ids) for index, ids in enumerate(sequences)]
        nats = [np.zeros(len(example)) for example in examples]
        for batch, nll in self.scored(examples):
            documents, positions = batch.documents_at(batch.targets), batch.positions.flatten()[batch.targets]
            places = zip(documents.tolist(), positions.tolist(), nll.double().tolist(), strict=True)
            for document, position, value in places:
                nats[int(batch.origins[document])][position] = value
        return nats

    def answer(self, prompts: Sequence[Sequence[int]], settings: GenerationSettings, seed: int = 0) -> list[Generated]:
        """Answer every prompt."""
        return generate(
            self.backbone,
            prompts,
            tokenizer=self.tokenizer,
            end_token_id=self.encoder.end_token_id,
            settings=settings,
            seed=seed,
        )

    def answer_requests(self, requests: Sequence[GenerationRequest], batch_size: int = 16) -> list[Generated]:
        """Answer requests that may differ in their settings, and listen while their answers are made."""
        return answer_requests(
            self.backbone,
            requests,
            tokenizer=self.tokenizer,
            end_token_id=self.encoder.end_token_id,
            batch_size=batch_size,
        )

    def reply(
        self, prompts: Sequence[str], settings: GenerationSettings = GenerationSettings(), seed: int = 0
    ) -> list[str]:
        """Answer prompts given as text, each as a separate conversation.

        Args:
            prompts: User messages.
            settings: How answers are generated.
            seed: Seed for sampling, at temperatures above 0.

        Raises:
            UserError: If a prompt is empty, or too long to leave room for an answer.
        """
        room = max(1, self.context_length - settings.max_new_tokens)
        encoder = replace(self.encoder, max_length=room, over_long="error")
        asked = [
            Conversation((Message(Role.USER, text),), f"prompt {number}") for number, text in enumerate(prompts, 1)
        ]
        ids = [example.prompt_ids() for conversation in asked for example in encoder.encode(conversation)]
        return [answer.text for answer in self.answer(ids, settings, seed)]

    def about(self) -> str:
        """A description of the model, for the report."""
        parameters = list(self.backbone.parameters())
        return (
            f"{sum(p.numel() for p in parameters):,} weights in {str(parameters[0].dtype).removeprefix('torch.')} on "
            f"{self.device.type}, template {self.encoder.template.name}, {self.context_length:,} tokens of context"
        )

    def digest(self) -> str:
        """A digest of everything a score depends on: weights, configs, tokenizer and template."""
        digest = hashlib.blake2b(digest_size=8)
        adapters = getattr(self.backbone, "peft_config", {})
        configs = [causal_lm(self.backbone).config.to_dict(), {name: a.to_dict() for name, a in adapters.items()}]
        digest.update(json.dumps(configs, sort_keys=True, default=_in_order).encode())
        for name, tensor in sorted(self.backbone.state_dict().items()):
            digest.update(name.encode() + str(tensor.dtype).encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        template = self.encoder.template
        digest.update(f"{self.tokenizer.backend_tokenizer.to_str()}{template.name}{template.end}".encode())
        digest.update(template.layout.encode())
        return digest.hexdigest()

    def _score(self, examples: list[Example], *, shares: bool) -> tuple[Batch, torch.Tensor]:
        batch = collate(examples, mask=MASKS["whole_sequence"], pack=True, score_all=True, share_prefixes=shares)
        batch = batch.to(self.device)
        with undisturbed(self.backbone):
            return batch, token_nll(self.backbone, batch)


def _in_order(value: Any) -> Any:
    """Serialise what JSON cannot. Sets are sorted: peft's sets of layer names vary in order between processes."""
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)


def _document(index: int, ids: Sequence[int]) -> Example:
    kinds = np.full(len(ids), SegmentKind.TEXT, dtype=np.uint8)
    return Example(np.asarray(ids, dtype=np.int32), kinds, np.zeros(len(ids), dtype=np.int16), str(index))
