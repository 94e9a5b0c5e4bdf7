"""HTML pages from the templates in pages/. Every value is made printable and escaped, whatever the template does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lit_sft.printable import printable


def render(template: str, filters: Mapping[str, Callable[..., str]] = MappingProxyType({}), **values: Any) -> str:
    """Fill in a template of pages/.

    Args:
        template: Its file name.
        filters: Functions that the template applies with `|`, by name.
        **values: What it shows; only `Markup` is taken as HTML.
    """
    environment = _ENVIRONMENT.overlay()
    environment.filters = {**environment.filters, **filters}
    return environment.get_template(template).render(values)


def keep_lines(text: str) -> Markup:
    """Escape text in which line breaks stay as they are."""
    return escape(printable(text, keep_lines=True))


def _printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_ENVIRONMENT = Environment(
    loader=PackageLoader("lit_sft.reporting", "pages"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_printable,
    trim_blocks=True,
    lstrip_blocks=True,
)
