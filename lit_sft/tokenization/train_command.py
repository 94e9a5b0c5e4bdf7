"""`python -m lit_sft tokenizer train FILES --vocab_size N --output FOLDER`: trains a byte-level BPE tokenizer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

from data_modules.progress import duration
from data_modules.wording import counted
from lit_sft.console import print_error_line, print_line
from lit_sft.memory import peak_memory
from lit_sft.settings.arguments import Arguments
from lit_sft.tokenization.arguments import add_reading_options, columns_of, num_bytes_of, size
from lit_sft.tokenization.folder import REPORT
from lit_sft.tokenization.recipe import NUM_BYTES
from lit_sft.tokenization.splitting import PreTokenizerName
from lit_sft.tokenization.train import TrainedTokenizer, train_tokenizer


def main(argv: list[str]) -> None:
    """Train a tokenizer and print a summary.

    Args:
        argv: `train` and its arguments.

    Raises:
        UserError: If an argument is wrong or the text cannot be read.
    """
    options = _parser().parse_args(argv[1:])
    started = time.monotonic()
    trained = train_tokenizer(
        options.files,
        options.output,
        vocab_size=options.vocab_size,
        special_tokens=options.special_tokens,
        chat_template=options.chat_template,
        eos_token=options.eos_token,
        pad_token=options.pad_token,
        bos_token=options.bos_token,
        pre_tokenizer=options.pre_tokenizer,
        min_frequency=options.min_frequency,
        max_token_length=options.max_token_length,
        columns=columns_of(options.columns),
        format=options.format,
        on_invalid=options.on_invalid,
        txt_documents=options.txt_documents,
        max_bytes=num_bytes_of(options.max_bytes, "--max_bytes"),
        max_memory=num_bytes_of(options.max_memory, "--max_memory"),
        overwrite=options.overwrite,
    )
    _print_result(trained, Path(options.output), time.monotonic() - started)


def _print_result(trained: TrainedTokenizer, folder: Path, seconds: float) -> None:
    recipe, corpus, entries = trained.recipe, trained.corpus, int(trained.report["entries"])
    if corpus.messages:
        invalid = sum(source.invalid for source in corpus.counts)
        print_error_line(f"{counted(invalid, 'invalid record')} skipped, such as {corpus.messages[0]}")
    for token, num in corpus.special.texts.items():
        print_error_line(
            f"note: the special token {token} occurs in {counted(num, 'text')}, first at "
            f"{corpus.special.first[token]}. It was learnt as ordinary characters there. Make sure "
            "that text is encoded in the same way later, or clean it."
        )
    if entries < recipe.vocab_size:
        print_error_line(
            f"note: {entries:,} entries instead of {recipe.vocab_size:,}: no other pair occurs at least "
            f"{counted(recipe.min_frequency, 'time')}. Use more text, or a smaller --vocab_size."
        )
    texts = counted(sum(count.used_texts for count in corpus.counts), "text")
    if corpus.used_bytes < corpus.num_bytes:
        limit = "--max_memory" if trained.is_limited_by_memory else "--max_bytes"
        print_line(f"{size(corpus.used_bytes)} of {size(corpus.num_bytes)}, sampled evenly because of {limit}: {texts}")
    else:
        print_line(f"{size(corpus.used_bytes)} of text: {texts}")
    print_line(
        f"{entries:,} entries: {len(recipe.special_tokens)} special tokens, {NUM_BYTES} bytes, "
        f"{trained.report['merges']:,} merges"
    )
    bos = recipe.bos_token or "none"
    print_line(f"eos {recipe.eos_token}, pad {recipe.pad_token}, bos {bos}")
    peak = peak_memory()
    print_line(duration(seconds) + (f", peak memory {size(peak)}" if peak is not None else ""))
    print_line(f"written: {folder} ({folder / REPORT} says how it was made)")


def _parser() -> Arguments:
    parser = Arguments("tokenizer train", __doc__, example="articles.jsonl --vocab_size 16384 --output my-tokenizer")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILES",
        help="text to train on: txt, json, jsonl, csv, tsv or parquet files, folders, or hub names",
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="the folder to write")
    parser.add_argument(
        "--vocab_size", type=int, required=True, help="number of entries: special tokens, 256 bytes and merges"
    )
    parser.add_argument(
        "--special_tokens",
        nargs="+",
        metavar="TOKEN",
        help="control tokens, in the order of their ids; default: <|endoftext|>, <|pad|> and the markers of the chat "
        "template",
    )
    parser.add_argument(
        "--chat_template", default="chatml", help="chatml, alpaca, plain, none, or a Jinja file; default: chatml"
    )
    parser.add_argument(
        "--eos_token", help="ends every document; default: <|endoftext|>, or the first of --special_tokens"
    )
    parser.add_argument("--pad_token", help="pads short rows; default: <|pad|> if it is special, else the eos token")
    parser.add_argument("--bos_token", help="begins every document; default: no token does")
    parser.add_argument(
        "--pre_tokenizer",
        choices=get_args(PreTokenizerName),
        default="qwen",
        help="how text is split into words, which no entry spans: as GPT-2 does, as Qwen does (default), or as GPT-2 "
        "with every Chinese character by itself",
    )
    parser.add_argument(
        "--min_frequency", type=int, default=2, help="how often a pair must occur to become an entry; default: 2"
    )
    parser.add_argument("--max_token_length", type=int, help="maximum number of bytes of an entry; default: no limit")
    add_reading_options(parser)
    parser.add_argument(
        "--max_bytes", metavar="SIZE", help="train on an even sample of this size, such as 500MB; default: everything"
    )
    parser.add_argument(
        "--max_memory",
        default="4GB",
        metavar="SIZE",
        help="train on a sample if the whole text would take more memory than this; default: 4GB",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier tokenizer in --output")
    return parser
