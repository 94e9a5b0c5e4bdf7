"""The README.md of an exported model: data, mask, template, settings and metrics of its run, but no text of records."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from torch import nn

from data_modules.text_data_module import TextDataModule
from data_modules.wording import counted
from lit_sft.files import read_json
from lit_sft.models.adapters import LoraSettings, is_adapted
from lit_sft.models.backbone import BackboneSettings
from lit_sft.models.objectives import ObjectiveSettings
from lit_sft.models.quantization import parameter_sizes
from lit_sft.models.saving import AnyData, read_checkpoint
from lit_sft.reporting.page import escaped_markdown
from lit_sft.runs.data_sources import SOURCES
from lit_sft.runs.folders import Run
from lit_sft.settings.reading import Settings

_PACKAGES = ("torch", "lightning", "transformers", "peft")

_RESULTS = (
    "loss", "perplexity/answer", "bits_per_byte/answer", "perplexity/text", "bits_per_byte/text",
    "perplexity/whole_sequence", "bits_per_byte/whole_sequence",
)  # fmt: skip
"""Metrics that the hub lists, if they were measured; the card has the others too."""

_HUB_NAME = r"[\w-][\w.-]*(/[\w.-]+)?"


@dataclass(frozen=True)
class CardSource:
    """What a card is written from.

    Attributes:
        run: The run, with its ledger and metrics.
        settings: Its settings.
        checkpoint: The checkpoint that is exported.
        data: Its data module.
    """

    run: Run
    settings: Settings
    checkpoint: Path
    data: AnyData

    @property
    def backbone(self) -> BackboneSettings:
        """Which weights were trained, and how."""
        return self.settings.backbone()

    @property
    def objective(self) -> ObjectiveSettings:
        """What training minimised."""
        return self.settings.model().objective_settings

    def card(self, model: nn.Module, *, file: str = "") -> str:
        """The card of a model.

        Args:
            model: What is written: the whole model or one with adapters.
            file: Name of the GGUF file that is written instead of a Hugging Face folder.
        """
        metrics = read_checkpoint(self.checkpoint, map_location="meta", mmap=True).get("figures") or {}
        parts = (
            _about(self, model, file),
            _data(self),
            _training(self),
            _metrics(self, metrics),
            "## Licence and limits\n\nThe licence of these weights is not set: it depends on the base model and on the "
            "data. Add `license:` to the lines at the top, and say here what the model must not be used for.",
        )
        return f"---\n{_front_matter(self, model, metrics, file)}\n---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(source: CardSource, model: nn.Module, metrics: Mapping[str, float], file: str) -> str:
    base = _hub_name(source.settings.config.model.backbone.pretrained)
    relation = "quantized" if file else "adapter" if is_adapted(model) else "finetune"
    data = ModelCardData(
        model_name=_name(source),
        library_name="gguf" if file else "peft" if is_adapted(model) else "transformers",
        pipeline_tag="text-generation",
        tags=["lit_sft", *_method(source)],
        eval_results=list(_results(source, metrics)) or None,
        base_model=base,
        **({"base_model_relation": relation} if base else {}),  # type: ignore[arg-type]
    )
    return str(data.to_yaml())


def _method(source: CardSource) -> list[str]:
    if source.settings.config.data_module != "sft":
        return []
    return [source.objective.name if source.objective.is_preference else "sft"]


def _results(source: CardSource, metrics: Mapping[str, float]) -> Iterator[EvalResult]:
    for split, found in (("validation", metrics), ("test", _tested(source))):
        for name in _RESULTS:
            if math.isfinite(found.get(name, math.nan)):
                yield EvalResult(
                    task_type="text-generation",
                    dataset_type="private",
                    dataset_name=split,
                    dataset_split=split,
                    metric_type=name.partition("/")[0],
                    metric_name=name,
                    metric_value=found[name],
                )


def _about(source: CardSource, model: nn.Module, file: str) -> str:
    config = source.backbone
    what = "LoRA adapters for" if is_adapted(model) else "A model trained from"
    name = _hub_name(config.pretrained) or Path(config.pretrained or "").name
    base = escaped_markdown(name) if config.pretrained else "random weights"
    size = counted(sum(size for size, _ in parameter_sizes(model)), "parameter")
    trained = "all weights" if config.adapters is None else f"LoRA adapters of rank {config.adapters.rank}"
    if config.quantization:
        trained += f" on {config.quantization} weights"
    return f"# {escaped_markdown(_name(source))}\n\n{what} {base}; {size}, {trained} trained with lit_sft.\n\n" + _use(
        is_adapted(model), file, config.quantization
    )


def _use(is_adapter: bool, file: str, quantization: str | None) -> str:
    if file:
        return f"```bash\nllama-server -m {file}\nollama create NAME -f Modelfile\n```"
    loader = ("peft", "AutoPeftModelForCausalLM") if is_adapter else ("transformers", "AutoModelForCausalLM")
    remark = ""
    if is_adapter and quantization:
        remark = (
            f"\n\nThe adapters were trained on {quantization} weights, and this loads the base without quantisation: "
            "answers can differ slightly from those of training."
        )
    return (
        f"```python\nfrom {loader[0]} import {loader[1]}\nfrom transformers import AutoTokenizer\n\n"
        f"model = {loader[1]}.from_pretrained(FOLDER)\ntokenizer = AutoTokenizer.from_pretrained(FOLDER)\n```{remark}"
    )


def _data(source: CardSource) -> str:
    recorded = read_json(source.run.folder / SOURCES) or {}
    rows = [
        (split, f"{escaped_markdown(str(file['name']))}", str(file.get("sha256") or file.get("fingerprint"))[:16])
        for split, files in recorded.items()
        for file in files
    ]
    files = _table(("split", "file", "digest"), rows) if rows else "The files of this run were not recorded."
    ledger = read_json(source.run.folder / "ledger.json") or {}
    counts = _table(("split", "records read", "examples"), [(name, *_counts(split)) for name, split in ledger.items()])
    made = any(file.get("datasheet") for files in recorded.values() for file in files)
    author = "Who wrote the records is not recorded: say here which parts people wrote, and which a model."
    if made:
        author = "A language model wrote some of the records: `datasheet.md` beside their file names it."
    return f"## Data\n\n{files}\n\n{counts}\n\n{author}"


def _counts(split: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (split.get(name) for name in ("records_read", "examples"))
    return tuple(f"{count:,}" if isinstance(count, int) else "" for count in counts)


def _training(source: CardSource) -> str:
    config, template = source.settings.config, source.data.encoder.template
    optimizer, trainer, data = config.model.optimizer, config.trainer, config.data
    rows = {
        "template": f"{escaped_markdown(template.name)}; answers end with {escaped_markdown(str(template.end))}",
        "mask": "" if isinstance(source.data, TextDataModule) else escaped_markdown(source.data.mask.name),
        "objective": _objective(source.objective),
        "new tokens": escaped_markdown(", ".join(source.backbone.new_tokens)),
        "adapters": _adapters(source.backbone.adapters),
        "quantisation": source.backbone.quantization or "",
        "optimizer": f"{optimizer.name}, learning rate {optimizer.lr:g}, {optimizer.schedule}, weight decay "
        f"{optimizer.weight_decay:g}",
        "length": _length(source),
        "batch": f"{data.batch_size} x {trainer.accumulate_grad_batches} accumulated on each device",
        "longest example": f"{source.data.max_length:,} tokens" if source.data.max_length else "",
        "precision": trainer.precision or "the default of the device",
        "seed": source.settings.seed,
        "versions": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
    }
    return "## Training\n\n" + _table(
        ("setting", "value"), [(n, str(value)) for n, value in rows.items() if value != ""]
    )


def _objective(objective: ObjectiveSettings) -> str:
    used = {"threshold": objective.name == "profit", "beta": objective.is_preference}
    used |= {name: getattr(objective, name) > 0 for name in ("label_smoothing", "kl_weight", "neftune_alpha")}
    used |= dict.fromkeys(("desirable_weight", "undesirable_weight"), objective.name == "apo_zero")
    parts = [f"{name.replace('_', ' ')} {getattr(objective, name):g}" for name, is_used in used.items() if is_used]
    return ", ".join([objective.name.replace("_", " "), *parts])


def _adapters(settings: LoraSettings | None) -> str:
    """The settings of the adapters that are not the usual ones, after rank and alpha."""
    if settings is None:
        return ""
    usual = LoraSettings(rank=settings.rank, alpha=settings.alpha)
    changed = {name: value for name, value in asdict(settings).items() if value != getattr(usual, name)}
    parts = [f"rank {settings.rank}", f"alpha {settings.alpha:g}"]
    parts += [name if value is True else f"{name} {value}" for name, value in changed.items()]
    return escaped_markdown(", ".join(parts))


def _length(source: CardSource) -> str:
    trainer = source.settings.config.trainer
    limit = counted(trainer.max_steps, "step") if trainer.max_steps > 0 else counted(trainer.max_epochs, "epoch")
    return f"at most {limit}; these weights are {escaped_markdown(source.run.described(source.checkpoint))}"


def _metrics(source: CardSource, metrics: Mapping[str, float]) -> str:
    before = (read_json(source.run.folder / "fit.json") or {}).get("before") or {}
    columns = {"before training": before, "validation": metrics, "test": _tested(source)}
    columns = {name: found for name, found in columns.items() if found}
    if not columns:
        return "## Metrics\n\nThese weights were saved between validations, so they have no metrics."
    parts = sorted({name for found in columns.values() for name in found if name.startswith("perplexity/")})
    rows = [
        (name.partition("/")[2].replace("_", " "), *(_shown(found.get(name)) for found in columns.values()))
        for name in parts
    ]
    return (
        "## Metrics\n\nPerplexity per token of each part of the text, in float32. The first column is of the "
        "validation split too.\n\n" + _table(("part", *columns), rows)
    )


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _tested(source: CardSource) -> dict[str, float]:
    """The metrics of `test` for this checkpoint; empty if it was not tested."""
    result = read_json(source.run.folder / f"result{source.run.suffix_of(source.checkpoint)}.json") or {}
    return {name.removeprefix("test/"): value for name, value in (result.get("metrics") or {}).items()}


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _name(source: CardSource) -> str:
    return str(source.settings.config.run.name)


def _hub_name(name: str | None) -> str | None:
    """A model's name on the hub; None for folders: local paths are left out."""
    return name if name and re.fullmatch(_HUB_NAME, name) and not Path(name).exists() else None
