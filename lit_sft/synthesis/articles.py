"""The texts of articles by their names, on disk, for records that are about them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass

from data_modules.errors import UserError
from data_modules.records.conversation import Passage
from lit_sft.files import digest


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an article.

    Attributes:
        article: The text of the whole article.
        origin: Where the article was read, `file:line`.
        start: Where the part starts in it, in characters.
        stop: Where it ends.
    """

    article: str
    origin: str
    start: int
    stop: int


class OtherTextError(Exception):
    """The articles do not have the text that a conversation was made from.

    Args:
        fault: `missing_article` or `changed_article`.
        reason: In sentences, with what to do about it.
    """

    def __init__(self, fault: str, reason: str) -> None:
        super().__init__(reason)
        self.fault, self.reason = fault, reason


class Articles:
    """Texts of articles by their names, in a temporary file: memory holds their places only."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115, closed with this object
        self._places: dict[bytes, int] = {}
        self._ambiguous: set[bytes] = set()

    def __enter__(self) -> Articles:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, name: str, text: str, origin: str) -> None:
        """Add an article. Others may have its name."""
        key = _key(name)
        first = self._places.get(key)
        if first is None:
            self._places[key] = self._write(text, origin)
            return
        known, place = self._read(first)
        self._places[_key(name, place)] = first
        is_same = known == text
        self._places[_key(name, origin)] = first if is_same else self._write(text, origin)
        if not is_same:
            self._ambiguous.add(key)

    def get(self, name: str, origin: str) -> tuple[str, str] | None:
        """The text of an article, and where it was read; None if there is none of that name.

        Args:
            name: Its name.
            origin: Where it was read, which tells articles of one name apart.

        Raises:
            UserError: If several articles with different texts have the name, and none of them was read there.
        """
        place = self._places.get(_key(name, origin))
        if place is None and _key(name) in self._ambiguous:
            raise UserError(
                f"several articles have the article_id {name!r}, and nothing says which is meant; expected one article "
                "for each id."
            )
        place = self._places.get(_key(name)) if place is None else place
        return None if place is None else self._read(place)

    def part(self, name: str, passage: Passage) -> Part:
        """The part of an article that a conversation was made from; the whole article if it does not say which part.

        Args:
            name: The article's name.
            passage: The part. Without a digest, any text that is there now counts as that part.

        Raises:
            OtherTextError: If the article is missing, or is another than it was.
            UserError: As in `get`.
        """
        found = self.get(name, passage.origin)
        if found is None:
            raise OtherTextError(
                "missing_article",
                f"no article has the article_id {name!r}; expected it in --articles, as when the pair was made.",
            )
        text, origin = found
        if not passage.stop:
            return Part(text, origin, 0, len(text))
        part = text[passage.start : passage.stop]
        is_there = passage.stop <= len(text) and part.strip()
        if not is_there or (passage.digest and digest(part) != passage.digest):
            raise OtherTextError(
                "changed_article",
                f"the article {name!r} at {origin} no longer has the text that the pair was made from (characters "
                f"{passage.start:,} to {passage.stop:,}). Set --articles to the files as they were then, or make the "
                "pairs again.",
            )
        return Part(text, origin, passage.start, passage.stop)

    def _write(self, text: str, origin: str) -> int:
        place = self._file.seek(0, 2)
        self._file.write(json.dumps([text, origin]).encode() + b"\n")
        return place

    def _read(self, place: int) -> tuple[str, str]:
        self._file.seek(place)
        text, origin = json.loads(self._file.readline())
        return text, origin


def _key(*names: str) -> bytes:
    return hashlib.blake2b("\0".join(names).encode("utf-8", "replace"), digest_size=16).digest()
