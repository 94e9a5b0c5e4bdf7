"""llama.cpp on a GGUF file against transformers on the exported folder: token ids, prompts, greedy answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from data_modules.encoding.tokenizers import load_tokenizer
from data_modules.sft_data_module import SFTDataModule
from lit_sft.gguf.vocabulary import vocabulary_of
from lit_sft.gguf.writing import GGUFType, export_gguf
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.saving import export_model, exported_tokenizer
from tests.conftest import MODELS, chat_rows
from tests.lit_sft.gguf.llama_cpp import LlamaCpp, differences
from tests.lit_sft.gguf.tokenizers import small_tokenizer, tricky_texts

MakeData = Callable[..., SFTDataModule]

BUNDLED = str(Path(__file__).parents[3] / "examples" / "tokenizer")

LLAMA, QWEN2, GPT2 = (MODELS[name] for name in ("llama", "qwen2", "gpt2"))
SCALED = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "gpt2_untied": GPT2 | {"tie_word_embeddings": False, "n_inner": 96, "layer_norm_epsilon": 1e-3},
    "qwen2": QWEN2,
    "qwen2_linear": QWEN2 | {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    "llama": LLAMA,
    "llama_biases": LLAMA | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 16},
    "llama_scaled": LLAMA | {"rope_parameters": SCALED, "rms_norm_eps": 1e-3},
    "qwen3": QWEN2 | {"model_type": "qwen3", "head_dim": 16},
}


def model(config: dict[str, Any], tokenizer: PreTrainedTokenizerBase, **settings: Any) -> nn.Module:
    """Random weights of such a size that every layer and the position of every token matter."""
    found: Any = build_backbone(BackboneSettings(config=config, **settings), tokenizer)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.3, generator=generator)
        for layer in (found.get_input_embeddings(), found.get_output_embeddings()):
            layer.weight[len(tokenizer) :] = 0  # no answer, although transformers could choose it
    return found


def both(
    backbone: nn.Module, data: SFTDataModule, folder: Path, kind: GGUFType = "f32", **options: Any
) -> tuple[Any, PreTrainedTokenizerBase, LlamaCpp]:
    """The exported folder in transformers, and the GGUF file in llama.cpp."""
    export_model(backbone, folder / "model", data)
    export_gguf(backbone, folder / "gguf", data, kind)
    loaded = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    return loaded, tokenizer, LlamaCpp(folder / "gguf" / "model.gguf", 512, **options)


def farthest(expected: Any, ids: list[int], server: LlamaCpp) -> float:
    """The largest difference among the log-probabilities of llama.cpp's 20 most likely tokens after a prompt."""
    reply = server.post("/completion", prompt=ids, n_predict=1, temperature=0, n_probs=20, cache_prompt=False)
    with torch.no_grad():
        logprobs = expected(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    found = {top["id"]: top["logprob"] for top in reply["completion_probabilities"][0]["top_logprobs"]}
    assert len(found) == 20
    return max(abs(value - float(logprobs[index])) for index, value in found.items())


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_answers_of_each_architecture_are_those_of_transformers(
    shape: str, make_data: MakeData, tmp_path: Path
) -> None:
    data = make_data(chat_rows(2), tokenizer=load_tokenizer(BUNDLED))
    expected, tokenizer, server = both(model(SHAPES[shape], data.tokenizer), data, tmp_path)
    texts = ["Where was Rowan born?", "你好，世界", "🙂 one two three four five six seven eight nine ten"]
    prompts = []
    for text in texts:
        messages = [{"role": "user", "content": text}]
        prompts.append(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
        assert server.ids(server.prompt(messages)) == prompts[-1]
    assert differences(expected, prompts, server, 12) == []
    assert len({tuple(server.greedy(ids, 12)) for ids in prompts}) > 1
    assert farthest(expected, prompts[0], server) < 1e-3


def test_padded_vocabularies_are_cut_to_the_tokens(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(chat_rows(2), tokenizer=load_tokenizer(BUNDLED))
    backbone = model(SHAPES["gpt2_untied"], data.tokenizer, pad_vocab_to_multiple_of=1000)
    assert backbone.get_input_embeddings().weight.shape[0] == 2000  # type: ignore[operator]
    expected, tokenizer, server = both(backbone, data, tmp_path)
    assert differences(expected, [tokenizer("Rowan and").input_ids, [5, 6, 7]], server, 12) == []
    assert server.post("/tokenize", content="", add_special=False)["tokens"] == []


@pytest.mark.parametrize("shape", ["gpt2_untied", "qwen2"])
def test_new_tokens_are_those_of_the_grown_tokenizer(shape: str, make_data: MakeData, tmp_path: Path) -> None:
    new: dict[str, Any] = {"add_tokens": ["Rowan of"], "add_special_tokens": ["<tool_call>"]}
    data = make_data(chat_rows(2), tokenizer=load_tokenizer(BUNDLED), **new)
    base = model(SHAPES[shape], load_tokenizer(BUNDLED))
    base.save_pretrained(tmp_path / "base")  # type: ignore[operator]
    grown = build_backbone(BackboneSettings(str(tmp_path / "base"), **new), data.tokenizer)
    expected, tokenizer, server = both(grown, data, tmp_path)
    text = "Where was Rowan of <tool_call>Rowan?<tool_call>"
    ids = tokenizer(text).input_ids
    assert [ids.count(index) for index in (len(tokenizer) - 2, len(tokenizer) - 1)] == [1, 2]
    assert server.ids(text) == ids
    assert farthest(expected, ids, server) < 1e-3


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "qwen2", "dbrx", "llama-bpe"])
def test_texts_have_the_ids_of_the_tokenizer(name: str, make_data: MakeData, tmp_path: Path) -> None:
    tokenizer = small_tokenizer(name, bos=name == "llama-bpe")
    assert vocabulary_of(tokenizer).splitting.name == name
    data = make_data(chat_rows(2), tokenizer=tokenizer)
    _, _, server = both(model(GPT2, tokenizer), data, tmp_path)
    texts = [*tricky_texts(), "<tool>x <tool>\n"]
    differing = [text for text in texts if text and server.ids(text) != tokenizer(text).input_ids]
    assert differing == []
    messages = [{"role": "user", "content": "I'm  123.\n\n你好"}, {"role": "assistant", "content": " ok"}]
    messages.append({"role": "user", "content": "x"})
    ids = data.tokenizer.apply_chat_template  # of the exported tokenizer, below
    exported = AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = exported.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids[:1] == ([0] if name == "llama-bpe" else ids[:1])
    prompted = server.ids(server.prompt(messages))
    assert prompted == ids


def test_bundled_tokenizer_has_its_ids(make_data: MakeData, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(BUNDLED)
    data = make_data(chat_rows(2), tokenizer=tokenizer)
    remarks = export_gguf(model(GPT2, tokenizer), tmp_path / "g", data, "f32")
    assert remarks == ["llama.cpp splits 's after a full-width sign differently"]
    server = LlamaCpp(tmp_path / "g" / "model.gguf", 64)
    differing = [text for text in tricky_texts() if text and server.ids(text) != tokenizer(text).input_ids]
    assert all("，'s" in text or "。's" in text for text in differing)
    assert server.ids("。's") != tokenizer("。's").input_ids  # as the remark says
    assert len(differing) < 10


@pytest.mark.parametrize(("kind", "tolerance"), [("f16", 0.03), ("q8_0", 0.3)])
def test_probabilities_of_rounded_weights_are_near(
    kind: GGUFType, tolerance: float, make_data: MakeData, tmp_path: Path
) -> None:
    data = make_data(chat_rows(2), tokenizer=load_tokenizer(BUNDLED))
    for shape in ("gpt2", "qwen2", "llama"):
        expected, tokenizer, server = both(model(SHAPES[shape], data.tokenizer), data, tmp_path, kind, is_full=False)
        ids = tokenizer("Rowan was born in").input_ids
        assert farthest(expected, ids, server) < tolerance


ROUNDS: dict[str, list[dict[str, Any]]] = {
    "user": [{"role": "user", "content": "Hi {{ 1 }} é 你\n\n"}],
    "system": [
        {"role": "system", "content": 'Be "brief".\n'}, {"role": "user", "content": "a"},
        {"role": "assistant", "content": " b"}, {"role": "user", "content": "c"},
    ],
    "thinking": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning_content": "hm"},
        {"role": "user", "content": "c"},
    ],
}  # fmt: skip

CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": "1"}'}}
CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "r"},
]
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}},
}


