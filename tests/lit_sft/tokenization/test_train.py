"""Training: the same ids as the library's own trainer, the same bytes twice, exact round trips, a folder for `fit`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from data_modules.encoding.tokenizers import load_tokenizer
from data_modules.encoding.unknown_text import TextCheck
from data_modules.rendering.templates import resolve_template
from lit_sft.tokenization.splitting import QWEN_WORDS
from lit_sft.tokenization.train import TrainedTokenizer, train_tokenizer
from tests.lit_sft.tokenization.conftest import sentences

Train = Callable[..., TrainedTokenizer]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_ids_as_the_library_on_the_same_texts(train: Train) -> None:
    texts = sentences(100)
    tokenizer = Tokenizer(models.BPE())
    splitter = pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([splitter, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        min_frequency=2,
        special_tokens=[AddedToken(token, special=True) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ours = train(texts).tokenizer
    assert ours.get_vocab() == tokenizer.get_vocab()
    assert [ours.encode(text).ids for text in texts] == [tokenizer.encode(text).ids for text in texts]


def test_training_twice_gives_the_same_bytes(train: Train, tmp_path: Path) -> None:
    train(folder=tmp_path / "one")
    train(folder=tmp_path / "two")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert {*files_of(tmp_path / "one")} == {
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "training.json", "lit_sft.sha256",
    }  # fmt: skip


@pytest.fixture(scope="module", params=["gpt2", "qwen", "gpt2_han"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "texts.txt").write_text("\n".join(sentences(100)), encoding="utf-8")
    train_tokenizer(str(folder / "texts.txt"), folder / "tok", vocab_size=400, pre_tokenizer=request.param)
    return load_tokenizer(str(folder / "tok"))


@settings(max_examples=3400)  # 10,200 over the three ways to split
@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("<|endoftext|>\r\n\r\n  \t x\u200d\U0010ffff\x00 don'T")
def test_round_trip_is_exact_over_all_planes(trained: Any, text: str) -> None:
    ids = trained.encode(text, add_special_tokens=False)
    assert trained.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text
    assert max(ids, default=0) < len(trained)


def test_trained_tokenizer_knows_every_byte(trained: Any) -> None:
    assert TextCheck(trained).knows_every_byte


def test_folder_is_read_by_transformers_and_has_its_roles_and_template(train: Train, tmp_path: Path) -> None:
    train()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tok")
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id) == (0, 1, None)
    assert resolve_template("chatml", tokenizer).name == "chatml"
    turns = [{"role": "user", "content": "博士"}, {"role": "assistant", "content": "Yes."}]
    rendered = "<|im_start|>user\n博士<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
    assert tokenizer.apply_chat_template(turns, tokenize=False) == rendered
    assert tokenizer("<|im_start|>a<|im_end|>").input_ids[::2] == [2, 3]


def test_special_tokens_come_first_then_bytes_then_merges(train: Train) -> None:
    vocabulary = train(special_tokens=["<a>", "<b>"], chat_template="none").tokenizer.get_vocab()
    by_id = sorted(vocabulary, key=vocabulary.__getitem__)
    assert by_id[:2] == ["<a>", "<b>"]
    assert by_id[2:258] == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert all(len(entry) > 1 for entry in by_id[258:])


def test_first_special_token_ends_and_pads_if_none_has_a_usual_name(train: Train) -> None:
    recipe = train(special_tokens=["<a>", "<b>"], chat_template="plain").recipe
    assert (recipe.eos_token, recipe.pad_token, recipe.bos_token) == ("<a>", "<a>", None)
    assert recipe.chat_template is not None
    assert '"<a>"' in recipe.chat_template


def test_bos_begins_every_text(train: Train, tmp_path: Path) -> None:
    train(bos_token="<s>")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tok")
    assert tokenizer("lamp").input_ids == [tokenizer.bos_token_id, *tokenizer.encode("lamp", add_special_tokens=False)]
    turns = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False).startswith("<s><|im_start|>user")


def test_fewer_pairs_than_entries_are_reported(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    trained = train(["ab ab"], vocab_size=1000)
    assert trained.report["entries"] == trained.tokenizer.get_vocab_size() == 261
    assert trained.report["merges"] == 1


def test_max_token_length_limits_the_bytes_of_an_entry(train: Train) -> None:
    def longest(**settings: int) -> int:
        entries = train(overwrite=True, vocab_size=330, pre_tokenizer="gpt2", **settings).tokenizer.get_vocab()
        return max(len(entry) for entry in entries if not entry.startswith("<|"))

    assert 2 < longest(max_token_length=6) <= 6 < longest()


def test_report_says_what_was_read_and_nothing_about_time(train: Train, tmp_path: Path) -> None:
    trained = train()
    report = json.loads((tmp_path / "tok" / "training.json").read_text(encoding="utf-8"))
    assert report == trained.report
    num_bytes = sum(len(text.encode()) for text in sentences(100))
    assert report["bytes"] == report["used_bytes"] == report["sources"][0]["num_bytes"] == num_bytes
    assert report["settings"]["template_name"] == "chatml"


def test_earlier_tokenizer_is_not_replaced_silently(train: Train, tmp_path: Path) -> None:
    train()
    before = files_of(tmp_path / "tok")
    with pytest.raises(Exception, match="there is already a tokenizer; name a new folder, or set --overwrite"):
        train(["other text, other text"])
    assert files_of(tmp_path / "tok") == before
    train(["other text, other text"], overwrite=True)
    assert files_of(tmp_path / "tok") != before


def test_failed_training_leaves_no_folder(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lit_sft.tokenization.folder.write_digests", fail)
    with pytest.raises(OSError, match="No space"):
        train()
    assert not (tmp_path / "tok").exists()
