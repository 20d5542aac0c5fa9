"""What the demo model knows: small tables, written for this project."""

from typing import NamedTuple

from .grammar import phrases, words


class Animal(NamedTuple):
    """What the model can tell about an animal."""

    sound: str
    home: str
    food: str
    description: str


ANIMALS = {
    "bear": Animal("growl", "a cave", "honey", "a big furry animal"),
    "bee": Animal("buzz", "a hive", "nectar", "a tiny insect that makes honey"),
    "bird": Animal("tweet", "a nest", "seeds", "a small animal with wings"),
    "cat": Animal("meow", "a house", "fish", "a small furry pet"),
    "cow": Animal("moo", "a farm", "grass", "a big farm animal that gives milk"),
    "crow": Animal("caw", "a tree", "corn", "a clever black bird"),
    "dog": Animal("woof", "a house", "meat", "a friendly furry pet"),
    "donkey": Animal("hee-haw", "a stable", "hay", "a patient animal with long ears"),
    "duck": Animal("quack", "a pond", "water plants", "a bird that swims"),
    "elephant": Animal("trumpet", "the savanna", "leaves", "a very big animal with a trunk"),
    "frog": Animal("croak", "a pond", "flies", "a small green jumper"),
    "goat": Animal("maa", "a farm", "grass", "a farm animal with horns"),
    "goose": Animal("honk", "a farm", "grass", "a big loud bird"),
    "hen": Animal("cluck", "a coop", "seeds", "a farm bird that lays eggs"),
    "horse": Animal("neigh", "a stable", "hay", "a strong fast animal"),
    "lion": Animal("roar", "the savanna", "meat", "a big wild cat"),
    "mouse": Animal("squeak", "a hole", "cheese", "a tiny animal with a long tail"),
    "owl": Animal("hoot", "a tree", "mice", "a bird that wakes at night"),
    "pig": Animal("oink", "a farm", "corn", "a pink farm animal"),
    "sheep": Animal("baa", "a farm", "grass", "a woolly farm animal"),
    "snake": Animal("hiss", "a hole", "mice", "a long animal without legs"),
    "wolf": Animal("howl", "the forest", "meat", "a wild cousin of the dog"),
}

UNKNOWN_ANIMALS = words(
    """
    zebra giraffe penguin shark whale dolphin octopus crab lobster spider ant butterfly beetle snail worm turtle lizard
    crocodile kangaroo koala panda gorilla monkey tiger leopard cheetah hyena rhino hippo camel llama alpaca deer moose elk
    reindeer rabbit hare squirrel beaver otter badger fox hedgehog hamster rat bat eagle hawk falcon parrot pigeon swan
    peacock turkey ostrich flamingo pelican seal walrus salmon trout tuna jellyfish scorpion mosquito dragonfly ferret
    weasel raccoon skunk sloth armadillo anteater buffalo bison yak antelope gazelle jaguar lynx
    """
)

COLOURS = {
    "a banana": "yellow",
    "a carrot": "orange",
    "a cherry": "red",
    "a cucumber": "green",
    "a fire engine": "red",
    "a flamingo": "pink",
    "a frog": "green",
    "a leaf": "green",
    "a lemon": "yellow",
    "a pea": "green",
    "a plum": "purple",
    "a strawberry": "red",
    "a tomato": "red",
    "an orange": "orange",
    "blood": "red",
    "chocolate": "brown",
    "coal": "black",
    "grass": "green",
    "milk": "white",
    "snow": "white",
    "the night": "black",
    "the sea": "blue",
    "the sky": "blue",
    "the sun": "yellow",
}

UNKNOWN_COLOURED = phrases(
    """
    a house,a car,a dress,a book,the wind,my shirt,a train,music,a door,a table,my hair,a phone,a flower,a horse,a boat,
    a computer,the number five,a bird,a cup,paper,a robot,a bicycle,a hat,love,a mirror,a cloud,iron,a rocket,a pencil,
    a sock,your name,a bus,my dog,a song,a chair,a kite,a stone,an idea,a lamp,the wall,a bag,a ball,water,a shoe,a truck
    """
)

CAPITALS = {
    "Argentina": "Buenos Aires",
    "Australia": "Canberra",
    "Austria": "Vienna",
    "Belgium": "Brussels",
    "Brazil": "Brasilia",
    "Canada": "Ottawa",
    "Chile": "Santiago",
    "China": "Beijing",
    "Cuba": "Havana",
    "Denmark": "Copenhagen",
    "Egypt": "Cairo",
    "England": "London",
    "Finland": "Helsinki",
    "France": "Paris",
    "Germany": "Berlin",
    "Greece": "Athens",
    "Hungary": "Budapest",
    "India": "New Delhi",
    "Ireland": "Dublin",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Mexico": "Mexico City",
    "Norway": "Oslo",
    "Peru": "Lima",
    "Poland": "Warsaw",
    "Portugal": "Lisbon",
    "Russia": "Moscow",
    "Spain": "Madrid",
    "Sweden": "Stockholm",
    "Turkey": "Ankara",
    "Ukraine": "Kyiv",
}

