"""Tokenizers to compare: opened by folder, hub name or run, with what each entry stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase

from data_modules.encoding.tokenizers import bytes_of_tokens, load_tokenizer, special_ids
from data_modules.errors import UserError
from lit_sft.files import read_json
from lit_sft.runs.model_paths import check_model_paths
from lit_sft.runs.opening import settings_unnamed
from lit_sft.settings.reading import read_settings


@dataclass(frozen=True)
class Compared:
    """A tokenizer to compare. Special tokens in text are encoded as ordinary text, and none are added.

    Attributes:
        name: Its name in tables.
        source: What the user named.
        num_entries: Size of its vocabulary, with special tokens.
        special: Ids of its special tokens.
        entries: The bytes that each id stands for; empty for ids without an entry.
        is_single_byte: Whether an id stands for one byte of a longer character, (ids,).
        unknown_id: The id of text that it cannot represent. None: it has none.
    """

    name: str
    source: str
    num_entries: int
    special: frozenset[int]
    entries: list[bytes]
    is_single_byte: npt.NDArray[np.bool_]
    unknown_id: int | None
    _backend: Tokenizer

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Encode texts, each by itself."""
        found: list[Encoding] = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return found

    def decode(self, encodings: Sequence[Encoding]) -> list[str]:
        """The texts that ids stand for."""
        ids = [encoding.ids for encoding in encodings]
        found: list[str] = self._backend.decode_batch(ids, skip_special_tokens=False)
        return found


def open_compared(names: Sequence[str]) -> list[Compared]:
    """Open tokenizers.

    Args:
        names: Folders, hub names, or runs; `NAME=SOURCE` gives one another name.

    Raises:
        UserError: If one cannot be loaded, or two have the same name.
    """
    named = [_named(given) for given in names]
    labels = [label for label, _ in named]
    for label, source in named:
        if labels.count(label) > 1:
            raise UserError(f"{source}: two tokenizers are called {label!r}; name one of them, as in `other={source}`.")
    return [compared(_load(source), label, source) for label, source in named]


def compared(tokenizer: PreTrainedTokenizerBase, name: str, source: str = "") -> Compared:
    """A loaded tokenizer, ready to compare.

    Args:
        tokenizer: Any fast tokenizer; not changed.
        name: Its name in tables.
        source: Where it comes from.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # its settings are state, so change a copy
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    vocabulary = backend.get_vocab(with_added_tokens=True)
    entries = [b""] * (max(vocabulary.values()) + 1)
    bytes_of = bytes_of_tokens(tokenizer)
    for index in vocabulary.values():
        entries[index] = bytes_of(index)
    single = np.array([len(entry) == 1 and entry[0] >= 0x80 for entry in entries])
    unknown = tokenizer.unk_token_id if _can_fail(backend) else None
    special = frozenset(special_ids(tokenizer))
    return Compared(name, source, len(vocabulary), special, entries, single, unknown, backend)


def first_difference(text: str, returned: str) -> int:
    """Where two texts begin to differ."""
    pairs = enumerate(zip(text, returned, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(text), len(returned)))


def _can_fail(backend: Tokenizer) -> bool:
    """Whether the model has an unknown token. Some tokenizers name an unknown token that their model never uses."""
    model: Any = backend.model
    return getattr(model, "unk_token", None) is not None or type(model).__name__ in ("Unigram", "WordPiece")


def _named(given: str) -> tuple[str, str]:
    label, is_named, source = given.partition("=")
    if is_named and label and source and not Path(given).exists():
        return label, source
    path = Path(given)
    return (path.name or str(path.resolve().name)) if path.is_dir() else given, given


def _load(source: str) -> PreTrainedTokenizerBase:
    folder = Path(source)
    if (folder / "config.yaml").is_file() and not (folder / "tokenizer.json").is_file():
        settings = read_settings(folder / "config.yaml", run_config=folder / "config.yaml")
        check_model_paths(settings)
        return settings.data_module().tokenizer
    if (folder / "adapter_config.json").is_file() and not (folder / "tokenizer.json").is_file():
        base = (read_json(folder / "adapter_config.json") or {}).get("base_model_name_or_path")
        source = str(base or source)
    with settings_unnamed():
        return load_tokenizer(source)
