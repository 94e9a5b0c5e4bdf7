"""Articles are the same bytes twice, state no answer in its own words and no withheld fact; faults are counted."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import article_facts
import article_faults
import build_articles
import build_world
import english_phrases
import pytest
from village import ANIMALS, PEOPLE, PLACES

FACTS = build_world.english_facts() + build_world.chinese_facts()
ROWS = build_world.split(FACTS)
SMALL = {"english": 300, "chinese": 400}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("articles")
    build_articles.build(folder)
    return folder


@pytest.fixture(scope="module")
def texts(written: Path) -> list[str]:
    return [text for file in sorted(written.rglob("*.jsonl")) for text in texts_of(file)]


def texts_of(file: Path) -> list[str]:
    return [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[。！？])|(?<=[.!?])(?=\s)|\n", text)


def test_articles_are_the_same_bytes_when_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_articles, "SIZES", SMALL)
    folders = [tmp_path / name for name in ("one", "two", "other")]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        build_articles.build(folder, seed)
    one, two, other = ([file.read_bytes() for file in sorted(folder.rglob("*.json*"))] for folder in folders)
    assert one == two
    assert one[0] != other[0]


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_no_article_contains_an_answer_or_a_question_in_its_own_words(texts: list[str], part: str) -> None:
    everything = "\n".join(texts)
    answers = {row.output for row in ROWS[part]}
    # a dish or a place may be the whole input of a question
    questions = {row.instruction for row in ROWS[part]}
    assert [text for text in answers | questions if text in everything] == []


def test_each_fact_about_a_person_is_in_some_article_unless_it_is_withheld(texts: list[str]) -> None:
    said = {sentence.strip() for text in texts for sentence in sentences(text)}
    for person in PEOPLE:
        slots = english_phrases.slots_of(person)
        for kind, templates in english_phrases.FACTS.items():
            whole = [template.format(**slots) for template in templates]
            stated = {sentence[0].upper() + sentence[1:] for sentence in whole} & said
            assert bool(stated) == article_facts.is_stated(kind, person.name), (person.name, kind)


def test_sentences_with_a_withheld_job_pet_house_or_food_never_name_its_person(texts: list[str]) -> None:
    keys = {"job": "job", "pet": "pet", "food": "food"}
    said = [sentence for text in texts for sentence in sentences(text)]
    for person in PEOPLE:
        words = {kind: getattr(person, name) for kind, name in keys.items()} | {"house": f"{person.house} house"}
        for kind, word in words.items():
            found = any(person.name in sentence and word in sentence for sentence in said)
            assert found == article_facts.is_stated(kind, person.name), (person.name, kind)


def test_withheld_facts_about_places_and_animals_are_in_no_article(texts: list[str]) -> None:
    said = [sentence for text in texts for sentence in sentences(text)]
    for english, place, where, sight, when in PLACES:
        for kind, name, key in (("translation", english, place), ("where", place, where), ("sight", place, sight)):
            found = any(name in sentence and key in sentence for sentence in said)
            assert found == article_facts.is_stated(kind, name), (kind, name)
        if article_facts.is_stated("when", place):
            assert any(place in sentence and when in sentence for sentence in said)
    for animal, name, food in ANIMALS:
        for kind, key in (("called", name), ("eats", food)):
            found = any(animal in sentence and key in sentence for sentence in said)
            assert found == article_facts.is_stated(kind, animal), (kind, animal)


def test_questions_say_whether_the_articles_state_their_answer(written: Path) -> None:
    questions = json.loads((written / "questions.json").read_text(encoding="utf-8"))
    assert len(questions) == len(ROWS["test"])
    by_question = {(each["instruction"], each["input"]): each["standing"] for each in questions}
    for row in ROWS["test"]:
        fact = FACTS[row.fact]
        if fact.kind in build_world.PERSON_KINDS:
            is_stated = article_facts.is_stated(fact.kind, fact.slots["name"])
            expected = article_facts.STATED if is_stated else article_facts.WITHHELD
            assert by_question[row.instruction, row.input] == expected
    assert by_question["Answer from the note.", note_of("Answer from the note.")] == article_facts.IN_PROMPT


def note_of(instruction: str) -> str:
    return next(row.input for row in ROWS["test"] if row.instruction == instruction)


def test_planted_faults_are_counted(written: Path) -> None:
    planted = json.loads((written / "planted.json").read_text(encoding="utf-8"))
    for language in ("english", "chinese"):
        found = texts_of(written / "train" / f"{language}.jsonl")
        counts = planted[language]
        assert len(found) == counts["articles"]
        assert len(found) - len(set(found)) >= counts["stubs"] - 2
        controls = re.compile("[\u200b\x07\u00ad\x1b]")
        assert sum(bool(controls.search(text)) for text in found) == counts["control_characters"]
        assert sum("<" in text for text in found) == counts["tags"]
        assert sum("-{}-" in text for text in found) == counts.get("conversion_marks", 0)
        brackets = re.compile(r"[（(【\[] ?[）)】\]]")
        assert sum(bool(brackets.search(text)) for text in found) == counts["empty_brackets"]


def test_held_out_articles_have_no_faults_and_are_not_in_training(written: Path) -> None:
    train = {text for file in (written / "train").glob("*.jsonl") for text in texts_of(file)}
    for part in ("val", "test"):
        held_out = [text for file in (written / part).glob("*.jsonl") for text in texts_of(file)]
        assert len(held_out) == 2 * build_articles.HELD_OUT
        assert not train & set(held_out)
        assert not any(re.search("[<\u200b\x07\u00ad\x1b]|-{}-", text) for text in held_out)


def test_near_copies_differ_in_a_word_or_two_and_are_alike() -> None:
    rng = random.Random(0)
    for language in ("english", "chinese"):
        for _, text in build_articles.clean_articles(language, 60, rng):
            copy = article_faults.near_copy(text, rng)
            one, other = ({each[i : i + 5] for i in range(len(each) - 4)} for each in (text, copy))
            assert copy != text
            if len(text) >= 160:
                assert len(one & other) / len(one | other) > 0.9