UNKNOWN_COUNTRIES = phrases(
    """
    Afghanistan,Albania,Algeria,Andorra,Angola,Armenia,Azerbaijan,Bahrain,Bangladesh,Barbados,Belarus,Belize,Benin,Bhutan,
    Bolivia,Botswana,Brunei,Bulgaria,Burundi,Cambodia,Cameroon,Chad,Colombia,Congo,Croatia,Cyprus,Djibouti,Dominica,Ecuador,
    Eritrea,Estonia,Ethiopia,Fiji,Gabon,Gambia,Georgia,Ghana,Grenada,Guatemala,Guinea,Guyana,Haiti,Honduras,Iceland,
    Indonesia,Iran,Iraq,Israel,Jamaica,Jordan,Kazakhstan,Kiribati,Kosovo,Kuwait,Kyrgyzstan,Laos,Latvia,Lebanon,Lesotho,
    Liberia,Libya,Liechtenstein,Lithuania,Luxembourg,Madagascar,Malawi,Malaysia,Maldives,Mali,Malta,Mauritania,Mauritius,
    Moldova,Monaco,Mongolia,Montenegro,Morocco,Mozambique,Myanmar,Namibia,Nauru,Nepal,New Zealand,Nicaragua,Niger,Nigeria,
    North Korea,Oman,Pakistan,Palau,Panama,Paraguay,Qatar,Romania,Rwanda,Samoa,San Marino,Saudi Arabia,Senegal,Serbia,
    Singapore,Slovakia,Slovenia,Somalia,South Africa,South Korea,Sri Lanka,Sudan,Suriname,Switzerland,Syria,Taiwan,
    Tajikistan,Tanzania,Thailand,Togo,Tonga,Tunisia,Turkmenistan,Tuvalu,Uganda,Uruguay,Uzbekistan,Vanuatu,Venezuela,Vietnam,
    Yemen,Zambia,Zimbabwe,Texas,California,Bavaria,Africa,Europe,Asia,Scotland,Wales,Atlantis,the moon,Mars,the world
    """
)

_OPPOSITE_PAIRS = phrases(
    """
    hot cold,big small,up down,day night,fast slow,happy sad,open closed,old young,light dark,wet dry,full empty,
    early late,hard soft,long short,left right,good bad,loud quiet,rich poor,clean dirty,first last,near far,high low,
    easy difficult,thick thin,awake asleep,true false,inside outside,black white
    """
)

OPPOSITES = {word: other for pair in _OPPOSITE_PAIRS for word, other in (pair.split(), list(reversed(pair.split())))}

UNKNOWN_OPPOSITES = words(
    """
    pizza table blue music seven computer water car doctor paper cheese river train piano monday house cloud spoon server
    chair banana guitar window forest phone bread mountain shoe garden lamp engine pencil island rocket football coffee
    mirror dragon camera planet sugar button circus library museum kitchen potato violin carpet jacket ladder helmet
    """
)

NUMBER_WORDS = words(
    """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty
    """
)

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

NAMES = words(
    """
    Anna Ben Clara Dan Emma Finn Grace Hugo Ivy Jack Kate Leo Mia Nora Oscar Ruby Sam Tom Lily Max Alice Bob Carol David
    Eva Frank Helen Ian Julia Karl Laura Mark Nina Paul Rosa Simon Tina Victor Wendy Zoe
    """
)

TIPS = {
    "bake bread": "Mix flour, water, salt and yeast, let the dough rise, and bake it until it is golden.",
    "boil an egg": "Put the egg in boiling water, wait eight minutes, and cool it under cold water.",
    "grow a plant": "Put a seed in soil, give it water and light, and wait a few days.",
    "learn faster": "Study a little every day, and explain what you learned to a friend.",
    "make friends": "Smile, say hello, and ask people about the things they like.",
    "make pancakes": "Mix flour, milk and eggs, pour a little into a hot pan, and turn it once.",
    "make tea": "Boil some water, add a tea bag, wait three minutes, and enjoy your cup.",
    "relax": "Sit down, close your eyes, and take five slow breaths.",
    "save money": "Write down what you spend and put a little aside each week.",
    "sleep better": "Go to bed at the same time every day and keep your room dark and quiet.",
    "stay healthy": "Drink water, eat fruit and vegetables, and go for a walk every day.",
    "write well": "Use short sentences, choose simple words, and read your text out loud.",
}

NOUNS = words(
    """
    pizza code python java website email letter song recipe car train airplane phone computer internet game football tennis
    doctor hospital money bank job boss school teacher university exam book movie actor king queen president war peace love
    friend family mother father brother sister baby city country world planet moon star rocket space time clock history math
    algebra geometry biology physics chemistry energy electricity robot machine database network docker kubernetes cloud
    linux windows bug file chair window door kitchen coffee juice wine beer pasta rice cheese bread cake sugar salt shoe
    shirt dress watch ring gold silver stone glass paper pen brush paint music guitar piano drum dance party holiday trip
    hotel beach mountain river ocean island bridge road street map weather rain storm wind heat fire ice plant tree flower
    garden rose apple pear grape potato onion pepper body head hand foot heart brain bone dream health sport politics law
    medicine philosophy tax stock market climate virus vaccine religion language grammar essay invoice password contract
    """
)
