"""Which facts of the village the articles state, and which they leave out.

A fifth of the facts is never stated. This separates what a pretrained model learns about the village from what it
learns about language: on a fact that no article states, only knowing the language can help.
"""

from build_world import PERSON_KINDS, Fact, Row, address
from village import ANIMALS, PEOPLE, PLACES, SIGHTS, VILLAGE, Person

PLACE_KINDS = ("translation", "where", "sight", "when")
ANIMAL_KINDS = ("called", "eats")
STATED, WITHHELD, IN_PROMPT = "stated in the articles", "in no article", "stated in the question"


def withheld_facts() -> set[tuple[str, str]]:
    """The facts that no article states, as (kind, person or thing): about one in five of each kind.

    One fact about each person is withheld, chosen so that as many test questions as possible ask for withheld facts.
    """
    people = {(PERSON_KINDS[(2 * index + index // 5 + 2) % 5], person.name) for index, person in enumerate(PEOPLE)}
    places = {(PLACE_KINDS[index % 4], _key(PLACE_KINDS[index % 4], place)) for index, place in enumerate(PLACES)}
    animals = {(ANIMAL_KINDS[index % 2], animal[0]) for index, animal in enumerate(ANIMALS) if index in (1, 4)}
    village = {("village", topic) for topic, _ in VILLAGE[2::5]}
    return people | places | animals | village | {("sights", thing) for thing, _ in SIGHTS[1::4]}


def _key(kind: str, place: tuple[str, ...]) -> str:
    return place[0] if kind == "translation" else place[1]


WITHHELD_FACTS = withheld_facts()


def is_stated(kind: str, name: str) -> bool:
    """Whether the articles state a fact."""
    return (kind, name) not in WITHHELD_FACTS


def stated_kinds(person: Person) -> list[str]:
    """The kinds of facts that the articles state about a person."""
    return [kind for kind in PERSON_KINDS if is_stated(kind, person.name)]


def standing(fact: Fact) -> str:
    """Whether the articles state everything that an answer says. An answer from a note needs no article."""
    if fact.kind == "note":
        return IN_PROMPT
    return STATED if all(is_stated(kind, name) for kind, name in _parts(fact)) else WITHHELD


def _parts(fact: Fact) -> list[tuple[str, str]]:
    """The facts that an answer consists of."""
    if fact.kind == "worker":
        return [("job", next(p.name for p in PEOPLE if p.job == fact.slots["job"]))]
    if fact.kind == "owner":
        owner = next(p.name for p in PEOPLE if address(p) == fact.slots["address"])
        return [("house", owner), ("job", owner)]
    if fact.kind == "natives":
        return [("birth", p.name) for p in PEOPLE if p.home == fact.slots["home"]]
    return [(fact.kind, next(iter(fact.slots.values())))]


def standings(rows: list[Row], facts: list[Fact]) -> list[dict[str, str]]:
    """The question of every row, and whether the articles state the facts of its answer."""
    return [
        {"instruction": row.instruction, "input": row.input, "kind": facts[row.fact].kind}
        | {"standing": standing(facts[row.fact])}
        for row in rows
    ]
