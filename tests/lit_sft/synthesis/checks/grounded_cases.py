"""Articles, questions and answers, and whether the answer says what its article does not. Written by hand."""

MILL = (
    "The water mill at Ashford was built in 1802 by Joan Harker, a miller's daughter from Kent. Its wheel, 6.5 metres "
    "across, turned two pairs of stones and ground about 1,200 sacks of wheat a year. After a flood in May 1847 the "
    "wheel was replaced by a turbine made in Leeds. The mill closed in 1936 and has been a museum since 1978; some "
    "twelve thousand visitors come each year."
)
OWL = (
    "The marsh owl hunts at dusk over grassland, mostly for voles and large insects. It nests on the ground, where "
    "the female lays three to five white eggs. Both parents feed the young, which leave the nest after about 18 days, "
    "before they can fly. The species lives in Morocco and across much of Africa south of the Sahara."
)
TREATY = (
    "The Treaty of Marsh End, signed on 3 June 1763, ended the war between Alden and the Northern League. Alden gave "
    "up the island of Sorrel, but kept its fishing rights. The treaty was written by Thomas Vane, later governor of "
    "Sorrel, and remained in force for 84 years."
)

DOME = "The dome of the 1912 fair was the largest in the country until 1931. Its debt was paid over the next decade."

ENGLISH = [
    (DOME, "Who paid the debt of the dome?", "It was paid over ten years.", False),
    (DOME, "How long was the dome the largest?", "For nineteen years.", False),
    (DOME, "How long was the dome the largest?", "For 18 years.", True),
    (DOME, "How many people built the dome?", "Nineteen people built the dome.", True),
    (MILL, "When was the mill at Ashford built?", "In 1802.", False),
    (MILL, "Who built the mill at Ashford?", "Joan Harker, a miller's daughter from Kent.", False),
    (MILL, "Who built the mill at Ashford?", "It was built by Joan Harker.", False),
    (MILL, "How wide is the wheel of Ashford mill?", "The wheel is 6.5 metres across.", False),
    (MILL, "How much wheat did Ashford mill grind?", "About 1200 sacks a year.", False),
    (MILL, "How many people visit the mill at Ashford?", "About 12,000 visitors come each year.", False),
    (
        MILL,
        "What replaced the wheel of Ashford mill?",
        "A turbine from Leeds replaced it after the flood of 1847.",
        False,
    ),
    (MILL, "What is the mill at Ashford today?", "A museum.", False),
    (MILL, "When was the flood at Ashford?", "In May 1847.", False),
    (MILL, "How many stones did the wheel turn?", "Two pairs of stones.", False),
    (MILL, "When did the mill at Ashford close?", "The mill stopped working in 1936.", False),
    (MILL, "When was the mill at Ashford built?", "In 1803.", True),
    (MILL, "Who built the mill at Ashford?", "Peter Harker.", True),
    (MILL, "Who built the mill at Ashford?", "Joan Harker, who came from Sussex.", True),
    (MILL, "How much wheat did Ashford mill grind?", "About 1,300 sacks a year.", True),
    (MILL, "Where was the turbine made?", "The turbine was made in Sheffield.", True),
    (MILL, "How many people visit the mill at Ashford?", "Fifteen thousand visitors a year.", True),
    (MILL, "How many stones did the wheel turn?", "Three pairs of stones.", True),
    (MILL, "Why was the mill at Ashford built?", "To supply bread for soldiers fighting abroad.", True),
    (MILL, "What was the mill called?", 'It was known as "the old lady of Ashford".', True),
    (OWL, "What does the marsh owl eat?", "Voles and large insects.", False),
    (OWL, "Where does the marsh owl nest?", "It builds its nest on the ground.", False),
    (OWL, "How many eggs does the marsh owl lay?", "Three to five.", False),
    (OWL, "How many eggs does the marsh owl lay?", "Between 3 and 5 eggs.", False),
    (OWL, "When do young marsh owls leave the nest?", "After about eighteen days, before they are able to fly.", False),
    (OWL, "Where does the marsh owl live?", "In Morocco and south of the Sahara.", False),
    (OWL, "Who feeds young marsh owls?", "Both the mother and the father.", False),  # in other words
    (OWL, "When does the marsh owl hunt?", "At dusk.", False),
    (OWL, "How many eggs does the marsh owl lay?", "Up to seven eggs.", True),
    (OWL, "Where does the marsh owl live?", "In Morocco, Spain and Portugal.", True),
    (OWL, "What does the marsh owl eat?", "It mainly eats fish, frogs and small snakes.", True),
    (OWL, "When do young marsh owls leave the nest?", "After 28 days.", True),
    (OWL, "Is the marsh owl endangered?", "It is endangered because forests are cleared for farming.", True),
    (OWL, "Where does the marsh owl nest?", "In hollow trees near rivers.", True),
    (TREATY, "When was the Treaty of Marsh End signed?", "It was signed on June 3, 1763.", False),
    (TREATY, "Who wrote the Treaty of Marsh End?", "Thomas Vane, who later became governor of Sorrel.", False),
    (TREATY, "What did Alden give up in the Treaty of Marsh End?", "The island of Sorrel.", False),
    (TREATY, "How long was the Treaty of Marsh End in force?", "For eighty-four years.", False),
    (TREATY, "What did Alden keep under the Treaty of Marsh End?", "Its right to fish.", False),
    (TREATY, "Which war did the Treaty of Marsh End end?", "The one between Alden and the Northern League.", False),
    (TREATY, "When was the Treaty of Marsh End signed?", "It was signed on June 13, 1763.", True),
    (TREATY, "Who wrote the Treaty of Marsh End?", "It was written by Edmund Burke.", True),
    (TREATY, "How long was the Treaty of Marsh End in force?", "For 48 years.", True),
    (TREATY, "What did Alden give up in the Treaty of Marsh End?", "Two harbours and a silver mine.", True),
    (TREATY, "Where was the treaty signed?", "In the town hall of Vienna.", True),
    (TREATY, "Who led the Northern League?", "The Northern League was led by King Olaf II.", True),
]

