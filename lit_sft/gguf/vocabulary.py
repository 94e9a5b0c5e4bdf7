"""The tokenizer of a GGUF file: byte-level BPE, as llama.cpp reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gguf import GGUFWriter, TokenType
from transformers import PreTrainedTokenizerBase

from data_modules.encoding.tokenizers import bytes_of_tokens, num_ids
from data_modules.errors import UserError
from data_modules.wording import listed
from lit_sft.gguf.splitting import Splitting, splitting_of

SUPPORTED = "byte-level BPE that splits text as GPT-2, Qwen2, Llama 3 or SmolLM do"


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a file and how text is split into them.

    Attributes:
        tokens: By id. Normal tokens are written as in the tokenizer's file, a letter for each byte; others as they are.
        types: Of each token.
        merges: Pairs of tokens, the first to be merged first.
        splitting: How text is split before the merges.
        composes: Whether the tokenizer composes letters and accents (NFC), which llama.cpp does not.
    """

    tokens: list[str]
    types: list[TokenType]
    merges: list[str]
    splitting: Splitting
    composes: bool

    def remarks(self) -> list[str]:
        """What llama.cpp reads differently."""
        composed = "llama.cpp does not compose letters and accents (NFC) as this tokenizer does"
        return [*filter(None, [self.splitting.remark]), *([composed] if self.composes else [])]


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """Read the vocabulary of a tokenizer.

    Raises:
        UserError: If llama.cpp could not read it, or would read other tokens.
    """
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    model, normalizer = settings["model"], settings["normalizer"]
    _check_model(model, settings)
    bytes_of = bytes_of_tokens(tokenizer)
    added = {token["id"] for token in settings["added_tokens"]}
    splitting = splitting_of(settings, (bytes_of(i) for i in model["vocab"].values() if i not in added))
    if splitting is None:
        raise _refused("llama.cpp knows no way of splitting text like this tokenizer's")
    tokens = {index: (text, TokenType.NORMAL) for text, index in model["vocab"].items()}
    for token in settings["added_tokens"]:
        kind = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
        tokens[token["id"]] = (token["content"], kind)
    unused = {index: (f"[PAD{index}]", TokenType.UNUSED) for index in range(num_ids(tokenizer)) if index not in tokens}
    texts, types = zip(*(row for _, row in sorted((tokens | unused).items())), strict=True)
    if len(set(texts)) < len(texts):
        raise _refused(f"two of its tokens are {listed(sorted({t for t in texts if texts.count(t) > 1}))}")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return Vocabulary(list(texts), list(types), merges, splitting, composes=normalizer is not None)


def write_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary, special_ids: Mapping[str, int | None]) -> None:
    """Write a vocabulary into a file's header.

    Args:
        writer: The file.
        vocabulary: What to write.
        special_ids: Ids of special tokens by llama.cpp's names: `bos`, `eos`, `eot`, `pad`. Without an id, none is
            written.
    """
    writer.add_tokenizer_model("gpt2")  # the name of byte-level BPE
    writer.add_tokenizer_pre(vocabulary.splitting.name)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    for name, index in special_ids.items():
        if index is not None:
            getattr(writer, f"add_{name}_token_id")(index)


def _check_model(model: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse tokenizers other than byte-level BPE, and settings that llama.cpp does not have."""
    decoder, normalizer = settings["decoder"] or {}, settings["normalizer"] or {}
    if model["type"] != "BPE" or decoder.get("type") != "ByteLevel":
        raise _refused(f"this is {model['type']} with the decoder {decoder.get('type')}")
    odd = [
        name
        for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
        if model.get(name)
    ]
    if odd or normalizer.get("type", "NFC") != "NFC":
        raise _refused(f"llama.cpp has no {listed(odd) or 'normaliser ' + str(normalizer.get('type'))}")
    if not model["merges"]:
        raise _refused("it has no merges")
    greedy = [t["content"] for t in settings["added_tokens"] if t["lstrip"] or t["rstrip"] or t["single_word"]]
    if greedy:
        raise _refused(f"llama.cpp does not remove white space beside {listed(greedy)}, as this tokenizer does")


def _refused(reason: str) -> UserError:
    return UserError(f"--gguf: this tokenizer cannot be written ({reason}). Supported: {SUPPORTED}.")
