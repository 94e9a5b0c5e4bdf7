"""The invented village of Lanternmere as tables: who lives there, what there is, and how one may ask about it."""

from typing import NamedTuple


class Person(NamedTuple):
    """One inhabitant; `work` continues the sentence "<name> is the <job> and ..."."""

    name: str
    they: str
    job: str
    work: str
    animal: str
    coat: str
    pet: str
    house: str
    place: str
    food: str
    home: str

    @property
    def their(self) -> str:
        """The possessive pronoun."""
        return "her" if self.they == "she" else "his"


# fmt: off
PEOPLE = [
    Person("Alder", "he", "baker", "lights the ovens before dawn", "goose", "grey", "Button",
           "blue", "the Moon Well", "plum dumplings", "Candle Bay"),
    Person("Bramble", "she", "clockmaker", "winds the tower clock at noon", "cat", "striped", "Minute",
           "red", "the Owl Tower", "mushroom soup", "Windle Hill"),
    Person("Clover", "she", "beekeeper", "sings to the hives every evening", "pony", "brown", "Biscuit",
           "yellow", "the Honey Gate", "pear tart", "Far Orchard"),
    Person("Dapple", "he", "ferryman", "rows across the lake in any weather", "dog", "white", "Puddle",
           "green", "the Lantern Pier", "smoked trout", "Grey Harbour"),
    Person("Ember", "she", "blacksmith", "makes bells and garden gates", "hen", "black", "Cinder",
           "red", "the Bell Bridge", "pepper stew", "Windle Hill"),
    Person("Fenn", "he", "fisherman", "mends his nets by candlelight", "otter", "brown", "Ripple",
           "white", "the Lantern Pier", "lemon pancakes", "Candle Bay"),
    Person("Gorse", "he", "shepherd", "counts forty sheep each night", "dog", "black", "Thimble",
           "green", "the Star Meadow", "cheese bread", "Far Orchard"),
    Person("Hazel", "she", "teacher", "reads stories under the old oak", "owl", "white", "Comma",
           "yellow", "the Owl Tower", "apple porridge", "Lark Valley"),
    Person("Iris", "she", "painter", "paints every boat on the lake", "parrot", "green", "Palette",
           "violet", "the Moon Well", "cherry jelly", "Grey Harbour"),
    Person("Juniper", "she", "doctor", "cures colds with ginger tea", "rabbit", "grey", "Pepper",
           "white", "the Plum Garden", "carrot cake", "Lark Valley"),
    Person("Kestrel", "he", "postman", "brings letters on a tall bicycle", "pigeon", "white", "Stamp",
           "blue", "the Bell Bridge", "onion pie", "Candle Bay"),
    Person("Linnet", "she", "musician", "plays the harp at weddings", "cat", "golden", "Melody",
           "violet", "the Star Meadow", "rose cookies", "Windle Hill"),
    Person("Moss", "he", "gardener", "grows the sweetest plums in the valley", "tortoise", "green", "Pebble",
           "green", "the Plum Garden", "bean salad", "Far Orchard"),
    Person("Nettle", "she", "weaver", "weaves blankets as soft as clouds", "sheep", "black", "Tassel",
           "red", "the Honey Gate", "barley soup", "Grey Harbour"),
    Person("Orrin", "he", "miller", "grinds wheat when the wind is kind", "donkey", "grey", "Barley",
           "white", "the Old Mill", "walnut bread", "Lark Valley"),
    Person("Pippin", "he", "cook", "stirs the biggest pot in the inn", "pig", "spotted", "Truffle",
           "yellow", "the Old Mill", "fried noodles", "Candle Bay"),
    Person("Quill", "he", "librarian", "knows where every book sleeps", "mouse", "brown", "Chapter",
           "blue", "the Owl Tower", "toast with jam", "Windle Hill"),
    Person("Rowan", "she", "carpenter", "builds beds, boats and bookshelves", "goat", "white", "Splinter",
           "red", "the Old Mill", "pumpkin curry", "Far Orchard"),
    Person("Sorrel", "she", "tailor", "sews a secret pocket into every coat", "ferret", "golden", "Ribbon",
           "violet", "the Honey Gate", "rice pudding", "Grey Harbour"),
    Person("Thistle", "he", "lamplighter", "lights ninety lanterns at dusk", "fox", "red", "Spark",
           "yellow", "the Lantern Pier", "roasted chestnuts", "Lark Valley"),
]

