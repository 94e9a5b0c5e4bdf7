"""Trains a byte-level BPE tokenizer on texts of any size, with the trainer of the `tokenizers` library."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from data_modules.progress import Pace, Progress, duration
from data_modules.records.counts import OnInvalid
from data_modules.records.readers import source_fingerprint
from data_modules.records.text_lines import TxtDocuments
from lit_sft.tokenization.folder import check_target, write_folder
from lit_sft.tokenization.memory import DEFAULT_MEMORY, within_memory
from lit_sft.tokenization.recipe import NUM_BYTES, Recipe, make_recipe
from lit_sft.tokenization.sampling import Corpus, count_corpus
from lit_sft.tokenization.splitting import PRE_TOKENIZERS, PreTokenizerName
from lit_sft.tokenization.texts import TextFiles, pieces

_LIBRARIES = ("tokenizers", "transformers")


@dataclass(frozen=True)
class TrainedTokenizer:
    """A trained tokenizer and how it was made.

    Attributes:
        tokenizer: The tokenizer.
        recipe: Its settings.
        corpus: What it was trained on.
        report: The content of the folder's training.json.
    """

    tokenizer: Tokenizer
    recipe: Recipe
    corpus: Corpus
    report: dict[str, Any]

    @property
    def is_limited_by_memory(self) -> bool:
        """Whether `max_memory` made the sample smaller than requested."""
        return bool(self.report["is_limited_by_memory"])


def train_tokenizer(
    files: str | Sequence[str],
    folder: str | Path,
    *,
    vocab_size: int,
    special_tokens: Sequence[str] | None = None,
    chat_template: str = "chatml",
    eos_token: str | None = None,
    pad_token: str | None = None,
    bos_token: str | None = None,
    pre_tokenizer: PreTokenizerName = "qwen",
    min_frequency: int = 2,
    max_token_length: int | None = None,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
    on_invalid: OnInvalid = "error",
    txt_documents: TxtDocuments = "line",
    max_bytes: int | None = None,
    max_memory: int | None = DEFAULT_MEMORY,
    overwrite: bool = False,
) -> TrainedTokenizer:
    """Train a tokenizer and write it as a Hugging Face folder. The same texts and settings give the same bytes.

    Args:
        files: Files, folders or hub names; any records that `fit` reads.
        folder: The folder to write.
        vocab_size: Number of entries: special tokens, 256 bytes and merges.
        special_tokens: Control tokens. None: `<|endoftext|>`, `<|pad|>` and the markers of the chat template.
        chat_template: chatml, alpaca, plain, none, or a Jinja file.
        eos_token: Ends every document. None: `<|endoftext|>` if it is a special token, else the first one.
        pad_token: Pads short rows. None: `<|pad|>` if it is a special token, else the eos token.
        bos_token: Begins every document. None: no token does.
        pre_tokenizer: How text is split into words.
        min_frequency: How often a pair must occur to become an entry.
        max_token_length: Maximum number of bytes of an entry.
        columns: The column that each field is read from, such as {"text": "content"}.
        format: Format of the records. None: detected.
        on_invalid: Whether an invalid record is an error or is skipped.
        txt_documents: What a document is in a .txt file: a line, a paragraph, or the file.
        max_bytes: Train on an even sample of this size. None: on everything.
        max_memory: Train on a smaller sample if this one would take more memory, in bytes. None: no limit.
        overwrite: Whether an earlier tokenizer in the folder is replaced.

    Raises:
        UserError: If a setting is wrong, the folder is in use, or the files cannot be read.
    """
    recipe = make_recipe(
        vocab_size,
        special_tokens=special_tokens,
        chat_template=chat_template,
        eos_token=eos_token,
        pad_token=pad_token,
        bos_token=bos_token,
        pre_tokenizer=pre_tokenizer,
        min_frequency=min_frequency,
        max_token_length=max_token_length,
    )
    check_target(Path(folder), overwrite=overwrite)
    sources = (files,) if isinstance(files, str) else tuple(files)
    texts = TextFiles(sources, columns or {}, format, on_invalid, txt_documents)
    corpus = count_corpus(texts, recipe.special_tokens)
    asked = corpus if max_bytes is None else corpus.limited(max_bytes)
    corpus = asked if max_memory is None else within_memory(asked, recipe.pre_tokenizer, max_memory)
    tokenizer = _trained(recipe, corpus)
    limits = {"max_bytes": max_bytes, "max_memory": max_memory, "is_limited_by_memory": corpus.border < asked.border}
    report = _report(tokenizer, recipe, corpus) | limits
    write_folder(Path(folder), tokenizer, recipe, report)
    return TrainedTokenizer(tokenizer, recipe, corpus, report)


def _trained(recipe: Recipe, corpus: Corpus) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[recipe.pre_tokenizer]()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size,
        min_frequency=recipe.min_frequency,
        max_token_length=recipe.max_token_length,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in recipe.special_tokens],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    merging = _Merging()
    try:
        tokenizer.train_from_iterator(_pieces(corpus, merging), trainer)
    finally:
        merging.stop()
    if recipe.bos_token is not None:
        bos = (recipe.bos_token, tokenizer.token_to_id(recipe.bos_token))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos[0]} $A", pair=f"{bos[0]} $A {bos[0]} $B", special_tokens=[bos]
        )
    return tokenizer


def _pieces(corpus: Corpus, merging: _Merging) -> Iterator[str]:
    with Progress("reading text", "bytes", corpus.used_bytes) as progress:
        for text in corpus.texts():
            yield from pieces(text.text)
            progress.update(text.num_bytes)
    merging.start()


class _Merging:
    """Prints a line now and then while the library learns merges, because it does not report progress itself."""

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start when all text has been read."""
        self._thread.start()

    def stop(self) -> None:
        """Print no more lines."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pace = Pace()
        while not self._is_over.wait(1.0):
            if pace.is_due():
                print(f"learning merges: {duration(pace.seconds)} so far", file=sys.stderr, flush=True)


def _report(tokenizer: Tokenizer, recipe: Recipe, corpus: Corpus) -> dict[str, Any]:
    """How the tokenizer was made. No times and no machine, so that the same training writes the same bytes."""
    num_entries = tokenizer.get_vocab_size()
    return {
        "entries": num_entries,
        "merges": num_entries - NUM_BYTES - len(recipe.special_tokens),
        "settings": recipe.as_dict(),
        "columns": dict(corpus.files.columns),
        "format": corpus.files.format,
        "txt_documents": corpus.files.txt_documents,
        "sources": [asdict(count) | {"digest": source_fingerprint(count.source)} for count in corpus.counts],
        "bytes": corpus.num_bytes,
        "used_bytes": corpus.used_bytes,
        "special_tokens_in_text": corpus.special.texts,
        "versions": {name: version(name) for name in _LIBRARIES},
    }
