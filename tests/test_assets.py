"""Real tokenizers, a real model and real records, if they are available. See CONTRIBUTING.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from data_modules.encoding.encoder import Encoder
from data_modules.encoding.ledger import Ledger
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation
from data_modules.records.splits import Sources, read_conversations
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import SegmentKind
from data_modules.rendering.templates import Template, TemplateName, resolve_template
from data_modules.sft_data_module import SFTDataModule
from lit_sft.__main__ import main
from lit_sft.models.chat_template import jinja_of

K = SegmentKind
RECORDS = ("alpaca_en_800.json", "alpaca_zh_700.json", "firefly_multi_turn_22.jsonl")
TOKENIZERS = {"gpt2-tokenizer": ("alpaca", "plain"), "qwen2.5-tokenizer": ("chatml", "tokenizer", "alpaca")}
MODEL_OF = {
    "gpt2-tokenizer": "{model_type: gpt2, n_layer: 1, n_embd: 32, n_head: 2, n_positions: 1024}",
    "qwen2.5-tokenizer": "{model_type: qwen2, num_hidden_layers: 1, hidden_size: 32, intermediate_size: 64, "
    "num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 1024}",
}

pytestmark = [
    pytest.mark.assets,
    pytest.mark.skipif(
        "LIT_SFT_ASSETS" not in os.environ, reason="LIT_SFT_ASSETS is not set to a folder of real models"
    ),
    pytest.mark.skipif(
        "LIT_SFT_RECORDS" not in os.environ, reason="LIT_SFT_RECORDS is not set to a folder of real records"
    ),
]


def asset(name: str) -> str:
    return str(Path(os.environ["LIT_SFT_ASSETS"]) / name)


def records(name: str) -> str:
    return str(Path(os.environ["LIT_SFT_RECORDS"]) / name)


@pytest.mark.parametrize("file", RECORDS)
@pytest.mark.parametrize(("name", "template"), [(name, t) for name, ts in TOKENIZERS.items() for t in ts])
def test_supervised_tokens_of_real_rows_decode_to_the_answers(name: str, template: str, file: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(asset(name))
    encoder = Encoder(tokenizer, resolve_template(template, tokenizer), 10**6)  # type: ignore[arg-type]
    sources = Sources({"train": [records(file)]}, on_invalid="drop")
    conversations = list(read_conversations("train", sources, Ledger("drop")))[:200]
    assert len(conversations) == min(200, 22 if "22" in file else 200)
    end = str(encoder.template.end)
    for conversation in conversations:
        (example,) = encoder.encode(conversation)
        answers = [turn.content for turn in conversation.turns if turn.role.value == "assistant"]

        def decoded(mask: str, example: Any = example) -> str:
            chosen = MASKS[mask].token_weights(example.kinds, example.turns) > 0
            return str(tokenizer.decode(example.input_ids[chosen], skip_special_tokens=False))

        def normal(text: str) -> str:  # the tokenizer's own normalisation (Qwen's composes accents)
            normalizer = tokenizer.backend_tokenizer.normalizer
            return normalizer.normalize_str(text) if normalizer else text

        assert decoded("output_only") == normal(answers[-1]) + end
        assert decoded("firefly_multi_turn") == "".join(normal(answer) + end for answer in answers)
        text = "".join(normal(s.text) for s in encoder.template.render(conversation))
        assert str(tokenizer.decode(example.input_ids, skip_special_tokens=False)) == text
        is_answer = np.isin(example.kinds, (K.ANSWER, K.FINAL_ANSWER))
        ends = is_answer & (example.input_ids == encoder.end_token_id)
        assert [int(ends[example.turns == t].sum()) for t in np.unique(example.turns[is_answer])] == [1] * len(answers)
        (prompt,) = encoder.encode(conversation.prompt())
        assert example.prompt_ids() == prompt.input_ids.tolist()


@pytest.mark.parametrize("template", ["alpaca", "plain", "chatml", "tokenizer"])
@pytest.mark.parametrize("name", [*TOKENIZERS, "smollm2-135m"])
def test_prompts_of_real_rows_have_the_ids_of_their_text_and_of_the_exported_template(
    name: str, template: TemplateName
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(asset(name))
    if name == "gpt2-tokenizer" and template in ("chatml", "tokenizer"):
        with pytest.raises(UserError):
            resolve_template(template, tokenizer)
        return
    encoder = Encoder(tokenizer, resolve_template(template, tokenizer), 10**6)
    exported, has_input = AutoTokenizer.from_pretrained(asset(name)), True
    if isinstance(encoder.template, Template):
        exported.chat_template = jinja_of(encoder.template, bos=encoder.starts_documents)
    else:
        has_input = encoder.template.has_input
    counts = Counter[str]()
    for file in ("alpaca_en_800.json", "alpaca_zh_700.json", "firefly_multi_turn_22.jsonl", "ultrachat_form_22.jsonl"):
        sources = Sources({"train": [records(file)]}, on_invalid="drop")
        for conversation in list(read_conversations("train", sources, Ledger("drop")))[:230]:
            (example,) = encoder.encode(conversation)
            for count, exchange in enumerate(conversation.exchanges()):
                prompt = conversation.with_exchanges([*conversation.exchanges()[:count], exchange[:1]])
                (alone,) = encoder.encode(prompt)
                ids = alone.input_ids.tolist()
                assert example.input_ids[: len(ids)].tolist() == ids
                text = "".join(segment.text for segment in encoder.template.render(prompt))
                given = chat_messages(prompt, has_input=has_input)
                chat = exported.apply_chat_template(given, add_generation_prompt=True, return_dict=False)
                assert chat == tokenizer(text, add_special_tokens=False).input_ids
                counts["rows"] += not count
                counts["later"] += bool(count)
                counts["first differs"] += not count and chat != ids
                counts["later differs"] += bool(count) and chat != ids
    assert counts["rows"] > 500
    assert counts["later"] > 100
    assert not counts["first differs"]
    # an answer right after "### Response:" is a string of its own, since the model generates it
    assert counts["later differs"] <= (2 if (name, template) == ("qwen2.5-tokenizer", "alpaca") else 0)


def chat_messages(conversation: Conversation, *, has_input: bool) -> list[dict[str, str]]:
    given = []
    for turn in conversation.turns:
        joined = turn.content if has_input or not turn.context else f"{turn.content}\n{turn.context}"
        given.append({"role": turn.role.value, "content": joined})
        given[-1] |= {"input": turn.context} if has_input and turn.context else {}
    return given


@pytest.mark.parametrize("name", TOKENIZERS)
def test_firefly_and_ultrachat_forms_of_real_conversations_are_encoded_alike(name: str, tmp_path: Path) -> None:
    encoded = []
    for file in ("firefly_multi_turn_22.jsonl", "ultrachat_form_22.jsonl"):
        data = SFTDataModule(
            records(file), tokenizer=asset(name), template="plain", max_length=1024, over_long="split", val_fraction=0,
            test_fraction=0, cache_dir=str(tmp_path),
        )  # fmt: skip
        data.setup("fit")
        encoded.append([(e.input_ids.tolist(), e.kinds.tolist(), e.turns.tolist()) for e in data.stores["train"]])
    assert len(encoded[0]) >= 22
    assert encoded[0] == encoded[1]


@pytest.mark.parametrize("mask", list(MASKS))
@pytest.mark.parametrize("name", TOKENIZERS)
def test_random_models_with_real_tokenizers_train_under_every_mask(
    name: str, mask: str, tmp_path: Path, write: Any
) -> None:
    config = write("c.yaml", f"model: {{backbone: {{config: {MODEL_OF[name]}, tokenizer: {asset(name)}}}}}\n")
    arguments = [
        "fit", "--config", config, "--data.train", records("alpaca_en_800.json"), "--data.mask", mask,
        "--data.template", "alpaca", "--trainer.max_steps", "3", "--trainer.accelerator", "cpu",
        "--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false", "--run.root", str(tmp_path),
        "--trainer.log_every_n_steps", "1", "--run.name", "r",
    ]  # fmt: skip
    assert main(arguments) == 0
    fit = json.loads((tmp_path / "r" / "version_0" / "fit.json").read_text())
    assert fit["last"]["loss"] < fit["before"]["loss"]


SCORE = """
import json, sys
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
folder, rows = sys.argv[1], json.load(open(sys.argv[2]))
model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
total = count = 0
for ids, start in rows:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    nll = torch.nn.functional.cross_entropy(logits[start - 1 : -1], torch.tensor(ids[start:]), reduction="none")
    total += float(nll.sum()); count += len(nll)
