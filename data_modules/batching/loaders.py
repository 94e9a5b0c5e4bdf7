"""Data loaders that yield whole batches as lists of micro-batches."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from data_modules.batching.batch import Batch
from data_modules.batching.sampling import BatchPlan
from data_modules.batching.worker_sockets import shorten_socket_paths
from data_modules.errors import UserError


class Indexed(Protocol):
    """Examples by index, such as an `ExampleStore`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def loader_processes(wanted: int | None) -> int:
    """The number of processes that collate batches.

    Args:
        wanted: None: two with a GPU, else none.

    Raises:
        UserError: If `wanted` is negative.
    """
    if wanted is None:
        return 2 * torch.cuda.is_available()
    if wanted < 0:
        raise UserError(f"--data.num_workers {wanted}: expected 0 or more processes.")
    return wanted


def batch_loader(
    store: Indexed, collate_micro_batch: Callable[..., Batch], sampler: Sampler[BatchPlan], *, num_workers: int
) -> DataLoader[list[Batch]]:
    """A loader that yields each batch as a list of micro-batches.

    Args:
        store: The examples.
        collate_micro_batch: Makes a micro-batch of examples.
        sampler: Yields the plan of each batch.
        num_workers: Worker processes. 0: collate in this process.
    """
    if num_workers:
        shorten_socket_paths()
    return DataLoader(
        _PlannedDataset(store, collate_micro_batch),
        batch_sampler=sampler,  # type: ignore[arg-type]  # a plan is what torch calls a batch of indices
        collate_fn=_first,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        worker_init_fn=_leave_ctrl_c_to_the_parent,
        pin_memory=torch.cuda.is_available(),
    )


class _PlannedDataset(Dataset[Any]):
    """A dataset whose items are the micro-batches of a BatchPlan."""

    def __init__(self, store: Indexed, collate_micro_batch: Callable[..., Batch]) -> None:
        self.store, self.collate_micro_batch = store, collate_micro_batch

    def __len__(self) -> int:
        return len(self.store)

    def __getitems__(self, plan: BatchPlan) -> list[list[Batch]]:
        return [
            [
                self.collate_micro_batch(
                    [self.store[index] for index in micro_batch],
                    normaliser=plan.normaliser,
                    counts=number < plan.num_counting,
                )
                for number, micro_batch in enumerate(plan.micro_batches)
            ]
        ]


def _leave_ctrl_c_to_the_parent(_: int) -> None:
    """Ignore Ctrl-C, which reaches all processes: the parent still needs batches until the step is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _first(batches: list[Any]) -> Any:
    return batches[0]
