"""What cleaning did to one document: its text, and what each rule changed."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Change:
    """What one rule did to one document.

    Attributes:
        rule: Label of the rule.
        position: Its place in the list of rules, from 0.
        removed: Characters removed; all of them if the document was dropped.
        added: Characters added.
        is_drop: Whether the rule dropped the document.
        before: The text around the first change, printable.
        after: The same place after the rule; empty if it dropped the document.
        reason: Why it dropped the document.
    """

    rule: str
    position: int
    removed: int
    added: int = 0
    is_drop: bool = False
    before: str = ""
    after: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A document after cleaning. It can be pickled, to pass it from one process to another.

    Attributes:
        text: The clean text; None if a rule dropped the document. `without_text` leaves it empty.
        characters_read: Characters before cleaning (code points).
        characters_kept: Characters of the clean text; 0 if the document was dropped.
        changes: What each rule did, in order. Rules that changed nothing are left out.
        fingerprint: Finds duplicates; empty if no rule looks for them, or the document was dropped.
        opening: The beginning of the clean text, printable; empty without a fingerprint.
    """

    text: str | None
    characters_read: int
    characters_kept: int
    changes: tuple[Change, ...] = ()
    fingerprint: bytes = b""
    opening: str = ""

    @property
    def is_dropped(self) -> bool:
        """Whether a rule dropped the document."""
        return any(change.is_drop for change in self.changes)

    def without_text(self) -> Cleaned:
        """The same outcome for a process that counts but does not need the text."""
        return self if self.text is None else replace(self, text="")

    def dropped_by(self, change: Change) -> Cleaned:
        """The outcome after a rule over the whole set dropped the document."""
        return replace(self, text=None, characters_kept=0, changes=(*self.changes, change), fingerprint=b"")
