"""Rows that every trainer encodes: the bundled conversations, rows written to be difficult, and real records if the
environment variable LIT_SFT_RECORDS names a folder of them. Also a tokenizer of Qwen's kind to encode them with.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

Row = dict[str, Any]

EXAMPLES = Path(__file__).parents[2] / "examples"

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PHI = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
NANOCHAT = ("<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>")

# Source: the pattern that Qwen's tokenizers split text with
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_DIFFICULT = (
    "\nStarts with a newline.", "\n\nTwo newlines first", " A space first", ":) a colon first", "...", "好的，没问题。",
    "emoji 🙂🙂", "ends with a newline\n", "ends with spaces  ", "[[dummy", "zz", "café naïve", "x", "<|endoftext|>",
    "the marker <|im_end|> inside", "a\n\n\nb", "1. one\n2. two\n\n3. three", "\t tab first", "e\u0301 decomposed",
    "### Response:\nnot a header", "[INST] not a marker [/INST]", "{content} {{content}}", "100% of 3.14 = ?",
)  # fmt: skip


def build_tokenizer(folder: Path, *, end: str = "<|im_end|>") -> Path:
    """Train a small byte-level tokenizer that merges newlines and punctuation as Qwen's does; its eos is `end`."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    texts = [message["content"] for row in bundled_rows() for message in row["messages"]]
    fixed = ["### Instruction:\n", "\n\n### Response:\n", "assistant\n", "assistant\n\n", ":\n\n", *_DIFFICULT]
    trainer = trainers.BpeTrainer(
        vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, min_frequency=2
    )
    backend.train_from_iterator([*texts, *(text for text in fixed for _ in range(40))], trainer)
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (*SPECIAL, *PHI, *NANOCHAT)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=end, pad_token="<|endoftext|>", model_max_length=10**9
    )
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    return folder


def bundled_rows() -> list[Row]:
    """The bundled conversations, some of them with a system message."""
    lines = (EXAMPLES / "world" / "conversations.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [{"messages": json.loads(line)["messages"]} for line in lines]
    pairs = json.loads((EXAMPLES / "world" / "train.json").read_text(encoding="utf-8"))
    rows += [_pair(pair["instruction"], pair["output"], pair.get("input", "")) for pair in pairs[:150]]
    return [_with_system(row, index) for index, row in enumerate(rows)]


def difficult_rows(number: int = 120, seed: int = 0) -> list[Row]:
    """Random conversations of contents that tokenizers merge, strip or mistake for markers."""
    choose = random.Random(seed)
    rows = []
    for index in range(number):
        roles = ("user", "assistant") * choose.choice((1, 1, 2, 3, 5))
        messages = [{"role": role, "content": choose.choice(_DIFFICULT)} for role in roles]
        rows.append(_with_system({"messages": messages}, index))
    return rows


def real_rows(number: int = 150) -> list[Row]:
    """Rows of the real records, if there are any."""
    if "LIT_SFT_RECORDS" not in os.environ:
        return []
    folder, rows = Path(os.environ["LIT_SFT_RECORDS"]), []
    for name in ("alpaca_en_800.json", "alpaca_zh_700.json"):
        for pair in json.loads((folder / name).read_text(encoding="utf-8"))[:number]:
            if pair["output"].strip():
                rows.append(_pair(pair["instruction"], pair["output"], pair["input"]))
    for line in (folder / "firefly_multi_turn_22.jsonl").read_text(encoding="utf-8").splitlines():
        turns = json.loads(line)["conversation"]
        contents = [turn[name] for turn in turns for name in ("human", "assistant")]
        roles = ("user", "assistant") * len(turns)
        rows.append({"messages": [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]})
    return [_with_system(row, index) for index, row in enumerate(rows)]


def all_rows() -> list[Row]:
    """Every row."""
    return [*bundled_rows(), *difficult_rows(), *real_rows()]


def single_exchanges(rows: list[Row]) -> list[Row]:
    """The first exchange of every row, with its system message."""
    return [{**row, "messages": row["messages"][: 3 if row["messages"][0]["role"] == "system" else 2]} for row in rows]


def _pair(question: str, answer: str, context: str) -> Row:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "input": context}


def _with_system(row: Row, index: int) -> Row:
    if index % 3 or row["messages"][0]["role"] == "system":
        return row
    return {**row, "messages": [{"role": "system", "content": "Answer briefly."}, *row["messages"]]}
