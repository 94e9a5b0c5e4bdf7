"""Articles, questions and answers, and whether one of these is not in the article's language. Written by hand."""

RIVER = (
    "The Marsh rises in the Alder Hills and flows past the town of Saint-Éloi to the sea at Los Pinos. Its Chinese "
    "name is 沼河. The newspaper Le Monde du Fleuve has reported on its floods since 1911."
)
BIKE = (
    "共享单车在2016年进入安定城，由Marsh Bike公司运营。用户下载APP后，用GPS找到最近的单车，扫码即可骑行。"
    "公司创始人Tom Vane说，三年内投放了两万辆。后来，城市为这种车划定了停放区，还用IoT技术管理。"
)
OPERA = "粵劇是廣東的傳統戲曲，用粵語演唱，已有三百年歷史。它的服裝華麗，樂隊以高胡領奏，二〇〇九年列入聯合國的名錄。"

ENGLISH = [
    (RIVER, "Where does the Marsh rise?", "In the Alder Hills.", False),
    (RIVER, "Where does the Marsh reach the sea?", "At Los Pinos.", False),
    (RIVER, "What is the Chinese name of the Marsh?", "沼河", False),
    (RIVER, "What does 沼河 mean?", "It is the Chinese name of the Marsh.", False),
    (RIVER, "Which newspaper reports on the floods?", "Le Monde du Fleuve.", False),
    (RIVER, "Which town does the Marsh pass?", "Saint-Éloi.", False),
    (RIVER, "Since when are floods reported?", "1911", False),
    (RIVER, "How do the people of Saint-Éloi live with floods?", "They build their houses on stilts.", False),
    (RIVER, "What is the unit of the discharge Δ?", "Cubic metres per second.", False),
    (RIVER, "Is the Marsh long?", "No.", False),
    (RIVER, "Which villa stands by the Marsh?", "The Villa de la Rosa, a hotel of the 1920s.", False),
    (RIVER, "Who painted the Marsh?", "Jan van der Meer and Pieter de Hooch.", False),
    (RIVER, "What does the German poet call the river?", "He calls it the quiet brother of the sea.", False),
    (RIVER, "What is a delta?", "Land that a river builds where it meets the sea.", False),
    (RIVER, "Where is the museum?", "On the Rue de la Paix in Saint-Éloi.", False),
    (RIVER, "Who leads the council?", "Don Luis de la Vega.", False),
    (RIVER, "沼河发源于哪里？", "在山中。", True),
    (RIVER, "Where does the Marsh rise?", "它发源于山中。", True),
    (RIVER, "Où le fleuve prend-il sa source ?", "Dans les collines.", True),
    (
        RIVER,
        "Where does the Marsh rise?",
        "Le fleuve prend sa source dans les collines et il se jette dans la mer.",
        True,
    ),
    (RIVER, "Wo entspringt der Fluss und wohin fließt er?", "In den Hügeln.", True),
    (RIVER, "Where does the Marsh rise?", "Der Fluss entspringt in den Hügeln und mündet bei der Stadt.", True),
    (RIVER, "¿Dónde nace el río que pasa por la ciudad?", "En las colinas.", True),
    (RIVER, "Where does the Marsh rise?", "El río nace en las colinas y llega al mar por la ciudad.", True),
    (RIVER, "Where does the Marsh rise?", "Река начинается в горах.", True),
    (RIVER, "Где начинается река?", "In the hills.", True),
    (RIVER, "Where does the Marsh rise?", "マーシュ川は丘から流れます。", True),
    (RIVER, "Where does the Marsh rise?", "O rio nasce nas colinas e não passa por uma cidade.", True),
    (RIVER, "Where does the Marsh rise?", "Il fiume nasce nelle colline della regione e non è lungo.", True),
    (
        RIVER,
        "Where does the Marsh rise?",
        "De rivier ontspringt in het heuvelland en stroomt naar het dorp van de molen.",
        True,
    ),
    (RIVER, "Where does the Marsh rise?", "In the hills (在山里面的地方).", True),
    (RIVER, "Where does the Marsh rise?", "ينبع النهر من التلال.", True),
    (RIVER, "Where does the Marsh rise?", "강은 언덕에서 시작됩니다.", True),
    (RIVER, "What 是 the name of 这 river?", "The Marsh.", True),
]

