"""Write the example data: the village of Lanternmere as questions and answers, and a tokenizer for it.

    python examples/build_world.py

Everything is made from the tables in village.py, without randomness and without network, so a second run writes the
same bytes. The village and everyone in it are invented.

A *fact* has one answer and can be asked in several *phrasings*. For most facts one phrasing is kept out of the
training data and goes to `val.json` or `test.json`; the same phrasing is trained with other facts. A model that
answers a held-out row has therefore learnt the fact and the phrasing, but has never seen them together.
"""

import argparse
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from village import (
    ANIMALS,
    FOLLOW_UPS,
    GUIDE,
    GUIDE_ZH,
    HELLO,
    PEOPLE,
    PERSON_KINDS,
    PHRASINGS,
    PLACES,
    SIGHTS,
    THANKS,
    THANKS_ZH,
    TRAINED,
    VILLAGE,
    Person,
)

HERE = Path(__file__).resolve().parent
VOCAB_SIZE = 1024
MAX_LENGTH = 256
END, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# ---------------------------------------------------------------------------------------------------------------
# Facts and rows
# ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fact:
    """A fact: `slots` fill the phrasings of `kind`; `answer` is the only right answer."""

    kind: str
    slots: dict[str, str]
    answer: str


class Row(NamedTuple):
    """A fact (by its number) asked in one phrasing (by its number within the kind)."""

    fact: int
    phrasing: int
    instruction: str
    input: str
    output: str


def listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1]


def answer_about(person: Person, kind: str) -> str:
    """The sentence that states one attribute of a person."""
    return {
        "job": f"{person.name} is the {person.job} and {person.work}.",
        "pet": f"{person.name} keeps a {person.coat} {person.animal} called {person.pet}.",
        "house": f"{person.name} lives in {address(person)}.",
        "food": f"{person.name} loves {person.food} best of all.",
        "birth": f"{person.name} was born in {person.home}.",
    }[kind]


def address(person: Person) -> str:
    return f"the {person.house} house near {person.place}"


def note_fact(number: int, person: Person) -> Fact:
    """A question answered by a short note; the relevant sentence is alternately first and second."""
    asked, other = PERSON_KINDS[number % 5], PERSON_KINDS[(number + 2) % 5]
    sentences = [answer_about(person, kind) for kind in (asked, other)]
    note = " ".join(sentences if number % 2 else sentences[::-1])
    question = PHRASINGS[asked][0][0].format(name=person.name)
    return Fact("note", {"note": note, "question": question}, answer_about(person, asked))


def english_facts() -> list[Fact]:
    facts = [Fact(kind, {"name": p.name}, answer_about(p, kind)) for kind in PERSON_KINDS for p in PEOPLE]
    facts += [Fact("worker", {"job": p.job}, f"The {p.job} of Lanternmere is {p.name}.") for p in PEOPLE]
    facts += [Fact("owner", {"address": address(p)}, f"It is the home of {p.name}, the {p.job}.") for p in PEOPLE]
    for home in sorted({p.home for p in PEOPLE}):
        names = [p.name for p in PEOPLE if p.home == home]
        facts.append(Fact("natives", {"home": home}, f"{listed(names)} were born in {home}."))
    facts += [Fact("sights", {"thing": thing}, answer) for thing, answer in SIGHTS]
    facts += [note_fact(number, person) for number, person in enumerate(PEOPLE)]
    facts += [Fact("village", {"topic": topic}, answer) for topic, answer in VILLAGE]
    return facts


def chinese_facts() -> list[Fact]:
    facts = []
    for english, name, where, sight, when in PLACES:
        start = english[0].upper() + english[1:]
        facts += [
            Fact("translation", {"english": english}, f"{start} is called {name} in Chinese."),
            Fact("where", {"place": name}, f"{name}在{where}。"),
            Fact("sight", {"place": name}, f"{name}有{sight}。"),
            Fact("when", {"place": name}, f"去{name}最好的时间是{when}。"),
        ]
    for animal, name, food in ANIMALS:
        facts.append(Fact("called", {"animal": animal}, f"{animal}叫{name}。"))
        facts.append(Fact("eats", {"animal": animal}, f"{animal}最喜欢吃{food}。"))
    # By kind, so that the rotation in split() reaches every phrasing of a kind.
    return sorted(facts, key=lambda fact: list(PHRASINGS).index(fact.kind))


