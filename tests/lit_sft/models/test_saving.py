from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_modules.batching.batch import collate
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.masking import MASKS
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.adapters import LoraSettings, causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.loss import token_nll
from lit_sft.models.saving import check_checkpoint, export_model, load_weights
from lit_sft.training.module import LitCausalLM
from tests.conftest import MODELS, chat_rows
from tests.training import make_module, make_trainer, train

MakeData = Callable[..., SFTDataModule]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def data(make_data: MakeData) -> SFTDataModule:
    return make_data(chat_rows(12), val_fraction=0.3, template="plain", mask="firefly_multi_turn", batch_size=4)


def nll(model: torch.nn.Module, data: SFTDataModule) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return token_nll(model, collate(list(data.stores["val"]), mask=MASKS["whole_sequence"], score_all=True))


@pytest.mark.parametrize("name", MODELS)
def test_full_model_reloads_by_plain_transformers(name: str, data: SFTDataModule, tmp_path: Path) -> None:
    module = train(data, tmp_path, make_module(name, lr=1e-2))
    export_model(module.backbone, tmp_path / "m", data)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    torch.testing.assert_close(nll(loaded, data), nll(module.backbone, data))
    assert loaded.generation_config.eos_token_id == data.end_token_id
    assert not list((tmp_path / "m").glob("*.bin"))


