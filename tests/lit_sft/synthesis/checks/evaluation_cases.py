"""Evaluation items, and pairs that copy one of them or do not. Written by hand."""

ITEMS = [
    {"instruction": "Which planet has the most known moons, according to the 2023 count?", "output": "Saturn."},
    {"instruction": "Who wrote the poem about the mill by the river Alder?", "output": "Ruth Bell wrote it in 1871."},
    {"instruction": "Explain why the sky is blue.", "output": "Air scatters blue light more than red light."},
    {"instruction": "Name a prime number above ninety.", "output": "97"},
    {"instruction": "水稻在哪个季节播种，又在哪个季节收割？", "output": "春天播种，秋天收割。"},
    {"instruction": "谁写了《沼河边的磨坊》？", "output": "白如玉。"},
    {"instruction": "请解释天空为什么是蓝色的。", "output": "因为空气散射蓝光多于红光。"},
]
CHOICES = [
    {
        "id": "1",
        "question": "Which metal is liquid at room temperature?",
        "options": ["iron", "mercury"],
        "answer": "mercury",
    },
    {"id": "2", "question": "哪一种金属在室温下是液体？", "options": ["铁", "汞"], "answer": "汞"},
]

ENGLISH = [
    ("Which planet has the most known moons, according to the 2023 count?", "Saturn.", True),
    ("Which planet has the most known moons?", "Saturn.", False),  # seven words in a row only
    ("Which planet has the most known moons according to astronomers?", "Saturn, with 146.", True),
    ("which PLANET has the most known moons -- according to you?", "Jupiter.", True),
    ("Who wrote the poem about the mill by the river Alder?", "Joan Harker.", True),
    ("Who wrote the poem about the mill?", "Ruth Bell wrote it in 1871.", False),
    ("Tell me: who wrote the poem about the mill by the sea?", "Nobody.", True),
    ("Explain why the sky is blue.", "Because of scattering.", True),
    ("Could you explain why the sky is blue today?", "Because of scattering.", True),
    ("Why is the sky blue?", "Air scatters blue light more than red light.", True),
    ("What does air scatter?", "It scatters blue light more.", False),
    ("Name a prime number above ninety.", "97", True),
    ("Name a prime number above eighty.", "83", False),
    ("Which metal is liquid at room temperature?", "Mercury is.", True),
    ("At which temperature is mercury liquid?", "At room temperature.", False),
    ("Is it true that which metal is liquid at room temperature depends on pressure?", "Yes.", True),
    ("Which moons does Saturn have?", "Titan, Rhea and many more.", False),
    ("Which planet has rings?", "Saturn.", False),
    ("Who was Ruth Bell?", "The mayor of Alden.", False),
    ("Where does the river Alder rise?", "In the Alder Hills.", False),
    ("What is a mill by the river called?", "A water mill.", False),
    ("Why is grass green?", "Chlorophyll reflects green light.", False),
    ("Which metal melts at 29.8 degrees?", "Gallium.", False),
    ("What is a prime number?", "A number with two divisors.", False),
    ("Which planet has the most gravity?", "Jupiter.", False),
    ("Which world of our system is known for the largest number of moons?", "Saturn.", True),  # the item in other words
]

CHINESE = [
    ("水稻在哪个季节播种，又在哪个季节收割？", "春播秋收。", True),
    ("水稻在哪个季节播种？又在哪个季节插秧？", "春天。", True),
    ("水稻在哪个季节播种？", "春天。", False),
    ("水稻何时播种？", "春天播种，秋天收割。", False),
    ("谁写了《沼河边的磨坊》？", "白如玉。", True),
    ("谁写了沼河边的磨坊", "林则清。", True),
    ("请问谁写了《沼河边的磨坊》？", "一位诗人。", True),
    ("《沼河边的磨坊》写于何时？", "1871年。", False),
    ("请解释天空为什么是蓝色的。", "因为散射。", True),
    ("天空为什么是蓝色的？", "因为空气散射蓝光多于红光。", True),
    ("天空为什么是蓝色的？", "因为瑞利散射。", False),
    ("空气散射什么光？", "蓝光多于红光。", False),
    ("哪一种金属在室温下是液体？", "汞。", True),
    ("哪种金属在室温下是液体？", "汞。", True),  # one character is missing
    ("汞在室温下是什么状态？", "液体。", False),
    ("哪一种金属最硬？", "铬。", False),
    ("白如玉是谁？", "安定城市长。", False),
    ("沼河发源于哪里？", "赤杨山。", False),
    ("水稻需要多少水？", "很多。", False),
    ("哪个季节最冷？", "冬季。", False),
    ("磨坊有什么用？", "磨面粉。", False),
    ("海水为什么是咸的？", "因为含盐。", False),
    ("什么金属用来做电线？", "铜。", False),
    ("秋天收割什么？", "水稻。", False),
    ("夜空为什么是黑色的？", "因为没有阳光。", False),
    ("室温一般是多少度？", "二十度左右。", False),
]
