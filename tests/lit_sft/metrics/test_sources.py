"""Metrics by source of a mixture equal those of the source alone; resuming a mixture equals an uninterrupted run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from data_modules.batching.batch import collate
from data_modules.rendering.masking import MASKS
from data_modules.sft_data_module import SFTDataModule
from lit_sft.metrics.sources import SourceMetrics
from tests.conftest import alpaca_rows, chat_rows
from tests.lit_sft.training.test_resuming import Diary, assert_same_end, run
from tests.training import make_module, make_trainer

Make = Callable[..., SFTDataModule]

pytestmark = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")


@pytest.fixture
def make(tokenizer: PreTrainedTokenizerFast, write: Callable[..., str]) -> Make:
    files = {"alpaca": write("alpaca.jsonl", alpaca_rows(40)), "chats": write("chats.jsonl", chat_rows(30))}

    def _make(of_source: dict[str, dict[str, Any]], **settings: Any) -> SFTDataModule:
        mix = [{"name": name, "files": files[name], **own} for name, own in of_source.items()]
        defaults = {"tokenizer": tokenizer, "template": "plain", "val_fraction": 0.3, "test_fraction": 0.0}
        data = SFTDataModule(mix=mix, **(defaults | settings))
        data.setup("fit")
        return data

    return _make


def validated(data: SFTDataModule, folder: Path) -> dict[str, float]:
    module = make_module()
    make_trainer(folder).validate(module, datamodule=data, verbose=False)
    return module.metrics["val"]


@pytest.mark.parametrize("packing", [True, False])
def test_metrics_of_a_source_equal_those_of_the_source_alone(make: Make, tmp_path: Path, packing: bool) -> None:
    sources = {"alpaca": {"repeats": 2}, "chats": {"mask": "firefly_multi_turn"}}
    whole = validated(make(sources, packing=packing), tmp_path)
    weights = {}
    for name, own in sources.items():
        data = make({name: own}, mask=own.get("mask", "output_only"))
        alone = validated(data, tmp_path)
        for metric in ("loss", "nll/answer", "perplexity/answer"):
            assert whole[f"source/{name}/{metric}"] == pytest.approx(alone[metric], rel=1e-6)
        weights[name] = sum(float(e.loss_weights(data.mask).sum()) for e in data.stores["val"])
    mean = sum(whole[f"source/{name}/loss"] * weight for name, weight in weights.items()) / sum(weights.values())
    assert whole["loss"] == pytest.approx(mean, rel=1e-6)
    assert not any(name.startswith("source/") and name.endswith("/text") for name in whole)


def test_runs_without_a_mixture_have_no_metrics_by_source(make_data: Callable[..., Any], tmp_path: Path) -> None:
    metrics = validated(make_data(alpaca_rows(20), val_fraction=0.3), tmp_path)
    assert not any(name.startswith("source/") for name in metrics)


def test_metrics_by_source_are_curves(make: Make, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.fit(make_module(), datamodule=make({"alpaca": {}, "chats": {}}))
    assert {"val/source/alpaca/loss", "val/source/chats/perplexity/answer"} <= trainer.callback_metrics.keys()


def test_an_infinite_nll_of_an_unsupervised_token_stays_out(make: Make) -> None:
    data = make({"alpaca": {}, "chats": {}})
    batch = collate([data.stores["train"][0]], mask=MASKS["output_only"], score_all=True)
    weights = batch.weights.flatten()[batch.targets]
    metric = SourceMetrics(["alpaca", "chats"])
    metric.update(torch.where(weights > 0, 1.0, math.inf), weights, batch)
    assert metric.compute() == {"source/alpaca/loss": 1.0, "source/alpaca/nll/answer": 1.0,
                                "source/alpaca/perplexity/answer": math.e}  # fmt: skip


def test_resuming_a_mixture_is_bit_identical_to_an_uninterrupted_run(make: Make, tmp_path: Path) -> None:
    sources = {"alpaca": {"repeats": 0.5}, "chats": {"repeats": 1.5, "mask": "output_only"}}

    def made(_: Any, **settings: Any) -> SFTDataModule:
        return make(sources, **settings)

    straight = Diary(tmp_path)
    end = run(made, tmp_path, straight, max_epochs=2)
    assert len({entry[4] for entry in straight.entries}) > 1
    for moment in ("batch 0.1", "batch 0.2", "end of epoch 0", "start of 1.3"):
        resumed = Diary()
        assert_same_end(end, run(made, tmp_path, resumed, max_epochs=2, fit={"ckpt_path": straight.saved[moment]}))
        assert resumed.entries == straight.entries[-len(resumed.entries) :]


def test_resuming_with_another_weight_is_refused_by_the_name_of_the_source(make: Make, tmp_path: Path) -> None:
    diary = Diary(tmp_path)

    def made(weight: int) -> Callable[..., SFTDataModule]:
        return lambda _, **settings: make({"alpaca": {"weight": weight}, "chats": {"weight": 1}}, **settings)

    run(made(1), tmp_path, diary, max_epochs=1)
    with pytest.raises(ValueError, match=r"--data\.mix alpaca was .*\"weight\": 1.* and is now .*\"weight\": 3"):
        run(made(3), tmp_path, Diary(), fit={"ckpt_path": diary.saved["batch 0.1"]})


def test_a_mixture_is_a_setting_of_a_config_file(
    tmp_path: Path, write: Callable[..., str], tokenizer_folder: str
) -> None:
    from lit_sft.settings.reading import parse_settings

    files = [write("a.jsonl", alpaca_rows(30)), write("b.jsonl", chat_rows(30))]
    mix = [{"name": "a", "files": files[0], "weight": 2}, {"name": "b", "files": [files[1]], "weight": 1}]
    tiny = {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 1, "n_positions": 99}
    settings = {
        "model": {"backbone": {"config": tiny, "tokenizer": tokenizer_folder}},
        "data": {"mix": mix, "template": "plain"},
    }
    path = write("config.json", settings)
    Path(path).rename(tmp_path / "config.yaml")
    data = parse_settings(["--config", str(tmp_path / "config.yaml")]).data_module()
    assert [source.weight for source in data.mix] == [2, 1]
    other = json.dumps([{**mix[0], "weight": 5}, mix[1]])
    data = parse_settings(["--config", str(tmp_path / "config.yaml"), "--data.mix", other]).data_module()
    assert [source.weight for source in data.mix] == [5, 1]
