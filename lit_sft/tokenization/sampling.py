"""An even sample of texts, chosen by a hash of each: every file, and every part of it, gives the same share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from data_modules.errors import UserError
from data_modules.progress import Progress
from data_modules.records.counts import RecordCounts
from lit_sft.tokenization.texts import Text, TextFiles, read_texts

_PLACES = 1 << 18
"""Number of hash values by which texts are ordered; a sample is the beginning of this order."""


@dataclass
class SourceCount:
    """What a source holds, and how much of it is used.

    Attributes:
        source: The file, folder or hub name.
        records: Records that were read, the invalid ones included.
        invalid: Records that were skipped because they are invalid.
        texts: Texts of the others: documents and messages.
        num_bytes: Their size in UTF-8.
        used_texts: Texts in the sample.
        used_bytes: Their size in UTF-8.
    """

    source: str
    records: int = 0
    invalid: int = 0
    texts: int = 0
    num_bytes: int = 0
    used_texts: int = 0
    used_bytes: int = 0


@dataclass
class Occurrences:
    """Where special tokens occur in the texts.

    Attributes:
        texts: Number of texts with each token.
        first: The first place of each.
    """

    texts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def look(self, text: Text, tokens: Iterable[str]) -> None:
        """Count the tokens that a text contains."""
        for token in tokens:
            if token in text.text:
                self.texts[token] = self.texts.get(token, 0) + 1
                self.first.setdefault(token, text.origin)


@dataclass
class Corpus:
    """The texts of several sources, counted, and the share of them to use.

    Attributes:
        files: How they are read.
        counts: Each source in order.
        special: The special tokens that occur in the texts.
        messages: The first messages about invalid records.
        bytes_at: Bytes of the texts at each place in the order of hashes, (places,).
        border: Where in this order the sample ends.
    """

    files: TextFiles
    counts: list[SourceCount] = field(default_factory=list)
    special: Occurrences = field(default_factory=Occurrences)
    messages: list[str] = field(default_factory=list)
    bytes_at: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_PLACES, dtype=np.int64))
    border: int = _PLACES

    @property
    def num_bytes(self) -> int:
        """Bytes of all texts."""
        return sum(count.num_bytes for count in self.counts)

    @property
    def used_bytes(self) -> int:
        """Bytes of the sample."""
        return int(self.bytes_at[: self.border].sum())

    def limited(self, max_bytes: int, option: str = "--max_bytes") -> Corpus:
        """The same texts, of which a sample is used.

        Args:
            max_bytes: Size of the sample in UTF-8, at most.
            option: The setting that limits it, for the error message.

        Raises:
            UserError: If no text fits.
        """
        sums = np.cumsum(self.bytes_at)
        border = int(np.searchsorted(sums, max_bytes, side="right"))
        if border and sums[border - 1]:
            return replace(self, border=border)
        smallest = int(sums[np.argmax(sums > 0)])
        raise UserError(f"{option} {max_bytes:,}: no text fits into the sample; raise it to {smallest:,} or more.")

    def texts(self) -> Iterator[Text]:
        """The texts of the sample in order; the same at every call. A larger sample contains every smaller one."""
        for count in self.counts:
            count.used_texts = count.used_bytes = 0
            for text in read_texts(self.files, count.source):
                if self.border == _PLACES or place_of(text) < self.border:
                    count.used_texts += 1
                    count.used_bytes += text.num_bytes
                    yield text


def count_corpus(files: TextFiles, special_tokens: Iterable[str] = ()) -> Corpus:
    """Read every text once and count it.

    Args:
        files: What to read.
        special_tokens: Control tokens to look for in the texts.

    Raises:
        UserError: If a file cannot be read, or there is no text at all.
    """
    corpus, tokens = Corpus(files), tuple(special_tokens)
    with Progress("counting text", "bytes") as progress:
        for source in files.files:
            records, count = RecordCounts(files.on_invalid), SourceCount(source)
            for text in read_texts(files, source, records):
                count.texts += 1
                count.num_bytes += text.num_bytes
                corpus.bytes_at[place_of(text)] += text.num_bytes
                corpus.special.look(text, tokens)
                progress.update(text.num_bytes)
            count.records, count.invalid = records.records_read + records.num_invalid, records.num_invalid
            corpus.messages += records.invalid
            corpus.counts.append(count)
    if not corpus.num_bytes:
        raise UserError(f"{', '.join(files.files)}: no text; expected records with text that is not empty.")
    return corpus


def place_of(text: Text) -> int:
    """The place of a text in the order of hashes; it depends on the text alone."""
    return int.from_bytes(hashlib.blake2b(text.text.encode(), digest_size=8).digest()) % _PLACES
