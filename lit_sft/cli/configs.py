"""`lit-sft configs [NAME ...]`: lists the configs that come with the project, or copies some into this folder.

A copy includes what the config needs: the configs it builds on, and the bundled records and tokenizer. Files that are
already here are never replaced.
"""

from __future__ import annotations

from pathlib import Path

from lit_sft.console import print_line
from lit_sft.settings.arguments import Arguments
from lit_sft.shipped import about, copy_shipped, named, shipped_configs

_STARTS = {
    "ablation": "ablate --config {}",
    "evaluate": "evaluate --models tuned=RUN --suite {}",
    "synthesis": "synthesize --config {}",
    "overlays": "fit --config CONFIG --config {}",
}
"""How configs in each folder are used; those of other folders are for `fit`."""


def main(argv: list[str]) -> None:
    """List configs, or copy those that are named.

    Args:
        argv: The command's name and its arguments.

    Raises:
        UserError: If there is no such config, or a file of the same name is in the way.
    """
    options = _parser().parse_args(argv[1:])
    if not options.names:
        for config in shipped_configs():
            print_line(config)
            print_line(f"    {about(config)}")
        print_line("\n`lit-sft configs NAME`, such as `lit-sft configs quickstart`, copies one into this folder.")
        return
    configs = [named(name) for name in options.names]
    for file, is_new in copy_shipped(configs, Path()).items():
        print_line(f"{'copied' if is_new else 'already here'}  {file}")
    for config in configs:
        room = Path(config).parts[1]
        print_line(f"next    lit-sft {_STARTS.get(room, 'fit --config {}').format(config)}")


def _parser() -> Arguments:
    parser = Arguments("configs", __doc__, example="quickstart")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="configs to copy, such as quickstart; default: list all"
    )
    return parser
