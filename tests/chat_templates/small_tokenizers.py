"""Small tokenizers with the special tokens of a model family: their vocabularies are ours, their rules are real."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

Pieces = Literal["bytes", "words", "first", "always"]

_TEXTS = (
    "User: what is the answer to this question? Assistant: it is 42, and here is why: the first step is easy.",
    "You are a helpful assistant. system user assistant model tool\n\n### Response:\n\nHello world! How are you today?",
    "[INST] <<SYS>>\nhello there\n<</SYS>>\n\nWrite a story [/INST] once upon a time there was a cat </think>",
    "GPT4 Correct User: yes GPT4 Correct Assistant: no USER: one ASSISTANT: three four\n\n\n<think>\n\n</think>\n\n",
)


_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""What Llama-3 and Qwen take as words."""


def small_tokenizer(
    pieces: Pieces, *, eos: str, bos: str = "", specials: Iterable[str] = (), adds_bos: bool = False
) -> PreTrainedTokenizerFast:
    """A tokenizer trained on a few sentences.

    Args:
        pieces: `bytes` is byte-level BPE with a regular expression, as Qwen's and Llama-3's; `words` marks spaces, and
            puts a mark before each text between special tokens, as Llama-2's and Mistral's; `first` does so only
            before the first text, `always` before every one, by a pre-tokenizer.
        eos: The eos token.
        bos: The bos token; empty if there is none.
        specials: Other special tokens.
        adds_bos: Whether every text is given the bos token, except in `apply_chat_template`.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=pieces != "bytes"))
    options: dict[str, Any] = {"vocab_size": 700, "show_progress": False}
    if pieces == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(_WORDS), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        options["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.train_from_iterator(_TEXTS, trainers.BpeTrainer(**options))
    else:
        tokenizer = _like_sentencepiece(tokenizer, pieces, options)
    names = dict.fromkeys([*filter(None, (bos, eos)), *specials])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    if adds_bos:
        from tokenizers.processors import TemplateProcessing

        template = {"single": f"{bos}:0 $A:0", "special_tokens": [(bos, tokenizer.token_to_id(bos))]}
        tokenizer.post_processor = TemplateProcessing(**template)
    given = {"bos_token": bos} if bos else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, model_max_length=10**9, **given)


def _like_sentencepiece(tokenizer: Tokenizer, pieces: Pieces, options: dict[str, Any]) -> Tokenizer:
    """SentencePiece learns no piece with a space inside, but it does not split texts at spaces when it encodes."""
    options["special_tokens"] = [f"<0x{byte:02X}>" for byte in range(256)]
    options["initial_alphabet"] = [chr(code) for code in range(33, 127)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Metaspace(prepend_scheme="always", split=True)]
    )
    tokenizer.train_from_iterator(_TEXTS, trainers.BpeTrainer(**options))
    saved = json.loads(tokenizer.to_str())
    saved["added_tokens"] = []  # the trainer takes the bytes as special tokens; those would be found in texts
    trained: Tokenizer = Tokenizer.from_str(json.dumps(saved))
    if pieces == "words":
        trained.pre_tokenizer = None  # type: ignore[assignment]
        trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=pieces, split=False)
    trained.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return trained
