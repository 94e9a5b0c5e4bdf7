"""Why something failed, in a line for the user."""

from __future__ import annotations


def reason_of(error: BaseException, limit: int = 300) -> str:
    """The message of an error on one line, at most about so many characters.

    Args:
        error: Any.
        limit: Characters.
    """
    return shortened(" ".join(str(error).split()) or type(error).__name__, limit)


def shortened(text: str, limit: int) -> str:
    """Text cut between words, so that no address or path in it is cut in two.

    Args:
        text: On one line.
        limit: Characters, unless the first word alone has more: that is cut.
    """
    if len(text) <= limit:
        return text
    return f"{text[: limit + 1].rpartition(' ')[0] or text[:limit]} [...]"
