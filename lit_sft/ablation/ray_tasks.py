"""The trials of a study as tasks of a Ray cluster, which decides where and when they run."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence

import torch

from data_modules.errors import UserError

Log = Callable[[str], None]

_MOST_BYTES = 107
"""That Linux takes for the path of a socket."""

_SOCKET_BYTES = len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store")


def run_on_ray(commands: Mapping[str, Sequence[str]], address: str, jobs: int, log: Log) -> None:
    """Run every command as one task, and wait for all.

    The folder of the study, and the model and data, must lie where every machine of the cluster sees them.

    Args:
        commands: By the name of the trial.
        address: Of the cluster; `local` starts one on this machine.
        jobs: How many share this machine's processors, where the cluster is local.
        log: Prints a line.

    Raises:
        UserError: If Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--ray: Ray is not installed; `pip install 'lit_sft[ray]'`.") from None
    try:
        ray.init(
            address=None if address == "local" else address,
            num_cpus=jobs if address == "local" else None,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=short_folder(tempfile.gettempdir()) if address == "local" else None,
        )
    except ConnectionError as error:
        raise UserError(f"--ray {address}: no cluster there ({error}).") from None
    try:
        task = ray.remote(num_cpus=1, num_gpus=min(1, torch.cuda.device_count()), max_retries=0)(_run)
        waiting = {task.remote(list(command), os.getcwd()): name for name, command in commands.items()}
        while waiting:
            (ended,), _ = ray.wait(list(waiting), num_returns=1)
            try:
                outcome = "done" if ray.get(ended) == 0 else "failed"
            except ray.exceptions.RayError as error:  # its worker or machine died; the others go on
                outcome = f"lost ({str(error).splitlines()[0]}); run the same command again to continue it"
            log(f"{waiting.pop(ended)}: {outcome}")
    finally:
        ray.shutdown()


def short_folder(temporary: str) -> str | None:
    """Where a local cluster keeps its sockets if their paths under the folder for temporary files are too long.

    Returns:
        A folder; None: Ray's own choice will do.
    """
    return "/tmp/ray" if len(os.fsencode(temporary)) + _SOCKET_BYTES > _MOST_BYTES else None


def _run(command: list[str], folder: str) -> int:
    return subprocess.call(command, cwd=folder)
