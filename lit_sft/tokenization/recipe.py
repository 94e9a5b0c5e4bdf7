"""The settings of a tokenizer to train, checked, and its chat template."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import jinja2

from data_modules.errors import UserError
from data_modules.rendering.templates import TEMPLATES
from data_modules.wording import did_you_mean, nearest_path
from lit_sft.models.chat_template import jinja_of
from lit_sft.tokenization.splitting import PreTokenizerName

END, PAD = "<|endoftext|>", "<|pad|>"
NUM_BYTES = 256
NO_TEMPLATE = "none"

_MARKER = re.compile(r"<\|[^|<>\s]+\|>")
_SUFFIXES = (".jinja", ".jinja2", ".j2")


@dataclass(frozen=True)
class Recipe:
    """How a tokenizer is made.

    Attributes:
        vocab_size: Number of entries: special tokens, 256 bytes and merges. Fewer if the text has fewer pairs.
        special_tokens: Control tokens, in the order of their ids, which begin at 0.
        eos_token: Ends every document.
        pad_token: Pads short rows.
        bos_token: Begins every document. None: no token does.
        pre_tokenizer: How text is split into words.
        min_frequency: How often a pair must occur to become an entry.
        max_token_length: Maximum number of bytes of an entry. None: no limit.
        template_name: The chat template as the user named it.
        chat_template: Its Jinja text. None: the tokenizer has none.
    """

    vocab_size: int
    special_tokens: tuple[str, ...]
    eos_token: str
    pad_token: str
    bos_token: str | None = None
    pre_tokenizer: PreTokenizerName = "qwen"
    min_frequency: int = 2
    max_token_length: int | None = None
    template_name: str = NO_TEMPLATE
    chat_template: str | None = None

    def __post_init__(self) -> None:
        _check_special(self.special_tokens)
        _check_roles(self)
        fewest = NUM_BYTES + len(self.special_tokens)
        if self.vocab_size < fewest:
            raise UserError(
                f"--vocab_size {self.vocab_size:,}: too small; {NUM_BYTES} bytes and {len(self.special_tokens)} "
                f"special tokens take {fewest:,} entries. Raise it to at least {fewest:,}, or name fewer "
                "--special_tokens."
            )
        if self.min_frequency < 1:
            raise UserError(f"--min_frequency {self.min_frequency}: expected at least 1.")
        if self.max_token_length is not None and self.max_token_length < 2:
            raise UserError(f"--max_token_length {self.max_token_length}: expected at least 2 bytes.")
        known: tuple[str, ...] = get_args(PreTokenizerName)
        if self.pre_tokenizer not in known:
            hint = did_you_mean(self.pre_tokenizer, known) or f"expected {', '.join(known)}."
            raise UserError(f"--pre_tokenizer {self.pre_tokenizer}: unknown; {hint}")

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON values; of the chat template only the name, because its text is in a file."""
        settings = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        del settings["chat_template"]
        return settings


def make_recipe(
    vocab_size: int,
    *,
    special_tokens: Sequence[str] | None = None,
    chat_template: str = "chatml",
    eos_token: str | None = None,
    pad_token: str | None = None,
    bos_token: str | None = None,
    **others: Any,
) -> Recipe:
    """Fill in what was not given.

    Args:
        vocab_size: Number of entries.
        special_tokens: Control tokens. None: `<|endoftext|>`, `<|pad|>` and the markers of the chat template.
        chat_template: chatml, alpaca, plain, none, or a Jinja file.
        eos_token: None: `<|endoftext|>` if it is a special token, else the first one.
        pad_token: None: `<|pad|>` if it is a special token, else the eos token.
        bos_token: None: no token begins a document.
        **others: Other attributes of `Recipe`.

    Raises:
        UserError: If settings contradict each other, or the chat template cannot be read.
    """
    source = _read_template(chat_template)
    roles = [token for token in (eos_token, pad_token, bos_token) if token is not None]
    if special_tokens is None:
        special_tokens = tuple(dict.fromkeys([eos_token or END, pad_token or PAD, *roles, *_markers(source)]))
    elif not special_tokens:
        raise UserError("--special_tokens: none given; expected at least the token that ends a document.")
    special = tuple(special_tokens)
    eos = eos_token or (END if END in special else special[0])
    pad = pad_token or (PAD if PAD in special else eos)
    recipe = Recipe(vocab_size, special, eos, pad, bos_token, **others)
    _check_markers(chat_template, _markers(source), special)
    return replace(recipe, template_name=chat_template, chat_template=_as_jinja(chat_template, source, recipe))


def _markers(source: str) -> list[str]:
    return list(dict.fromkeys(_MARKER.findall(source)))


def _read_template(name: str) -> str:
    """The text of a template, in which its markers are found."""
    if name == NO_TEMPLATE:
        return ""
    if name in TEMPLATES:
        template = TEMPLATES[name]
        return f"{template.user}{template.end or ''}"
    path = Path(name)
    if not (path.suffix in _SUFFIXES or path.is_file()):
        known = (*TEMPLATES, NO_TEMPLATE)
        hint = did_you_mean(name, known) or f"expected {', '.join(known)}, or a file such as chat_template.jinja."
        raise UserError(f"--chat_template {name}: no such template; {hint}")
    try:
        source = path.read_text(encoding="utf-8")
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols", _Generation]).parse(source)
    except FileNotFoundError:
        raise UserError(f"--chat_template {name}: no such file; {nearest_path(path) or 'check the path.'}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--chat_template {name}: not UTF-8 ({error.reason}); save the file as UTF-8.") from None
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{name}:{error.lineno}: not a Jinja template ({error.message}); correct this line.") from None
    if not source.strip():
        raise UserError(f"--chat_template {name}: the file is empty; expected a Jinja template.")
    return source


class _Generation(jinja2.ext.Extension):
    """Accepts {% generation %}, which transformers adds to Jinja."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """Read the block as if the tag were not there."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _as_jinja(name: str, source: str, recipe: Recipe) -> str | None:
    if name == NO_TEMPLATE:
        return None
    if name not in TEMPLATES:
        return source
    template = TEMPLATES[name]
    return jinja_of(replace(template, end=template.end or recipe.eos_token), bos=recipe.bos_token is not None)


def _check_markers(name: str, markers: list[str], special: tuple[str, ...]) -> None:
    missing = [marker for marker in markers if marker not in special]
    if missing:
        raise UserError(
            f"--chat_template {name}: writes {', '.join(missing)}, which would not be one token each; add "
            f"{'them' if len(missing) > 1 else 'it'} to --special_tokens, or leave out --special_tokens."
        )


def _check_special(tokens: tuple[str, ...]) -> None:
    for token, times in Counter(tokens).items():
        if times > 1:
            raise UserError(f"--special_tokens: {token!r} is given {times} times; remove the duplicate.")
        if not token.strip() or token != token.strip():
            raise UserError(f"--special_tokens: {token!r} is blank or has spaces around it; expected one like {END}.")
        if len(token) == 1:
            raise UserError(f"--special_tokens: {token!r} is a single character, as in text; expected one like {END}.")


def _check_roles(recipe: Recipe) -> None:
    roles = {"--eos_token": recipe.eos_token, "--pad_token": recipe.pad_token, "--bos_token": recipe.bos_token}
    for option, token in roles.items():
        if token is not None and token not in recipe.special_tokens:
            raise UserError(
                f"{option} {token}: not one of the special tokens ({', '.join(recipe.special_tokens)}); add it to "
                "--special_tokens."
            )