def ask(facts: list[Fact], number: int, phrasing: int) -> Row:
    fact = facts[number]
    instruction, context = (text.format(**fact.slots) for text in PHRASINGS[fact.kind][phrasing])
    return Row(number, phrasing, instruction, context, fact.answer)


def split(facts: list[Fact]) -> dict[str, list[Row]]:
    """Assign each fact's phrasings: some to train, at most one to val or test; the rest are unused.

    The held-out phrasing moves on by one from fact to fact, so every phrasing is held out for some facts and
    trained for the others.
    """
    rows: dict[str, list[Row]] = {"train": [], "val": [], "test": []}
    turns = ["test", "val", "test", "val", "test", "", "val", "test", ""]
    seen: Counter[str] = Counter()
    for number, fact in enumerate(facts):
        count = len(PHRASINGS[fact.kind])
        held = seen[fact.kind] % count
        seen[fact.kind] += 1
        trained = TRAINED.get(fact.kind, 3)
        rows["train"] += [ask(facts, number, (held + step) % count) for step in range(1, trained + 1)]
        if part := turns[number % len(turns)]:
            rows[part].append(ask(facts, number, held))
    return rows


# ---------------------------------------------------------------------------------------------------------------
# Conversations
# ---------------------------------------------------------------------------------------------------------------


def conversation(exchanges: list[tuple[str, str]], system: str = "") -> dict:
    messages = [{"role": "system", "content": system}] if system else []
    for question, answer in exchanges:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


def openings(train: list[Row], facts: list[Fact]) -> dict[tuple[str, str], list[str]]:
    """The trained questions about each (kind, name): conversations may open only with these."""
    result: dict[tuple[str, str], list[str]] = {}
    for row in train:
        fact = facts[row.fact]
        if not row.input:
            result.setdefault((fact.kind, next(iter(fact.slots.values()))), []).append(row.instruction)
    return result


def person_conversation(index: int, turn: int, asked: dict[tuple[str, str], list[str]]) -> dict:
    """Two to four exchanges about one person: the first names them, the later ones say "he" or "she"."""
    person = PEOPLE[index]
    length = 3 if (index + turn) % 3 == 0 else 2
    kinds = [PERSON_KINDS[(index + turn + step * (1 + index % 2)) % 5] for step in range(length)]
    exchanges = [(asked[kinds[0], person.name][index % 4], answer_about(person, kinds[0]))]
    them = "her" if person.they == "she" else "him"
    for step, kind in enumerate(kinds[1:]):
        template = FOLLOW_UPS[kind][(index + turn + step) % 3]
        question = template.format(they=person.they, their=person.their, them=them)
        exchanges.append((question, answer_about(person, kind)))
    if turn == 1 and index % 4 == 0:
        exchanges.insert(0, HELLO)
    if turn == 3 and index % 4 == 2:
        exchanges.append(THANKS)
    return conversation(exchanges, GUIDE if (index + 3 * turn) % 10 == 0 else "")


def neighbour_conversation(index: int, asked: dict[tuple[str, str], list[str]]) -> dict:
    """The same question for two people, the second time only as "And <name>?"."""
    person, other, kind = PEOPLE[index], PEOPLE[(index + 7) % len(PEOPLE)], PERSON_KINDS[index % 5]
    first = (asked[kind, person.name][index % 4], answer_about(person, kind))
    return conversation([first, (f"And {other.name}?", answer_about(other, kind))])


def chinese_conversation(first: Fact, later: list[Fact], turn: int, asked: dict[tuple[str, str], list[str]]) -> dict:
    name = next(iter(first.slots.values()))
    exchanges = [(asked[first.kind, name][turn % 3], first.answer)]
    exchanges += [(FOLLOW_UPS[fact.kind][turn % 2], fact.answer) for fact in later]
    if turn % 5 == 2:
        exchanges.append(THANKS_ZH)
    return conversation(exchanges, GUIDE_ZH if turn % 7 == 3 else "")


def conversations(train: list[Row], facts: list[Fact]) -> list[dict]:
    asked = openings(train, facts)
    result = [person_conversation(index, turn, asked) for index in range(len(PEOPLE)) for turn in range(4)]
    result += [neighbour_conversation(index, asked) for index in range(0, len(PEOPLE), 2)]
    by_kind = {kind: [fact for fact in facts if fact.kind == kind] for kind in PHRASINGS}
    for index, (where, sight, when) in enumerate(zip(by_kind["where"], by_kind["sight"], by_kind["when"], strict=True)):
        result.append(chinese_conversation(where, [sight if index % 2 else when], index, asked))
    for index, (called, eats) in enumerate(zip(by_kind["called"], by_kind["eats"], strict=True)):
        result.append(chinese_conversation(called, [eats], index, asked))
    return result


