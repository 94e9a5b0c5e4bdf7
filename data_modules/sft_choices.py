"""The words that settings of fine-tuning may have."""

from __future__ import annotations

from typing import Literal, get_args

from data_modules.encoding.encoder import OverLong
from data_modules.rendering.masking import MaskName, Reduction
from data_modules.rendering.templates import TemplateName
from data_modules.setting_checks import check_choices

TextPrompts = Literal["question", "beginning"]

_CHOICES = {
    "template": get_args(TemplateName),
    "mask": get_args(MaskName),
    "reduction": get_args(Reduction),
    "over_long": get_args(OverLong),
    "text_prompts": (None, *get_args(TextPrompts)),
}
"""By setting; those that the command line checks only in part."""


def check_sft_choices(template: str, mask: str, reduction: str, over_long: str, text_prompts: str | None) -> None:
    """Refuse values of these settings that are not among their choices.

    Raises:
        UserError: If one is not.
    """
    check_choices(
        _CHOICES, template=template, mask=mask, reduction=reduction, over_long=over_long, text_prompts=text_prompts
    )
