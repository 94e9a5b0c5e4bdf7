"""Finds the run that a command is about: a named run, the newest, or a new one from a config."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from data_modules.errors import UserError
from lit_sft.console import print_error_line, print_line
from lit_sft.runs.folders import Run, find_resumable, find_run, paths_of
from lit_sft.runs.lock import lock_run
from lit_sft.settings.arguments import check_run_first, in_long_form, is_given, root_of


@dataclass(frozen=True, slots=True)
class Request:
    """What a command was asked to do.

    Attributes:
        arguments: Options for its settings, including `--config` of an opened run.
        opened: The run whose config is among them, if any.
        is_resumed: Whether to resume training in that run.
    """

    arguments: list[str]
    opened: Run | None = None
    is_resumed: bool = False

    @property
    def names_checkpoint(self) -> bool:
        """Whether the user gave `--ckpt_path`; that of an opened run is its own."""
        return self.opened is None and is_given("--ckpt_path", self.arguments)


def request_of(command: str, arguments: list[str], cleanup: contextlib.ExitStack) -> Request:
    """Work out what a command was asked to do.

    Args:
        command: The command's name.
        arguments: Its arguments.
        cleanup: Keeps a resumed run locked until the command ends.

    Raises:
        UserError: If the named run does not exist, or options contradict each other.
    """
    arguments = in_long_form(arguments)
    if any(map(_asks_to_resume, arguments)):
        if command != "fit":
            raise UserError(f"--resume: only for `fit`; name the run itself: `python -m lit_sft {command} RUN`.")
        return _resumed(arguments, cleanup)
    if command == "fit" or names_config(arguments):
        return Request(arguments)
    run, checkpoint, rest = take_run(command, arguments)
    if is_given("--ckpt_path", rest):
        raise UserError(
            f"--ckpt_path: the run already determines the checkpoint; name another one in place of the run: "
            f"`python -m lit_sft {command} {run.folder}/checkpoints/last.ckpt`."
        )
    cleanup.enter_context(paths_of(run))
    return Request(["--config", str(run.config), "--ckpt_path", str(checkpoint), *rest], run)


def names_config(arguments: list[str]) -> bool:
    """Whether the arguments include a config file or --help, so that no run is needed."""
    return any(argument.partition("=")[0] in ("-h", "--help", "--config") for argument in arguments)


def take_run(
    command: str, arguments: list[str], log: Callable[[str], None] = print_line
) -> tuple[Run, Path, list[str]]:
    """Split the arguments into the run (the first argument, or the newest run), its checkpoint, and the rest."""
    check_run_first(command, arguments)
    named = arguments[0] if arguments and not arguments[0].startswith("-") else None
    run, checkpoint = find_run(named, root_of(command, arguments))
    log(f"{command}: run {run.folder}, its config.yaml and {run.described(checkpoint)}")
    return run, checkpoint, arguments[1:] if named else arguments


def with_run_config(command: str, arguments: list[str]) -> tuple[list[str], Run | None]:
    """The arguments, with the config of the named (or newest) run added if they name none; and that run, if used.

    What was found is printed on stderr, which leaves stdout to the command.
    """
    if names_config(arguments):
        return arguments, None
    run, _, rest = take_run(command, arguments, print_error_line)
    return ["--config", str(run.config), *rest], run


def _asks_to_resume(argument: str) -> bool:
    return argument.partition("=")[0] == "--resume"


def _resumed(arguments: list[str], cleanup: contextlib.ExitStack) -> Request:
    """Replace `--resume [RUN]` by the run's config and newest checkpoint."""
    place = next(index for index, argument in enumerate(arguments) if _asks_to_resume(argument))
    rest = arguments[place + 1 :]
    _, is_joined, named = arguments[place].partition("=")
    if not is_joined:
        named = rest.pop(0) if rest and not rest[0].startswith("-") else ""
    others = arguments[:place] + rest
    if is_given("--ckpt_path", others):
        raise UserError(
            "--ckpt_path: a resumed run continues from its newest intact checkpoint; leave it out, or start a new run "
            "from that checkpoint with `--config` instead of --resume."
        )
    run, checkpoint, broken = find_resumable(named or None, root_of("fit", others))
    for path in broken:
        print_line(f"fit: skipping {path}: it cannot be read")
    print_line(f"fit: resuming {run.folder} from its config.yaml and {checkpoint.name}")
    cleanup.enter_context(paths_of(run))
    if not rank_zero_only.rank:  # type: ignore[attr-defined]
        cleanup.enter_context(lock_run(run.folder))
    return Request(["--config", str(run.config), "--ckpt_path", str(checkpoint), *others], run, is_resumed=True)
