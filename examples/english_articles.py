"""English articles about the village: portraits, reports, letters, stories and logs, each with a title."""

import random
from collections.abc import Callable

import english_phrases as phrases
from article_facts import is_stated, stated_kinds
from prose import Prose
from village import PEOPLE, PLACES, Person

Article = tuple[str, list[str]]
"""A title and paragraphs."""

# fmt: off
STATED_VILLAGE = {topic: lines for topic, lines in phrases.VILLAGE_FACTS.items()
                if is_stated("village", topic) and is_stated("sights", topic)}
LOG_LINES = [
    "{day}: {wind}. {few} passengers, {goods}, and {visitor} from {town}.",
    "{day}: {sky}. Left at {hour}, back before dark. Carried {goods} and {goods2}.",
    "{day}: {sky}. No passengers. Used the time to {chore}.",
    "{day}: {many} passengers, most of them for {place}. {sky}.",
    "{day}: {visitor} left {lost} on board; it lay {hiding}.",
    "{day}: {sky}. Turned back at {hour}, with {wind}.",
]
NEWS = [
    "{lost} was found {hiding} near {place}. The owner may fetch it at the inn after {hour}.",
    "{visitor} arrived from {town} with {goods} and will stay for {few} nights.",
    "The path to {place} is closed until {day}, because {few} men have to {chore} there.",
    "{few} windows broke in the last storm; {a} has offered to {chore}.",
    "A prize of {coins} goes to whoever can {chore} before {b} does.",
    "The children won at {game} against {town} by {few} points.",
    "{a} thanks {b}, who stopped to {chore} on {day} without being asked.",
    "For sale: {goods}, hardly used, {coins}. Ask {a} at {place}.",
    "There will be dancing at {place} on {day} at {hour}, if the weather holds.",
    "On {day} {a} and {b} measured the lake again and came to {many} rope lengths before the rope ended.",
]
LETTER_STARTS = ["Dear {b},", "My dear {b},", "Good {b},", "{b}, my friend,"]
LETTER_LINES = [
    "your parcel has come. I opened it at {hour}, and there was {goods} in it.",
    "I am sorry that I could not come on {day}. I had to {chore}, and it took until {hour}.",
    "in {month} I met {visitor} again at {place}, and we spoke of you.",
    "it is quiet here, and I have begun to {chore} in the evenings.",
    "yesterday I lost {lost}, and you will never guess where it was: {hiding}.",
    "please bring {goods} when you come, and I shall bring {drink}.",
    "we played {game} until {hour}, and I lost every time.",
    "tell the others that we meet at {place} on {day}.",
]
LETTER_ENDS = ["Your friend, {a}", "Come soon. {a}", "With love from {place}, {a}", "Yours, {a}"]
VISIT_STARTS = [
    "I came to Lanternmere on the {nth} of {month}, on the first boat of the day.",
    "We walked here from {town} and arrived at {hour} in the evening.",
    "It was my {nth} visit to the village, and I had promised {visitor} to write everything down.",
    "The ferry landed at {hour}, and {few} of us climbed out with stiff legs.",
]
VISIT_ENDS = [
    "I shall come back in {month}, if only for the {drink}.",
    "When I left, {visitor} was still sitting at {place}.",
    "At {hour} the lamps were lit, and I wrote these lines by the window.",
    "I took home {goods} and a head full of stories.",
]
STORY_STARTS = [
    "One {day} in {month}, {pet} was gone.", "On the {nth} of {month} nobody could find {pet}.",
    "“Where is {pet}?” asked {name} at {hour} in the morning.", "{pet} had never run away before that {day}.",
]
STORY_MIDDLES = [
    "{name} looked {hiding} and found only {lost}.",
    "{b} had seen a {coat} {animal} near {spot}, or perhaps only {goods}.",
    "They asked {visitor}, who had heard a noise at {hour}.",
    "{few} children searched at {spot}, and {few2} more at {spot2}.",
    "{b} put down {goods} and promised to help, as soon as somebody else would {chore}.",
    "By then {name} was {mood}.",
]
STORY_ENDS = [
    "At last there was {pet}, {hiding}, quite content.",
    "In the evening {pet} came home alone and {animal_act}.",
    "{b} came down the road at {hour} with {pet} in {goods}, and nobody asked how.",
    "{name} gave everybody {drink}, and {pet} {animal_act}.",
]
# fmt: on


