"""A model that is evaluated: a Hugging Face folder or hub name, an adapter and its base, or a run of this project."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from data_modules.batch import Batch, collate
from data_modules.digests import check_digests
from data_modules.encoding import Encoder, Example, token_sizes
from data_modules.masking import MASKS
from data_modules.sft_data_module import load_tokenizer
from data_modules.templates import SegmentKind, TemplateName, resolve_template
from lit_sft.backbone import BackboneSettings, build_backbone, causal_lm, load_adapter
from lit_sft.files import read_json
from lit_sft.generation import Generated, GenerationSettings, generate, undisturbed
from lit_sft.loss import token_nll
from lit_sft.runs import find_run

_USUAL_LENGTH = 1024
"""A model without a limit of its own is given windows of so many tokens."""

Nats = npt.NDArray[np.float64]


@dataclass
class Subject:
    """A model, and all that is needed to score it.

    Attributes:
        name: In tables.
        backbone: A causal language model, with or without adapters.
        tokenizer: Its own.
        template: Lays conversations out.
        token_budget: Tokens of a batch, unless it is a single sequence.
    """

    name: str
    backbone: nn.Module
    tokenizer: PreTrainedTokenizerBase
    template: TemplateName = "auto"
    token_budget: int = 4096

    def __post_init__(self) -> None:
        self.encoder = Encoder(self.tokenizer, resolve_template(self.template, self.tokenizer), self.context_length)
        rows = causal_lm(self.backbone).get_input_embeddings().weight.shape[0]
        self.token_sizes = token_sizes(self.tokenizer, rows, self.encoder.end_token_id)

    @property
    def context_length(self) -> int:
        """Most tokens that it reads; what is usual where it does not say."""
        length = getattr(causal_lm(self.backbone).config, "max_position_embeddings", None)
        return int(length or _USUAL_LENGTH)

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def length(self, wanted: int | None) -> int:
        """Tokens of a sequence: what is wanted, or the context length, at most 1024.

        Raises:
            ValueError: If it cannot read so many.
        """
        if wanted is not None and wanted > self.context_length:
            raise ValueError(f"{wanted} tokens: this model reads at most {self.context_length}.")
        return wanted or min(self.context_length, _USUAL_LENGTH)

    def scored(self, examples: Sequence[Example]) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Every example once, in batches of similar lengths: the batch and the (N,) nats of its targets."""
        order = sorted(range(len(examples)), key=lambda index: -len(examples[index]))
        chunk: list[Example] = []
        for index in order:
            if chunk and sum(map(len, chunk)) + len(examples[index]) > self.token_budget:
                yield self._score(chunk)
                chunk = []
            chunk.append(examples[index])
        if chunk:
            yield self._score(chunk)

    def nats(self, sequences: Iterable[Sequence[int]]) -> list[Nats]:
        """What each token costs given those before it.

        Args:
            sequences: Ids, each of T tokens.

        Returns:
            For each, (T,) nats; nothing predicts the first, which has 0.
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

    def about(self) -> str:
        """What it is, for the page."""
        parameters = list(self.backbone.parameters())
        return (
            f"{sum(p.numel() for p in parameters):,} weights in {str(parameters[0].dtype).removeprefix('torch.')} on "
            f"{self.device.type}, template {self.encoder.template.name}, {self.context_length:,} tokens of context"
        )

    def digest(self) -> str:
        """Of the weights, the configs, the tokenizer and the template: of all that a score depends on."""
        digest = hashlib.blake2b(digest_size=8)
        adapters = getattr(self.backbone, "peft_config", {})
        configs = [causal_lm(self.backbone).config.to_dict(), {name: a.to_dict() for name, a in adapters.items()}]
        digest.update(json.dumps(configs, sort_keys=True, default=_in_order).encode())
        for name, tensor in sorted(self.backbone.state_dict().items()):
            digest.update(name.encode() + str(tensor.dtype).encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        template = self.encoder.template
        digest.update(f"{self.tokenizer.backend_tokenizer.to_str()}{template.name}{template.end}".encode())
        digest.update(str(self.tokenizer.chat_template if template.name == "tokenizer" else repr(template)).encode())
        return digest.hexdigest()

    def _score(self, examples: list[Example]) -> tuple[Batch, torch.Tensor]:
        batch = collate(examples, mask=MASKS["whole_sequence"], pack=True, score_all=True).to(self.device)
        with undisturbed(self.backbone):
            return batch, token_nll(self.backbone, batch)


def load_subject(
    name: str,
    source: str,
    *,
    template: TemplateName | None = None,
    device: str = "auto",
    dtype: torch.dtype | None = None,
) -> Subject:
    """Load a model.

    Args:
        name: In tables.
        source: A folder with a model or an adapter, a hub name, a run folder, or a checkpoint in one.
        template: Lays conversations out. None: as the model was trained, where that is written down; else `auto`.
        device: `auto` takes a GPU where there is one.
        dtype: Of the weights. None: bfloat16 on a GPU that has it, else float32.

    Raises:
        ValueError: If there is no such model, or it cannot be read.
    """
    if source.endswith(".ckpt") or (Path(source) / "config.yaml").is_file():
        backbone, tokenizer, own = _of_run(source)
    elif _is_adapter(source):
        backbone, tokenizer, own = _of_adapter(Path(source))
    else:
        settings = BackboneSettings(pretrained=source)
        tokenizer = load_tokenizer(source)
        backbone, own = build_backbone(settings, tokenizer), _template_of(source)
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if dtype is None:
        dtype = (
            torch.bfloat16
            if place.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float32
        )
    backbone = backbone.to(place, dtype).eval().requires_grad_(False)
    budget = 16384 if place.startswith("cuda") else 4096
    return Subject(name, backbone, tokenizer, template or own, budget)


def _of_run(source: str) -> tuple[nn.Module, PreTrainedTokenizerBase, TemplateName]:
    from lit_sft.checkpoints import load_weights
    from lit_sft.cli import SettingsCLI

    run, checkpoint = find_run(source)
    settings = SettingsCLI(["--config", str(run.config)], opened=run)
    torch.manual_seed(int(settings.config.seed_everything))  # frozen random weights follow from it
    backbone = build_backbone(settings.model.backbone_settings, settings.datamodule.tokenizer)
    load_weights(backbone, checkpoint)
    return backbone, settings.datamodule.tokenizer, settings.datamodule.template_name


def _is_adapter(source: str) -> bool:
    return (Path(source) / "adapter_config.json").is_file() and not (Path(source) / "config.json").is_file()


def _of_adapter(folder: Path) -> tuple[nn.Module, PreTrainedTokenizerBase, TemplateName]:
    check_digests(folder, weights=False)
    settings = read_json(folder / "adapter_config.json", advice="copy the adapter again") or {}
    base = settings.get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise ValueError(f"{folder}: its adapter_config.json does not name the model it belongs to.")
    tokenizer = load_tokenizer(str(folder) if (folder / "tokenizer.json").is_file() else base)
    model = build_backbone(BackboneSettings(pretrained=base), tokenizer)
    return load_adapter(model, folder), tokenizer, _template_of(str(folder))


def _template_of(source: str) -> TemplateName:
    """What a folder that this project wrote says of its own training."""
    path = Path(source) / "lit_sft.json"
    written = read_json(path, advice="export the model again") or {}
    name: TemplateName = written.get("template", "auto")
    if name not in get_args(TemplateName):
        raise ValueError(f"{path}: template {name!r}; expected one of {', '.join(get_args(TemplateName))}.")
    return name


def _in_order(value: Any) -> Any:
    """What JSON does not know; peft keeps names of layers in sets, whose order is another in every process."""
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)


def _document(index: int, ids: Sequence[int]) -> Example:
    kinds = np.full(len(ids), SegmentKind.TEXT, dtype=np.uint8)
    return Example(np.asarray(ids, dtype=np.int32), kinds, np.zeros(len(ids), dtype=np.int16), str(index))
