"""Run folders: `runs/<name>/version_N` with config.yaml, checkpoints/, model/, logs and results."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from lit_sft.checkpoints.best import Choice, choose
from lit_sft.checkpoints.digests import is_intact
from lit_sft.checkpoints.header import read_header
from lit_sft.files import read_json, read_yaml, write_json

_LONGEST_NAME = 100
_TRIES = 100
_START = "run.json"


@dataclass(frozen=True, slots=True)
class Run:
    """The folder of one run."""

    folder: Path

    @property
    def config(self) -> Path:
        """The file with all settings of the run."""
        return self.folder / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        """The exported model, in Hugging Face format."""
        return self.folder / "model"

    def choice(self) -> Choice:
        """The default checkpoint (the best one, else the last), and why.

        Raises:
            UserError: If there is none yet.
        """
        return choose(self.checkpoints)

    def best_checkpoint(self) -> Path:
        """The best checkpoint by the monitored metric, else the last.

        Raises:
            UserError: If there is none yet.
        """
        return self.choice().path

    def suffix_of(self, checkpoint: Path | None) -> str:
        """Suffix for names of files about a checkpoint; empty for the default checkpoint."""
        with contextlib.suppress(UserError):
            if checkpoint is None or checkpoint == self.best_checkpoint():
                return ""
        return f"_{checkpoint.stem}" if checkpoint else ""

    def described(self, checkpoint: Path) -> str:
        """The name of a checkpoint; for the default one, also why it was chosen."""
        with contextlib.suppress(UserError):
            choice = self.choice()
            return f"{checkpoint.name} ({choice.why})" if choice.path == checkpoint else checkpoint.name
        return checkpoint.name

    def note_start(self) -> None:
        """Record that the run starts or resumes now, and the folder that its relative paths start from."""
        write_json(self.folder / _START, {"started": time.time(), "cwd": _working_folder()})


def new_run(root: str, name: str) -> Run:
    """Create the next free folder `<root>/<name>/version_N`. Processes that call this at the same time get one each.

    Raises:
        UserError: If it cannot be created.
    """
    _check_name(name)
    parent, reason = Path(root) / name, ""
    for _ in range(_TRIES):
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder = parent / f"version_{_next_number(parent)}"
            folder.mkdir()
        except (FileExistsError, FileNotFoundError) as error:
            # another process took the number first, or removed the parent folder because its own run failed to start
            reason = str(error.strerror)
            continue
        except OSError as error:
            raise UserError(
                f"--run.root {root}: cannot create a folder there ({error.strerror}); choose another."
            ) from None
        return Run(folder)
    raise UserError(f"--run.root {root}: cannot create {parent}/version_N ({reason}); choose another.")


def _next_number(parent: Path) -> int:
    numbers = [path.name.removeprefix("version_") for path in parent.glob("version_*")]
    return max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1


def _check_name(name: str) -> None:
    is_plain = Path(name).name == name and name not in ("", "..") and "\\" not in name and name.isprintable()
    if not is_plain:
        raise UserError(
            f"--run.name {name}: expected a plain name of printable characters; set the folder of all runs with "
            "`--run.root`."
        )
    if len(name.encode()) > _LONGEST_NAME:
        raise UserError(f"--run.name {name[:20]}...: expected at most {_LONGEST_NAME} bytes.")


def find_run(path: str | None, root: str = "runs") -> tuple[Run, Path]:
    """Find a run and the checkpoint to use.

    Args:
        path: A run folder, a checkpoint inside one, or None for the newest run under `root`.
        root: Folder of all runs.

    Raises:
        UserError: If there is no such run.
    """
    if path is None:
        run = _newest_run(root)
        return run, run.best_checkpoint()
    given = Path(path)
    if given.suffix == ".ckpt":
        if not given.is_file():
            raise UserError(f"{path}: no such checkpoint.")
        run, checkpoint = Run(given.parent.parent), given
    else:
        run = Run(given)
        checkpoint = None
    _check_run(run, path)
    return run, checkpoint or run.best_checkpoint()


def find_resumable(path: str | None, root: str = "runs") -> tuple[Run, Path, list[Path]]:
    """Find a run and the checkpoint to resume it from: the intact one with the latest step.

    Args:
        path: A run folder, a checkpoint inside one, or None for the newest run under `root`.
        root: Folder of all runs.

    Returns:
        The run, the checkpoint, and checkpoints that cannot be read.

    Raises:
        UserError: If there is no such run, or no checkpoint to resume from.
    """
    named = path is not None and path.endswith(".ckpt")
    run = _newest_run(root) if path is None else Run(Path(path).parent.parent if named else Path(path))
    _check_run(run, path)
    candidates = [Path(str(path))] if named else sorted(run.checkpoints.glob("*.ckpt"))
    if not candidates:
        raise UserError(f"{run.checkpoints}: no checkpoint file to resume from. Run `fit` again.")
    progress = {checkpoint: _progress(checkpoint) for checkpoint in candidates}
    broken = [checkpoint for checkpoint in candidates if progress[checkpoint] is None]
    readable = [checkpoint for checkpoint in candidates if progress[checkpoint]]
    for checkpoint in sorted(readable, key=lambda c: progress[c] or (), reverse=True):
        if _is_intact(checkpoint):  # reads the whole file
            return run, checkpoint, broken
        broken.append(checkpoint)
    raise UserError(_no_whole_checkpoint(run, broken, [c for c in candidates if progress[c] == ()]))


def _no_whole_checkpoint(run: Run, broken: list[Path], weights_only: list[Path]) -> str:
    reasons = {"damaged, truncated or not a checkpoint of a run": broken, "weights only": weights_only}
    listed = "; ".join(f"{', '.join(c.name for c in found)}: {why}" for why, found in reasons.items() if found)
    return f"{run.checkpoints}: no intact checkpoint ({listed}). Run `fit` again."


class StartedElsewhereError(UserError):
    """A relative path of a run does not exist here; the message names the folder to start in."""


@contextlib.contextmanager
def paths_of(run: Run) -> Iterator[None]:
    """If a command on a run fails because a relative path does not exist here, report where the run's paths start."""
    try:
        yield
    except StartedElsewhereError:
        raise
    except (UserError, FileNotFoundError) as error:
        started_in = _read_start(run).get("cwd")
        elsewhere = _paths_only_in(run, Path(started_in)) if isinstance(started_in, str) else []
        elsewhere = [text for text in elsewhere if _is_named(text, str(error))]
        if not elsewhere:
            raise
        raise UserError(
            f"{error} The relative paths of this run ({', '.join(elsewhere)}) are relative to {started_in}; run the "
            "command there."
        ) from error


