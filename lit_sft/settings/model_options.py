"""Options of commands that load models and have them answer."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import get_args

from data_modules.rendering.templates import TemplateName
from lit_sft.models.generation import GenerationSettings


def add_loading_options(parser: ArgumentParser, *, template: str = "prompt template") -> None:
    """Where runs are, with which template a model is prompted, and on which device it is.

    Args:
        parser: Gets the options.
        template: What the template is for.
    """
    parser.add_argument("--run.root", dest="root", default="runs", help="folder that holds all runs")
    parser.add_argument(
        "--template",
        choices=get_args(TemplateName),
        help=f"{template}; default: the one that the model was trained with, if recorded, else `auto`",
    )
    parser.add_argument(
        "--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or one such as cuda:1"
    )


def add_sampling_options(parser: ArgumentParser) -> None:
    """How a model answers people.

    Args:
        parser: Gets the options.
    """
    usual = GenerationSettings()
    parser.add_argument("--system", default="", help="system message")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 always takes the likeliest token (0.7)")
    parser.add_argument(
        "--top_p", type=float, default=0.95, help="sample from the likeliest tokens with this probability (0.95)"
    )
    parser.add_argument(
        "--max_new_tokens", type=int, default=usual.max_new_tokens, help="longest answer, in tokens (256)"
    )