# peft asks for a property that transformers has renamed
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", MODELS)
def test_adapter_reloads_by_plain_peft_and_equals_its_merged_model(
    name: str, data: SFTDataModule, tmp_path: Path
) -> None:
    # peft finds the base model by its folder
    torch.manual_seed(0)
    base = build_backbone(BackboneSettings(config=MODELS[name]), data.tokenizer)
    causal_lm(base).save_pretrained(tmp_path / "base")
    settings = BackboneSettings(pretrained=str(tmp_path / "base"), tuning="lora", lora=LoraSettings(rank=2))
    module = LitCausalLM(settings, make_module(lr=1e-2).optimizer_settings)
    train(data, tmp_path, module)
    expected = nll(module.backbone, data)
    assert not torch.allclose(expected, nll(base, data), atol=1e-3)
    export_model(module.backbone, tmp_path / "adapter", data)
    export_model(module.backbone, tmp_path / "merged", data, merge=True)
    adapter = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert isinstance(adapter, PeftModel)
    torch.testing.assert_close(nll(adapter, data), expected)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(nll(merged, data), expected, rtol=1e-4, atol=1e-5)
    sizes = [sum(f.stat().st_size for f in (tmp_path / n).glob("*.safetensors")) for n in ("adapter", "merged")]
    assert sizes[0] < sizes[1] / 2


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_lightning_checkpoint_restores_the_weights_and_holds_only_what_was_trained(
    tuning: str, data: SFTDataModule, tmp_path: Path
) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "c", filename="best")
    module = train(
        data, tmp_path, make_module(tuning=tuning, lr=1e-2), callbacks=[checkpoint], enable_checkpointing=True
    )
    state = torch.load(tmp_path / "c" / "best.ckpt", weights_only=True)["state_dict"]
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert trained <= set(state)
    if tuning == "lora":
        assert set(state) == trained
    fresh = make_module(tuning=tuning)
    torch.manual_seed(0)
    backbone = build_backbone(fresh.backbone_settings, data.tokenizer)
    load_weights(backbone, tmp_path / "c" / "best.ckpt")
    torch.testing.assert_close(nll(backbone, data), nll(module.backbone, data))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:You have requested `ensure_weight_tying`:UserWarning")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_embeddings_trained_along_with_adapters_stay_tied_and_reload(
    name: str, tied: bool, data: SFTDataModule, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    base = build_backbone(BackboneSettings(config={**MODELS[name], "tie_word_embeddings": tied}), data.tokenizer)
    causal_lm(base).save_pretrained(tmp_path / "base")
    embedding = "wte" if name == "gpt2" else "embed_tokens"
    lora = LoraSettings(rank=2, modules_to_save=[embedding])
    settings = BackboneSettings(pretrained=str(tmp_path / "base"), tuning="lora", lora=lora)
    module = LitCausalLM(settings, make_module(lr=1e-2).optimizer_settings)
    checkpoint = ModelCheckpoint(tmp_path / "c", filename="best")
    train(data, tmp_path, module, callbacks=[checkpoint], enable_checkpointing=True)
    model = causal_lm(module.backbone)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    expected = nll(module.backbone, data)
    fresh = build_backbone(settings, data.tokenizer)
    load_weights(fresh, tmp_path / "c" / "best.ckpt")
    torch.testing.assert_close(nll(fresh, data), expected)
    export_model(fresh, tmp_path / "adapter", data)
    export_model(fresh, tmp_path / "merged", data, merge=True)
    torch.testing.assert_close(nll(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter"), data), expected)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(nll(merged, data), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (make_module("qwen2"), r"25 missing \(.*layers\.0.*, .* and 23 more\); 28 unknown \(.*\.h\.0"),
        (make_module("gpt2", tuning="lora"), r"16 missing \(.*lora_A.* and 14 more\); \d+ unknown"),
        (
            LitCausalLM(BackboneSettings(config={**MODELS["gpt2"], "n_positions": 64})),
            r"1 of the wrong shape \(.*wpe\.weight: \(512, 32\) in the checkpoint, \(64, 32\) in the model\)\.",
        ),
        (LitCausalLM(BackboneSettings(config={**MODELS["gpt2"], "n_layer": 1})), r"12 unknown \(.*\.h\.1\."),
        (LitCausalLM(BackboneSettings(config={**MODELS["gpt2"], "n_layer": 3})), r"12 missing \(.*\.h\.2\."),
    ],
)
def test_checkpoint_of_another_model_is_refused_in_one_line(
    other: LitCausalLM, message: str, data: SFTDataModule, tmp_path: Path
) -> None:
    module = train(data, tmp_path, make_module(), max_steps=1)
    path = tmp_path / "best.ckpt"
    module.trainer.save_checkpoint(path)
    expected = r"best\.ckpt: the weights belong to another model: " + message
    with pytest.raises(ValueError, match=expected) as loading:
        load_weights(build_backbone(other.backbone_settings, data.tokenizer), path)
    with pytest.raises(ValueError, match=expected) as validating:
        make_trainer(tmp_path).validate(other, datamodule=data, ckpt_path=path, weights_only=True)
    assert "\n" not in f"{loading.value}{validating.value}"


@pytest.mark.parametrize("template", ["alpaca", "chatml", "plain"])
def test_exported_chat_template_renders_the_prompts_that_were_trained(
    template: str, make_data: MakeData, tmp_path: Path
) -> None:
    # a tokenizer that merges, so that borders of segments could show
    data = make_data(chat_rows(6), template=template, tokenizer=str(ROOT / "examples" / "tokenizer"))
    backbone = build_backbone(BackboneSettings(config=MODELS["gpt2"]), data.tokenizer)
    export_model(backbone, tmp_path / "m", data)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    turns = (
        Message(Role.USER, "Hé {{ 1 }}.", context="x y"),
        Message(Role.ASSISTANT, " b"),
        Message(Role.USER, "c'\"\\"),
    )
    for start in ((), (Message(Role.SYSTEM, "s"),)):
        conversation = Conversation((*start, *turns), "f:1")
        (example,) = data.encoder.encode(conversation)
        messages = [
            {"role": turn.role.value, "content": turn.content, "input": turn.context} for turn in conversation.turns
        ]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert ids == example.input_ids.tolist()
        full = Conversation((*conversation.turns, Message(Role.ASSISTANT, "d")), "f:1")
        messages.append({"role": "assistant", "content": "d"})
        ids = tokenizer.apply_chat_template(messages, return_dict=False)
        assert ids == data.encoder.encode(full)[0].input_ids.tolist()


@pytest.mark.parametrize(("is_named", "begin"), [(True, "--ckpt_path "), (False, "")])
def test_error_names_ckpt_path_only_if_the_user_passed_it(tmp_path: Path, is_named: bool, begin: str) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match=rf"^{begin}{re.escape(str(path))}: damaged, truncated"):
        check_checkpoint(str(path), is_named=is_named, to_train=True)
    torch.save({"state_dict": {}, "global_step": 1, "pytorch-lightning_version": "2"}, path)
    with pytest.raises(ValueError, match=rf"^{begin}{re.escape(str(path))}: contains only weights"):
        check_checkpoint(str(path), is_named=is_named, to_train=True)
    check_checkpoint(str(path), is_named=is_named, to_train=False)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match=rf"^{begin}{re.escape(str(path))}: not a checkpoint of a run"):
        check_checkpoint(str(path), is_named=is_named, to_train=False)
