"""What makes a resumed run end as the uninterrupted one would have, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def seed_batch(seed: int, epoch: int, batch_idx: int, rank: int) -> None:
    """Let what is drawn in a batch (dropout) depend on its place alone.

    So there is no random state to save, and nothing that draws between batches changes the training.
    """
    # the bits of a SeedSequence are mixed well, so that neighbours have nothing in common
    state = np.random.SeedSequence((seed, epoch, batch_idx, rank)).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))


def rewind_to_step(loops: dict[str, Any], accumulate: int, num_batches: int) -> None:
    """Let a checkpoint resume at the batch that follows the last optimiser step.

    Inside an accumulation window: the gradients gathered so far are not in the checkpoint, and the weights are those
    from before the window, so its batches are simply given once more. Where `max_steps` ended the run inside an epoch:
    Lightning counts the epoch as done, and would leave the rest of it out.

    Args:
        loops: The state of Lightning's loops in the checkpoint; changed in place, as Lightning's hook wants it.
        accumulate: Batches of a window.
        num_batches: Batches of an epoch.
    """
    batches, epochs = loops["fit_loop"]["epoch_loop.batch_progress"], loops["fit_loop"]["epoch_progress"]
    begun = batches["current"]["ready"]
    if begun >= num_batches:
        return
    if excess := begun % accumulate:
        for counts in (batches["current"], batches["total"]):
            first = counts["ready"] - excess
            counts.update(dict.fromkeys(("ready", "started", "processed", "completed"), first))
    for counts in (epochs["current"], epochs["total"]):
        counts.update(dict.fromkeys(("processed", "completed"), counts["ready"] - 1))
