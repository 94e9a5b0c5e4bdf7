"""Tasks of lm-eval, run on a model in memory."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from data_modules.errors import UserError
from lit_sft.evaluation.harness_code import check_tasks, is_allowed, plain_templates
from lit_sft.evaluation.scores import Metrics, Scored, Skipped
from lit_sft.evaluation.suite import HarnessSet
from lit_sft.models.adapters import causal_lm
from lit_sft.models.attention import ordinary_attention
from lit_sft.models.generation import undisturbed
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.quantization import dequantized_once


def score_task(
    model: LoadedModel, settings: HarnessSet, skipped: Skipped, *, allow_code: Sequence[str] = ()
) -> Iterator[Scored]:
    """Score a task with lm-eval's own metrics, such as `acc` and `acc_norm`.

    Args:
        model: The model.
        settings: The task.
        skipped: Unused: lm-eval skips nothing.
        allow_code: Folders of tasks whose code may run.

    Raises:
        UserError: If lm-eval is not installed, the task does not exist, or it would run code that is not allowed.
    """
    is_plain = settings.include is not None and not is_allowed(settings.include, allow_code)
    if settings.include is not None:
        check_tasks(settings.include, allow_code)
    try:
        from lm_eval import evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise UserError("lm-eval is not installed; `pip install 'lit_sft[eval]'`.") from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(include_path=settings.include, include_defaults=settings.include is None)
    if settings.task not in manager.all_tasks:
        place = settings.include or "lm-eval"
        raise UserError(f"task {settings.task!r}: no such task in {place}.")
    backbone = causal_lm(model.backbone)
    templates = plain_templates() if is_plain else contextlib.nullcontext()
    with (
        templates,
        undisturbed(model.backbone),
        ordinary_attention(backbone),
        dequantized_once(backbone),
        contextlib.redirect_stdout(None),
    ):
        tasks = manager.load(settings.task)
        for task in tasks["tasks"].values():
            if settings.shots is not None:
                task.set_config(key="num_fewshot", value=settings.shots)
        harnessed = HFLM(
            pretrained=model.backbone,
            tokenizer=copy.deepcopy(model.tokenizer),  # lm-eval adds a pad token
            softmax_dtype="float32",  # bfloat16 probabilities tie, and ties flip answers
            batch_size=16,
            max_length=model.context_length,
        )
        found = evaluate(lm=harnessed, task_dict=tasks, limit=settings.rows, bootstrap_iters=0, log_samples=True)
    for task, samples in found["samples"].items():
        yield from _scored(task, samples, is_part=len(found["samples"]) > 1)


def harness_version() -> str:
    """Version of lm-eval, which scores depend on; empty if it is not installed."""
    try:
        return version("lm-eval")
    except PackageNotFoundError:
        return ""


def _scored(task: str, samples: list[dict[str, Any]], *, is_part: bool) -> Iterator[Scored]:
    """One item per document; lm-eval gives a sample for each document and filter."""
    found: dict[str, Scored] = {}
    for sample in samples:
        item = f"{task}:{sample['doc_id']}"
        asked = str(sample["arguments"][0][0])  # the text before the first option
        details = {"question": asked, "right": str(sample["target"])}
        known = found.setdefault(item, Scored(item, {}, task if is_part else "", details))
        known.metrics.update(_metrics(sample))
    yield from found.values()


def _metrics(sample: dict[str, Any]) -> Metrics:
    filtered = "" if sample["filter"] == "none" else f"/{sample['filter']}"
    values = {f"{name}{filtered}": sample[name] for name in sample["metrics"]}
    return {name: (float(value), 1.0) for name, value in values.items() if isinstance(value, (bool, int, float))}
