"""The words that settings of fine-tuning may have."""

from __future__ import annotations

from typing import Literal, get_args

from data_modules.encoding.encoder import OverLong
from data_modules.rendering.masking import MaskName, Reduction
from data_modules.rendering.templates import TemplateName

TextPrompts = Literal["question", "beginning"]

CHOICES = {
    "template": get_args(TemplateName),
    "mask": get_args(MaskName),
    "reduction": get_args(Reduction),
    "over_long": get_args(OverLong),
    "text_prompts": (None, *get_args(TextPrompts)),
}
"""By setting; those that the command line checks only in part."""