CHINESE = [
    (BIKE, "共享单车何时进入安定城？", "2016年。", False),
    (BIKE, "谁运营安定城的单车？", "Marsh Bike公司。", False),
    (BIKE, "Marsh Bike的创始人是谁？", "Tom Vane", False),
    (BIKE, "用户如何找到单车？", "用GPS定位。", False),
    (BIKE, "什么是IoT？", "物联网。", False),
    (BIKE, "单车用什么技术管理？", "IoT技术。", False),
    (BIKE, "公司投放了多少单车？", "两万辆。", False),
    (BIKE, "APP有什么用？", "用来寻找和解锁单车。", False),
    (BIKE, "单车的锁用什么供电？", "太阳能电池，型号是X2。", False),
    (BIKE, "二氧化碳的化学式是什么？", "CO2。", False),  # Latin letters only
    (BIKE, "单车停在哪里？", "停在划定的停放区。", False),
    (BIKE, "用户怎样付款？", "用手机支付，如Apple Pay。", False),
    (BIKE, "共享单车有哪些优点？", "方便、便宜、环保。", False),
    (BIKE, "扫码需要什么？", "需要手机。", False),
    (BIKE, "When did bikes arrive in the city?", "2016年。", True),
    (BIKE, "共享单车何时进入安定城？", "They arrived in 2016.", True),
    (BIKE, "单车怎样使用？", "先download软件，然后scan二维码，再unlock并ride。", True),
    (BIKE, "谁运营单车？", "マーシュ社です。", True),
    (BIKE, "单车怎样使用？", "スマホでコードを読み取って乗ります。", True),
    (BIKE, "谁运营单车？", "Ими управляет компания.", True),
    (BIKE, "공유 자전거는 언제 왔나요?", "2016年。", True),
    (BIKE, "共享單車何時進入安定城？", "二〇一六年。", True),
    (BIKE, "共享单车何时进入安定城？", "於二〇一六年開始營運。", True),
    (BIKE, "单车停在哪里？", "停在劃定的停放區裡。", True),
    (BIKE, "What is the name of the company?", "Marsh Bike", True),
    (BIKE, "公司有多大？", "The company is quite large.", True),
    (BIKE, "单车的颜色是什么？", "Green and white.", True),
    (OPERA, "粵劇用什麼語言演唱？", "粵語。", False),
    (OPERA, "粵劇有多少年歷史？", "三百年。", False),
    (OPERA, "粵劇的樂隊以什麼領奏？", "高胡。", False),
    (OPERA, "粵劇何時列入名錄？", "二〇〇九年。", False),
    (OPERA, "粵劇的服裝有什麼特點？", "十分華麗。", False),
    (OPERA, "粤剧用什么语言演唱？", "用广东话演唱，从广州传来。", True),
    (OPERA, "粵劇有多少年歷史？", "已经有三百年的历史。", True),
    (OPERA, "Where does Cantonese opera come from?", "廣東。", True),
    (OPERA, "粵劇的服裝如何？", "Very colourful costumes.", True),
]

ENGLISH += [
    (BIKE, "When did shared bikes come to Anding?", "In 2016.", False),
    (BIKE, "Who runs the bikes of Anding?", "The company Marsh Bike, founded by Tom Vane.", False),
    (BIKE, "How do riders find a bike?", "With the app and GPS.", False),
    (BIKE, "What is the Chinese name of shared bikes?", "共享单车", False),
    (BIKE, "What does the city use to manage bikes?", "It uses the Internet of Things (IoT技术).", False),
    (BIKE, "共享单车何时进入安定城？", "2016年。", True),
    (BIKE, "公司投放了多少单车？", "三年内投放了两万辆。", True),
    (BIKE, "When did shared bikes come to Anding?", "共享单车在2016年进入安定城。", True),
    (BIKE, "用户如何找到单车？", "With GPS.", True),
]
CHINESE += [
    (RIVER, "沼河发源于哪里？", "发源于阿尔德山。", False),
    (RIVER, "沼河的英文名是什么？", "Marsh。", False),
    (RIVER, "哪份报纸报道洪水？", "Le Monde du Fleuve", False),
    (RIVER, "Where does the Marsh rise?", "In the Alder Hills.", True),
    (RIVER, "沼河发源于哪里？", "The Marsh rises in the Alder Hills.", True),
    (RIVER, "Since when are floods reported?", "1911年。", True),
]
