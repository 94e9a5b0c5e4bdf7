"""A hundred short articles about boats, half of them Chinese: five facts each, all made up, no two boats alike."""

import random

# fmt: off
COLOURS = ["grey", "white", "golden", "black", "silver"]
ANIMALS = ["heron", "pike", "otter", "swan", "beaver", "crane", "trout", "falcon", "badger", "lynx"]
FIRST_NAMES = ["Ana", "Bruno", "Clara", "Dario", "Edith", "Felix", "Greta", "Hugo", "Ines", "Jonas"]
LAST_NAMES = ["Abel", "Brandt", "Castell", "Dorn", "Ekman"]
PIERS = ["Willow Pier", "Mill Pier", "Bell Pier", "Stone Pier", "Apple Pier"]
PAINTS = ["dark green", "bright yellow", "deep red", "pale blue", "chestnut brown"]
CHINESE_NAMES = [
    "云帆", "海燕", "青松", "白鹭", "红鲤", "金桥", "秋水", "春风", "明月", "朝阳",
    "长虹", "飞鱼", "银河", "玉兰", "紫竹", "远山", "石榴", "梧桐", "牡丹", "蔷薇",
    "珍珠", "琥珀", "翡翠", "孔雀", "麒麟", "凤凰", "鸳鸯", "鹦鹉", "蜻蜓", "蝴蝶",
    "骆驼", "羚羊", "苍鹰", "黑豹", "雪莲", "冬梅", "夏荷", "晨曦", "晚霞", "繁星",
    "瀑布", "溪流", "草原", "沙洲", "稻香", "麦浪", "甘露", "清泉", "钟声", "灯塔",
]
SURNAMES = ["陈", "林", "周", "吴", "郑", "孙", "马", "何", "罗", "梁"]
GIVEN = ["大海", "小江", "春生", "明山", "秋水"]
QUAYS = ["柳树码头", "石桥码头", "钟楼码头", "磨坊码头", "苹果码头"]
HUES = ["深绿色", "亮黄色", "大红色", "浅蓝色", "栗色"]
FILLERS = ["On calm days the wind hardly moves the water.", "In winter there is ice along the shore.",
           "Many people remember the old days on the lake.", "The journey across the lake takes half an hour."]
FILLERS_ZH = ["风平浪静的时候，湖面像镜子一样。", "冬天，岸边会结冰。", "很多老人还记得从前的日子。", "过湖要半小时。"]
# fmt: on


def english(number: int, rng: random.Random) -> str:
    """An English article."""
    name = f"{COLOURS[number % 5].title()} {ANIMALS[number // 5].title()}"
    builder = f"{FIRST_NAMES[number // 5]} {LAST_NAMES[number % 5]}"
    facts = [
        f"The {name} was built in {1802 + 3 * number}.",
        f"{builder} built the {name} without any plans.",
        f"The {name} carries {12 + number} passengers.",
        f"The {name} is moored at {rng.choice(PIERS)}.",
        f"The hull of the {name} is painted {rng.choice(PAINTS)}.",
        rng.choice(FILLERS),
    ]
    return " ".join(rng.sample(facts, len(facts)))


def chinese(number: int, rng: random.Random) -> str:
    """A Chinese article."""
    name = f"{CHINESE_NAMES[number]}号"
    builder = f"{SURNAMES[number // 5]}{GIVEN[number % 5]}"
    facts = [
        f"{name}是{1802 + 3 * number}年造的。",
        f"造{name}的人叫{builder}。",
        f"{name}能坐{12 + number}个人。",
        f"{name}停在{rng.choice(QUAYS)}。",
        f"{name}的船身是{rng.choice(HUES)}的。",
        rng.choice(FILLERS_ZH),
    ]
    return "".join(rng.sample(facts, len(facts)))


def articles(seed: int = 0) -> list[dict[str, str]]:
    """All articles, as records with `article_id` and `text`."""
    rng = random.Random(seed)
    texts = [write(number, rng) for number in range(50) for write in (english, chinese)]
    return [{"article_id": f"boat {number}", "text": text} for number, text in enumerate(texts)]
