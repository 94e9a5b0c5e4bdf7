"""Conventions: what other trainers train of a conversation, by name. A new one is an entry of CONVENTIONS, in
`convention_table.py`, and a rule in `convention_rules.py`.

`resolve_convention("trl:assistant_only", tokenizer)` gives a convention; `expected_labels(convention, conversation)`
gives the ids and labels that the trainer itself would give the conversation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Role
from data_modules.rendering.convention_rules import Task
from data_modules.rendering.convention_table import CONVENTIONS, Convention
from data_modules.rendering.convention_tokens import Tokens
from data_modules.rendering.masking import LossMask, MaskName
from data_modules.rendering.masking import resolve_mask as named_mask
from data_modules.rendering.segments import SegmentKind
from data_modules.rendering.templates import AnyTemplate, Template, TemplateName, resolve_template
from data_modules.wording import did_you_mean

IGNORED = -100
"""The label of a token that is not trained."""


@dataclass(frozen=True, slots=True)
class ResolvedConvention:
    """A convention with its options, template and tokenizer.

    Attributes:
        name: As the user typed it.
        convention: The entry of CONVENTIONS.
        options: Options that are set.
        template: The trainer's template.
        tokenizer: The tokenizer.
    """

    name: str
    convention: Convention
    options: dict[str, str]
    template: AnyTemplate
    tokenizer: PreTrainedTokenizerBase

    def encode(self, conversation: Conversation, max_length: int) -> Tokens | None:
        """The tokens that the trainer trains on, or None if it drops the conversation.

        Args:
            conversation: An answered conversation.
            max_length: The trainer's limit.

        Raises:
            UserError: If the trainer does not read conversations of this shape.
        """
        _check_shape(self.convention, conversation)
        task = Task(conversation, self.template, self.tokenizer, max_length, self.convention.trained, self.options)
        return self.convention.rule(task)


def expected_labels(
    convention: ResolvedConvention, conversation: Conversation, max_length: int = 2**31
) -> tuple[list[int], list[int]] | None:
    """The `input_ids` and `labels` that the trainer makes of a conversation, before labels are shifted.

    Args:
        convention: From `resolve_convention`.
        conversation: An answered conversation.
        max_length: The trainer's limit.

    Returns:
        Ids, and labels of equal length: the id, or -100 where nothing is trained. None: the trainer drops it.

    Raises:
        UserError: If the trainer does not read conversations of this shape.
    """
    tokens = convention.encode(conversation, max_length)
    if tokens is None:
        return None
    return tokens.ids, [index if on else IGNORED for index, on in zip(tokens.ids, tokens.trained, strict=True)]


def resolve_convention(
    name: str, tokenizer: PreTrainedTokenizerBase, template: TemplateName = "auto"
) -> ResolvedConvention:
    """The named convention for a tokenizer.

    Args:
        name: A name of CONVENTIONS, then `:` and options, each a word or `option=value`, with commas between them:
            `llamafactory:mask_history`, `axolotl:train_on_eos=all,roles_to_train=user+assistant`.
        tokenizer: The tokenizer to train with.
        template: `--data.template`. `auto`: the trainer's own, else the tokenizer's, else chatml.

    Raises:
        UserError: If there is no such convention or option, or the convention does not go with the template or
            tokenizer.
    """
    convention, options = parse_convention(name)
    if tokenizer.eos_token_id is None:
        raise UserError(f"--data.convention {name}: needs a tokenizer with an eos token; this one has none.")
    return ResolvedConvention(name, convention, options, _template(convention, template, tokenizer), tokenizer)


def resolve_mask(
    name: MaskName,
    prompt_weight: float | None = None,
    answer_weight: float | None = None,
    convention: str | None = None,
    over_long: str = "truncate",
) -> LossMask:
    """The mask to train with: a named one, or that of a convention, which trains what the other trainer labels.

    Args:
        name: `--data.mask`.
        prompt_weight: `--data.prompt_weight`.
        answer_weight: `--data.answer_weight`.
        convention: `--data.convention`.
        over_long: `--data.over_long`.

    Raises:
        UserError: If there is no such convention, or another setting contradicts it.
    """
    if convention is None:
        return named_mask(name, prompt_weight, answer_weight)
    parse_convention(convention)
    given = (
        ("mask", name, "output_only"),
        ("prompt_weight", prompt_weight, None),
        ("answer_weight", answer_weight, None),
        ("over_long", over_long, "truncate"),
    )
    for option, value, default in given:
        if value != default:
            raise UserError(
                f"--data.convention {convention} and --data.{option} {value}: the convention decides what is trained "
                f"and what is cut. Remove one of the two, or set `--data.{option}` to its default, "
                f"{'null' if default is None else default}."
            )
    weights = tuple(float(kind is not SegmentKind.PADDING) for kind in SegmentKind)
    return LossMask(convention, weights, by_convention=True)


def template_and_convention(
    convention: str | None, tokenizer: PreTrainedTokenizerBase, template: TemplateName
) -> tuple[AnyTemplate, ResolvedConvention | None]:
    """The template to train with, and the convention if one is named.

    Args:
        convention: `--data.convention`.
        tokenizer: The tokenizer to train with.
        template: `--data.template`.

    Raises:
        UserError: If the tokenizer or the convention does not go with the template.
    """
    if convention is None:
        return resolve_template(template, tokenizer), None
    resolved = resolve_convention(convention, tokenizer, template)
    return resolved.template, resolved


def parse_convention(name: str) -> tuple[Convention, dict[str, str]]:
    """The convention and the options of a name.

    Raises:
        UserError: If there is no such convention, option or value.
    """
    base, given = name, ""
    if base not in CONVENTIONS:
        base, _, given = name.rpartition(":")
    if base not in CONVENTIONS:
        hint = did_you_mean(name, CONVENTIONS)
        raise UserError(
            f"--data.convention {name}: no such convention; expected one of {', '.join(CONVENTIONS)}"
            f"{f'; {hint}' if hint else '.'}"
        )
    convention, options = CONVENTIONS[base], {}
    for item in filter(None, given.split(",")):
        option, _, value = item.partition("=")
        values = convention.choices.get(option)
        if values is None or not (set(value.split("+")) <= set(values) if values else value in ("", "true")):
            raise UserError(
                f"--data.convention {name}: {item!r} is not an option of {base}; {_options_of(convention)}."
            )
        options[option] = value
    if {"train_on_prompt", "mask_history"} <= options.keys():
        raise UserError(f"--data.convention {name}: {base} refuses these two options together; choose one.")
    return convention, options


def _options_of(convention: Convention) -> str:
    if not convention.choices:
        return "it has none"
    options = (f"{name}={'|'.join(values)}" if values else name for name, values in convention.choices.items())
    return f"expected {' or '.join(options)}"


_ANY: dict[str, Template | None] = dict.fromkeys(("tokenizer", "chatml", "alpaca", "plain"))


def _template(convention: Convention, name: TemplateName, tokenizer: PreTrainedTokenizerBase) -> AnyTemplate:
    """The template of a convention with this tokenizer's end token."""
    known = convention.templates or _ANY
    chosen = str(name) if name != "auto" else next(iter(known))
    if chosen == "tokenizer" and name == "auto" and not tokenizer.chat_template:
        chosen = "chatml"
    if chosen not in known:
        raise UserError(
            f"--data.template {name} with --data.convention {convention.name}: this trainer has no such template; "
            f"expected {' or '.join(('auto', *known))}."
        )
    own = known[chosen]
    return resolve_template(chosen, tokenizer) if own is None else _filled(own, convention, tokenizer)  # type: ignore[arg-type]


