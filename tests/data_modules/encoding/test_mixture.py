"""Mixtures: what an epoch has of every source, and how each source is read, rendered, masked and counted."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from data_modules.encoding import mixture
from data_modules.encoding.mixture import chosen, wanted_examples
from data_modules.errors import UserError
from data_modules.records.mix import MixSource
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import SegmentKind
from data_modules.sft_data_module import SFTDataModule
from tests.conftest import alpaca_rows, chat_rows

Write = Callable[..., str]


def qa_rows(count: int) -> list[dict[str, str]]:
    return [{"q": f"What is number {n}?", "a": f"It is {n}."} for n in range(count)]


@pytest.fixture
def files(write: Write) -> dict[str, str]:
    return {
        "alpaca": write("alpaca.jsonl", alpaca_rows(40)),
        "chats": write("chats.jsonl", chat_rows(30)),
        "qa": write("qa.jsonl", qa_rows(20)),
    }


@pytest.fixture
def make(tokenizer: PreTrainedTokenizerFast, files: dict[str, str]) -> Callable[..., SFTDataModule]:
    def _make(of_source: dict[str, dict[str, Any]], *, order: int = 1, **settings: Any) -> SFTDataModule:
        defaults = {"tokenizer": tokenizer, "template": "chatml", "val_fraction": 0.2, "test_fraction": 0.1}
        own = {"qa": {"columns": {"prompt": "q", "completion": "a"}}}
        mix = [{"name": name, "files": files[name], **own.get(name, {}), **of_source[name]} for name in of_source]
        data = SFTDataModule(mix=mix[::order], **(defaults | settings))
        data.setup("fit")
        return data

    return _make


def counts(data: SFTDataModule, split: str = "train") -> list[int]:
    return np.bincount(data.stores[split].sources, minlength=len(data.mix)).tolist()


def ids(data: SFTDataModule, split: str = "train") -> list[bytes]:
    return [example.input_ids.tobytes() for example in data.stores[split]]


def test_fractional_repeats_give_every_example_a_whole_number_of_times_and_some_once_more(
    make: Callable[..., SFTDataModule],
) -> None:
    once = make({"alpaca": {}, "qa": {}})
    data = make({"alpaca": {}, "qa": {"repeats": 2.5}})
    size = counts(once)[1]
    assert counts(data) == [counts(once)[0], round(2.5 * size)]
    times = Counter(Counter(ids(data)[counts(data)[0] :]).values())
    assert times == {3: round(2.5 * size) - 2 * size, 2: 3 * size - round(2.5 * size)}
    assert set(ids(data)) == set(ids(once))
    assert data.ledgers["train"]["sources"]["qa"]["epoch"]["examples"] == round(2.5 * size)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=6), st.data())
def test_weights_are_shares_of_an_epoch_as_long_as_all_sources(sizes: list[int], draw: st.DataObject) -> None:
    weights = [draw.draw(st.floats(0.1, 10)) for _ in sizes]
    mix = [MixSource(f"s{i}", ["f"], weight=weight) for i, weight in enumerate(weights)]
    wanted = wanted_examples(mix, sizes)
    for count, weight in zip(wanted, weights, strict=True):
        assert count >= 1
        assert abs(count - max(1, sum(sizes) * weight / sum(weights))) <= 1
    assert sum(wanted) == sum(sizes) or 1 in wanted


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30, unique=True), st.integers(1, 100))
def test_examples_are_chosen_by_their_hash_and_not_by_their_order(hashes: list[int], count: int) -> None:
    def found(numbers: list[int]) -> Counter[int]:
        return Counter(numbers[row] for row in chosen(np.asarray(numbers, dtype=np.uint64), count))

    assert found(hashes) == found(hashes[::-1])
    assert found(hashes).total() == count
    assert max(found(hashes).values()) - min(found(hashes)[each] for each in hashes) <= 1


def test_weights_set_the_share_of_a_source(make: Callable[..., SFTDataModule]) -> None:
    sizes = counts(make({"alpaca": {}, "chats": {}}))
    data = make({"alpaca": {"weight": 1}, "chats": {"weight": 3}})
    assert counts(data) == wanted_examples(data.mix, sizes)
    assert sum(counts(data)) == sum(sizes)
    assert counts(data)[1] / sum(sizes) == pytest.approx(0.75, abs=0.02)


def test_other_weights_encode_nothing(make: Callable[..., SFTDataModule], monkeypatch: pytest.MonkeyPatch) -> None:
    before = make({"alpaca": {"weight": 1}, "chats": {"weight": 3}})
    monkeypatch.setattr(mixture, "encode_split", None)
    after = make({"alpaca": {"weight": 2}, "chats": {"weight": 1}})
    assert counts(before) != counts(after)
    assert before.fingerprint != after.fingerprint


def test_a_source_can_be_renamed(tokenizer: PreTrainedTokenizerFast, files: dict[str, str]) -> None:
    for name in ("alpaca", "renamed"):
        data = SFTDataModule(mix=[{"name": name, "files": files["alpaca"]}], tokenizer=tokenizer, template="chatml")
        data.setup("fit")
        assert list(data.ledgers["train"]["sources"]) == [name]


def test_held_out_records_come_from_every_source_once(make: Callable[..., SFTDataModule]) -> None:
    data = make({"alpaca": {"repeats": 3}, "chats": {"repeats": 0.5}, "qa": {}})
    for split in ("val", "test"):
        assert min(counts(data, split)) > 0
        assert len(set(ids(data, split))) == len(data.stores[split])
    alone = make({"alpaca": {}, "chats": {}, "qa": {}})
    assert ids(alone, "val") == ids(data, "val")
    assert not {*ids(data, "val"), *ids(data, "test")} & {*ids(data)}


def test_nothing_depends_on_the_order_of_sources_or_on_paths(
    make: Callable[..., SFTDataModule], files: dict[str, str], tmp_path: Path
) -> None:
    sources = {"alpaca": {"repeats": 1.5}, "chats": {"cap": 10}, "qa": {"repeats": 0.5}}
    data, turned = make(sources), make(sources, order=-1)
    (tmp_path / "elsewhere").mkdir()
    for name, file in files.items():
        files[name] = shutil.move(file, tmp_path / "elsewhere")
    moved = make(sources)
    assert ids(data) == ids(turned) == ids(moved)
    assert data.identity() == turned.identity() == moved.identity()
    assert [list(step) for step in first_steps(data)] == [list(step) for step in first_steps(moved)]


def first_steps(data: SFTDataModule) -> list[list[list[int]]]:
    steps = data.train_steps(2)
    return [next(steps) for _ in range(8)]


def test_each_source_has_its_own_columns_template_and_mask(make: Callable[..., SFTDataModule]) -> None:
    data = make({"chats": {"mask": "firefly_multi_turn"}, "qa": {"template": "plain"}}, mask="output_only")
    chats, qa = ([e for e in data.stores["train"] if e.source == source] for source in (0, 1))
    assert data.tokenizer.decode(qa[0].input_ids).startswith("User:\nWhat is number ")
    assert data.tokenizer.decode(chats[0].input_ids).startswith("<|im_start|>user\nSay ")
    expected = {}
    for examples, mask in ((chats, MASKS["firefly_multi_turn"]), (qa, MASKS["output_only"])):
        expected |= {e.origin: e.loss_weights(mask).tolist() for e in examples}
    weights: dict[str, list[float]] = {}
    for batch in (batch for batches in data.train_dataloader() for batch in batches):
        parts = np.split(batch.weights.flatten().numpy(), np.cumsum(batch.lengths)[:-1])
        weights |= {origin: part.tolist() for origin, part in zip(batch.origins, parts, strict=True)}
    assert weights == expected
    several = [e for e in chats if (e.kinds == SegmentKind.ANSWER).any()]
    assert several
    assert all(np.array(weights[e.origin])[e.kinds == SegmentKind.ANSWER].min() == 1 for e in several)


def test_normaliser_of_a_step_has_the_weights_of_each_source(make: Callable[..., SFTDataModule]) -> None:
    data = make({"chats": {"mask": "firefly_multi_turn"}, "qa": {}}, mask="output_only", batch_size=4)
    for batches in data.train_dataloader():
        assert batches[0].normaliser == pytest.approx(sum(float(batch.weights.sum()) for batch in batches))


def test_ledgers_list_every_source_and_add_up(make: Callable[..., SFTDataModule]) -> None:
    ledger = make({"alpaca": {}, "chats": {"cap": 10}, "qa": {}}).ledgers["train"]
    parts = ledger["sources"].values()
    assert list(ledger["sources"]) == ["alpaca", "chats", "qa"]
    for key in ("records_read", "examples", "left_out"):
        assert ledger[key] == sum(part[key] for part in parts)
    assert (ledger["sources"]["chats"]["examples"], ledger["sources"]["alpaca"]["left_out"]) == (10, 0)
    assert ledger["left_out"] > 0
    kept = [part["tokens"]["kept"]["final_answer"] for part in parts]
    assert ledger["tokens"]["kept"]["final_answer"] == sum(kept)


def test_training_rows_of_any_source_are_left_out_if_a_validation_file_has_them(
    make: Callable[..., SFTDataModule], write: Write
) -> None:
    val = write("val.jsonl", [{"prompt": row["q"], "completion": row["a"]} for row in qa_rows(3)])
    data = make({"alpaca": {}, "qa": {}}, val=val, test_fraction=0.0)
    assert data.ledgers["train"]["sources"]["qa"]["duplicates"] == 3
    assert (len(data.stores["val"]), data.stores["val"].sources.tolist()) == (3, [-1] * 3)
    assert counts(data)[1] == 17


def test_identity_names_the_source_that_changed(make: Callable[..., SFTDataModule], files: dict[str, str]) -> None:
    before = make({"alpaca": {}, "qa": {}}).identity()
    Path(files["qa"]).write_text(Path(files["qa"]).read_text().replace("number 3", "No. 3"))
    after = make({"alpaca": {"repeats": 2}, "qa": {}}).identity()
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {"records of --data.mix qa", "--data.mix alpaca"}
    assert "records of --data.train" not in before


@pytest.mark.parametrize(
    ("sources", "settings", "message"),
    [
        ({"alpaca": {"template": "alpacca"}}, {}, "--data.mix alpaca: template alpacca: expected one of auto, "),
        ({"alpaca": {"mask": "all"}}, {}, "--data.mix alpaca: mask all: expected one of whole_sequence, "),
        ({"alpaca": {"template": "plain"}}, {}, "--data.template chatml: no source of --data.mix has this template, "
         "but answers are generated with it. Set `--data.template` to plain."),
        ({"alpaca": {"mask": "output_only"}}, {"convention": "trl:assistant_only"}, "--data.mix alpaca: has its own "
         "template or mask, but --data.convention sets both"),
        ({"alpaca": {}, "qa": {"columns": {"prompt": "question"}}}, {"on_invalid": "drop"}, "qa.jsonl: all 20 records"),
        ({"alpaca": {}, "qa": {}}, {"max_length": 30, "over_long": "drop"}, "--data.mix alpaca: none of its records"),
    ],
)  # fmt: skip
def test_sources_that_cannot_be_trained_are_refused_by_name(
    make: Callable[..., SFTDataModule], sources: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        make(sources, **settings)
    assert message in str(error.value)


def test_a_mask_that_supervises_nothing_of_a_source_is_refused(
    make: Callable[..., SFTDataModule], files: dict[str, str], write: Write
) -> None:
    files["texts"] = write("texts.jsonl", [{"text": f"Once upon a time, {n}."} for n in range(9)])
    with pytest.raises(UserError, match=r"--data\.mix texts: mask 'output_only' supervises no token of .*texts\.jsonl"):
        make({"alpaca": {}, "texts": {}})
    data = make({"alpaca": {}, "texts": {"mask": "whole_sequence"}})
    assert counts(data)[1] > 0


def test_a_source_of_bad_answers_alone_is_accepted(
    make: Callable[..., SFTDataModule], files: dict[str, str], write: Write
) -> None:
    files["bad"] = write("bad.jsonl", [row | {"label": False} for row in alpaca_rows(60)[40:]])
    assert min(counts(make({"chats": {}, "bad": {}}))) > 0