HARLOW = (
    "The Harlow Bridge, designed by Ruth Calder, crosses the Marsh at a height of 412 metres. It was opened in 1922, "
    "cost $3 million and stands on two towers of 96 m. In the 1890s a ferry ran every 20 minutes and carried 40 "
    "tonnes a day."
)
ENGLISH += [
    (HARLOW, "How high is the Harlow Bridge?", "412 m.", False),
    (HARLOW, "How high is the Harlow Bridge?", "It is four hundred and twelve meters high.", False),
    (HARLOW, "How high is the Harlow Bridge?", "412 feet.", True),
    (HARLOW, "How high is the Harlow Bridge?", "Its height is 412 km.", True),
    (HARLOW, "How high are the towers?", "They are 96-metre towers.", False),
    (HARLOW, "How high are the towers?", "96 yards.", True),
    (HARLOW, "What did the Harlow Bridge cost?", "3 million dollars.", False),
    (HARLOW, "What did the Harlow Bridge cost?", "Three million euros.", True),
    (HARLOW, "How often did the ferry run?", "Every twenty hours.", True),
    (HARLOW, "How much did the ferry carry?", "40 tons a day.", False),
    (HARLOW, "When was the Harlow Bridge opened?", "In the nineteen twenties, in 1922.", False),
    (HARLOW, "When was the Harlow Bridge opened?", "In nineteen twenty-two.", False),
    (HARLOW, "When was the Harlow Bridge opened?", "In the 1920s.", False),
    (HARLOW, "When was the Harlow Bridge opened?", "Early in the 20th century.", False),
    (HARLOW, "When was the Harlow Bridge opened?", "In the nineteen thirties.", True),
    (HARLOW, "When did the ferry run?", "In the eighteen nineties.", False),
    (HARLOW, "Was the Harlow Bridge designed by Ruth Calder?", "Yes, it was.", False),
    (HARLOW, "Was the Harlow Bridge designed by Ruth Calder?", "Yes.", False),
    (HARLOW, "Was the Harlow Bridge designed by Ruth Calder?", "It was.", False),
    (HARLOW, "Was the Harlow Bridge designed by Clara Weiss?", "Yes, it was.", True),
    (HARLOW, "Was the Harlow Bridge designed by Clara Weiss?", "No, it was not.", False),
    (HARLOW, "Was the Harlow Bridge designed by Clara Weiss?", "No, by Ruth Calder.", False),
    (HARLOW, "Was the Harlow Bridge designed by Clara Weiss?", "The bridge was designed by Clara Weiss.", True),
    (HARLOW, "Was the Harlow Bridge opened in 1932?", "Yes.", True),
    (HARLOW, "Did sailors protest against tolls?", "Yes, they did.", True),
    (HARLOW, "Was it designed by Ruth Calder or by Clara Weiss?", "By Ruth Calder.", False),
]