print(total / count)
"""


@pytest.mark.slow
def test_lora_on_a_real_model_reloads_in_a_new_process_with_the_same_held_out_loss(tmp_path: Path, write: Any) -> None:
    config = write("c.yaml", f"model: {{backbone: {{pretrained: {asset('smollm2-135m')}, tuning: lora}}, "
                             "optimizer: {lr: 2.0e-4}}\n")  # fmt: skip
    arguments = [
        "fit", "--config", config, "--data.train", records("alpaca_en_800.json"), "--data.max_length", "256",
        "--data.template", "chatml", "--data.batch_size", "4", "--trainer.max_steps", "20", "--trainer.precision",
        "32-true", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--run.root",
        str(tmp_path), "--run.name", "r",
    ]  # fmt: skip
    assert main(arguments) == 0
    folder = tmp_path / "r" / "version_0"
    fit = json.loads((folder / "fit.json").read_text())
    print({k: (fit["before"][k], fit["last"][k]) for k in ("nll/output_only", "perplexity/output_only")})
    assert fit["last"]["perplexity/output_only"] < fit["before"]["perplexity/output_only"]
    data = SFTDataModule(
        records("alpaca_en_800.json"), tokenizer=asset("smollm2-135m"), template="chatml", max_length=256
    )
    data.setup("validate")
    rows = []
    for example in data.stores["val"]:
        start = int(np.flatnonzero(example.kinds == K.FINAL_ANSWER)[0])
        stop = int(np.flatnonzero(example.kinds == K.FINAL_ANSWER)[-1]) + 1
        rows.append((example.input_ids[:stop].tolist(), start))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    command = [sys.executable, "-c", SCORE, str(folder / "model"), str(tmp_path / "rows.json")]
    scored = subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
    assert float(scored.stdout.split()[-1]) == pytest.approx(fit["last"]["nll/output_only"], abs=1e-4)
