from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.cache import cache_key, encode_sources, load_ledgers, load_split
from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example_store import ExampleStore
from data_modules.encoding.ledger import Ledger
from data_modules.records.splits import Sources
from data_modules.rendering.templates import resolve_template
from data_modules.sft_data_module import SFTDataModule
from tests.conftest import alpaca_rows, chat_rows

Write = Callable[..., str]

REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer, resolve_template("chatml", tokenizer), 200)


def held_out(path: str, **settings: Any) -> Sources:
    return Sources({"train": [path]}, {"val": 0.2, "test": 0.1}, **settings)


def texts(folder: Path, split: str) -> list[str]:
    store = load_split(folder, split)
    assert store is not None
    return [bytes(i for i in example.input_ids.tolist() if i < 256).decode() for example in store]


def test_splits_do_not_depend_on_the_order_of_the_records(tmp_path: Path, write: Write, encoder: Encoder) -> None:
    rows = alpaca_rows(60)
    first = encode_sources(held_out(write("a.jsonl", rows)), encoder, tmp_path)
    second = encode_sources(held_out(write("b.jsonl", rows[::-1])), encoder, tmp_path)
    for split in ("train", "val", "test"):
        assert sorted(texts(first, split)) == sorted(texts(second, split))
        assert texts(first, split)
    assert sum(len(texts(first, split)) for split in ("train", "val", "test")) == 60


def test_adding_records_does_not_move_others_to_another_split(tmp_path: Path, write: Write, encoder: Encoder) -> None:
    few = encode_sources(held_out(write("a.jsonl", alpaca_rows(40))), encoder, tmp_path)
    many = encode_sources(held_out(write("b.jsonl", alpaca_rows(60))), encoder, tmp_path)
    for split in ("train", "val", "test"):
        assert set(texts(few, split)) <= set(texts(many, split))


def test_a_share_of_the_training_records_is_part_of_a_larger_one(
    tmp_path: Path, write: Write, encoder: Encoder
) -> None:
    path = write("a.jsonl", alpaca_rows(200))
    folders = [encode_sources(held_out(path, train_fraction=share), encoder, tmp_path) for share in (0.1, 0.5, 1.0)]
    tenth, half, whole = (
        {split: set(texts(folder, split)) for split in ("train", "val", "test")} for folder in folders
    )
    assert tenth["train"] < half["train"] < whole["train"]
    assert 0.4 < len(half["train"]) / len(whole["train"]) < 0.6
    assert all(tenth[split] == half[split] == whole[split] for split in ("val", "test"))


