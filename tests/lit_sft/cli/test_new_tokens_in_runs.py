"""The commands on a run with new tokens: trained, resumed, exported in every form, and answering alike."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from lit_sft.training.module import LitCausalLM
from tests.conftest import MODELS, byte_tokenizer
from tests.lit_sft.cli.conftest import Write, run

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]

MARKERS = ["<|im_start|>", "<|im_end|>"]


def without_markers() -> PreTrainedTokenizerFast:
    """The byte tokenizer with <|endoftext|> as its only special token."""
    settings = json.loads(byte_tokenizer().backend_tokenizer.to_str())
    settings["added_tokens"] = settings["added_tokens"][:1]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(settings)), eos_token="<|endoftext|>", model_max_length=10**9
    )


@pytest.fixture
def base(tmp_path: Path) -> str:
    """A Llama with weights so large that its answers differ."""
    torch.manual_seed(0)
    settings = MODELS["llama"] | {"vocab_size": 257, "bos_token_id": None, "eos_token_id": 256}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3) if parameter.dim() > 1 else None
    without_markers().save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


@pytest.fixture(params=["full", "lora"])
def trained(request: pytest.FixtureRequest, config: dict[str, Any], base: str, root: Path, write: Write) -> Path:
    """A run that adds the markers of its template."""
    tuning = {"tuning": request.param, "lora": {"rank": 2}}
    config["model"]["backbone"] = {"pretrained": base, "add_special_tokens": MARKERS, "add_tokens": ["Paris"], **tuning}
    config["model"] |= {"optimizer": {"lr": 1e-2}, "generation": {"max_new_tokens": 6}}
    run("fit", "--config", write("grown.yaml", yaml.safe_dump(config)))
    return root / "tiny" / "version_0"


def test_every_form_of_the_run_gives_the_same_answers(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("test", str(trained))
    run("export", str(trained), "--merge")
    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    assert tokenizer.encode("Paris<|im_start|>") == [257, 258]
    merged = AutoModelForCausalLM.from_pretrained(trained / "merged").eval()
    assert merged.config.vocab_size == 260
    rows = [json.loads(line) for line in (trained / "test_answers.jsonl").read_text().splitlines()]
    assert len({row["answer"] for row in rows}) > 1
    for row in rows:
        ids = torch.tensor([tokenizer.encode(row["prompt"])])
        made = merged.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        assert row["answer"] == tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    question = rows[0]["prompt"].removeprefix("<|im_start|>user\n").partition("<|im_end|>")[0]
    said = []
    for model in (trained, trained / "model", trained / "merged"):
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{question}\n".encode())))
        run("chat", str(model), "--temperature", "0", "--max_new_tokens", "6")
        said.append(capsys.readouterr().out)
    assert said[0].strip()
    assert said[0] == said[1] == said[2]


def test_card_names_the_new_tokens_and_the_tokenizer_has_a_chat_template(trained: Path) -> None:
    card = (trained / "model" / "README.md").read_text()
    assert "| new tokens | Paris, &#60;&#124;im&#95;start" in card
    assert AutoTokenizer.from_pretrained(trained / "model").chat_template


def test_checkpoint_opens_by_itself_and_resumes(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = trained / "checkpoints" / "last.ckpt"
    module = LitCausalLM.load_from_checkpoint(checkpoint)
    assert module.backbone_settings.new_tokens == ["Paris", *MARKERS]
    run("fit", "--resume", str(trained), "--trainer.max_steps", "3")
    assert "3 new tokens from id 257 on: Paris, <|im_start|>, <|im_end|>" in capsys.readouterr().out
    with pytest.raises(AssertionError):
        run("fit", "--resume", str(trained), "--trainer.max_steps", "4", "--model.backbone.add_tokens", "[London]")
    assert '--model.backbone.add_tokens was ["Paris"] and is now ["London"]' in capsys.readouterr().err
