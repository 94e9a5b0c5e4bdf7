"""Small byte-level tokenizers that split text in each supported way."""

from __future__ import annotations

import random
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

TRICKY = [
    "Hello  world", "   three   spaces ", "a\tb\t\tc", "line\nbreak\n\n\ntwo \n three\r\n",
    "x=1;  y = 22;z=  333 4444 55555", "I'm sure they'll say it's what we'd've DON'T 'Tis rock'n'roll",
    "你好，世界！  “引号”。", "  你好 世界\n\n你 我1２3", "中英mixed文字and数字123，ok？",
    "🙂🙂 👩\u200d👩\u200d👧 👋🏽!", "é è ü ñ ß Ωmega", "…— ’s ‘t “x”",
    "<|im_start|>user\nHi<|im_end|>\n", "<|endoftext|> <|im_end|><|im_end|>",
    " leading", "trailing ", "\n", " ", "", "!!!???...", "http://a.b/c?d=e&f", "１２３ ½ ²", "　　full-width　spaces",
    "def f(x):\n    return x  # done\n", "𝒳 𠀀字", "a\u00a0b\u2003c",
]  # fmt: skip


def tricky_texts() -> list[str]:
    """Texts that tokenizers split differently: fixed ones, and 200 of random pieces."""
    chooser = random.Random(7)
    pieces = [
        "a",
        "B",
        "1",
        "23",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "'s",
        "'",
        "我",
        "，",
        "。",
        "🙂",
        ".",
        "!?",
        "é",
        "word",
        "-",
    ]
    return TRICKY + ["".join(chooser.choices(pieces, k=chooser.randint(2, 14))) for _ in range(200)]


def splitting(name: str) -> Any:
    """The pre-tokenizer that llama.cpp calls by this name."""
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if name == "gpt-2":
        return gpt2
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    pattern = QWEN if name == "qwen2" else LLAMA
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), as_bytes])


def small_tokenizer(name: str, *, bos: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of about 700 tokens, many of which contain borders of words: a wrong splitting shows.

    Args:
        name: llama.cpp's name of its splitting.
        bos: Whether every text begins with <|endoftext|>.
    """
    tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # whole texts
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=SPECIALS, show_progress=False, max_token_length=6
    )
    tokenizer.train_from_iterator([text * 2 for text in tricky_texts() if "<|" not in text], trainer)
    tokenizer.pre_tokenizer = splitting(name)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    if bos:
        from tokenizers.processors import TemplateProcessing

        tokenizer.post_processor = TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=SPECIALS[0],
        bos_token=SPECIALS[0] if bos else None,
        model_max_length=10**9,
    )
