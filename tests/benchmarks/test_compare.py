"""The comparison with peers: the same loss before anything is timed, the same work counted, a table of the metrics."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from benchmarks.compare import measure, settings
from benchmarks.profile_step import GROUPS, profile_step
from benchmarks.profile_step import table as profile_table
from benchmarks.report import ratios, table
from benchmarks.rows import make_rows, write_plain
from benchmarks.runner import CONTESTANTS, Contestant, ContestantError, Entry, check_agreement, compete
from benchmarks.shapes import work_of_folder, write_shape

ROOT = Path(__file__).parents[2]
TOKENIZER = str(ROOT / "examples" / "tokenizer")


def test_all_agree_on_the_first_loss_of_few_shot_rows_although_lit_sft_computes_the_examples_once(
    tmp_path: Path,
) -> None:
    options = argparse.Namespace(
        records=str(ROOT / "examples" / "world" / "train.json"), tokenizer=TOKENIZER, batch_size=4, steps=1,
        max_length=512, tuning="lora", precision="float32", threads=1, contestants=["lit_sft_unshared", "hf_flat"],
        side_by_side=True, same_environment=True, rows="few_shot", template=None,
    )  # fmt: skip
    model = str(write_shape("tiny", 1, tmp_path, TOKENIZER))
    result = measure(options, settings(options, model, tmp_path) | {"slow_bf16": False}, tmp_path)
    own, unshared, peer = (result["contestants"][name] for name in ("lit_sft", "lit_sft_unshared", "hf_flat"))
    for entry in (unshared, peer):
        assert entry["warm_up"]["loss"] == pytest.approx(own["warm_up"]["loss"], rel=1e-5)
        assert entry["rounds"][0]["processed"] == entry["rounds"][0]["real"]
        assert entry["needed_flops"] == own["needed_flops"] > 0
    counts = [{key: e["rounds"][0][key] for key in ("real", "supervised")} for e in (own, unshared, peer)]
    assert counts[0] == counts[1] == counts[2]
    assert own["rounds"][0]["processed"] < own["rounds"][0]["real"] / 2


class FakeProcess:
    """A contestant that reports a given loss, or fails at a given step."""

    def __init__(self, loss: float, fails_at: int = 99) -> None:
        self.facts, self.loss, self.steps, self.fails_at = {"precision": "float32"}, loss, 0, fails_at

    def step(self) -> dict[str, Any]:
        self.steps += 1
        if self.steps == self.fails_at:
            raise ContestantError("no memory")
        return {"loss": self.loss, "seconds": 1.0, "real": 10}

    def end(self) -> None:
        pass


def fake_entries(*processes: FakeProcess) -> list[Entry]:
    remaining = iter(processes)
    contestants = [Contestant(f"c{n}", f"C{n}", "none.py") for n in range(len(processes))]
    return [Entry(c, lambda *_: next(remaining), list(range(6)), 2, stays=True) for c in contestants]  # type: ignore[arg-type,return-value]


def test_comparison_stops_before_timing_when_first_losses_differ() -> None:
    with pytest.raises(SystemExit, match=r"C1: the loss of the first batch is 2\.0010000, that of lit_sft 2\.0000000"):
        compete(fake_entries(FakeProcess(2.0), FakeProcess(2.001)))


def test_agreement_tolerates_the_error_of_the_coarser_precision() -> None:
    entries = fake_entries(FakeProcess(2.0), FakeProcess(2.03))
    entries[0].facts, entries[1].facts = {"precision": "float32"}, {"precision": "bf16"}
    check_agreement(entries, {"c0": {"loss": 2.0}, "c1": {"loss": 2.03}})
    with pytest.raises(SystemExit):
        check_agreement(entries, {"c0": {"loss": 2.0}, "c1": {"loss": float("nan")}})


def test_failing_peer_does_not_stop_the_others() -> None:
    results = compete(fake_entries(FakeProcess(2.0), FakeProcess(2.0, fails_at=3), FakeProcess(2.0)))
    assert [len(result["rounds"]) for result in results.values()] == [2, 1, 2]
    assert [result.get("failure") for result in results.values()] == [None, "no memory", None]


def test_grouped_batches_span_all_lengths_after_the_warm_up_batch() -> None:
    lengths = [9, 1, 5, 2, 6, 1, 8, 8, 3, 4]
    rows = Contestant("c", "C", "none.py", groups_lengths=True).ordered(lengths, 2, 2)
    assert rows[:2] == [0, 1]
    assert {frozenset(rows[2:4]), frozenset(rows[4:])} == {frozenset({8, 9}), frozenset({6, 7})}
    assert Contestant("c", "C", "none.py").ordered(lengths, 2, 2) == [0, 1, 2, 3, 4, 5]


def test_flops_equal_torchs_count_for_an_unpadded_row(tmp_path: Path) -> None:
    folder = write_shape("tiny", 2, tmp_path, TOKENIZER)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    ids, length = torch.arange(20).unsqueeze(0), 20
    with FlopCounterMode(display=False) as counter:
        model(ids, use_cache=False).logits.sum().backward()
    work = work_of_folder(folder)
    above_the_diagonal = 12 * work.scores * (length * (length - 1) // 2)
    rotary = counter.get_total_flops() - work.flops([length], length, "full") - above_the_diagonal
    assert 0 <= rotary < 1e-3 * counter.get_total_flops()  # computing the rotary angles is a matrix product too


def test_synthetic_rows_have_the_lengths_of_instruction_data(tmp_path: Path) -> None:
    store = make_rows(500, 400, tmp_path, max_length=1024)
    assert 110 < store.lengths.mean() < 140
    supervised = write_plain(store, tmp_path / "rows.json")
    assert sum(supervised) == pytest.approx(sum(store.lengths) / 2, rel=0.01)


def test_table_shows_ratios_memory_and_failures() -> None:
    def entry(label: str, seconds: list[float], processed: int) -> dict[str, Any]:
        common = {"real": 100, "supervised": 40, "processed": processed, "peak_bytes": 2e9, "loss": 1.0}
        rounds = [{"seconds": value, **common} for value in seconds]
        return {
            "label": label,
            "facts": {"precision": "float32", "settings": {}, "versions": {}},
            "rounds": rounds,
            "needed_flops": 1e9,
        }

    own, peer = entry("lit_sft", [1.0, 1.0], 100), entry("TRL, tuned", [2.0, 3.0], 150)
    failed = {"label": "TRL, default", "facts": {}, "rounds": [], "failure": "no memory"}
    told = {
        "rows": "records",
        "model": "m/tiny",
        "tuning": "full",
        "precision": "float32",
        "batch_size": 4,
        "threads": 2,
    }
    text = table(
        {
            "settings": told | {"side_by_side": False},
            "ceiling_flops": [1e9, 0.9e9],
            "contestants": {"lit_sft": own, "trl_tuned": peer, "trl_default": failed},
        }
    )
    assert ratios(own["rounds"], peer["rounds"]) == pytest.approx((2.5, 2.5, 2.0, 3.0))
    assert "| lit_sft | float32 | 100 | 40 |  | 1.00 | 2.0 GB | 50% |" in text
    assert "| TRL, tuned | float32 | 40 | 16 | 2.50 x (median 2.50, 2.00 to 3.00) | 1.50 | 2.0 GB | 20% |" in text
    assert "| TRL, default | failed: no memory |" in text


def test_profile_accounts_for_the_whole_step(tmp_path: Path) -> None:
    model = str(write_shape("tiny", 1, tmp_path, TOKENIZER))
    rows = list(make_rows(500, 4, tmp_path, max_length=64))
    times = profile_step(model, TOKENIZER, [rows[:2], rows[2:]], "full", "bf16", steps=2)
    assert set(times) == set(GROUPS)
    assert all(microseconds > 0 for microseconds in times.values())
    lines = profile_table({"full, bf16": times}, [0.5]).splitlines()
    shares = [float(line.split("|")[2].strip().rstrip("%")) for line in lines[2 : 2 + len(GROUPS)]]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert lines[-1] == "| share of the ceiling | 50% |"


def test_profile_in_float32_has_no_casts_of_weights(tmp_path: Path) -> None:
    model = str(write_shape("tiny", 1, tmp_path, TOKENIZER))
    rows = list(make_rows(500, 4, tmp_path, max_length=64))
    casts = [
        profile_step(model, TOKENIZER, [rows], "full", precision, shares=shares)["casts"]
        for precision, shares in (("float32", False), ("bf16", False))
    ]
    assert casts[0] < casts[1]


def test_every_contestant_has_its_files() -> None:
    peers = ROOT / "benchmarks" / "peers"
    assert all((peers / contestant.script).exists() for contestant in CONTESTANTS)
    assert all((peers / f"{c.environment}.txt").exists() for c in CONTESTANTS if c.environment)