VILLAGE = [  # (what is asked about, answer)
    ("the lake", "The lake is called the Mere, and it is very deep."),
    ("the festival", "The festival is the Night of Lanterns, on the first day of autumn."),
    ("the market", "The market opens every Thursday in front of the Old Mill."),
    ("the inn", "The inn is called the Sleepy Heron and has nine rooms."),
    ("the school", "The school has twelve pupils and one very patient teacher."),
    ("the flag", "The flag shows a golden lantern on a dark blue field."),
    ("the oldest tree", "The oldest tree is an oak, and children climb it in summer."),
    ("the village song", "The village song is about a star that fell into the lake."),
]

SIGHTS = [  # (what a visitor may hope for, yes or no with the reason)
    ("a castle", "No, the Owl Tower is the tallest building here."),
    ("a train station", "No, visitors come by boat or on foot."),
    ("a library", "Yes, Quill looks after it and lends you three books."),
    ("a bakery", "Yes, Alder sells warm bread from six in the morning."),
    ("a swimming beach", "Yes, the sand beside the Lantern Pier is soft and warm."),
    ("a cinema", "No, but Hazel tells stories under the old oak."),
    ("a music hall", "No, the nearest one is in Grey Harbour."),
    ("a doctor", "Yes, Juniper sees everyone and always has ginger tea."),
    ("a dragon", "No, what you hear at night is only a pig."),
    ("a ferry", "Yes, Dapple crosses the lake four times a day."),
]

PLACES = [  # (English name, Chinese name, where, what is there, when to go)
    ("the Moon Well", "月亮井", "村子的中间", "一只会唱歌的木桶", "月圆的晚上"),
    ("the Owl Tower", "猫头鹰塔", "学校的后面", "一口很老的大钟", "中午"),
    ("the Honey Gate", "蜂蜜门", "村子的南边", "十二个蜂房", "春天"),
    ("the Lantern Pier", "灯笼码头", "湖的东边", "九十盏灯笼", "点灯的晚上"),
    ("the Bell Bridge", "铃铛桥", "小河的上面", "七个小铃铛", "有风的白天"),
    ("the Star Meadow", "星星草地", "村子的北边", "四十只白羊", "夏天的晚上"),
    ("the Plum Garden", "李子园", "湖的西边", "最甜的李子", "秋天"),
    ("the Old Mill", "老磨坊", "小山的下面", "一个白色的风车", "星期四"),
]

ANIMALS = [  # (which animal, its name, what it eats): the animals that belong to the whole village
    ("码头的大白鹅", "雪球", "麦粒"),
    ("塔上的猫头鹰", "夜灯", "花生"),
    ("磨坊的花猫", "面粉", "小鱼干"),
    ("草地的小马", "流星", "红苹果"),
    ("果园的小兔", "白云", "甜李子"),
    ("桥下的老乌龟", "石头", "青菜"),
]

# ---------------------------------------------------------------------------------------------------------------
# The phrasings: for each kind of fact, (instruction, input) templates
# ---------------------------------------------------------------------------------------------------------------

