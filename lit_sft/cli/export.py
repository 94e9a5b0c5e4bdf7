"""`python -m lit_sft export [RUN]`: saves a run's model as a folder that transformers and peft can load directly."""

from __future__ import annotations

import contextlib
from pathlib import Path

from data_modules.errors import UserError
from lit_sft.runs.folders import find_run, paths_of
from lit_sft.runs.lock import lock_run
from lit_sft.settings.arguments import Arguments


def main(argv: list[str]) -> None:
    """Export the best checkpoint of a run.

    Args:
        argv: The command's name and its arguments.

    Raises:
        UserError: If there is no such run, or the folder to write to is not empty.
    """
    options = _parser().parse_args(argv[1:])
    # imported after parsing, so that --help and errors are instant
    from transformers.utils.logging import disable_progress_bar

    from lit_sft.console import print_line
    from lit_sft.models.adapters import is_adapted
    from lit_sft.models.saving import export_model
    from lit_sft.runs.model_paths import check_model_paths
    from lit_sft.runs.opening import backbone_of_run
    from lit_sft.settings.reading import read_settings

    disable_progress_bar()
    run, checkpoint = find_run(options.run, options.root)
    name = "merged" if options.merge else "model"
    if options.dtype != "float32":
        name += f"_{options.dtype}"
    folder = Path(options.output or (run.folder / f"{name}{run.suffix_of(checkpoint)}"))
    if options.output and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--output {folder}: exists and is not an empty folder; name another.")
    trust = {"model.backbone.trust_remote_code": options.trust_remote_code == "true"}
    with contextlib.ExitStack() as held:
        if not options.output:
            held.enter_context(lock_run(run.folder))  # `fit` writes the same files when it ends
        held.enter_context(paths_of(run))
        settings = read_settings(run.config, trust, run_config=run.config)
        check_model_paths(settings)
        data = settings.data_module()
        backbone = backbone_of_run(settings, data.tokenizer, checkpoint)
        if options.merge and not is_adapted(backbone):
            print_line("all weights were trained, so there is no adapter to merge")
        export_model(backbone, folder, data, merge=options.merge, dtype=options.dtype)
    print_line(f"{checkpoint.parent / run.described(checkpoint)} -> {folder}")


def _parser() -> Arguments:
    parser = Arguments("export", __doc__, example="runs/quickstart/version_0 --merge")
    parser.add_argument("run", nargs="?", help="run folder or checkpoint; default: the newest run")
    parser.add_argument("--root", default="runs", help="folder that holds all runs")
    parser.add_argument("--output", help="output folder; default: model/ in the run folder, or merged/ with --merge")
    parser.add_argument("--merge", action="store_true", help="merge adapters into the weights")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="dtype of the weights in the file; default: float32, as they were trained. Others are written to "
        "model_bfloat16/ and the like",
    )
    parser.add_argument(
        "--model.backbone.trust_remote_code",
        dest="trust_remote_code",
        choices=("true", "false"),
        default="false",
        help="run model code from the hub repository; set true only if you trust it",
    )
    return parser
