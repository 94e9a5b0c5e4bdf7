"""What `init` says about the data, the model and the machine."""

from __future__ import annotations

from data_modules.wording import counted
from lit_sft.init.machine import Machine
from lit_sft.init.proposal import Proposal
from lit_sft.init.survey import Lengths, Survey
from lit_sft.init.trial import Trial


def findings(
    found: Survey, measured: Lengths, proposal: Proposal, weights: int, machine: Machine, trial: Trial | None
) -> list[str]:
    """One line for each, and for what should be known before training.

    Args:
        found: The records.
        measured: Their lengths.
        proposal: The proposed settings.
        weights: Number of weights of the model.
        machine: Where it is trained.
        trial: How fast it trained; None if it was not tried.
    """
    kind = f"format {found.format}" + (f", columns {', '.join(found.columns.values())}" if found.columns else "")
    lines = [
        f"data    {'about ' * found.is_estimate}{counted(found.num_records, *_nouns(found))}, {kind}; "
        f"half have up to {measured.percentile(0.5):,} tokens, the longest {measured.percentile(1):,}",
        f"model   {weights:,} weights; {proposal.tuning}, because {proposal.why_tuning}",
        f"machine {machine.name}, {machine.memory / 1e9:.0f} GB of memory free, {machine.precision}; "
        f"a step takes about {proposal.memory / 1e9:.1f} GB",
        f"time    {_time(proposal, machine, trial)}",
    ]
    if over_long := over_long_records(found, measured, proposal):
        lines.append(f"long    {over_long}")
    if found.num_invalid:
        lines.append(f"invalid {counted(found.num_invalid, 'record')} will be left out: {found.reason}")
    lines += [f"fields  {line}" for line in found.unused_fields]
    if not proposal.fits:
        lines.append("memory  not enough by our estimate, even with the smallest token budget; close other programs")
    return lines


def over_long_records(found: Survey, measured: Lengths, proposal: Proposal) -> str:
    """How many records are longer than the proposed limit, and what happens to them; empty if there are none."""
    share = measured.share_above(proposal.max_length)
    if found.is_text or not share:
        return ""
    num = max(1, round(share * found.num_records))
    is_sampled = found.is_estimate or len(measured.tokens) < found.num_records
    records = f"{'about ' * is_sampled}{num:,} of {counted(found.num_records, 'record')}"
    fate = "are split between turns" if found.has_several_answers else "are cut: context first, the answer last"
    fate = "lose old exchanges, or are left out" if found.is_preference else fate
    whole = f"; the longest has {measured.percentile(1):,}"
    return f"{records} ({share:.1%}) with more than {proposal.max_length:,} tokens {fate}{whole}"


def _nouns(found: Survey) -> tuple[str, str]:
    if found.is_text:
        return "document", ""
    if found.is_preference:
        return "preference pair", ""
    return ("conversation", "") if found.has_several_answers else ("question with an answer", "questions with answers")


def _time(proposal: Proposal, machine: Machine, trial: Trial | None) -> str:
    if trial is None:
        epoch, how = (
            proposal.seconds,
            f"at the {machine.flops / 1e9:,.0f} GFLOP/s of a product of matrices of this size",
        )
    else:
        epoch, how = trial.seconds(proposal.tokens, proposal.steps), "by a trial of a few seconds, without validation"
    about = "about" if trial else "at least"
    return f"{about} {_duration(epoch)} an epoch, {_duration(epoch * proposal.epochs)} for all {proposal.epochs}, {how}"


def _duration(seconds: float) -> str:
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(1, round(seconds))} s"
