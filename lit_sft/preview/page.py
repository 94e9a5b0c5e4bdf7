"""The page of `preview --html`: one file, without scripts or external resources. Text from the data is escaped."""

from __future__ import annotations

from pathlib import Path

from data_modules.errors import UserError
from lit_sft.files import write_text
from lit_sft.reporting.templates import render
from lit_sft.reporting.token_markup import token_markup
from lit_sft.reporting.token_view import MARKS_LEGEND, ShownExample


def write_page(path: str, summary: str, shown: list[ShownExample]) -> None:
    """Write the page.

    Raises:
        UserError: If the file cannot be written.
    """
    try:
        write_text(Path(path), page(summary, shown))
    except OSError as error:
        raise UserError(
            f"--html {path}: cannot be written ({error.strerror}); expected a file in an existing folder that you can "
            "write to. Choose another path."
        ) from None


def page(summary: str, shown: list[ShownExample]) -> str:
    """The examples as one HTML document.

    Args:
        summary: Lines below the title.
        shown: The examples, all with the same masks.
    """
    kinds = sorted({row.kind for example in shown for row in example.rows})
    return render("preview.html", summary=summary, shown=shown, kinds=kinds, marks=MARKS_LEGEND, **token_markup())
