"""A tokenizer whose ids are byte values, so that expected ids are readable, and a model of a few thousand weights."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported: tests have no network
os.environ["HF_HUB_CACHE"] = os.path.join(os.path.dirname(__file__), "no_cache")  # nor previously downloaded files

import json
import signal
import sys

_SHELL = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "PYTHONIOENCODING")
_JOB = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
if "lightning" not in sys.modules:  # Lightning reads some at import; test subprocesses import this file later
    for _name in [*os.environ]:  # variables set by the terminal, cluster or user would affect the tests
        if _name in (*_SHELL, *_JOB) or _name.startswith(("SLURM_", "LIT_SFT_DEBUG", "LIT_SFT_RUN")):
            del os.environ[_name]

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.strings import StringEncoder
from data_modules.sft_data_module import SFTDataModule
from data_modules.text_data_module import TextDataModule

hypothesis.settings.register_profile("same cases every time", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same cases every time")

END, IM_START, IM_END = 256, 257, 258

MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 512},
    "qwen2": {
        "model_type": "qwen2", "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    },
    "llama": {
        "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    },
}  # fmt: skip


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # shells start background jobs with SIGINT ignored, and child processes inherit this
    signal.signal(signal.SIGINT, signal.default_int_handler)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, whose id is the byte's value; then <|endoftext|> 256, <|im_start|> 257, <|im_end|> 258."""
    keep = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    shown = {byte: chr(byte) for byte in keep}
    for byte in range(256):
        shown.setdefault(byte, chr(256 + len(shown) - len(keep)))
    tokenizer = Tokenizer(models.BPE(vocab={char: byte for byte, char in shown.items()}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=specials[0], model_max_length=10**9)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture(autouse=True)
def _tokenizer_stays_as_it_is(tokenizer: PreTrainedTokenizerFast) -> Iterator[None]:
    yield
    assert tokenizer.chat_template is None, "a test changed the tokenizer that all tests share: change a copy"


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_SFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and test processes share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write rows as a .json or .jsonl file, or text verbatim; returns the path."""

    def _write(name: str, content: object) -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif name.endswith(".jsonl"):
            assert isinstance(content, list)
            path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        else:
            path.write_text(json.dumps(content, indent=1), encoding="utf-8")
        return str(path)

    return _write


@pytest.fixture
def make_data(tokenizer: PreTrainedTokenizerFast, write: Callable[..., str]) -> Callable[..., SFTDataModule]:
    """A data module on rows, encoded and set up."""

    def _make(rows: list[dict[str, Any]], **settings: Any) -> SFTDataModule:
        defaults = {"tokenizer": tokenizer, "template": "chatml", "val_fraction": 0.0, "test_fraction": 0.0}
        data = SFTDataModule(write("rows.jsonl", rows), **(defaults | settings))
        data.setup("fit")
        return data

    return _make


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of every text that is encoded."""
    lengths: list[int] = []
    batch = StringEncoder._batch

    def noted(encoder: StringEncoder, texts: list[str], **options: Any) -> Any:
        lengths.extend(map(len, texts))
        return batch(encoder, texts, **options)

    monkeypatch.setattr(StringEncoder, "_batch", noted)
    return lengths


def alpaca_rows(count: int) -> list[dict[str, str]]:
    """Rows with answers of very different lengths."""
    return [
        {"instruction": f"Count to {n}.", "input": "", "output": " ".join(map(str, range(1, n % 9 + 2)))}
        for n in range(count)
    ]


def chat_rows(count: int) -> list[dict[str, Any]]:
    """Conversations of one to three exchanges."""
    return [
        {"conversation": [{"human": f"Say {n} {i}.", "assistant": f"{n}" * (i + n % 4 + 1)} for i in range(n % 3 + 1)]}
        for n in range(count)
    ]


@pytest.fixture
def make_text(tokenizer: PreTrainedTokenizerFast, write: Callable[..., str]) -> Callable[..., TextDataModule]:
    """A data module on documents, encoded and set up to fit."""

    def _make(texts: list[str], **settings: Any) -> TextDataModule:
        rows = [{"text": text} for text in texts]
        defaults = {"tokenizer": tokenizer, "val_fraction": 0.0, "test_fraction": 0.0, "block_size": 32}
        data = TextDataModule(write("texts.jsonl", rows), **(defaults | settings))
        data.prepare_data()
        data.setup("fit")
        return data

    return _make


def articles(count: int) -> list[str]:
    """Documents of very different lengths, of short sentences."""
    return [" ".join(f"Sheep {n}.{part} sleeps." for part in range(n % 7 + 1)) for n in range(count)]