def _filled(template: Template, convention: Convention, tokenizer: PreTrainedTokenizerBase) -> Template:
    """A trainer's own template with the tokenizer's markers in it."""
    vocabulary, marks = tokenizer.get_vocab(), {"{bos}": tokenizer.bos_token, "{eos}": tokenizer.eos_token}
    patterns = {name: getattr(template, name) for name in _PATTERNS}
    for mark, token in marks.items():
        if any(mark in pattern for pattern in patterns.values()):
            if token is None:
                raise UserError(
                    f"--data.convention {convention.name}: needs a tokenizer with a {mark[1:-1]} token; this one has "
                    "none."
                )
            patterns = {name: pattern.replace(mark, token) for name, pattern in patterns.items()}
    end = template.end or str(tokenizer.eos_token)
    for marker in sorted({end, *re.findall(r"<\|\w+\|>", "".join(patterns.values()))}):
        if marker not in vocabulary:
            raise UserError(
                f"--data.convention {convention.name}: needs the token {marker!r}, which this tokenizer does not have."
            )
    return replace(template, end=end, **patterns)


_PATTERNS = ("opening", "opening_with_context", "system", "user", "user_with_context", "between", "closing")


def _check_shape(convention: Convention, conversation: Conversation) -> None:
    """Refuse a conversation that the trainer does not read, or reads in a way that is not reproduced."""
    roles = [turn.role for turn in conversation.turns]
    shapes = {
        "plain text": conversation.is_text,
        "system message": Role.SYSTEM in roles,
        "several answers": roles.count(Role.ASSISTANT) > 1,
        "untrained answer": not all(turn.is_trained for turn in conversation.turns),
        "context": any(turn.context for turn in conversation.turns),
    }
    if conversation.has_tools or any(turn.thinking or 0 < turn.weight < 1 for turn in conversation.turns):
        raise UserError(
            f"{conversation.origin}: tools, thinking and weights between 0 and 1 are not reproduced by "
            "--data.convention yet. Remove the setting, or set `--data.on_invalid drop`."
        )
    for shape in convention.refused:
        if shapes[shape]:
            raise UserError(
                f"{conversation.origin}: {_SHAPES[shape]}, which --data.convention {convention.name} does not train. "
                "Remove the record, set `--data.on_invalid drop`, or use another convention."
            )


_SHAPES = {
    "plain text": "a plain document",
    "system message": "a system message",
    "several answers": "more than one answer",
    "untrained answer": "an answer that its record excludes from training",
    "context": "a separate input",
}