BRIDGE = (
    "安平桥位于晋安县东郊，建于一八九六年，由工程师林则清设计。桥长二百一十米，宽8米，共有十二孔，全部用当地的花岗岩砌成。"
    "1937年，桥被炸毁两孔，次年修复。1985年，安平桥被列为省级文物保护单位，每年约有3.5万名游客前来参观。"
)
TEA = (
    "白岭茶产于云川一带海拔八百米以上的山区，清明前后采摘嫩芽，经杀青、揉捻、烘干三道工序制成。茶汤清亮，香气持久，"
    "每斤干茶约需四万个芽头。北宋诗人苏明远在《云川记》中称它为“雪中香”。"
)
POET = (
    "沈鹤年（1711年至1768年），字子清，江州人，清代诗人、画家。他二十岁中举，后来辞官回乡，在鹿门书院讲学十五年。"
    "著有《听雨集》六卷，存诗四百余首，多写田园生活。"
)

CHINESE = [
    (BRIDGE, "安平桥建于哪一年？", "1896年。", False),
    (BRIDGE, "安平桥有多长？", "安平桥长210米。", False),
    (BRIDGE, "安平桥由谁设计？", "由工程师林则清设计。", False),
    (BRIDGE, "安平桥位于哪里？", "晋安县东郊。", False),
    (BRIDGE, "安平桥有多少孔？", "共有12孔。", False),
    (BRIDGE, "安平桥用什么砌成？", "用当地的花岗岩。", False),
    (BRIDGE, "安平桥何时被列为文物？", "1985年被列为省级文物保护单位。", False),
    (BRIDGE, "每年有多少人参观安平桥？", "约35000名游客。", False),
    (BRIDGE, "安平桥何时被炸？", "1937年，有两孔被炸毁。", False),
    (BRIDGE, "安平桥有多宽？", "八米。", False),
    (BRIDGE, "安平桥建于哪一年？", "1869年。", True),
    (BRIDGE, "安平桥有多长？", "全长310米。", True),
    (BRIDGE, "安平桥由谁设计？", "由工程师詹天佑设计。", True),
    (BRIDGE, "安平桥由谁设计？", "王建国。", True),
    (BRIDGE, "安平桥位于哪里？", "位于泉州市。", True),
    (BRIDGE, "安平桥有多少孔？", "共有十五孔。", True),
    (BRIDGE, "安平桥为何被炸？", "为了阻止敌军坦克渡河前进。", True),
    (BRIDGE, "每年有多少人参观安平桥？", "约五万名游客。", True),
    (TEA, "白岭茶产于哪里？", "云川一带的山区。", False),
    (TEA, "白岭茶何时采摘？", "清明前后。", False),
    (TEA, "白岭茶有几道工序？", "三道：杀青、揉捻、烘干。", False),
    (TEA, "白岭茶产地海拔多少？", "海拔800米以上。", False),
    (TEA, "一斤白岭茶需要多少芽头？", "约40000个。", False),
    (TEA, "苏明远怎样称呼白岭茶？", "称它为“雪中香”。", False),
    (TEA, "哪本书提到了白岭茶？", "苏明远的《云川记》。", False),
    (TEA, "白岭茶的茶汤如何？", "清亮，香气持久。", False),
    (TEA, "白岭茶何时采摘？", "立秋以后。", True),
    (TEA, "白岭茶产地海拔多少？", "海拔1200米以上。", True),
    (TEA, "哪本书提到了白岭茶？", "陆羽的《茶经》。", True),
    (TEA, "白岭茶有什么功效？", "降低血压，预防心脏疾病。", True),
    (TEA, "苏明远怎样称呼白岭茶？", "称它为“云中仙”。", True),
    (TEA, "白岭茶有几道工序？", "五道工序。", True),
    (TEA, "白岭茶出口到哪里？", "出口到法国和德国。", True),
    (POET, "沈鹤年的字是什么？", "子清。", False),
    (POET, "沈鹤年是哪里人？", "江州人。", False),
    (POET, "沈鹤年在鹿门书院讲学多久？", "讲学15年。", False),
    (POET, "沈鹤年著有哪部诗集？", "《听雨集》。", False),
    (POET, "沈鹤年存诗多少首？", "四百多首。", False),
    (POET, "沈鹤年的诗写什么？", "主要描写田园生活。", False),
    (POET, "沈鹤年多大中举？", "20岁。", False),
    (POET, "沈鹤年辞官后做什么？", "回到家乡，在书院讲学。", False),
    (POET, "沈鹤年的字是什么？", "字伯玉。", True),
    (POET, "沈鹤年是哪里人？", "苏州人。", True),
    (POET, "沈鹤年著有哪部诗集？", "《听雪集》。", True),
    (POET, "沈鹤年存诗多少首？", "六百余首。", True),
    (POET, "沈鹤年的老师是谁？", "他的老师是郑板桥。", True),
]

