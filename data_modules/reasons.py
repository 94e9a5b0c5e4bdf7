"""Why something failed, in one line for the user."""

from __future__ import annotations


def reason_of(error: BaseException, limit: int = 300) -> str:
    """The message of an error on one line, shortened.

    Args:
        error: Any exception.
        limit: Most characters, roughly.
    """
    return shortened(" ".join(str(error).split()) or type(error).__name__, limit)


def shortened(text: str, limit: int) -> str:
    """Shorten text between words, so that no URL or path is cut in two.

    Args:
        text: A single line.
        limit: Most characters. A first word longer than this is cut.
    """
    if len(text) <= limit:
        return text
    return f"{text[: limit + 1].rpartition(' ')[0] or text[:limit]} [...]"