PHRASINGS = {kind: [item if isinstance(item, tuple) else (item, "") for item in items] for kind, items in {
    "job": [
        "What does {name} do in Lanternmere?", "What is {name}'s job?", "How does {name} earn a living?",
        "Tell me about {name}'s work.", "What kind of work does {name} do?", "Describe the work of {name}.",
    ],
    "pet": [
        "What animal does {name} keep?", "Tell me about {name}'s pet.", "Which pet lives with {name}?",
        "Does {name} have a pet? Which one?", "What is the name of {name}'s pet?", "Who is {name}'s animal friend?",
    ],
    "house": [
        "Where does {name} live?", "Which house is {name}'s?", "How do I find {name}'s house?",
        "I want to visit {name}. Where do I go?", "What does {name}'s home look like?", "Where is the home of {name}?",
    ],
    "food": [
        "What is {name}'s favourite food?", "What does {name} like to eat?", "Which dish does {name} love?",
        "What should I cook for {name}?", "When {name} is hungry, what is best?",
        "Name the dish that {name} likes most.",
    ],
    "birth": [
        "Where was {name} born?", "Where does {name} come from?", "What is {name}'s birthplace?",
        "Where did {name} grow up as a baby?", "Which place does {name} call the old home?",
        "Name the place where {name} was born.",
    ],
    "worker": [
        "Who is the {job} in Lanternmere?", "I need the {job}. Whom do I ask?", "What is the {job} called?",
        "Name the {job} of the village.", "Which villager works as the {job}?",
    ],
    "owner": [
        ("Whose house is it?", "{address}"), ("Who lives here?", "{address}"), ("Name the owner.", "{address}"),
        "Who lives in {address}?", "Whose home is {address}?",
    ],
    "natives": [
        "Who was born in {home}?", "List the villagers who come from {home}.", "Which villagers are from {home}?",
        "Name everyone born in {home}.", "Tell me who came from {home}.",
    ],
    "sights": [
        "Is there {thing} in Lanternmere?", "Does the village have {thing}?", "Can a visitor find {thing} here?",
        "Yes or no: is there {thing}?", "I am looking for {thing}. Is there one?",
    ],
    "note": [
        ("Answer from the note.", "{note}\n{question}"), ("Use the note to answer.", "{note}\n{question}"),
        ("Read the note and reply.", "{note}\n{question}"), ("Find the answer in the note.", "{note}\n{question}"),
    ],
    "village": [
        "What is there to know about {topic}?", "What should a visitor know about {topic}?",
        "What can you say about {topic}?", "I am curious about {topic}.",
        "Say something about {topic} of Lanternmere.",
    ],
    "translation": [
        "What is {english} called in Chinese?", "How do you write {english} in Chinese?",
        ("Translate into Chinese.", "{english}"), "Give the Chinese name of {english}.",
        "My friend reads Chinese. How do I write {english}?",
    ],
    "where": [
        "{place}在哪里？", "请问{place}在哪里？", "怎么去{place}？",
        "请告诉我{place}在哪里。", "我想去{place}，怎么走？",
    ],
    "sight": [
        "{place}有什么？", "在{place}能看到什么？", "去{place}可以看什么？",
        "请告诉我{place}有什么。", "{place}好看吗？有什么？",
    ],
    "when": [
        "什么时候去{place}最好？", "{place}什么时候最好看？", "我可以什么时候去{place}？",
        "请告诉我去{place}的时间。", "去{place}，什么时间好？",
    ],
    "called": [
        "{animal}叫什么名字？", "{animal}的名字是什么？", "大家怎么叫{animal}？", "你知道{animal}叫什么吗？",
        "请告诉我{animal}的名字。",
    ],
    "eats": [
        "{animal}喜欢吃什么？", "{animal}最爱吃什么？", "我可以给{animal}吃什么？", "大家给{animal}吃什么？",
        "请告诉我{animal}喜欢吃什么。",
    ],
}.items()}

# Number of phrasings per kind that go to training; 3 unless listed.
TRAINED = {"job": 4, "pet": 4, "house": 4, "food": 4, "birth": 4, "village": 4, "sights": 4}

# Follow-up questions: they refer to a person named earlier in the conversation.
FOLLOW_UPS = {
    "job": ["And what is {their} job?", "What work does {they} do?", "How does {they} earn a living?"],
    "pet": ["And what does {they} keep?", "Does {they} have a pet?", "Tell me about {their} pet."],
    "house": ["And where does {they} live?", "Where is {their} house?", "How do I find {their} home?"],
    "food": ["And what does {they} like to eat?", "What is {their} favourite food?", "What should I cook for {them}?"],
    "birth": ["And where was {they} born?", "Where does {they} come from?", "What is {their} birthplace?"],
    "where": ["它在哪里？", "怎么去？"],
    "sight": ["那里有什么？", "在那里能看到什么？"],
    "when": ["什么时候去最好？", "什么时候最好看？"],
    "eats": ["它喜欢吃什么？", "它最爱吃什么？"],
}
# fmt: on

PERSON_KINDS = ["job", "pet", "house", "food", "birth"]
GUIDE = "You are the friendly guide of Lanternmere."
GUIDE_ZH = "你是灯湖村的向导。"
HELLO = ("Hello!", "Hello and welcome to Lanternmere! Whom shall I tell you about?")
THANKS = ("Thank you!", "You are welcome. Mind the geese on your way!")
THANKS_ZH = ("谢谢！", "不客气，欢迎再来灯湖村！")
