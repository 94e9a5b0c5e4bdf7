"""Every YAML under configs/ is parsed, linked and instantiated as by `fit`, except models and data from the hub."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from data_modules.encoding.tokenizers import load_tokenizer, num_ids
from lit_sft.__main__ import main
from lit_sft.ablation.budget import arguments_of, settings_of
from lit_sft.ablation.study import read_study
from lit_sft.models.adapters import causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone, load_config
from lit_sft.settings.reading import parse_settings
from lit_sft.synthesis.checks.checks import Checks
from lit_sft.synthesis.command import read_synthesis
from lit_sft.synthesis.reading import Subjects
from lit_sft.synthesis.recipe import read_recipe
from tests.conftest import MODELS, alpaca_rows

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
OVERLAYS = [file for file in FILES if file.parent.name == "overlays"]
STUDIES = [file for file in FILES if file.parent.name == "ablation"]
SUITES = [file for file in FILES if file.parent.name == "evaluate"]  # read in tests/lit_sft/evaluation/test_suite.py
SYNTHESES = [file for file in FILES if file.parent.name == "synthesis"]
PRETRAIN = [file for file in FILES if file.parent.name == "pretrain"]
WHOLE = [file for file in FILES if file not in OVERLAYS + STUDIES + SUITES + SYNTHESES]


NUM_IDS = {"openai-community/gpt2": 50257, "HuggingFaceTB/SmolLM2-135M": 49152, "runs/from_scratch/tokenizer": 2048}
"""Ids of tokenizers on the hub, and of the one that `make from-scratch` trains."""

ASSETS = {"openai-community/gpt2": "gpt2-tokenizer", "HuggingFaceTB/SmolLM2-135M": "smollm2-135m"}


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT / "configs"))


def test_number_of_configs() -> None:
    assert (len(WHOLE), len(OVERLAYS), len(STUDIES), len(SUITES), len(SYNTHESES)) == (18, 6, 21, 7, 6)


@pytest.mark.parametrize("file", SYNTHESES, ids=name_of)
def test_every_synthesis_is_parsed_and_its_recipe_and_checks_read(file: Path) -> None:
    settings = read_synthesis(["--config", str(file)])
    recipe = read_recipe(settings.recipe).with_limits(settings.limits)
    Subjects(settings, recipe)
    Checks.from_settings(recipe.checks if settings.checks is None else settings.checks)


@pytest.mark.parametrize("file", STUDIES, ids=name_of)
def test_every_arm_of_a_study_is_parsed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    study = read_study(file)
    for arm in study.all_arms():
        settings = parse_settings(arguments_of(study, settings_of(study, arm, 0)))
        assert settings.config.seed_everything == 0


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_first_line_says_what_it_shows(file: Path) -> None:
    assert file.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("file", PRETRAIN, ids=name_of)
def test_first_line_of_a_pretraining_config_counts_the_weights(file: Path) -> None:
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))["model"]["backbone"]
    config = load_config(BackboneSettings(config=settings["config"]))
    multiple = settings.get("pad_vocab_to_multiple_of", 1)
    config.vocab_size = -(-NUM_IDS[settings["tokenizer"]] // multiple) * multiple
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert f"{count:,} weights" in file.read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.assets
@pytest.mark.skipif("LIT_SFT_ASSETS" not in os.environ, reason="LIT_SFT_ASSETS is not set to a folder of real models")
@pytest.mark.parametrize("name", ASSETS)
def test_real_tokenizers_have_as_many_ids(name: str) -> None:
    assert num_ids(load_tokenizer(str(Path(os.environ["LIT_SFT_ASSETS"]) / ASSETS[name]))) == NUM_IDS[name]


@pytest.fixture
def offline(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, write: Callable[..., str]
) -> Callable[[Path], list[str]]:
    """Options that replace hub models and data by a tiny model of the same architecture and a few rows."""

    def _options(file: Path) -> list[str]:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        if file in PRETRAIN:
            own = settings["model"]["backbone"]["config"]
            context = {name: own[name] for name in ("n_positions", "max_position_embeddings") if name in own}
            tokenizer.save_pretrained(tmp_path / "tokenizer")
            rows = [{"text": f"Row {n} of the text. " * 20} for n in range(30)]
            return [
                "--model.backbone.config", json.dumps({**MODELS[own["model_type"]], **context}),
                "--model.backbone.tokenizer", str(tmp_path / "tokenizer"),
                "--model.backbone.compile", "false",  # see test_backbone
                "--data.train", write("texts.jsonl", rows), "--data.val", "null", "--data.test", "null",
                "--data.cleaning", "null",  # which would drop these rows
            ]  # fmt: skip
        pretrained = settings["model"]["backbone"].get("pretrained")
        if pretrained is None:
            return []
        config = MODELS["gpt2" if "gpt2" in pretrained else "qwen2"]
        context = "n_positions" if "gpt2" in pretrained else "max_position_embeddings"
        model = build_backbone(BackboneSettings(config={**config, context: 1024}), tokenizer)
        causal_lm(model).save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        return [
            "--model.backbone.pretrained",
            str(tmp_path / "model"),
            "--data.train",
            write("r.json", alpaca_rows(30)),
            *("--data.val", "null", "--data.test", "null"),
        ]

    return _options


@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=lambda file: file.stem if file else "alone")
@pytest.mark.parametrize("file", WHOLE, ids=name_of)
def test_config_is_instantiated(
    file: Path,
    overlay: Path | None,
    offline: Callable[[Path], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(ROOT)
    overlays = ["--config", str(overlay)] if overlay else []
    settings = parse_settings(["--config", str(file), *overlays, *offline(file)], reads_trainer_classes=True)
    made = settings.instantiated()
    trainer: dict[str, Any] = {**made.trainer, "logger": False, "default_root_dir": str(tmp_path)}
    if trainer["precision"] == "16-mixed":
        trainer["precision"] = "32-true"  # refused on a CPU, see test_precision
    if trainer["strategy"] == "deepspeed_stage_2" and not find_spec("deepspeed"):
        with pytest.raises(MisconfigurationException, match="pip install -U deepspeed"):
            Trainer(**trainer)
        trainer["strategy"] = "auto"
    Trainer(**{**trainer, "accelerator": "cpu"})
    made.data.prepare_data()
    made.data.setup("fit")
    assert len(made.data.stores["train"]) > 0
    build_backbone(made.model.backbone_settings, made.data.tokenizer)


@pytest.mark.parametrize("start", [None, "gaussian", "orthogonal", "pissa", "pissa_niter_16"])
def test_every_start_of_lora_trains_at_the_same_rank(
    start: str | None, write: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    study = read_study("configs/ablation/lora_starts.yaml")
    (arm,) = [each for each in study.all_arms() if settings_of(study, each, 0)["model.backbone.lora.init"] == start]
    tokenizer = load_tokenizer("examples/tokenizer")
    model = causal_lm(build_backbone(BackboneSettings(config=MODELS["gpt2"]), tokenizer))
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.save_pretrained(tmp_path / "model")
    small = {
        "model.backbone.pretrained": str(tmp_path / "model"), "data.train": write("r.json", alpaca_rows(30)),
        "data.val": "null", "data.test": "null", "trainer.max_steps": "1", "trainer.enable_progress_bar": "false",
        "trainer.accelerator": "cpu", "run.root": str(tmp_path / "runs"), "run.name": "small",
    }  # fmt: skip
    options = [part for name, value in small.items() for part in (f"--{name}", value)]
    assert main(["fit", *arguments_of(study, settings_of(study, arm, 0)), *options]) == 0
    adapter = json.loads((tmp_path / "runs/small/version_0/model/adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["r"] == (
        16 if start and start.startswith("pissa") else 8
    )  # an export subtracts what was taken from the base


def test_cleaning_study_has_the_rules_of_its_base() -> None:
    study, base = (
        yaml.safe_load((ROOT / "configs" / name).read_text(encoding="utf-8"))
        for name in ("ablation/cleaning.yaml", "pretrain/world.yaml")
    )
    arms, rules = study["arms"], base["data"]["cleaning"]
    assert arms["rules and no copies"] == {}
    assert arms["rules"]["data.cleaning"] == rules[:-2]
    assert [each if isinstance(each, str) else next(iter(each)) for each in rules[-2:]] == [
        "exact_duplicates",
        "near_duplicates",
    ]
