"""Folders of pretrained weights are read completely or refused by name; nothing is filled in at random."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.tokenizers import load_tokenizer
from data_modules.errors import UserError
from lit_sft.models.adapters import causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone, load_config
from lit_sft.models.pretrained import check_on_hub
from tests.conftest import MODELS, byte_tokenizer

State = dict[str, Tensor]


def http_error(kind: type[HfHubHTTPError]) -> HfHubHTTPError:
    """An answer of the hub that is an error."""
    return kind("refused", response=Mock())


WEIGHT = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each shape, and one of a Llama in shards."""
    parent = tmp_path_factory.mktemp("models")
    for name in MODELS:
        model = causal_lm(build_backbone(BackboneSettings(config=MODELS[name]), byte_tokenizer()))
        model.save_pretrained(parent / name)
    model.save_pretrained(parent / "shards", max_shard_size="20KB")
    return parent


def changed(
    folders: Path, folder: Path, name: str, change: Callable[[State], State] | None = None, **config: Any
) -> Path:
    """A copy of a folder with other weights or settings."""
    shutil.copytree(folders / name, folder)
    if change is not None:
        save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    settings = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def load(folder: Path, tokenizer: PreTrainedTokenizerFast) -> State:
    state: State = build_backbone(BackboneSettings(pretrained=str(folder)), tokenizer).state_dict()
    return state