@pytest.mark.parametrize("template", ["chatml", "alpaca", "plain"])
def test_chats_are_rendered_as_by_transformers(template: str, make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(chat_rows(2), tokenizer=load_tokenizer(BUNDLED), template=template)
    export_gguf(model(GPT2, data.tokenizer), tmp_path / "g", data, "f32")
    server, tokenizer = LlamaCpp(tmp_path / "g" / "model.gguf", 64), exported_tokenizer(data)
    for messages in ROUNDS.values():
        expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert server.prompt(messages) == expected
    if template == "chatml":
        options: dict[str, Any] = {"tools": [TOOL]}
        expected = tokenizer.apply_chat_template(CALLED, add_generation_prompt=True, tokenize=False, **options)
        assert server.post("/apply-template", messages=CALLED, **options)["prompt"] == expected


REAL = [
    ("gpt2-tokenizer", GPT2, "alpaca"),
    ("qwen2.5-tokenizer", QWEN2, "chatml"),
    ("smollm2-135m", LLAMA, "tokenizer"),
]


@pytest.mark.assets
@pytest.mark.skipif("LIT_SFT_ASSETS" not in os.environ, reason="LIT_SFT_ASSETS is not set to a folder of real models")
@pytest.mark.parametrize(("name", "config", "template"), REAL)
def test_real_tokenizers_have_their_ids(
    name: str, config: dict[str, Any], template: str, make_data: MakeData, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(str(Path(os.environ["LIT_SFT_ASSETS"]) / name))
    data = make_data(chat_rows(2), tokenizer=tokenizer, template=template)
    _, exported, server = both(model(config, tokenizer), data, tmp_path)
    differing = [text for text in tricky_texts() if text and server.ids(text) != tokenizer(text).input_ids]
    assert differing == []
    messages = [{"role": "user", "content": "I'm  123.\n\n你好 🙂"}]
    ids = exported.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert server.ids(server.prompt(messages)) == ids


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.skipif("LIT_SFT_ASSETS" not in os.environ, reason="LIT_SFT_ASSETS is not set to a folder of real models")
@pytest.mark.skipif("LIT_SFT_RECORDS" not in os.environ, reason="LIT_SFT_RECORDS is not set to a folder of records")
@pytest.mark.parametrize(("kind", "widest"), [("f32", 0.0), ("f16", 0.1)])
def test_fifty_greedy_answers_of_a_real_model_are_those_of_transformers(
    kind: GGUFType, widest: float, make_data: MakeData, tmp_path: Path
) -> None:
    source = Path(os.environ["LIT_SFT_ASSETS"]) / "smollm2-135m"
    tokenizer = load_tokenizer(str(source))
    data = make_data(chat_rows(2), tokenizer=tokenizer, template="tokenizer")
    backbone = build_backbone(BackboneSettings(pretrained=str(source)), tokenizer)
    # llama.cpp's own default keeps keys and values in float16
    expected, exported, server = both(backbone, data, tmp_path, kind, is_full=kind == "f32")
    prompts = []
    for text in fifty_questions(Path(os.environ["LIT_SFT_RECORDS"])):
        messages = [{"role": "user", "content": text}]
        prompts.append(exported.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
        assert server.ids(server.prompt(messages)) == prompts[-1]
    found = differences(expected, prompts, server, 32)
    for difference in found:
        print(difference, [tokenizer.decode([i]) for i in (difference.expected, difference.found)])
    assert all(difference.gap <= widest for difference in found)
    assert len(found) <= 50 * widest


def fifty_questions(records: Path) -> list[str]:
    """Questions in English and Chinese, and with emoji."""
    rows = json.loads((records / "alpaca_en_800.json").read_text())[:25]
    rows += json.loads((records / "alpaca_zh_700.json").read_text())[:20]
    texts = [f"{row['instruction']}\n{row['input']}".strip()[:400] for row in rows]
    return [
        *texts,
        "😀😃 What do these mean? 🤔",
        "Write a haiku: 🌧️ 🌈.",
        "用一句话解释重力。🍎",
        "👩\u200d👩\u200d👧?",
        "Say hi 👋🏽 in French",
    ]
