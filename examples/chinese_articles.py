"""Chinese articles about the village: places, animals, visits, markets, letters, essays and logs, each with a title."""

import random
from collections.abc import Callable, Sequence

import chinese_phrases as phrases
from article_facts import is_stated
from prose import Prose
from village import ANIMALS, PLACES

Article = tuple[str, list[str]]
"""A title and paragraphs."""

# fmt: off
VISIT_STARTS = ["{month}{nth}，我第{time}次来到灯湖村。", "我们走了{few}天，{hour}才到灯湖村。", "我和{guest}一起去灯湖村。",
                "听{guest}说灯湖村很美，{season}我就来了。"]
VISIT_ENDS = ["走的时候，{guest}还坐在{place}。", "我买了{goods}带回家。", "明年{season}我还要再来。",
              "灯亮了，我在窗边写下这些字。", "晚上喝着{drink}，我一点也不想走。"]
LOG = [
    "{day}：{sky}，{wind}。坐船的有{few}个人，还有{goods}。", "{day}：{sky}。{hour}开船，天黑前回来。",
    "{day}：没有客人，在船上{chore}。", "{day}：{guest}把{lost}忘在船上，在{hiding}找到了。",
    "{day}：{many}个人坐船，大多去{place}。", "{day}：{wind}，船开到一半又回来了。",
]
NEWS = [
    "有人在{place}的{hiding}捡到{lost}，请失主{hour}以后到客店来拿。", "{guest}带着{goods}来到村里，要住{few}个晚上。",
    "去{place}的路{day}以前不能走，因为有人要在那里{chore}。", "出售{goods}，{coins}，请到{place}找{worker}。",
    "谁愿意来{chore}？{worker}会给{coins}。", "{day}{hour}在{place}跳舞，下雨就改天。",
    "{worker}谢谢{worker2}，没有人请，他就来帮忙{chore}。", "孩子们和邻村比赛{game}，赢了{few}回。",
]
LETTER = [
    "你寄来的包裹收到了，里面是{goods}，谢谢。", "{day}我没能去，因为要{chore}，一直忙到{hour}。", "我在{place}又遇见了{guest}。",
    "这里很安静，晚上我就{chore}。", "昨天我丢了{lost}，你猜在哪里？在{hiding}！", "你来的时候请带上{goods}，我准备{drink}。",
    "我们{game}到{hour}，每次都是我输。", "告诉大家，{day}在{place}见面。",
]
ANIMAL_EVENTS = ["{day}，{name}{act}。", "在{spot}，{name}{act}，大家都笑了。", "{guest}看见{name}{act}。",
                 "{name}{act}，{worker}也不生气。", "{sky}，{name}{act}。", "{worker}叫了{few}声，{name}才回头。",
                 "{guest}想给{name}画一张画，它却{act}。"]
MARKET = [
    "{worker}把{goods}卖给{guest}，收了{coins}。", "{goods}要{coins}，比{month}贵了一倍。", "{goods}没有人要，{worker}又拿回了家。",
    "{worker}用{goods}换了{worker2}的{goods2}。", "{guest}和{worker}讲价，一直讲到{hour}。", "{guest}一口气吃了{few}碗{dish}。",
]
DISH = [
    "做{dish}要先{chore}，这是{worker}说的笑话。", "煮{many}分钟，再放到{hour}。", "有人加一点{drink}，{worker}说那样不对。",
    "{worker}每个{day}都做{dish}，从来不用秤。", "{guest}吃了{few}碗，还要学怎么做。", "{dish}在{place}卖{coins}一碗。",
    "凉了也好吃，可以放{few}天。", "{season}吃{dish}最舒服。",
]
ESSAY = [
    "我家住在{place}旁边。", "每天{hour}，我和{guest}一起上学。", "老师教我们{game}，还教我们{chore}。",
    "我长大以后想当{worker}。", "妈妈说，{season}不要去湖边玩。", "有一次我把{lost}丢在{hiding}，找了{few}天。",
    "爷爷最会{chore}，也最爱喝{drink}。", "放学以后，我们在{spot}{game}。", "我最喜欢吃{dish}，可以吃{few}碗。",
]
# fmt: on


