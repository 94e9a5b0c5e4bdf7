"""A question, its answer, another question, and whether that one asks something else. Written by hand."""

HEIGHT = ("How high is the Harlow Bridge?", "The Harlow Bridge is 412 metres high.")
OPENED = ("When was the Harlow Bridge opened?", "It was opened in 1922 by Queen Anna.")
POEM = ("Write a short poem about the sea in winter.", "Grey waves, cold foam, a gull that calls alone.")
OWL = ("Why does the marsh owl hunt at dusk?", "Because voles leave their holes then.")
PEOPLE = ("How many people live in Tarnholm?", "About 12,000.")

ENGLISH = [
    (*HEIGHT, "What is the height of the Harlow Bridge?", False),
    (*HEIGHT, "Could you tell me how tall the Harlow Bridge is?", False),
    (*HEIGHT, "How many metres high is the bridge at Harlow?", False),
    (*HEIGHT, "Harlow Bridge: how high is it?", False),
    (*HEIGHT, "I'm curious, what's the Harlow Bridge's height?", False),
    (*HEIGHT, "What is the capital of Peru?", True),
    (*HEIGHT, "How high is Mount Kilimanjaro?", True),
    (*HEIGHT, "How long is the Harlow Bridge?", True),
    (*HEIGHT, "Who built the Harlow Bridge?", True),
    (*HEIGHT, "How many towers does the Harlow Bridge have?", True),
    (*HEIGHT, "How high was the Harlow Bridge in 1850?", True),
    (*OPENED, "In which year did the Harlow Bridge open?", False),
    (*OPENED, "What year saw the opening of the Harlow Bridge?", False),
    (*OPENED, "The Harlow Bridge was opened when?", False),
    (*OPENED, "Please say when Queen Anna opened the Harlow Bridge.", False),
    (*OPENED, "Where is the Harlow Bridge?", True),
    (*OPENED, "When was the Eiffel Tower opened?", True),
    (*OPENED, "What do pandas eat?", True),
    (*POEM, "Could you compose a few lines of verse on the winter sea?", False),
    (*POEM, "I need a brief poem on the sea during the cold season.", False),
    (*POEM, "Explain photosynthesis to a child.", True),
    (*POEM, "List five tips for a job interview.", True),
    (*OWL, "For what reason do marsh owls hunt at dusk?", False),
    (*OWL, "What makes the marsh owl go hunting in the evening?", False),
    (*OWL, "Where does the marsh owl hunt?", True),
    (*OWL, "Why is the sky blue?", True),
    (*PEOPLE, "What is the population of Tarnholm?", False),
    (*PEOPLE, "How large is the population of Tarnholm?", False),
    (*PEOPLE, "How many people live in Alden?", True),
]

BRIDGE = ("青石桥有多高？", "青石桥高412米。")
BUILT = ("青石桥是哪一年建成的？", "1922年。")
VERSE = ("写一首关于冬天大海的短诗。", "灰浪卷寒沙，孤鸥唤落霞。")
TEA = ("白岭茶为什么有名？", "因为香气持久。")
NUMBER = ("晋安县有多少人口？", "约三万人。")

CHINESE = [
    (*BRIDGE, "青石桥的高度是多少？", False),
    (*BRIDGE, "请问青石桥高多少米？", False),
    (*BRIDGE, "想知道青石桥到底有多高", False),
    (*BRIDGE, "秘鲁的首都是哪里？", True),
    (*BRIDGE, "青石桥有多长？", True),
    (*BRIDGE, "青石桥是谁建造的？", True),
    (*BRIDGE, "青石桥有几座高塔？", True),
    (*BRIDGE, "1850年青石桥有多高？", True),
    (*BRIDGE, "熊猫吃什么？", True),
    (*BUILT, "青石桥什么时候建成？", False),
    (*BUILT, "青石桥建成于何年？", False),
    (*BUILT, "请问青石桥的建成年份是？", False),
    (*BUILT, "青石桥在哪里？", True),
    (*BUILT, "长城是什么时候修建的？", True),
    (*VERSE, "请以冬日的大海为题，作一首小诗。", False),
    (*VERSE, "帮我写几句描写冬天海边的诗", False),
    (*VERSE, "向孩子解释光合作用。", True),
    (*VERSE, "列出面试的五条建议。", True),
    (*TEA, "白岭茶出名的原因是什么？", False),
    (*TEA, "白岭茶为何有名气？", False),
    (*TEA, "白岭茶产于哪里？", True),
    (*TEA, "天空为什么是蓝色的？", True),
    (*NUMBER, "晋安县的人口有多少？", False),
    (*NUMBER, "晋安县住着多少人？", False),
    (*NUMBER, "太阳系有几颗行星？", True),
]