def test_records_of_one_article_stay_in_one_split(tmp_path: Path, write: Write, encoder: Encoder) -> None:
    rows = [{"article_id": n // 4, "prompt": f"q{n}.", "completion": f"article {n // 4}"} for n in range(200)]
    folder = encode_sources(held_out(write("a.jsonl", rows)), encoder, tmp_path)
    articles = {split: {t.partition("article ")[2] for t in texts(folder, split)} for split in ("train", "val", "test")}
    assert all(articles.values())
    assert not articles["train"] & articles["val"]
    assert not articles["train"] & articles["test"]
    assert not articles["val"] & articles["test"]


def test_records_of_a_held_out_file_are_removed_from_training(tmp_path: Path, write: Write, encoder: Encoder) -> None:
    rows = alpaca_rows(10)
    sources = Sources({"train": [write("a.jsonl", rows)], "val": [write("b.jsonl", rows[:3])]})
    folder = encode_sources(sources, encoder, tmp_path)
    assert not set(texts(folder, "train")) & set(texts(folder, "val"))
    assert load_ledgers(folder)["train"]["duplicates"] == 3


def test_given_files_share_neither_conversation_nor_article(tmp_path: Path, write: Write, encoder: Encoder) -> None:
    def rows(*articles: int) -> list[dict[str, Any]]:
        return [{"article_id": a, "prompt": f"q{a} {n}", "completion": "a"} for n, a in enumerate(articles)]

    files = {"train": rows(1, 2, 3, 4), "val": rows(3, 3, 5), "test": rows(5, 4)}
    sources = Sources({split: [write(f"{split}.jsonl", given)] for split, given in files.items()})
    folder = encode_sources(sources, encoder, tmp_path)
    assert [len(texts(folder, split)) for split in ("test", "val", "train")] == [2, 2, 2]
    assert [load_ledgers(folder)[split]["duplicates"] for split in ("test", "val", "train")] == [0, 1, 2]


def test_records_without_an_article_are_split_and_compared_one_by_one(
    tmp_path: Path, write: Write, encoder: Encoder
) -> None:
    def rows(first: int) -> list[dict[str, Any]]:
        blank = ["", "  ", None, float("nan")]
        return [{"article_id": blank[n % 4], "prompt": f"q{n}", "completion": "a"} for n in range(first, first + 60)]

    split = encode_sources(held_out(write("a.jsonl", rows(0))), encoder, tmp_path)
    assert all(len(texts(split, name)) > 1 for name in ("train", "val", "test"))
    given = Sources({"train": [write("a.jsonl", rows(0))], "val": [write("b.jsonl", rows(59))]})
    assert load_ledgers(encode_sources(given, encoder, tmp_path))["train"]["duplicates"] == 1


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict", "preview"])
@pytest.mark.parametrize("split", ["train", "val", "test", "predict"])
def test_all_invalid_records_stop_every_command_with_the_reasons(
    write: Write, tokenizer: PreTrainedTokenizerFast, stage: str, split: str
) -> None:
    bad = write("bad.jsonl", "no json\n" + '{"q": 1}\n{"q": 2}\n' + '{"instruction": "x", "output": 3}\n')
    files = {"train": write("good.jsonl", alpaca_rows(3)), split: bad}
    data = SFTDataModule(**files, tokenizer=tokenizer, template="plain", on_invalid="drop", encoding_processes=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"bad\.jsonl: all 4 records are invalid: 2 like .*\.jsonl:2: ") as error:
        data.setup(stage)
    assert "no known format has the fields q" in str(error.value)
    assert "1 like" in str(error.value)


def test_conversations_that_are_all_refused_by_the_template_are_listed(
    tmp_path: Path, write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    import copy

    strict = copy.deepcopy(tokenizer)
    strict.chat_template = (
        "{% for m in messages %}{% if m['content'] == 'no' %}{{ raise_exception('said no') }}{% endif %}"
        "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    encoder = Encoder(strict, resolve_template("tokenizer", strict), 200)
    rows = [{"instruction": "no", "output": str(n)} for n in range(3)]
    sources = Sources({"train": [write("a.jsonl", rows)]}, on_invalid="drop")
    with pytest.raises(ValueError, match=r"all 3 records are invalid: 3 like .*a\.jsonl:1: .*said no"):
        encode_sources(sources, encoder, tmp_path)
    assert list(tmp_path.glob("*.partial*")) == []


def test_reasons_are_reported_when_only_some_records_are_invalid(
    write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = write("a.jsonl", [{"q": 1}, *alpaca_rows(2)])
    data = SFTDataModule(
        path, val=write("b.jsonl", alpaca_rows(2)), tokenizer=tokenizer, template="plain", on_invalid="drop"
    )
    message = r"none of the 3 records .* \(2 also in a held-out split, 1 invalid: 1 like .*a\.jsonl:1: no known format"
    with pytest.raises(ValueError, match=message):
        data.setup("fit")


def test_ledger_lists_skipped_files_even_with_an_older_cache(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in alpaca_rows(9)))

    def skipped() -> dict[str, list[str]]:
        data = SFTDataModule(str(folder), tokenizer=tokenizer, template="plain", encoding_processes=1)
        data.setup("fit")
        return {split: ledger["skipped_files"] for split, ledger in data.ledgers.items()}

    assert skipped() == {"train": [], "val": [], "test": []}
    (folder / "more.xlsx").write_text("")
    found = skipped()
    assert found["val"] == found["test"] == []
    assert found["train"][0].startswith(f"{folder}: skipped more.xlsx (")


def test_renamed_file_in_a_folder_is_encoded_again(tmp_path: Path, write: Write, encoder: Encoder) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.txt").write_text('{"text": "x"}')
    sources = Sources({"train": [str(tmp_path / "d")]})
    before = cache_key(sources, encoder)
    (tmp_path / "d" / "a.txt").rename(tmp_path / "d" / "a.jsonl")
    assert cache_key(sources, encoder) != before


def test_conversations_that_the_template_refuses_are_rejected(
    tmp_path: Path, write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = REFUSES_SYSTEM
    encoder = Encoder(strict, resolve_template("tokenizer", strict), 200)
    sources = Sources({"train": [write("a.jsonl", [{"system": "s", **alpaca_rows(1)[0]}, *alpaca_rows(2)])]})
    with pytest.raises(ValueError, match=r"a.jsonl:1: the tokenizer's own chat template rejects .*no system"):
        encode_sources(sources, encoder, tmp_path)
    ledger = load_ledgers(encode_sources(replace(sources, on_invalid="drop"), encoder, tmp_path))["train"]
    assert (ledger["invalid"]["count"], ledger["examples"]) == (1, 2)


def test_ledger_accounts_for_every_record(tmp_path: Path, write: Write, encoder: Encoder) -> None:
    rows: list[dict[str, Any]] = [
        *alpaca_rows(30),
        {"instruction": "x"},
        {"wrong": 1},
        {"instruction": 1, "output": ""},
    ]
    sources = held_out(write("a.jsonl", rows), on_invalid="drop")
    ledgers = load_ledgers(encode_sources(sources, encoder, tmp_path))
    assert list(ledgers) == ["train", "val", "test"]
    assert sum(ledger["records_read"] for ledger in ledgers.values()) == 33
    assert [ledger["invalid"]["count"] for ledger in ledgers.values()] == [3, 0, 0]
    assert ":31: no answer to train on" in ledgers["train"]["invalid"]["first"][0]
    for ledger in ledgers.values():
        lost = ledger["invalid"]["count"] + ledger["duplicates"] + ledger["dropped"]
        assert ledger["records_read"] + ledger["samples_added"] == lost + ledger["examples"]
        assert sum(ledger["tokens"]["kept"].values()) > 0


@pytest.mark.parametrize("samples", ["conversation", "answer"])
@pytest.mark.parametrize("over_long", ["truncate", "split", "drop"])
def test_every_ledger_balances_whatever_happens_to_the_records(
    tmp_path: Path, write: Write, tokenizer: PreTrainedTokenizerFast, over_long: Any, samples: Any
) -> None:
    rows: list[dict[str, Any]] = [
        *chat_rows(60),
        {"conversation": []},
        {"conversation": 3},
        {"system": "s", **chat_rows(5)[4]},  # refused by the template
        {"conversation": [{"human": "h" * 90, "assistant": "a" * 90}]},  # too long
    ]
    refuses = copy.deepcopy(tokenizer)
    refuses.chat_template = REFUSES_SYSTEM
    strict = Encoder(refuses, resolve_template("tokenizer", refuses), 80, over_long)
    taken = write("val.jsonl", [*chat_rows(9), {"conversation": ["?"]}])
    files = {"train": [write("a.jsonl", rows), write("b.jsonl", [{"text": "t" * 100}, {"text": "u"}])], "val": [taken]}
    sources = Sources(files, {"test": 0.2}, train_fraction=0.7, on_invalid="drop", samples=samples)
    ledgers = load_ledgers(encode_sources(sources, strict, tmp_path))
    for ledger in ledgers.values():
        encoded = sum(ledger["length_before"][name]["count"] for name in ("conversations", "documents"))
        lost = ledger["invalid"]["count"] + ledger["duplicates"]
        assert ledger["records_read"] + ledger["samples_added"] == lost + encoded
        if over_long != "split":
            assert encoded == ledger["dropped"] + ledger["examples"]
    train = ledgers["train"]
    assert train["duplicates"] > 0
    assert train["invalid"]["count"] > 2
    assert train["left_out"] > 0
    assert ledgers["test"]["records_read"] > 0
    assert ledgers["val"]["invalid"]["count"] == 1
    assert (train["samples_added"] > 0) == (samples == "answer")


def test_unaccounted_record_is_detected() -> None:
    ledger = Ledger(records_read=2, samples_added=1, num_invalid=1)
    ledger.count_length(9, 5, is_text=False)
    assert not ledger.is_balanced()
    ledger.duplicates += 1
    assert ledger.is_balanced()


def test_one_sample_per_answer_multiplies_samples_not_answers(tmp_path: Path, write: Write, encoder: Encoder) -> None:
    path = write("a.jsonl", chat_rows(9))
    sources = Sources({"train": [path]})
    once = load_split(encode_sources(sources, encoder, tmp_path), "train")
    each = load_split(encode_sources(replace(sources, samples="answer"), encoder, tmp_path), "train")
    assert once is not None
    assert each is not None
    assert (len(once), len(each)) == (9, 18)

    def final_answers(store: ExampleStore) -> list[list[int]]:
        return [example.answer_ids() for example in store]

    assert all(answer in final_answers(each) for answer in final_answers(once))


def test_first_invalid_record_raises_with_its_location(tmp_path: Path, write: Write, encoder: Encoder) -> None:
    path = write("a.jsonl", [*alpaca_rows(2), {"instruction": "x", "output": 3}])
    with pytest.raises(ValueError, match=r"a.jsonl:3: field 'output' is the number 3; expected a string"):
        encode_sources(Sources({"train": [path]}), encoder, tmp_path)
    assert not list(tmp_path.glob("*.partial-*"))


def test_firefly_and_ultrachat_formats_give_the_same_ids_and_kinds(
    tmp_path: Path, write: Write, encoder: Encoder
) -> None:
    rows = chat_rows(12)
    ultrachat = [
        {"id": str(i), "data": [text for pair in row["conversation"] for text in (pair["human"], pair["assistant"])]}
        for i, row in enumerate(rows)
    ]
    stores = [
        load_split(encode_sources(held_out(write(name, form)), encoder, tmp_path), "train")
        for name, form in (("f.jsonl", rows), ("u.jsonl", ultrachat))
    ]
    firefly, ultra = [[(e.input_ids.tolist(), e.kinds.tolist(), e.turns.tolist()) for e in s or ()] for s in stores]
    assert firefly
    assert firefly == ultra


def test_cache_is_keyed_by_everything_that_shapes_the_data(tmp_path: Path, write: Write, encoder: Encoder) -> None:
    path = write("a.jsonl", alpaca_rows(4))
    sources = held_out(path)
    plain = resolve_template("plain", encoder.tokenizer)
    keys = {
        cache_key(sources, encoder),
        cache_key(sources, replace(encoder, max_length=100)),
        cache_key(sources, replace(encoder, over_long="split")),
        cache_key(sources, replace(encoder, template=plain)),
        cache_key(replace(sources, samples="answer"), encoder),
        cache_key(replace(sources, on_invalid="drop"), encoder),
        cache_key(replace(sources, fractions={"val": 0.3}), encoder),
        cache_key(replace(sources, train_fraction=0.5), encoder),
        cache_key(replace(sources, format="alpaca"), encoder),
    }
    assert len(keys) == 9
    Path(path).write_text(json.dumps(alpaca_rows(1)[0]) + "\n", encoding="utf-8")
    assert cache_key(sources, encoder) not in keys


def test_second_run_reads_the_cache(
    tmp_path: Path, write: Write, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = held_out(write("a.jsonl", alpaca_rows(4)))
    folder = encode_sources(sources, encoder, tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(Encoder, "encode", never)
    assert encode_sources(sources, encoder, tmp_path) == folder


def test_store_survives_pickling_and_many_chunks(tmp_path: Path, write: Write, encoder: Encoder) -> None:
    path = write("a.jsonl", [{"text": f"document {n}"} for n in range(2500)])
    store = load_split(encode_sources(Sources({"train": [path]}), encoder, tmp_path), "train")
    assert store is not None
    again = pickle.loads(pickle.dumps(store))
    assert len(again) == 2500
    assert again[2017].origin.endswith(":2018")
    assert again[2017].input_ids.tolist() == [*b"document 2017", 258]
    np.testing.assert_array_equal(again.lengths, [len(example) for example in store])
    with pytest.raises(IndexError):
        store[2500]
