from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding import text_chunks
from data_modules.encoding.text_cache import encode_texts
from data_modules.encoding.text_encoder import TextEncoder
from data_modules.encoding.token_shards import TokenShards, open_shards
from data_modules.records.content_keys import document_key, hash_of
from data_modules.records.splits import Sources
from tests.conftest import END

TEXTS = ["He left. She came.", "他走了。“走吧。”她", "x", "no end", "One! Two? 3.14", "<|endoftext|>."]


@pytest.fixture
def shards(
    tmp_path: Path, write: Callable[..., str], tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> TokenShards:
    """Shards of about 12 tokens, and an empty split."""
    monkeypatch.setattr(text_chunks, "_CHUNK_DOCUMENTS", 1)
    file = write("texts.jsonl", [{"text": text} for text in TEXTS])
    sources = Sources({"train": [file], "test": [write("x.jsonl", [{"text": "x"}])]}, {"val": 1e-9})
    folder = encode_texts(sources, (), None, TextEncoder(tokenizer), tmp_path / "cache", shard_tokens=12)
    return open_shards(folder)["train"]


def test_documents_are_their_bytes_and_an_end_token(shards: TokenShards) -> None:
    texts = [text for text in TEXTS if text != "x"]  # the test split has it
    expected = [[*text.encode(), END] for text in texts]
    found = [shards.tokens(int(a), int(b)).tolist() for a, b in zip(shards.starts[:-1], shards.starts[1:], strict=True)]
    assert found == expected
    assert len(shards) == shards.num_documents == len(texts)
    assert shards.starts[-1] == shards.num_tokens == sum(map(len, expected))
    assert shards.num_bytes.tolist() == [len(text.encode()) for text in texts]
    assert shards.sources.tolist() == [-1] * len(texts)
    assert shards.hashes.tolist() == [hash_of(document_key(text)) for text in texts]


def test_any_range_of_tokens_is_read_across_shards(shards: TokenShards) -> None:
    assert len(list(shards.folder.glob("train-*.tokens"))) > 2
    ids, ends = shards.tokens(0, shards.num_tokens), shards.sentence_ends(0, shards.num_tokens)
    for start in range(shards.num_tokens + 1):
        for stop in range(start, shards.num_tokens + 1):
            assert (shards.tokens(start, stop) == ids[start:stop]).all()
            assert (shards.sentence_ends(start, stop) == ends[start:stop]).all()


def test_ranges_outside_the_split_are_refused(shards: TokenShards) -> None:
    for start, stop in ((-1, 3), (2, 1), (0, shards.num_tokens + 1)):
        with pytest.raises(IndexError, match="of the"):
            shards.tokens(start, stop)


def test_sentence_ends_mark_the_last_byte_of_each_sentence(shards: TokenShards) -> None:
    ids, ends = shards.tokens(0, shards.num_tokens), shards.sentence_ends(0, shards.num_tokens)
    text = bytes(0 if i == END else i for i in ids.tolist())
    last = ["left.", "came.", "了。", "。”", "One!", "Two?", "t|>."]
    assert ends.sum() == len(last)
    for at, end in zip(ends.nonzero()[0], last, strict=True):
        assert text[: at + 1].endswith(end.encode())


def test_a_reader_is_pickled_as_its_folder(shards: TokenShards) -> None:
    copy = pickle.loads(pickle.dumps(shards))
    assert copy.tokens(3, 9).tolist() == shards.tokens(3, 9).tolist()
    assert len(pickle.dumps(shards)) < 500


def test_a_split_without_documents_is_empty(shards: TokenShards) -> None:
    empty = TokenShards(shards.folder, "val")
    assert (empty.num_documents, empty.num_tokens, empty.starts.tolist()) == (0, 0, [0])
    assert empty.tokens(0, 0).tolist() == []
    assert empty.sources.tolist() == []
    assert list(open_shards(shards.folder)) == ["test", "train"]