def _paths_only_in(run: Run, folder: Path) -> list[str]:
    """Relative paths in a run's settings that exist in a folder but not here."""
    settings = read_yaml(run.config, advice="Name another run.")
    found = [text for part in ("model", "data") for text in _texts(settings.get(part))]
    return [text for text in found if os.path.exists(folder / text) and not os.path.exists(text)]


def _is_named(path: str, message: str) -> bool:
    """Whether a message names a path, in any spelling."""
    spellings = "|".join(re.escape(text) for text in {path, str(Path(path)), os.path.abspath(path)})
    return re.search(rf"(?<![\w./-])(?:{spellings})(?![\w-])", message) is not None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(part)


def _check_run(run: Run, named: str | None) -> None:
    if not run.folder.is_dir():
        found = "a file, not a run folder" if run.folder.exists() else "no such run folder"
        raise UserError(f"{named}: {found}; expected one such as runs/quickstart/version_0.")
    if not run.config.is_file() and (run.folder / "ledger.json").is_file():
        raise UserError(f"{run.config}: missing, so the settings of this run are unknown. Copy the file back.")
    if not run.config.is_file() and any(run.checkpoints.glob("*.ckpt")):
        raise UserError(
            f"{named}: trained from Python (it has checkpoints but no config.yaml), so only its script knows its data. "
            "Test it there with `trainer.test(LitCausalLM.load_from_checkpoint(CHECKPOINT), datamodule=data)`; resume "
            "it with `trainer.fit(module, datamodule=data, ckpt_path=CHECKPOINT, weights_only=True)`."
        )
    if not run.config.is_file():
        raise UserError(f"{named}: not a run folder (no config.yaml); expected one such as runs/quickstart/version_0.")
    if not isinstance(read_yaml(run.config, advice="Name another run."), dict):
        raise UserError(f"{run.config}: contains no settings; expected those of a run. Name another run.")


def _progress(checkpoint: Path) -> tuple[int, int, float] | tuple[()] | None:
    """The progress of a checkpoint: steps, batches, time written. Empty if it has weights only, None if unreadable."""
    header = read_header(checkpoint) or {}
    try:
        batches = header["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"]
        found = int(header["global_step"]), int(batches), checkpoint.stat().st_mtime
    except (LookupError, TypeError, ValueError, OSError):
        return None
    return found if "optimizer_states" in header else ()


def _is_intact(checkpoint: Path) -> bool:
    import torch

    try:
        if not is_intact(checkpoint):
            return False
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:
        return False
    return True


def _newest_run(root: str) -> Run:
    """The run with a checkpoint that was started or resumed last, by its own record.

    A copy has the same start time as the original; the later name wins. For runs without a record, the modification
    time of config.yaml counts.
    """
    found = [
        Run(path.parent)
        for path in Path(root).glob("*/version_*/config.yaml")
        if path.is_file() and any(path.parent.glob("checkpoints/*.ckpt"))
    ]
    if not found:
        raise UserError(
            f"{root}: no run with a checkpoint. Train one first "
            "(`python -m lit_sft fit --config configs/quickstart.yaml`), or name a run folder."
        )
    return max(found, key=lambda run: (_started(run), str(run.folder)))


def _started(run: Run) -> float:
    started = _read_start(run).get("started")
    return float(started) if isinstance(started, int | float) else run.config.stat().st_mtime


def _read_start(run: Run) -> dict[str, Any]:
    """What `note_start` wrote; empty if the file is missing or damaged."""
    with contextlib.suppress(ValueError, OSError):
        found: Any = read_json(run.folder / _START)
        return found if isinstance(found, dict) else {}
    return {}


def _working_folder() -> str | None:
    with contextlib.suppress(OSError):  # it may have been removed
        return os.getcwd()
    return None