def refuse(folder: Path, tokenizer: PreTrainedTokenizerFast, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(folder, tokenizer)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llama", lambda w: {n: t for n, t in w.items() if ".1." not in n}, r"9 missing \(model\.layers\.1\..* and 6"),
        (
            "llama",
            lambda w: {n: t for n, t in w.items() if n != "lm_head.weight"},
            r"1 missing \(lm_head\.weight\).*set tie_word_embeddings to true",
        ),
        ("llama", lambda w: w | {"x.weight": torch.ones(2)}, r"1 that the model does not have \(x\.weight\)"),
        (
            "llama",
            lambda w: w | {"model.norm.weight": torch.ones(31)},
            r"1 of the wrong shape \(model\.norm\.weight: \(31,\) in the file, \(32,\) in config\.json\)",
        ),
        ("qwen2", lambda w: {n: t for n, t in w.items() if "embed" not in n}, r"missing \(lm_head\.weight, model\.emb"),
        ("llama", lambda w: w | {WEIGHT: w[WEIGHT].to(torch.int8)}, rf"{WEIGHT} has dtype I8; expected floats"),
        ("llama", lambda w: w | {WEIGHT: w[WEIGHT].to(torch.float8_e4m3fn)}, rf"{WEIGHT} has dtype F8_E4M3"),
        (
            "gpt2",
            lambda w: w | {"transformer.ln_f.bias": torch.ones(32, dtype=torch.int32)},
            r"ln_f\.bias has dtype I32",
        ),
        ("llama", lambda w: w | {"model.norm.weight": torch.full((32,), torch.nan)}, r"model\.norm\.weight has 32 NaN"),
        (
            "llama",
            lambda w: w | {WEIGHT: w[WEIGHT].fill_diagonal_(torch.inf)},
            rf"{WEIGHT} has 32 NaN or infinite weights",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    folders: Path,
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    name: str,
    change: Callable[[State], State],
    message: str,
) -> None:
    refuse(changed(folders, tmp_path / "m", name, change), tokenizer, message)


def test_large_finite_weights_are_not_mistaken_for_infinite(
    folders: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    folder = changed(folders, tmp_path / "m", "llama", lambda w: w | {WEIGHT: torch.full_like(w[WEIGHT], 3e38)})
    assert load(folder, tokenizer)[WEIGHT].isfinite().all()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gpt2", lambda w: {n.removeprefix("transformer."): t for n, t in w.items()}),
        ("llama", lambda w: {n.removeprefix("model."): t for n, t in w.items()}),
        ("gpt2", lambda w: w | {"lm_head.weight": w["transformer.wte.weight"].clone()}),
        ("qwen2", lambda w: {n.replace("model.embed_tokens", "lm_head"): t for n, t in w.items()}),
        ("llama", lambda w: w | {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(4) for n in range(2)}),
        (
            "gpt2",
            lambda w: (
                w
                | {f"transformer.h.{n}.attn.bias": torch.ones(1, 1, 9, 9, dtype=torch.uint8) for n in range(2)}
                | {f"transformer.h.{n}.attn.masked_bias": torch.tensor(-1e4) for n in range(2)}
            ),
        ),
        ("llama", lambda w: {n: t.to(torch.float64) for n, t in w.items()}),
    ],
    ids=["no prefix", "no prefix", "tied head saved too", "tied head only", "inv_freq", "masks of GPT-2", "float64"],
)
def test_files_written_by_older_versions_are_read(
    folders: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, name: str, change: Callable[[State], State]
) -> None:
    expected, found = load(folders / name, tokenizer), load(changed(folders, tmp_path / "m", name, change), tokenizer)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_head_that_differs_from_its_tied_embedding_is_kept_and_reported(
    folders: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    head = torch.randn(259, 32, generator=torch.Generator().manual_seed(0))
    folder = changed(folders, tmp_path / "m", "gpt2", lambda w: w | {"lm_head.weight": head})
    with pytest.warns(UserWarning, match="config.json ties the head to the embedding, but the file has different"):
        model = causal_lm(build_backbone(BackboneSettings(pretrained=str(folder)), tokenizer))
    assert torch.equal(model.get_output_embeddings().weight, head)
    assert not torch.equal(model.get_input_embeddings().weight, head)
    model.save_pretrained(tmp_path / "again")
    again = load(tmp_path / "again", tokenizer)  # no warning, because the config now says it is untied
    assert torch.equal(again["lm_head.weight"], head)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_hidden_layers": 3}, "9 missing"),
        ({"num_hidden_layers": 1}, "9 that the model does not have"),
        ({"hidden_size": 64}, "21 of the wrong shape"),
        ({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}, r"6 missing \(.*k_proj\.bias"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"quantised models \(gptq\).*Use the original"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, r"models \(bitsandbytes\)"),
        ({"quantization_config": {"bits": 4}}, "quantised models"),
        (
            {"attn_implementation": "some/kernel"},
            r"names attention code on the hub \(some/kernel\), which is never run",
        ),
        ({"_attn_implementation": "some/kernel"}, "names attention code on the hub"),
        ({"quantization_config": "nonsense"}, "no readable model config"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM is not a causal"),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"]}, "bert is not a causal language model"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "t5 is not a causal language model"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification is not a causal"),
        ({"vocab_size": "many"}, r"no readable model config in this folder \(Validation error for field 'vocab_size'"),
        ({"dtype": "nope"}, "no readable model config"),
        ({"hidden_act": "nope"}, r"could not be loaded \(KeyError 'nope'\)"),
        ({"transformers_weights": "other.safetensors"}, r"other\.safetensors is missing"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_configs_that_do_not_fit_are_refused(
    folders: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, config: dict[str, Any], message: str
) -> None:
    refuse(changed(folders, tmp_path / "m", "llama", **config), tokenizer, message)


def test_an_encoder_with_random_weights_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--model\.backbone\.config: bert is not a causal language model"):
        load_config(BackboneSettings(config={"model_type": "bert"}))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def forget_a_shard(folder: Path) -> None:
    rewrite(folder, lambda i: i | {"weight_map": {n: s for n, s in i["weight_map"].items() if "00002-" not in s}})


def mix(folder: Path) -> None:
    """The second shard holds the tensors of the first one too."""
    first, second = sorted(folder.glob("*.safetensors"))[:2]
    save_file(load_file(first) | load_file(second), second)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: next(f.glob("model-00002*")).unlink(), "model-00002-of-00007.safetensors is missing"),
        (
            lambda f: rewrite(f, lambda i: i | {"weight_map": i["weight_map"] | {"x": max(i["weight_map"].values())}}),
            "no shard contains x from the index",
        ),
        (forget_a_shard, r"\d missing \(model\."),
        (lambda f: rewrite(f, lambda i: {"weight_map": i["weight_map"]}), "expected a JSON object with `metadata`"),
        (lambda f: rewrite(f, lambda i: [1]), "expected a JSON object"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{"), "expected a JSON object"),
        (
            lambda f: rewrite(f, lambda i: i | {"weight_map": {n: f"../m/{s}" for n, s in i["weight_map"].items()}}),
            "expected plain file names of shards",
        ),
        (mix, r"is in both model-00001-of-00007\.safetensors and model-00002"),
        (
            lambda f: shutil.copy(f.parent / "llama.safetensors", f / "model.safetensors"),
            r"contains both model\.safetensors and model\.safetensors\.index\.json",
        ),
        (lambda f: next(f.glob("model-00002*")).write_bytes(b""), "model-00002.*cannot be read .*damaged or truncated"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "contains both a model and an adapter"),
    ],
)  # fmt: skip
def test_damaged_shards_are_refused(
    folders: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, damage: Callable[[Path], Any], message: str
) -> None:
    shutil.copy(folders / "llama" / "model.safetensors", tmp_path / "llama.safetensors")
    folder = changed(folders, tmp_path / "m", "shards")
    damage(folder)
    refuse(folder, tokenizer, message)


def test_shards_equal_the_single_file(folders: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    whole, shards = load(folders / "llama", tokenizer), load(folders / "shards", tokenizer)
    assert all(torch.equal(whole[name], shards[name]) for name in whole)


@pytest.mark.parametrize("content", ["[1]", "{", '{"max_new_tokens": "many"}', '{"eos_token_id": "abc"}'])
def test_a_damaged_generation_config_is_refused_or_changes_nothing(
    folders: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, content: str
) -> None:
    folder = changed(folders, tmp_path / "m", "llama")
    (folder / "generation_config.json").write_text(content)
    try:
        found = load(folder, tokenizer)
    except ValueError as error:
        assert "the weights could not be loaded" in str(error)  # noqa: PT017
    else:
        expected = load(folders / "llama", tokenizer)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_tokenizer_without_the_models_end_token_is_reported(
    folders: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    folder = changed(folders, tmp_path / "m", "llama", lambda w: {
        n: torch.cat([t, t])[:400] if t.shape[0] == 259 else t for n, t in w.items()
    }, vocab_size=400, eos_token_id=[256, 399])  # fmt: skip
    with pytest.warns(UserWarning, match="end token has id 399: this looks like another model's tokenizer"):
        load(folder, tokenizer)


def found_on_hub(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> list[str]:
    """Stand in for the hub; returns the names that it is asked for."""
    asked: list[str] = []

    def info(hub: HfApi, name: str, *, timeout: float) -> None:
        asked.append(name)
        if error is not None:
            raise error

    monkeypatch.setattr(HfApi, "model_info", info)
    return asked


def test_a_name_on_the_hub_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = found_on_hub(monkeypatch, None)
    check_on_hub("a/model")
    assert asked == ["a/model"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (http_error(RepositoryNotFoundError), "a/model: no such folder .*, and no such model on the hub"),
        (ConnectionError("no route to host"), r"the hub cannot be asked for a model of this name \(no route to host\)"),
    ],
)
def test_a_name_that_the_hub_does_not_know_is_refused(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_on_hub(monkeypatch, error)
    with pytest.raises(UserError, match=message):
        check_on_hub("a/model")


def test_a_hub_in_trouble_may_still_have_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    found_on_hub(monkeypatch, http_error(HfHubHTTPError))
    check_on_hub("a/model")


def test_a_model_on_this_machine_needs_no_hub(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = found_on_hub(monkeypatch, ConnectionError("no route to host"))
    check_on_hub(str(folders / "gpt2"))
    snapshot = tmp_path / "models--a--model" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    check_on_hub("a/model")
    assert asked == []


ODD: list[Any] = [None, -1, 0, 3, 1e300, "x", [], {}, [1], {"a": 1}, True, "../..", "\x00", 2**70]


@pytest.mark.filterwarnings("ignore")  # libraries may warn about odd but valid settings
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_files_with_odd_values_are_read_or_refused_in_one_line(
    folders: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    folder, draw, refused = changed(folders, tmp_path / "m", "llama"), random.Random(name), 0
    tokenizer.save_pretrained(folder)
    content = json.loads((folder / name).read_text())
    for _ in range(40):
        odd = ODD if draw.random() < 0.1 else content | {draw.choice(list(content)): draw.choice(ODD)}
        (folder / name).write_text(json.dumps(odd))
        try:
            load_tokenizer(str(folder))
            load(folder, tokenizer)
        except ValueError as error:
            refused += 1
            assert str(folder) in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > 0
