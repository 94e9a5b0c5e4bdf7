"""Write English and Chinese articles about the village to pretrain on, with faults for cleaning to find.

    python examples/build_articles.py runs/from_scratch/articles

Made from the tables in village.py and the sentences in english_phrases.py and chinese_phrases.py, all written for
this project; the same seed writes the same bytes. No article contains a question of the example data, nor an answer
in its own words, and a fifth of the facts is in no article at all (article_facts.py).

`train/` has a file for each language. Some of its articles have planted faults, which planted.json counts. `val/` and
`test/` have different articles without faults, so that every way of cleaning is measured on the same texts.
"""

import argparse
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from article_facts import standings
from article_faults import near_copy, with_faults
from build_world import chinese_facts, english_facts, split
from chinese_articles import ChineseArticles
from english_articles import EnglishArticles

SIZES = {"english": 2600, "chinese": 3300}
"""Training articles of each language, without the copies."""
HELD_OUT = 80
"""Articles of each language in val and in test."""
WRITERS = {"english": EnglishArticles, "chinese": ChineseArticles}
STUBS = {"english": ["To be written.", "See elsewhere."], "chinese": ["（待补充）", "内容整理中。"]}
LOOPS = {"english": "Click here to read more. ", "chinese": "点击这里查看更多。"}
COPIES, NEAR_COPIES, NUM_STUBS, NUM_LOOPS = 60, 120, 20, 10
"""Of each language: exact copies, near copies, articles of a few words, articles that repeat one sentence."""


@dataclass
class Corpus:
    """The training articles of one language.

    Attributes:
        texts: With faults, in the order of the file.
        planted: Number of articles with each planted fault.
    """

    texts: list[str] = field(default_factory=list)
    planted: Counter[str] = field(default_factory=Counter)


def clean_articles(language: str, count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Titles and texts, without duplicates."""
    writer, seen, articles = WRITERS[language](rng), set(), []
    while len(articles) < count:
        title, paragraphs = writer.article()
        text = "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
        if text not in seen:
            seen.add(text)
            articles.append((title, text))
    return articles


def corpus(language: str, articles: list[tuple[str, str]], rng: random.Random) -> Corpus:
    """Plant faults in articles, and copies among them."""
    result = Corpus()
    for title, text in articles:
        faulty, names = with_faults(text, title, rng)
        result.texts.append(faulty)
        result.planted.update(names)
    long = [text for _, text in articles if len(text) >= (400 if language == "english" else 160)]
    chosen = rng.sample(long, COPIES + NEAR_COPIES)
    added = {
        "exact_copies": chosen[:COPIES],
        "near_copies": [near_copy(text, rng) for text in chosen[COPIES:]],
        "stubs": [STUBS[language][number % 2] for number in range(NUM_STUBS)],
        "repetitions": [LOOPS[language] * (number + 12) for number in range(NUM_LOOPS)],
    }
    for name, texts in added.items():
        result.planted[name] = len(texts)
        for text in texts:
            result.texts.insert(rng.randrange(len(result.texts) + 1), text)
    return result


def write_lines(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
    path.write_text("".join(lines), encoding="utf-8")


def write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def build(folder: Path, seed: int = 0) -> dict[str, dict[str, int]]:
    """Write all articles.

    Returns:
        For each language, the number of articles with each planted fault.
    """
    planted = {}
    for language, size in SIZES.items():
        rng = random.Random(f"{language} {seed}")
        articles = clean_articles(language, size + 2 * HELD_OUT, rng)
        found = corpus(language, articles[2 * HELD_OUT :], rng)
        write_lines(folder / "train" / f"{language}.jsonl", found.texts)
        for part, start in (("val", 0), ("test", HELD_OUT)):
            write_lines(folder / part / f"{language}.jsonl", [text for _, text in articles[start : start + HELD_OUT]])
        planted[language] = {"articles": len(found.texts), **dict(sorted(found.planted.items()))}
    write_json(folder / "planted.json", planted)
    facts = english_facts() + chinese_facts()
    write_json(folder / "questions.json", standings(split(facts)["test"], facts))
    return planted


def main() -> None:
    parser = argparse.ArgumentParser(description="Write articles about the village to pretrain on.")
    parser.add_argument("folder", type=Path, help="where to write them")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choices (default 0)")
    options = parser.parse_args()
    for language, counts in build(options.folder, options.seed).items():
        size = (options.folder / "train" / f"{language}.jsonl").stat().st_size
        faults = ", ".join(f"{name} {count:,}" for name, count in counts.items() if name != "articles")
        print(f"{language}: {counts['articles']:,} articles, {size / 1e6:.2f} MB; planted: {faults}")


if __name__ == "__main__":
    main()