# ---------------------------------------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------------------------------------


def check(facts: list[Fact], rows: dict[str, list[Row]], talks: list[dict]) -> None:
    """Check the guarantees about held-out rows stated at the top of this file."""
    for field in ("name", "job", "pet", "food"):
        assert len({getattr(person, field) for person in PEOPLE}) == len(PEOPLE), f"two people share a {field}"
    assert len({address(person) for person in PEOPLE}) == len(PEOPLE), "two people share a house"
    assert {person.place for person in PEOPLE} == {place[0] for place in PLACES}, "a house near an unknown place"

    pairs = {part: {(row.fact, row.phrasing) for row in part_rows} for part, part_rows in rows.items()}
    texts = {part: {(row.instruction, row.input) for row in part_rows} for part, part_rows in rows.items()}
    for part in rows:
        assert len(pairs[part]) == len(texts[part]) == len(rows[part]), f"{part} asks the same thing twice"
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not pairs[one] & pairs[other] and not texts[one] & texts[other], f"{one} and {other} share a row"
    said = {message["content"] for talk in talks for message in talk["messages"] if message["role"] == "user"}
    first = {next(m["content"] for m in talk["messages"] if m["role"] == "user") for talk in talks}
    assert first - {HELLO[0]} <= {instruction for instruction, _ in texts["train"]}, "an opening is not a trained row"

    trained = {(facts[row.fact].kind, row.phrasing) for row in rows["train"]}
    for row in rows["val"] + rows["test"]:
        assert (facts[row.fact].kind, row.phrasing) in trained, f"phrasing never trained: {row.instruction}"
        assert row.instruction not in said or row.input, f"asked in a conversation: {row.instruction}"
    assert {row.fact for row in rows["train"]} == set(range(len(facts))), "a fact is never trained"


# ---------------------------------------------------------------------------------------------------------------
# Tokenizer
# ---------------------------------------------------------------------------------------------------------------


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """A byte-level BPE: any text round-trips, including text never seen in training."""
    tokenizer = Tokenizer(models.BPE())
    # Chinese has no spaces: without the first step whole phrases would become tokens, and a new phrasing would
    # be split differently from the trained ones.
    chinese = pre_tokenizers.Split(Regex("[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([chinese, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in (END, TURN_START, TURN_END)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    # Written by hand: `save_pretrained` would add fields that change with the transformers version.
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "additional_special_tokens": [TURN_START, TURN_END],
        "model_max_length": MAX_LENGTH,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------


def mixed(records: list[dict]) -> list[str]:
    """The records as JSON lines, in an order that mixes the kinds and is stable when a record is added."""
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    return sorted(lines, key=lambda line: hashlib.sha256(line.encode()).hexdigest())


def write_rows(path: Path, rows: list[Row]) -> None:
    lines = mixed([{"instruction": row.instruction, "input": row.input, "output": row.output} for row in rows])
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def training_texts(rows: list[Row], talks: list[dict]) -> list[str]:
    texts = [text for row in rows for text in (row.instruction, row.input, row.output) if text]
    for talk in talks:
        for message in talk["messages"]:
            texts += [message["role"] + "\n", message["content"]]
    return texts


def main() -> None:
    argparse.ArgumentParser(description="Rewrite examples/world and examples/tokenizer.").parse_args()
    facts = english_facts() + chinese_facts()
    rows = split(facts)
    talks = conversations(rows["train"], facts)
    check(facts, rows, talks)

    world = HERE / "world"
    world.mkdir(parents=True, exist_ok=True)
    for part, part_rows in rows.items():
        write_rows(world / f"{part}.json", part_rows)
    (world / "conversations.jsonl").write_text("\n".join(mixed(talks)) + "\n", encoding="utf-8")
    tokenizer = train_tokenizer(training_texts(rows["train"], talks))
    save_tokenizer(tokenizer, HERE / "tokenizer")

    counts = ", ".join(f"{part} {len(part_rows)}" for part, part_rows in rows.items())
    print(f"facts {len(facts)}; rows: {counts}; conversations {len(talks)}; tokens {tokenizer.get_vocab_size()}")
    print("no held-out question is in train or conversations; val and test share none")


if __name__ == "__main__":
    main()