class ChineseArticles:
    """Writes Chinese articles.

    Args:
        rng: Makes every choice.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.prose = rng, Prose(rng, phrases.WORDS)
        self.kinds: list[tuple[int, Callable[[], Article]]] = [
            (20, self.place), (18, self.animal), (12, self.visit), (10, self.market), (8, self.letter), (8, self.news),
            (8, self.essay), (8, self.log), (6, self.dish),
        ]  # fmt: skip

    def article(self) -> Article:
        """One article of any kind."""
        weights = [weight for weight, _ in self.kinds]
        return self.rng.choices([write for _, write in self.kinds], weights)[0]()

    def place(self) -> Article:
        """A place, with the facts that may be stated about it."""
        english, place, where, sight, when = self.rng.choice(PLACES)
        ways = {"where": phrases.WHERE, "sight": phrases.SIGHT, "when": phrases.WHEN}
        given = {"place": place, "where": where, "sight": sight, "when": when, "english": english}
        stated = [
            line for kind, lines in ways.items() if is_stated(kind, place) for line in self.lines(lines, 2, **given)
        ]
        if is_stated("translation", english):
            stated.append(self.prose.one(phrases.TRANSLATION, **given))
        events = self.lines(phrases.EVENTS, self.rng.randint(3, 6), place=place)
        title = self.prose.one(["{place}", "说说{place}", "{place}一日", "灯湖村的{place}"], place=place)
        return title, ["".join(self.mixed(stated)), "".join(events), self.prose.one(phrases.WEATHER)]

    def animal(self) -> Article:
        """One of the village's animals."""
        animal, name, food = self.rng.choice(ANIMALS)
        given = {"animal": animal, "food": food, "name": name if is_stated("called", animal) else "它"}
        stated = []
        for kind, templates in (("called", phrases.CALLED), ("eats", phrases.EATS)):
            if is_stated(kind, animal):
                first, second = self.rng.sample(templates, 2)
                stated.append(
                    self.prose.sentence(first, **given) + self.prose.sentence(second, **{**given, "animal": "它"})
                )
        events = self.lines(ANIMAL_EVENTS, self.rng.randint(3, 5), **given)
        more = self.lines(phrases.EVENTS, self.rng.randint(1, 3))
        title = self.prose.one(["{animal}", "{animal}的一天", "{animal}的故事"], **given)
        return title, ["".join(self.mixed(stated)), "".join(events), "".join(more)]

    def visit(self) -> Article:
        """A visitor's day."""
        title = self.prose.one(["灯湖村游记", "灯湖村的一天", "{season}的灯湖村"])
        first = [self.prose.one(VISIT_STARTS), self.prose.one(phrases.WEATHER), *self.lines(phrases.VILLAGE, 2)]
        _, place, where, sight, when = self.rng.choice(PLACES)
        ways = {"where": phrases.WHERE, "sight": phrases.SIGHT, "when": phrases.WHEN}
        kind = self.rng.choice([kind for kind in ways if is_stated(kind, place)])
        seen = self.prose.one(ways[kind], place=place, where=where, sight=sight, when=when)
        second = [seen, *self.lines(phrases.EVENTS, self.rng.randint(3, 6))]
        return title, ["".join(first), "".join(self.mixed(second)), "".join(self.lines(VISIT_ENDS, 2))]

    def market(self) -> Article:
        """A report of a market."""
        title = self.prose.one(["{month}{nth}的集市", "{month}集市见闻"])
        start = self.prose.one(["集市上有{many}个摊子，{few}辆车。", "今天来了{many}个卖东西的人。"])
        lines = [self.prose.sentence(line) for line in self.mixed(MARKET * 2)[: self.rng.randint(4, 8)]]
        return title, [self.prose.one(phrases.WEATHER) + start, "".join(lines), *self.lines(phrases.EVENTS, 1)]

    def news(self) -> Article:
        """A page of notices."""
        lines = self.lines(NEWS, self.rng.randint(4, 6))
        return self.prose.one(["村里的消息，{month}{nth}", "{month}布告"]), [*lines, "布告贴出：" + self.date()]

    def letter(self) -> Article:
        """A letter."""
        to, sender = self.rng.sample(phrases.WORDS["guest"][:10], 2)
        body = self.lines(LETTER, self.rng.randint(4, 6))
        events = self.lines(phrases.EVENTS, 1)
        return f"写给{to}的信", [f"{to}：你好！" + "".join(body + events), f"你的朋友，{sender}，" + self.date()]

    def essay(self) -> Article:
        """A pupil's essay."""
        title = self.prose.one(["我的村子", "我的一天", "我喜欢的{season}"])
        lines = self.lines(ESSAY, self.rng.randint(5, 7)) + self.lines(phrases.VILLAGE, 2)
        return title, ["".join(lines), "".join(self.lines(phrases.EVENTS, 2))]

    def log(self) -> Article:
        """A week in the ferry's log."""
        days = sorted(self.rng.sample(range(7), self.rng.randint(4, len(LOG))))
        return self.prose.one(["渡船日志，{month}{nth}那一周", "{month}渡船日志"]), [
            self.prose.sentence(line, day=phrases.WORDS["day"][day])
            for day, line in zip(days, self.mixed(LOG), strict=False)
        ]

    def dish(self) -> Article:
        """A dish."""
        dish = self.rng.choice(phrases.WORDS["dish"])
        lines = self.lines(DISH, self.rng.randint(5, 7), dish=dish)
        return self.prose.one(["怎样做{dish}", "{dish}"], dish=dish), ["".join(lines), *self.lines(phrases.EVENTS, 2)]

    def lines(self, templates: Sequence[str], count: int, **given: str) -> list[str]:
        """Some of the templates, filled in."""
        return self.prose.some(templates, count, **given)

    def mixed(self, lines: list[str]) -> list[str]:
        """The lines in random order."""
        return self.rng.sample(lines, len(lines))

    def date(self) -> str:
        """A day of the year."""
        return f"{self.rng.randint(1, 12)}月{self.rng.randint(1, 28)}日。"
