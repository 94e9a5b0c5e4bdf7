"""`python -m lit_sft evaluate --models base=MODEL tuned=MODEL --suite FILE`: what did fine-tuning do to a model?"""

from __future__ import annotations

import os
import unicodedata

import torch

from data_modules.errors import UserError
from lit_sft.console import console, print_error_line, print_line, quieten
from lit_sft.evaluation.evaluate_models import evaluate_models
from lit_sft.evaluation.suite_file import read_suite
from lit_sft.files import slug
from lit_sft.runs.opening import device_named
from lit_sft.settings.arguments import Arguments

_DTYPES = ("auto", "float32", "bfloat16", "float16")


def main(argv: list[str]) -> None:
    """Evaluate models.

    Args:
        argv: The command's name and its arguments.

    Raises:
        UserError: If the suite or an argument is wrong, or nothing could be scored.
        SystemExit: With 1 if a model or a set could not be scored, with 130 on Ctrl-C.
    """
    options = _parser().parse_args(argv[1:])
    suite, models = read_suite(options.suite, options.set), _models(options.models)
    device = device_named(options.device)
    quieten("evaluate")
    dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
    try:
        results, _ = evaluate_models(
            models,
            suite,
            options.output or f"runs/evaluations/{suite.name}",
            device=device,
            dtype=dtype,
            allow_code=options.allow_code,
            log=print_line,
            warn=print_error_line,
            console=console,
        )
    except KeyboardInterrupt:
        print_line("stopped; finished sets and judge replies are kept. Run the same command again to continue.")
        raise SystemExit(130) from None
    if results.failures:
        raise SystemExit(1)


def _models(given: list[str]) -> dict[str, str]:
    """Parse NAME=MODEL arguments, the baseline first."""
    models: dict[str, str] = {}
    for text in given:
        name, is_named, source = text.partition("=")
        if not is_named or not name or not source:
            raise UserError(f"--models {text}: expected NAME=MODEL, such as base=gpt2 tuned=runs/quickstart/version_0.")
        if name in models:
            raise UserError(f"--models {text}: duplicate model name {name}; give each model a different name.")
        if _folder_key(name) in map(_folder_key, models):
            raise UserError(f"--models {text}: same folder name as another model; choose another name.")
        models[name] = os.path.expanduser(source)  # shells do not expand ~ after `NAME=`
    return models


def _folder_key(name: str) -> str:
    """Equal for names that give the same folder on a case-insensitive file system."""
    return unicodedata.normalize("NFC", slug(name, "model")).casefold()


def _parser() -> Arguments:
    example = "--models base=gpt2 tuned=runs/quickstart/version_0 --suite configs/evaluate/quickstart.yaml"
    parser = Arguments("evaluate", __doc__, example=example)
    parser.add_argument(
        "--models",
        nargs="+",
        required=True,
        metavar="NAME=MODEL",
        help="the baseline first: a folder with a model or an adapter, a hub name, a run folder or a checkpoint",
    )
    parser.add_argument("--suite", required=True, help="what to score, such as configs/evaluate/quickstart.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="override a setting of the suite; repeatable"
    )
    parser.add_argument(
        "--allow_code",
        action="append",
        default=[],
        metavar="FOLDER",
        help="allow lm-eval tasks in this folder to run Python functions; repeatable",
    )
    parser.add_argument("--output", help="where to write; default: runs/evaluations/<suite>")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:1; default: a GPU if available")
    parser.add_argument(
        "--dtype", choices=_DTYPES, default="auto", help="dtype of the weights; auto: bfloat16 on a GPU, else float32"
    )
    return parser