class EnglishArticles:
    """Writes English articles.

    Args:
        rng: Makes every choice.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.prose = rng, Prose(rng, phrases.WORDS)
        self.kinds: list[tuple[int, Callable[[], Article]]] = [
            (24, self.portrait), (10, self.visit), (10, self.market), (8, self.news), (9, self.letter),
            (14, self.guide), (10, self.pet_story), (7, self.recipe), (8, self.log),
        ]  # fmt: skip

    def article(self) -> Article:
        """One article of any kind."""
        weights = [weight for weight, _ in self.kinds]
        return self.rng.choices([write for _, write in self.kinds], weights)[0]()

    def portrait(self) -> Article:
        """What the village knows about one person."""
        person = self.rng.choice(PEOPLE)
        kinds = stated_kinds(person)
        facts = [self.fact(person, kind) for kind in self.rng.sample(kinds, self.rng.randint(3, len(kinds)))]
        habits = self.prose.some(phrases.HABITS, self.rng.randint(3, 5), b=self.other(person), **slots(person))
        events = self.encounters(self.rng.randint(1, 3))
        mixed = self.shuffled(facts + habits)
        title = self.prose.one(["{name} of Lanternmere", "A portrait of {name}", "Who {name} is"], **slots(person))
        return title, [" ".join(mixed[:4]), " ".join(mixed[4:]), " ".join(events)]

    def visit(self) -> Article:
        """A visitor's day."""
        title = self.prose.one(["A day in Lanternmere", "Notes of a visitor", "My journey to the Mere"])
        village = [self.rng.choice(lines) for lines in self.rng.sample(list(STATED_VILLAGE.values()), 2)]
        first = [self.prose.one(VISIT_STARTS), self.prose.one(phrases.WEATHER), village[0]]
        person = self.rng.choice(PEOPLE)
        about = self.fact(person, self.rng.choice(stated_kinds(person)))
        second = [*self.encounters(self.rng.randint(3, 5)), about, village[1]]
        return title, [" ".join(first), " ".join(self.shuffled(second)), self.prose.one(VISIT_ENDS)]

    def market(self) -> Article:
        """A report of a market."""
        title = self.prose.one(["The market on the {nth} of {month}", "What the market sold in {month}"])
        count = self.prose.one(["There were {many} stalls and {few} carts this time."])
        sales = [
            "{a} sold {goods} to {b} for {coins}.", "{visitor} paid {coins} for {goods}.",
            "{goods} cost {coins}, twice as much as in {month}.", "Nobody wanted {goods}, so {a} took it home again.",
            "{a} swapped {goods} for {goods2} with {visitor}.", "{b} bargained with {a} until {hour}.",
        ]  # fmt: skip
        lines = [self.encounter(template) for template in self.rng.sample(sales * 2, self.rng.randint(4, 8))]
        return title, [" ".join([self.prose.one(phrases.WEATHER), count]), " ".join(lines), *self.encounters(1)]

    def news(self) -> Article:
        """A page of notices."""
        title = self.prose.one(["News from the village, {nth} of {month}", "The notice board in {month}"])
        return title, [self.encounter(template) for template in self.rng.sample(NEWS, self.rng.randint(4, 6))]

    def letter(self) -> Article:
        """A letter from one person to another."""
        a, b = (person.name for person in self.rng.sample(PEOPLE, 2))
        third = self.rng.choice([person for person in PEOPLE if person.name not in (a, b)])
        start = self.prose.one(LETTER_STARTS, b=b)
        first, *rest = self.rng.sample(LETTER_LINES, self.rng.randint(3, 5))
        lines = [start + " " + self.prose.fill(first), *(self.prose.sentence(line) for line in rest)]
        about = self.fact(third, self.rng.choice(stated_kinds(third)))
        return f"A letter from {a} to {b}", [" ".join([*lines, about]), self.prose.one(LETTER_ENDS, a=a)]

    def guide(self) -> Article:
        """A guide to one place, with its Chinese name and the people who live near it."""
        english, chinese, *_ = self.rng.choice(PLACES)
        names = [
            "{chinese} is what Chinese visitors call {english}.", "On the map, {chinese} is written beside {english}.",
            "A sign says {chinese} and below it {english}.", "Guests from China say {chinese} and mean {english}.",
        ]  # fmt: skip
        stated = is_stated("translation", english)
        lines = [self.prose.one(names, english=english, chinese=chinese)] if stated else []
        near = [person for person in PEOPLE if person.place == english and is_stated("house", person.name)]
        for person in self.rng.sample(near, min(2, len(near))):
            lines.append(self.fact(person, "house"))
            lines.append(self.fact(person, self.rng.choice(stated_kinds(person))))
        lines += [self.rng.choice(ways) for ways in self.rng.sample(list(STATED_VILLAGE.values()), 2)]
        events = [self.encounter(line, place=english) for line in self.rng.sample(phrases.ENCOUNTERS, 4)]
        title = self.prose.one(["A guide to {english}", "{english}", "An hour at {english}"], english=english)
        return title, [" ".join(self.shuffled(lines)), " ".join(events), self.prose.one(phrases.WEATHER)]

    def pet_story(self) -> Article:
        """A pet is lost and found."""
        person = self.rng.choice([person for person in PEOPLE if is_stated("pet", person.name)])
        given = {**slots(person), "b": self.other(person)}
        middle = self.prose.some(STORY_MIDDLES, self.rng.randint(3, 5), **given)
        start = [self.prose.one(STORY_STARTS, **given), self.fact(person, "pet"), *middle]
        end = [*self.prose.some(phrases.PET_EVENTS, 2, **given), self.prose.one(STORY_ENDS, **given)]
        return self.prose.one(["How {pet} got lost", "The day {pet} was gone", "{pet} and {b}"], **given), [
            " ".join(start),
            " ".join(end),
        ]

    def recipe(self) -> Article:
        """How a dish is made, and who likes it."""
        person = self.rng.choice(PEOPLE)
        how = [
            "For {food} you need {list}.", "Cook it for {few} minutes and let it rest until {hour}.",
            "Some people add a drop of {drink}, but {b} says that this is wrong.", "It tastes best with {drink}.",
            "{b} makes it every {day} and never weighs anything.", "In {month} it is sold at {spot} for {coins}.",
            "{visitor} ate {few} helpings and asked for the recipe.", "It keeps for {few} days in a cool room.",
        ]  # fmt: skip
        given = {**slots(person), "b": self.other(person), "list": phrases.RECIPES[person.food]}
        lines = self.prose.some(how, self.rng.randint(5, 7), **given)
        if is_stated("food", person.name):
            lines.insert(self.rng.randrange(len(lines)), self.fact(person, "food"))
        return self.prose.one(["How to make {food}", "{food}"], **given), [" ".join(lines), *self.encounters(2)]

    def log(self) -> Article:
        """A week in the ferry's log."""
        title = self.prose.one(["The ferry's log, {month}", "The ferry's log, week of the {nth} of {month}"])
        days = sorted(self.rng.sample(range(7), self.rng.randint(4, len(LOG_LINES))))
        lines = self.shuffled(LOG_LINES)
        return title, [
            self.prose.sentence(line, day=phrases.WORDS["day"][day]) for day, line in zip(days, lines, strict=False)
        ]

    def fact(self, person: Person, kind: str) -> str:
        """A sentence that states a fact about a person."""
        return self.prose.one(phrases.FACTS[kind], **slots(person))

    def encounters(self, count: int) -> list[str]:
        """Small events between people."""
        return [self.encounter(template) for template in self.rng.sample(phrases.ENCOUNTERS, count)]

    def encounter(self, template: str, **given: str) -> str:
        """A small event between two people."""
        a, b = (person.name for person in self.rng.sample(PEOPLE, 2))
        return self.prose.sentence(template, a=a, b=b, **given)

    def other(self, person: Person) -> str:
        """Somebody else."""
        return self.rng.choice([each.name for each in PEOPLE if each != person])

    def shuffled(self, lines: list[str]) -> list[str]:
        """The lines in random order."""
        return self.rng.sample(lines, len(lines))


def slots(person: Person) -> dict[str, str]:
    """What sentences about a person need."""
    return phrases.slots_of(person)
