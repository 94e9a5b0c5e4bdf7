"""`python -m lit_sft export [RUN]`: saves a run's model as a folder that transformers and peft can load directly."""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_modules.errors import UserError
from lit_sft.runs.folders import find_run, paths_of
from lit_sft.runs.lock import lock_run
from lit_sft.settings.arguments import Arguments

if TYPE_CHECKING:
    from torch import nn

    from lit_sft.gguf.writing import GGUFType
    from lit_sft.models.casting import DtypeName
    from lit_sft.runs.model_card import CardSource


def main(argv: list[str]) -> None:
    """Export the best checkpoint of a run.

    Args:
        argv: The command's name and its arguments.

    Raises:
        UserError: If there is no such run, or the folder to write to is not empty.
    """
    options = _parser().parse_args(argv[1:])
    if options.gguf and options.dtype:
        raise UserError("--dtype: the type of a GGUF file is that of --gguf; leave one of the two out.")
    # imported after parsing, so that --help and errors are instant
    from transformers.utils.logging import disable_progress_bar

    from lit_sft.console import print_line
    from lit_sft.runs.model_card import CardSource
    from lit_sft.runs.model_paths import check_model_paths
    from lit_sft.runs.opening import backbone_of_run
    from lit_sft.settings.reading import read_settings

    disable_progress_bar()
    write, push = _writer(options), _pusher(options)
    run, checkpoint = find_run(options.run, options.root)
    folder = Path(options.output or (run.folder / f"{_name(options)}{run.suffix_of(checkpoint)}"))
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
        remarks = write(backbone, folder, CardSource(run, settings, checkpoint, data))
    print_line(f"{checkpoint.parent / run.described(checkpoint)} -> {folder}")
    for remark in remarks:
        print_line(remark)
    if push:
        print_line(f"pushed  {push(folder)}")


def _name(options: Namespace) -> str:
    """Name of the folder in the run folder."""
    if options.gguf:
        return f"gguf_{options.gguf}"
    name = "merged" if options.merge else "model"
    return name if options.dtype in (None, "float32") else f"{name}_{options.dtype}"


def _writer(options: Namespace) -> Callable[[nn.Module, Path, CardSource], list[str]]:
    """What writes the folder, and returns remarks to print.

    Raises:
        UserError: If a package that it needs is not installed.
    """
    if options.gguf:
        if importlib.util.find_spec("gguf") is None:
            raise UserError("--gguf: the package gguf is not installed; `pip install 'lit_sft[gguf]'`.")
        return partial(_write_gguf, kind=options.gguf)
    return partial(_write_model, merge=options.merge, dtype=options.dtype or "float32")


def _pusher(options: Namespace) -> Callable[[Path], str] | None:
    """What uploads the folder and returns its address; None without `--push`.

    Raises:
        UserError: If the upload cannot work.
    """
    if not options.push:
        if options.public:
            raise UserError("--public: has no effect without --push NAME.")
        return None
    from lit_sft.cli.pushing import check_push, push

    check_push(options.push)
    return partial(push, name=options.push, public=options.public)


def _write_model(backbone: nn.Module, folder: Path, source: CardSource, *, merge: bool, dtype: DtypeName) -> list[str]:
    from lit_sft.models.adapters import is_adapted
    from lit_sft.models.saving import export_model

    export_model(backbone, folder, source.data, merge=merge, dtype=dtype, card=source.card)
    return ["all weights were trained, so there is no adapter to merge"] if merge and not is_adapted(backbone) else []


def _write_gguf(backbone: Any, folder: Path, source: CardSource, *, kind: GGUFType) -> list[str]:
    from lit_sft.gguf.writing import MODEL, MODELFILE, export_gguf
    from lit_sft.models.adapters import is_adapted
    from lit_sft.models.saving import merged

    remarks = ["the adapters are merged into the weights"] if is_adapted(backbone) else []
    model = merged(backbone) if is_adapted(backbone) else backbone
    remarks += export_gguf(model, folder, source.data, kind, card=partial(source.card, file=MODEL))
    return [
        *remarks,
        f"next    llama-server -m {shlex.quote(str(folder / MODEL))}",
        f"or      ollama create NAME -f {shlex.quote(str(folder / MODELFILE))}",
    ]


def _parser() -> Arguments:
    parser = Arguments("export", __doc__, example="runs/quickstart/version_0 --merge")
    parser.add_argument("run", nargs="?", help="run folder or checkpoint; default: the newest run")
    parser.add_argument("--root", default="runs", help="folder that holds all runs")
    parser.add_argument("--output", help="output folder; default: model/ in the run folder, or merged/ with --merge")
    parser.add_argument("--merge", action="store_true", help="merge adapters into the weights")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="dtype of the weights in the file; default: float32, as they were trained. Others are written to "
        "model_bfloat16/ and the like",
    )
    parser.add_argument(
        "--gguf",
        nargs="?",
        const="f16",
        choices=("f32", "f16", "q8_0"),
        help="write model.gguf for llama.cpp and Ollama instead, to gguf_f16/ and the like; adapters are merged. The "
        "type of its matrices; default: f16",
    )
    parser.add_argument(
        "--push",
        metavar="NAME",
        help="upload the exported files to this repository of the Hugging Face hub, such as my-name/my-model; it is "
        "created as a private one. Log in with `hf auth login`, or set HF_TOKEN",
    )
    parser.add_argument("--public", action="store_true", help="with --push: anyone may see the repository")
    parser.add_argument(
        "--model.backbone.trust_remote_code",
        dest="trust_remote_code",
        choices=("true", "false"),
        default="false",
        help="run model code from the hub repository; set true only if you trust it",
    )
    return parser
