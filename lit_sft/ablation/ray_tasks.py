"""Runs the trials of a study as tasks of a Ray cluster."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence

import torch

from data_modules.errors import UserError

Log = Callable[[str], None]

_MOST_BYTES = 107
"""Longest path of a socket on Linux."""

_SOCKET_BYTES = len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store")


def run_on_ray(commands: Mapping[str, Sequence[str]], address: str, jobs: int, log: Log) -> None:
    """Run every command as a task, and wait for all of them.

    Study folder, model and data must be accessible from every machine of the cluster.

    Args:
        commands: Commands by trial name.
        address: Address of the cluster; `local` starts one on this machine.
        jobs: Tasks at once on a local cluster.
        log: Prints a line.

    Raises:
        UserError: If Ray is not installed, or the cluster cannot be reached.
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
        raise UserError(f"--ray {address}: no cluster found ({error}).") from None
    try:
        task = ray.remote(num_cpus=1, num_gpus=min(1, torch.cuda.device_count()), max_retries=0)(_run)
        waiting = {task.remote(list(command), os.getcwd()): name for name, command in commands.items()}
        while waiting:
            (ended,), _ = ray.wait(list(waiting), num_returns=1)
            try:
                outcome = "done" if ray.get(ended) == 0 else "failed"
            except ray.exceptions.RayError as error:  # its worker or machine died; the others continue
                outcome = f"lost ({str(error).splitlines()[0]}); run the same command again to continue it"
            log(f"{waiting.pop(ended)}: {outcome}")
    finally:
        ray.shutdown()


def short_folder(temporary: str) -> str | None:
    """A folder for the sockets of a local cluster, if their paths in the temporary folder would be too long.

    Returns:
        The folder. None: Ray's default works.
    """
    return "/tmp/ray" if len(os.fsencode(temporary)) + _SOCKET_BYTES > _MOST_BYTES else None


def _run(command: list[str], folder: str) -> int:
    return subprocess.call(command, cwd=folder)