STONE = (
    "青石桥高四百一十二米，1922年建成，耗资三百万元，由工程师林若兰设计，她也设计了江州车站。桥上有两座高塔，各高96米。"
    "十九世纪九十年代，这里每二十分钟有一班渡船，每天运货40吨。"
)
CHINESE += [
    (STONE, "青石桥有多高？", "412米。", False),
    (STONE, "青石桥有多高？", "高412公尺。", False),
    (STONE, "青石桥有多高？", "412英尺。", True),
    (STONE, "青石桥有多高？", "高四百一十二公里。", True),
    (STONE, "青石桥耗资多少？", "300万元。", False),
    (STONE, "青石桥耗资多少？", "300万美元。", True),
    (STONE, "渡船多久一班？", "每20分钟一班。", False),
    (STONE, "渡船多久一班？", "每20小时一班。", True),
    (STONE, "渡船每天运货多少？", "四十斤。", True),
    (STONE, "青石桥何时建成？", "二十世纪二十年代，1922年建成。", False),
    (STONE, "青石桥何时建成？", "20世纪30年代。", True),
    (STONE, "青石桥由林若兰设计吗？", "是的。", False),
    (STONE, "青石桥是否由林若兰设计？", "是，由林若兰设计。", False),
    (STONE, "青石桥是由王建国设计的吗？", "是的。", True),
    (STONE, "青石桥是由王建国设计的吗？", "不是。", False),
    (STONE, "青石桥是1932年建成的吗？", "对。", True),
    (STONE, "是女性吗？", "是的。", True),
    (STONE, "货船主人反对收费吗？", "是的。", True),
    (STONE, "青石桥有没有高塔？", "有。", False),
]
