#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Deterministic generator of the little texts that the demo model is
trained, calibrated and evaluated on.

Everything below - words, names, facts, templates - was made up for this
project, so the text and the model trained on it carry no foreign licence.
Only the standard library is used and the random numbers come from our own
generator, so the same seed gives the same bytes on every Python 3.

Two things make the text a useful test for low-bit quantization:

* a fixed world (who lives where, what lies next to what, what goes into
  which dish) that a model can only know by storing it in its weights;
* documents that must be followed (who holds the key now, how many coins
  are left, what the traveller was looking for), which need attention to
  be precise.

Both are lost quickly when the weights are rounded carelessly.

    generate_text.py --seed calib --bytes 200000 > calib.txt
"""

import argparse
import sys

MASK64 = (1 << 64) - 1

# Disjoint streams: the seeds only have to differ, SplitMix64 does the rest.
SEEDS = {"train": 0x7121A1, "calib": 0xCA11B, "eval": 0xE7A1}
WORLD_SEED = 0x3041D


class Rng:
    """SplitMix64. Python's own `random` promises less about the future."""

    def __init__(self, seed):
        self.state = seed & MASK64

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK64
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
        return z ^ (z >> 31)

    def below(self, n):
        return (self.next() >> 11) % n

    def between(self, lo, hi):
        return lo + self.below(hi - lo + 1)

    def chance(self, percent):
        return self.below(100) < percent

    def pick(self, items):
        return items[self.below(len(items))]

    def skewed(self, items):
        """Like pick(), but early items are likelier, as in real text."""
        return items[min(self.below(len(items)), self.below(len(items)))]

    def sample(self, items, count):
        pool = list(items)
        for i in range(count):
            j = i + self.below(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def shuffled(self, items):
        return self.sample(items, len(items))


# --------------------------------------------------------------------------
# Words

WOMEN = """Ada Bera Cilla Dorit Elna Fenna Greta Hanne Ilse Jorun Kaya Lotte
Mira Nell Odile Petra Runa Sanne Tilda Ursel Vera Wenda Yrsa Zoë""".split()
MEN = """Anton Bram Corin Dirk Emil Falk Gus Harm Ivo Jory Kasper Lars Milo
Niels Otto Pim Quill Rolf Sander Teun Ulf Vitus Wim Yorick""".split()

# In the order in which the ring road meets them.
TOWNS = """Alderby Brackwater Coldham Dunmere Eastley Fernhill Garrowby
Hollin Inchmoor Jarrow Kettleby Lowick Marrow Netherby Oakhurst Pellham
Quarrington Redcliff Saltmouth Thornby Underwood Vale Westerly Yarrow""".split()

JOBS = """baker miller smith weaver potter fisher cobbler carpenter gardener
teacher doctor shepherd sailor painter printer clockmaker beekeeper tailor
ferryman musician mason cook postman glassblower""".split()
JOB_WORK = {
    "baker": "bakes bread before sunrise",
    "miller": "grinds corn by the stream",
    "smith": "hammers iron at the forge",
    "weaver": "weaves cloth on a tall loom",
    "potter": "turns bowls on a wheel",
    "fisher": "mends nets on the quay",
    "cobbler": "puts new soles on old boots",
    "carpenter": "saws planks behind the barn",
    "gardener": "rakes leaves and prunes roses",
    "teacher": "writes sums on a blackboard",
    "doctor": "visits the sick on horseback",
    "shepherd": "watches the flock on the hill",
    "sailor": "ties knots and climbs the mast",
    "painter": "mixes colours on a wooden board",
    "printer": "sets small letters of lead",
    "clockmaker": "oils springs and tiny wheels",
    "beekeeper": "carries honey from the hives",
    "tailor": "cuts cloth and sews buttons",
    "ferryman": "rows people across the water",
    "musician": "plays the fiddle at weddings",
    "mason": "lays stone upon stone",
    "cook": "stirs the soup and tastes it",
    "postman": "brings letters to every door",
    "glassblower": "blows bottles of green glass",
}

# name: plural, adjective, home, food, sound (present), young
ANIMALS = {
    "dog": ("dogs", "loyal", "the yard", "bones", "barks", "puppy"),
    "cat": ("cats", "quiet", "the warm kitchen", "fish", "purrs", "kitten"),
    "goose": ("geese", "proud", "the green pond", "grass", "hisses",
              "gosling"),
    "mouse": ("mice", "timid", "a hole in the wall", "crumbs", "squeaks",
              "pup"),
    "sheep": ("sheep", "woolly", "the high meadow", "clover", "bleats",
              "lamb"),
    "goat": ("goats", "stubborn", "the rocky slope", "thistles", "bleats",
             "kid"),
    "horse": ("horses", "strong", "the stable", "oats", "neighs", "foal"),
    "cow": ("cows", "gentle", "the lower meadow", "hay", "moos", "calf"),
    "fox": ("foxes", "sly", "a den under the roots", "mice", "yelps", "cub"),
    "wolf": ("wolves", "lean", "the dark forest", "hares", "howls", "cub"),
    "hare": ("hares", "swift", "the open field", "cabbage", "thumps",
             "leveret"),
    "owl": ("owls", "wise", "the hollow oak", "voles", "hoots", "owlet"),
    "raven": ("ravens", "clever", "the old tower", "scraps", "croaks",
              "chick"),
    "heron": ("herons", "patient", "the reeds", "frogs", "squawks", "chick"),
    "duck": ("ducks", "cheerful", "the mill stream", "snails", "quacks",
             "duckling"),
    "frog": ("frogs", "slippery", "the ditch", "flies", "croaks", "tadpole"),
    "toad": ("toads", "wrinkled", "the cellar", "beetles", "grunts",
             "tadpole"),
    "bee": ("bees", "busy", "the straw hive", "nectar", "hums", "grub"),
    "hedgehog": ("hedgehogs", "prickly", "a heap of leaves", "worms",
                 "snuffles", "piglet"),
    "badger": ("badgers", "sturdy", "a deep burrow", "roots", "grunts",
               "cub"),
    "otter": ("otters", "playful", "the river bank", "crayfish", "whistles",
              "pup"),
    "donkey": ("donkeys", "grey", "the shed", "carrots", "brays", "foal"),
    "hen": ("hens", "fussy", "the coop", "grain", "clucks", "chick"),
    "pig": ("pigs", "muddy", "the sty", "turnips", "oinks", "piglet"),
    "parrot": ("parrots", "noisy", "a brass cage", "nuts", "screeches",
               "chick"),
    "squirrel": ("squirrels", "nimble", "the tall pine", "acorns",
                 "chatters", "kitten"),
}
PET_NAMES = """Biscuit Button Captain Clover Cricket Domino Feather Ginger
Hazel Juniper Kettle Lantern Marble Nutmeg Pebble Pepper Pickle Rusty Shadow
Smoke Tansy Thimble Tinker Whisker""".split()

# object: plural, material, use
OBJECTS = {
    "key": ("keys", "iron", "opens the gate"),
    "lamp": ("lamps", "copper", "lights the stairs"),
    "spoon": ("spoons", "silver", "stirs the porridge"),
    "bucket": ("buckets", "tin", "carries water from the well"),
    "rope": ("ropes", "hemp", "holds the boat"),
    "ladder": ("ladders", "ash wood", "reaches the roof"),
    "needle": ("needles", "steel", "mends the coat"),
    "kettle": ("kettles", "copper", "boils the water"),
    "basket": ("baskets", "willow", "carries the apples"),
    "mirror": ("mirrors", "glass", "shows a face"),
    "candle": ("candles", "wax", "burns in the night"),
    "hammer": ("hammers", "iron", "drives in the nails"),
    "whistle": ("whistles", "bone", "calls the dog"),
    "bell": ("bells", "bronze", "rings at noon"),
    "drum": ("drums", "goatskin", "leads the dance"),
    "comb": ("combs", "horn", "tames the hair"),
    "scarf": ("scarves", "wool", "warms the neck"),
    "knife": ("knives", "steel", "slices the bread"),
    "purse": ("purses", "leather", "keeps the coins"),
    "letter": ("letters", "paper", "brings the news"),
    "compass": ("compasses", "brass", "points to the north"),
    "umbrella": ("umbrellas", "silk", "keeps off the rain"),
    "ring": ("rings", "gold", "shines on a finger"),
    "map": ("maps", "parchment", "shows the way"),
    "broom": ("brooms", "birch", "sweeps the floor"),
    "saw": ("saws", "steel", "cuts the planks"),
    "flute": ("flutes", "reed", "plays a tune"),
    "blanket": ("blankets", "wool", "covers the bed"),
    "anchor": ("anchors", "iron", "holds the ship"),
    "book": ("books", "paper", "tells a story"),
    "button": ("buttons", "bone", "closes the coat"),
    "jug": ("jugs", "clay", "pours the milk"),
}

# dish: ingredients (always the same, to be remembered), verb, vessel, taste
DISHES = {
    "plum soup": (("plums", "honey", "cinnamon", "cream"), "simmer", "pot",
                  "sweet"),
    "onion pie": (("onions", "flour", "butter", "eggs", "thyme"), "bake",
                  "oven", "rich"),
    "barley stew": (("barley", "carrots", "leeks", "mutton"), "simmer",
                    "kettle", "hearty"),
    "apple cake": (("apples", "flour", "sugar", "eggs", "raisins"), "bake",
                   "oven", "sweet"),
    "pea porridge": (("peas", "water", "mint", "salt"), "boil", "pot",
                     "plain"),
    "fish chowder": (("cod", "potatoes", "milk", "dill", "pepper"), "simmer",
                     "pot", "creamy"),
    "nut bread": (("rye", "walnuts", "yeast", "salt", "syrup"), "bake",
                  "oven", "dark"),
    "cherry jam": (("cherries", "sugar", "lemon juice"), "boil", "pan",
                   "sour"),
    "cheese dumplings": (("curds", "flour", "eggs", "chives"), "boil",
                         "kettle", "soft"),
    "bean salad": (("beans", "vinegar", "oil", "onions", "parsley"), "toss",
                   "bowl", "fresh"),
    "pumpkin pudding": (("pumpkin", "milk", "sugar", "nutmeg", "eggs"),
                        "steam", "pan", "spicy"),
    "mushroom omelette": (("mushrooms", "eggs", "butter", "parsley"), "fry",
                          "pan", "tender"),
    "ginger biscuits": (("ginger", "flour", "syrup", "butter"), "bake",
                        "oven", "crisp"),
    "cabbage rolls": (("cabbage", "rice", "pork", "tomatoes"), "steam",
                      "kettle", "hearty"),
    "berry crêpes": (("berries", "flour", "milk", "eggs", "cream"), "fry",
                     "pan", "light"),
    "beet broth": (("beets", "onions", "vinegar", "dill"), "simmer", "pot",
                   "sour"),
}
PREPARE = {
    "plums": "stone", "cherries": "stone", "onions": "chop",
    "carrots": "slice", "leeks": "slice", "apples": "peel",
    "potatoes": "peel", "pumpkin": "peel", "beets": "grate",
    "mushrooms": "slice", "cabbage": "chop", "walnuts": "crack",
    "eggs": "beat", "cream": "whip", "butter": "melt", "flour": "sift",
    "rye": "grind", "barley": "soak", "peas": "soak", "beans": "soak",
    "rice": "rinse", "berries": "rinse", "raisins": "rinse",
    "tomatoes": "chop", "thyme": "chop", "mint": "chop", "dill": "chop",
    "chives": "chop", "parsley": "chop", "mutton": "cut up",
    "pork": "cut up", "cod": "cut up", "nutmeg": "grate", "ginger": "grate",
    "honey": "warm", "milk": "warm", "syrup": "warm", "water": "heat",
    "oil": "heat", "sugar": "weigh", "salt": "weigh", "yeast": "crumble",
    "curds": "crumble", "cinnamon": "grind", "pepper": "grind",
    "vinegar": "measure", "lemon juice": "measure",
}

GOODS = """pears apples onions eggs candles ribbons herrings buttons lemons
nails mugs loaves cabbages pies feathers figs brushes corks""".split()
GOOD_ONE = {"loaves": "loaf", "cabbages": "cabbage", "pies": "pie",
            "herrings": "herring", "brushes": "brush"}

COLOURS = """red blue green yellow white black brown grey purple
orange""".split()
ADJ_THING = """old small heavy broken shiny plain dusty crooked useful
precious rusty borrowed forgotten painted narrow""".split()
ADJ_PERSON = """tall cheerful quiet clever tired curious careful brave lazy
kind hungry stubborn thoughtful nervous""".split()
ADVERBS = ["slowly", "quickly", "quietly", "carefully", "happily", "gladly",
           "softly", "proudly", "at once", "in silence", "with a smile",
           "with a sigh", "after a while", "without a word"]
MANNERS = [w for w in ADVERBS if " " not in w]
TIMES = ["One morning", "One evening", "In the middle of the night",
         "Late in autumn", "On a windy day", "Before breakfast",
         "On the first day of spring", "Last winter", "Long ago",
         "Shortly after noon", "When the snow had melted", "At dawn",
         "On market day", "At the end of summer"]
WEATHER = ["it rained", "the sun shone", "a cold wind blew", "it snowed",
           "fog lay on the fields", "thunder rolled over the hills",
           "the sky was clear", "hail fell on the roofs",
           "a warm breeze came from the sea", "it was freezing"]
WEATHER_SO = {
    "it rained": ("stayed indoors", "read an old book"),
    "the sun shone": ("went outside", "sat in the garden"),
    "a cold wind blew": ("put on a scarf", "closed the shutters"),
    "it snowed": ("took the sledge", "swept the path"),
    "fog lay on the fields": ("lit a lantern", "walked slowly"),
    "thunder rolled over the hills": ("fetched the washing",
                                      "hid under the table"),
    "the sky was clear": ("climbed the hill", "counted the stars"),
    "hail fell on the roofs": ("moved the flower pots", "waited in the barn"),
    "a warm breeze came from the sea": ("opened the windows",
                                        "flew a kite"),
    "it was freezing": ("made a fire", "drank hot milk"),
}
HIDING = ["under the bed", "behind the stove", "in the drawer",
          "on the shelf", "beside the well", "in the hayloft",
          "between two stones", "inside a boot", "under the stairs",
          "on the window sill", "behind the curtain", "in the cupboard",
          "near the gate", "at the bottom of the sack", "in the boat",
          "below the bridge", "among the nettles", "on top of the wardrobe"]
DAYS = """Monday Tuesday Wednesday Thursday Friday Saturday Sunday""".split()
MONTHS = """January February March April May June July August September
October November December""".split()
MONTH_IS = {
    "January": "the ponds are frozen", "February": "the snowdrops open",
    "March": "the storms arrive", "April": "the rain makes puddles",
    "May": "the orchards bloom", "June": "the hay is cut",
    "July": "the cherries are ripe", "August": "the corn is golden",
    "September": "the apples are picked", "October": "the leaves turn red",
    "November": "the fog is thick", "December": "the candles are lit",
}
LANDMARKS = """windmill lighthouse market-hall stone-bridge bell-tower harbour
castle orchard quarry watermill fountain monastery""".split()
LANDMARKS = [w.replace("-", " ") for w in LANDMARKS]
WATERS = ["the river Arl", "the river Brenn", "the river Corve",
          "Lake Dorn", "Lake Emmer", "the sea", "the river Fenn",
          "Lake Glim"]
WARES = """cheese wool clocks salt honey rope pottery glass cider paper boots
timber lace copper soap barrels""".split()
SIZES = ["taller", "older", "faster", "stronger", "louder", "richer",
         "younger", "heavier"]
SUPERLATIVE = {"taller": "tallest", "older": "oldest", "faster": "fastest",
               "stronger": "strongest", "louder": "loudest",
               "richer": "richest", "younger": "youngest",
               "heavier": "heaviest"}
OPPOSITE = {"taller": "shortest", "older": "youngest", "faster": "slowest",
            "stronger": "weakest", "louder": "quietest",
            "richer": "poorest", "younger": "oldest",
            "heavier": "lightest"}
PROVERBS = [
    "A borrowed ladder is always too short",
    "Who counts the stars forgets the road",
    "Soup is cooked by the fire, not by the cook",
    "Even a straight river has two banks",
    "The last apple hangs the highest",
    "A quiet bell has never woken anyone",
    "He who saves his candle eats in the dark",
    "One bucket does not empty the lake",
    "The goat praises the garden, not the gardener",
    "Rust sleeps in the tool that rests",
    "Every bridge was once a quarrel between two banks",
    "New boots know no old roads",
    "A thin cat has many friends",
    "Bread remembers the hand of the baker",
    "Ask the ferryman before you learn to swim",
    "Thunder does not water the beans",
    "The clock that stands still is never late",
    "A good knot is opened by the one who tied it",
    "When the geese agree, the fox goes hungry",
    "The wind reads every letter and keeps none",
]
VERBS = """carried dropped polished repaired painted admired borrowed hid
sold wrapped buried measured weighed stole kept tossed dragged examined
sketched cleaned chased traded guarded ignored discovered lifted returned
described needed wanted""".split()
# Plural and singular, for agreement across a clause in between.
VERBS_NOW = [("sleep", "sleeps"), ("hide", "hides"), ("wait", "waits"),
             ("eat", "eats"), ("watch the road", "watches the road"),
             ("drink", "drinks"), ("quarrel", "quarrels"),
             ("dream", "dreams"), ("make a noise", "makes a noise"),
             ("enjoy the sun", "enjoys the sun"), ("dig", "digs"),
             ("run in circles", "runs in circles"), ("do nothing",
                                                     "does nothing")]
SPOTS = """garden churchyard attic cellar bakery orchard courtyard library
kitchen ferry crossroads graveyard vineyard barracks greenhouse tavern
workshop chapel swamp canyon meadow pier staircase balcony school ruin
granary cave theatre warehouse""".split()
REASONS = ["it was too heavy", "nobody wanted it", "the moon was full",
           "winter was near", "the money was gone", "the children laughed",
           "the doctor had said so", "there was no other way",
           "the guests were late", "the roof leaked", "it brought luck",
           "the bridge was closed", "the soup was cold",
           "the mayor had asked for it", "the wheel had broken",
           "the bells were ringing", "everyone else was asleep",
           "the tide came in", "a stranger was watching",
           "the price was fair"]
RESULTS = ["nobody believed it", "the whole street talked about it",
           "the lamp went out", "a window broke", "the dogs barked",
           "the goats escaped", "the milk turned sour", "a door creaked",
           "the baby woke up", "the crowd cheered", "the clock stopped",
           "a letter arrived", "the candles flickered", "the rope snapped",
           "the rain stopped", "the judge frowned", "the music began",
           "the travellers moved on", "the wagon tipped over",
           "a raven took it for a sign"]
STUFF = """mud feathers gold moss silver dust moonlight soot roses cobwebs
salt sawdust ivy frost straw pearls""".split()

RHYMES = [
    ("house", "mouse"), ("moon", "spoon"), ("tree", "bee"), ("hat", "cat"),
    ("night", "light"), ("goat", "boat"), ("hill", "mill"), ("bell", "well"),
    ("fox", "box"), ("king", "ring"), ("rain", "train"), ("door", "floor"),
    ("bread", "bed"), ("sea", "tea"), ("clock", "sock"), ("stone", "bone"),
    ("log", "frog"), ("wall", "ball"), ("snow", "crow"), ("pie", "sky"),
]

SMALL = """zero one two three four five six seven eight nine ten eleven twelve
thirteen fourteen fifteen sixteen seventeen eighteen nineteen""".split()
TENS = """zero ten twenty thirty forty fifty sixty seventy eighty
ninety""".split()
ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh",
            "eighth"]


def number(n):
    """An English number word for 0 <= n < 1000."""
    if n < 20:
        return SMALL[n]
    if n < 100:
        return TENS[n // 10] + ("-" + SMALL[n % 10] if n % 10 else "")
    rest = " and " + number(n % 100) if n % 100 else ""
    return SMALL[n // 100] + " hundred" + rest


def cap(text):
    return text[0].upper() + text[1:]


def a(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def join(items):
    items = list(items)
    if len(items) == 1:
        return items[0]
    return ", ".join(items[:-1]) + " and " + items[-1]


def count(n, one, many):
    return number(n) + " " + (one if n == 1 else many)


def much(food):
    return ("many " if food.endswith("s") else "much ") + food


def one_good(many):
    return GOOD_ONE.get(many, many[:-1])


# --------------------------------------------------------------------------
# The world: facts that stay the same in every text

class Person:
    def __init__(self, name, female):
        self.name = name
        self.he, self.him, self.his = (
            ("she", "her", "her") if female else ("he", "him", "his"))
        self.He = cap(self.he)
        self.His = cap(self.his)


class World:
    def __init__(self):
        rng = Rng(WORLD_SEED)
        self.people = []
        names = [(n, True) for n in WOMEN] + [(n, False) for n in MEN]
        towns = rng.shuffled(TOWNS + TOWNS)
        jobs = rng.shuffled(JOBS + JOBS)
        pets = rng.shuffled(PET_NAMES + PET_NAMES)
        dishes = list(DISHES)
        for i, (name, female) in enumerate(rng.shuffled(names)):
            who = Person(name, female)
            who.town = towns[i]
            who.job = jobs[i]
            who.pet = pets[i]
            who.animal = rng.pick(list(ANIMALS))
            who.dish = rng.pick(dishes)
            who.colour = rng.pick(COLOURS)
            who.adjective = rng.pick(ADJ_PERSON)
            who.object = rng.pick(list(OBJECTS))
            who.age = rng.between(18, 79)
            self.people.append(who)
        self.by_town = {t: [p for p in self.people if p.town == t]
                        for t in TOWNS}
        self.miles = [rng.between(2, 9) for _ in TOWNS]
        self.landmark = {t: rng.pick(LANDMARKS) for t in TOWNS}
        self.water = {t: rng.pick(WATERS) for t in TOWNS}
        self.ware = {t: rng.pick(WARES) for t in TOWNS}
        self.inn = {t: "the " + cap(rng.pick(COLOURS)) + " "
                    + cap(rng.pick(list(ANIMALS))) for t in TOWNS}
        self.market = {t: rng.pick(DAYS) for t in TOWNS}
        self.price = {g: rng.between(2, 9) for g in GOODS}


WORLD = World()


def thing(rng, colour=True):
    """A noun phrase without its article, and the bare noun."""
    noun = rng.skewed(list(OBJECTS))
    words = []
    if rng.chance(45):
        words.append(rng.skewed(ADJ_THING))
    if colour and rng.chance(40):
        words.append(rng.skewed(COLOURS))
    elif rng.chance(30):
        words.append(OBJECTS[noun][1])
    return " ".join(words + [noun]), noun


# --------------------------------------------------------------------------
# Kinds of text. Each takes the generator and returns one document.

def lost_and_found(rng):
    who, friend = rng.sample(WORLD.people, 2)
    full, noun = thing(rng)
    spots = rng.sample(HIDING, rng.between(2, 4))
    out = [f"{rng.pick(TIMES)} {who.name}, the {who.job} of {who.town}, "
           f"{rng.pick(['could not find', 'had lost', 'was looking for'])} "
           f"{who.his} {full}."]
    if rng.chance(50):
        out.append(f"Without it {who.he} could do nothing, for it is the "
                   f"{noun} that {OBJECTS[noun][2]}.")
    for i, spot in enumerate(spots[:-1]):
        start = (["First", "To begin with"] if i == 0 else
                 ["Then", "Next", "After that"])
        found, _ = thing(rng)
        out.append(rng.pick([
            f"{rng.pick(start)} {who.he} looked {spot}, but there was "
            f"only {a(found)}.",
            f"{rng.pick(start)} {who.he} searched {spot}, but the {noun} "
            f"was not there.",
        ]))
    out.append(rng.pick([
        f'"Have you seen my {noun}?" {who.he} asked {friend.name}.',
        f'At last {who.he} went to {friend.name} and said: "My {noun} is '
        f'gone!"',
    ]))
    out.append(rng.pick([
        f'"It is {spots[-1]}," said {friend.name} {rng.pick(ADVERBS)}.',
        f'{friend.name} laughed. "Look {spots[-1]}," {friend.he} said.',
    ]))
    out.append(f"And there it was, {spots[-1]}: the {full}. "
               + rng.pick([f"{who.name} thanked {friend.name}",
                           f"{who.name} was very happy",
                           f"{who.He} hugged {friend.name}"])
               + rng.pick([".", f" and gave {friend.him} "
                                f"{a(rng.pick(COLOURS))} ribbon.",
                           f" and went home to feed {who.pet}."]))
    return " ".join(out)


def market(rng):
    who, seller = rng.sample(WORLD.people, 2)
    town = rng.pick(TOWNS)
    purse = rng.between(20, 60)
    out = [f"It was {WORLD.market[town]}, market day in {town}. {who.name} "
           f"had {number(purse)} coins in {who.his} purse."]
    left = purse
    bought = []
    for good in rng.sample(GOODS, rng.between(2, 3)):
        price = WORLD.price[good]
        amount = rng.between(1, 4)
        cost = price * amount
        if cost > left:
            out.append(f"The {good} were too dear for {who.him}.")
            continue
        left -= cost
        bought.append(count(amount, one_good(good), good))
        one = a(one_good(good))
        out.append(f"{cap(one)} costs {number(price)} coins, so {who.he} "
                   f"paid {number(cost)} coins for "
                   f"{count(amount, one_good(good), good)} and had "
                   f"{count(left, 'coin', 'coins')} left.")
    if bought:
        out.append(f'"What did you buy?" asked {seller.name}. '
                   f'"{cap(join(bought))}," said {who.name}.')
    else:
        out.append(f'{who.name} bought nothing and went home.')
    return " ".join(out)


def handover(rng):
    people = rng.sample(WORLD.people, rng.between(3, 4))
    holder = people[0]
    full, noun = thing(rng)
    out = [f"{holder.name} had {a(full)}."]
    chain = [holder]
    for _ in range(rng.between(2, 5)):
        new = rng.pick([p for p in people if p is not holder])
        verb = rng.pick(["gave", "handed", "lent", "sold", "passed"])
        out.append(rng.pick([
            f"{holder.name} {verb} the {noun} to {new.name}.",
            f"{cap(rng.pick(ADVERBS))} {holder.name} {verb} it to "
            f"{new.name}.",
            f"Then {new.name} got the {noun} from {holder.name}.",
        ]))
        holder = new
        chain.append(new)
    out.append(f"Who has the {noun} now? {holder.name} has the {noun}.")
    if rng.chance(60):
        out.append(f"Who had it before {holder.him}? {chain[-2].name} had "
                   f"it.")
    if rng.chance(60):
        out.append(f"Who had it first? {chain[0].name} had it first.")
    return " ".join(out)


def route(rng):
    start = rng.below(len(TOWNS))
    legs = rng.between(2, 5)
    step = rng.pick([1, -1])
    stops = [(start + step * i) % len(TOWNS) for i in range(legs + 1)]
    names = [TOWNS[i] for i in stops]
    out = [f"How to get from {names[0]} to {names[-1]}:"]
    total = 0
    for i in range(legs):
        edge = stops[i] if step > 0 else stops[i + 1]
        total += WORLD.miles[edge]
        there = names[i + 1]
        out.append(f"{i + 1}. Walk {number(WORLD.miles[edge])} miles to "
                   f"{there}, " + rng.pick([
                       f"past the {WORLD.landmark[there]}.",
                       f"by {WORLD.water[there]}.",
                       f"and rest at {WORLD.inn[there]}.",
                   ]))
    out.append(f"That is {number(total)} miles in all.")
    return "\n".join(out)


def recipe(rng):
    name = rng.pick(list(DISHES))
    parts, verb, vessel, taste = DISHES[name]
    people = rng.between(2, 8)
    cook = rng.pick([p for p in WORLD.people if p.dish == name]
                    or WORLD.people)
    out = [rng.pick([f"{cap(name)} for {number(people)}",
                     f"How {cook.name} makes {name} for {number(people)}"])
           + ":"]
    for part in parts:
        amount = rng.between(1, 9)
        unit = rng.pick(["cup", "spoon", "handful"])
        out.append(f"- {amount} {unit}{'s' if amount > 1 else ''} of {part}")
    steps = []
    for part in parts:
        steps.append(f"{cap(PREPARE[part])} the {part}.")
    minutes = 5 * rng.between(1, 12)
    if verb == "toss":
        steps.append("Toss everything in a bowl.")
    elif vessel == "oven":
        steps.append(f"Bake it in the oven for {number(minutes)} minutes.")
    else:
        steps.append(f"{cap(verb)} it in the {vessel} for "
                     f"{number(minutes)} minutes.")
    for i, text in enumerate(steps):
        out.append(f"{i + 1}. {text}")
    out.append(f"It serves {number(people)} and tastes {taste}.")
    return "\n".join(out)


def animal_facts(rng):
    name = rng.pick(list(ANIMALS))
    plural, adjective, home, food, sound, young = ANIMALS[name]
    out = rng.shuffled([
        f"{cap(a(name))} lives in {home}.",
        f"It eats {food}.",
        f"It {sound} when it is {rng.pick(['happy', 'afraid', 'hungry'])}.",
        f"A young {name} is called {a(young)}.",
        f"One {name} is {adjective}, but many {plural} are "
        f"{rng.pick(['a nuisance', 'a fine sight', 'hard to count'])}.",
    ])
    head = rng.pick([f"The {name} is {a(adjective)} animal.",
                     f"Of all animals the {name} is the most "
                     f"{adjective}."])
    return " ".join([head] + out[:rng.between(3, 5)])


def riddle(rng):
    if rng.chance(50):
        name = rng.pick(list(ANIMALS))
        _, adjective, home, food, sound, young = ANIMALS[name]
        verb = {"hisses": "hiss", "screeches": "screech"}.get(
            sound, sound[:-1])
        clues = rng.shuffled([f"I live in {home}.", f"I eat {food}.",
                              f"You can hear me {verb}.",
                              f"My child is {a(young)}.",
                              f"People say that I am {adjective}."])
        clues = clues[:rng.between(3, 4)]
    else:
        name = rng.pick(list(OBJECTS))
        _, material, use = OBJECTS[name]
        clues = rng.shuffled([f"I am made of {material}.",
                              f"I am the one that {use}."])
        owners = [p for p in WORLD.people if p.object == name]
        if owners:
            owner = rng.pick(owners)
            clues.append(f"{owner.name} of {owner.town} never leaves home "
                         f"without me.")
    return "Riddle: " + " ".join(clues) + f" What am I? {cap(a(name))}."


def ordering(rng):
    people = rng.sample(WORLD.people, rng.between(3, 4))
    word = rng.pick(SIZES)
    pairs = [(people[i], people[i + 1]) for i in range(len(people) - 1)]
    if rng.chance(50):
        pairs.reverse()
    out = [f"{x.name} is {word} than {y.name}." for x, y in pairs]
    best, worst = SUPERLATIVE[word], OPPOSITE[word]
    questions = [f"Who is the {best}? {people[0].name} is the {best}.",
                 f"Who is the {worst}? {people[-1].name} is the {worst}."]
    if len(people) == 3:
        questions.append(f"Who is in the middle? {people[1].name} is.")
    order = ", ".join(p.name for p in people)
    questions.append(f"From the {best} to the {worst}: {order}.")
    return " ".join(out + rng.shuffled(questions)[:rng.between(2, 3)])


def dialogue(rng):
    x, y = rng.sample(WORLD.people, 2)
    turns = [(x, rng.pick([f"Good morning, {y.name}!", f"Hello, {y.name}!",
                           f"Is that you, {y.name}?"])),
             (y, rng.pick([f"Good morning, {x.name}!", f"Hello, {x.name}!",
                           f"Ah, {x.name}! How are you?"]))]
    other = rng.pick([p for p in WORLD.people if p is not x and p is not y])
    full, noun = thing(rng)
    topics = rng.shuffled([
        [(x, "Where do you live now?"),
         (y, f"Still in {y.town}, near the {WORLD.landmark[y.town]}.")],
        [(x, "What is your trade?"),
         (y, f"I am {a(y.job)}, as you know. And you?"),
         (x, f"I am {a(x.job)}.")],
        [(x, f"How is your {y.animal}?"),
         (y, f"{y.pet} is well. {y.pet} "
             f"{ANIMALS[y.animal][4]} all day.")],
        [(x, "What shall we eat?"),
         (y, f"I would like {y.dish}."),
         (x, f"Good, then I shall buy {join(DISHES[y.dish][0])}.")],
        [(x, f"Do you know {other.name}?"),
         (y, f"Of course. {other.He} is the {other.job} of {other.town}.")],
        [(x, f"I have found {a(full)}. Is it yours?"),
         (y, rng.pick([f"No, that {noun} belongs to {other.name}.",
                       f"Yes, that is my {noun}! Thank you."]))],
        [(x, f"How old is {other.name}?"),
         (y, f"{other.He} is {number(other.age)} years old.")],
        [(x, f"When is the market in {x.town}?"),
         (y, f"Every {WORLD.market[x.town]}. They sell "
             f"{WORLD.ware[x.town]} there.")],
    ])
    for topic in topics[:rng.between(2, 4)]:
        turns += topic
    turns.append((x, rng.pick(["Goodbye!", f"Farewell, {y.name}!",
                               "I must go now."])))
    if rng.chance(50):
        return "\n".join(f"{who.name}: {text}" for who, text in turns)
    out = []
    for who, text in turns:
        verb = "asked" if text.endswith("?") else "said"
        text = text[:-1] + "," if text.endswith(".") else text
        out.append(f'"{text}" {verb} {who.name}.')
    return "\n".join(out)


def letter(rng):
    x, y = rng.sample(WORLD.people, 2)
    mood = rng.pick(WEATHER)
    did = rng.pick(WEATHER_SO[mood])
    full, noun = thing(rng)
    month = rng.pick(MONTHS)
    body = [
        f"It is {month} and {MONTH_IS[month]}.",
        f"Yesterday {mood}, so I {did}.",
        f"My {x.animal} {x.pet} {ANIMALS[x.animal][4]} while I write this.",
        f"Please send me the {full} that you promised. I need that {noun} "
        f"before {rng.pick(DAYS)}.",
        f"Work is hard for {a(x.job)}, but I do not complain.",
        f"Do you still love {y.dish}? I made it with too "
        f"{much(DISHES[y.dish][0][0])}.",
        f"Greet your {y.animal} {y.pet} from me.",
        f"As we say in {x.town}: {rng.pick(PROVERBS)}.",
    ]
    body = rng.shuffled(body)[:rng.between(3, 5)]
    close = rng.pick(["Your friend", "Yours", "With love"])
    return (f"{x.town}, {rng.between(1, 28)} {month}\nDear {y.name},\n"
            + " ".join(body) + f"\n{close}, {x.name}")


def diary(rng):
    who = rng.pick(WORLD.people)
    first = rng.below(7)
    out = [f"The diary of {who.name}, {who.job} in {who.town}"]
    for i in range(rng.between(3, 5)):
        mood = rng.pick(WEATHER)
        out.append(f"{DAYS[(first + i) % 7]}: {cap(mood)} and I "
                   f"{rng.pick(WEATHER_SO[mood])}."
                   + rng.pick(["", f" {who.pet} came along.",
                               f" I ate {who.dish}.",
                               f" {rng.pick(WORLD.people).name} visited me.",
                               ""]))
    return "\n".join(out)


def box(rng):
    """State tracking: what is still in the box?"""
    who = rng.pick(WORLD.people)
    colour = rng.pick(COLOURS)
    nouns = rng.sample(list(OBJECTS), rng.between(3, 4))
    have = {n: rng.between(2, 9) for n in nouns}

    def show(n):
        return count(have[n], n, OBJECTS[n][0])

    out = [f"In the {colour} box of {who.name} there are "
           f"{join(show(n) for n in nouns)}."]
    for n in rng.sample(nouns, 2):
        if rng.chance(30):
            out.append(f"{who.He} takes out all the {OBJECTS[n][0]}.")
            have[n] = 0
        elif rng.chance(50):
            k = rng.between(1, have[n] - 1)
            have[n] -= k
            out.append(f"{who.He} takes out {count(k, n, OBJECTS[n][0])}.")
        else:
            k = rng.between(1, 5)
            have[n] += k
            out.append(f"{who.He} puts in {number(k)} more "
                       f"{n if k == 1 else OBJECTS[n][0]}.")
    rest = [n for n in nouns if have[n]]
    out.append(f"What is in the {colour} box now? "
               f"{cap(join(show(n) for n in rest))}.")
    return " ".join(out)


def sums(rng):
    kind = rng.below(5)
    if kind == 0:
        lines = []
        for _ in range(rng.between(3, 6)):
            x, y = rng.between(1, 20), rng.between(1, 20)
            lines.append(f"{x} + {y} = {x + y}")
        return "\n".join(lines)
    if kind == 1:
        step, at = rng.between(1, 5), rng.between(1, 20)
        line = ", ".join(number(at + step * i)
                         for i in range(rng.between(5, 9)))
        return f"Counting in steps of {number(step)}: {line}."
    if kind == 2:
        k = rng.between(2, 9)
        upto = rng.between(4, 10)
        return "\n".join(f"{cap(number(i))} times {number(k)} is "
                         f"{number(i * k)}." for i in range(1, upto + 1))
    if kind == 3:
        top = rng.between(4, 12)
        name = rng.pick(list(ANIMALS))
        plural = ANIMALS[name][0]
        place = rng.pick(["wall", "bridge", "hill", "roof"])
        lines = []
        for n in range(top, max(top - 5, 0), -1):
            verb = "sits" if n == 1 else "sit"
            left = number(n - 1) if n > 1 else "no"
            lines.append(f"{cap(count(n, name, plural))} {verb} on the "
                         f"{place}. One runs away and {left} "
                         f"{'is' if n == 2 else 'are'} left.")
        return "\n".join(lines)
    x, y = rng.between(10, 40), rng.between(2, 9)
    return (f"What is {number(x)} plus {number(y)}? It is {number(x + y)}. "
            f"What is {number(x)} minus {number(y)}? It is "
            f"{number(x - y)}.")


def rhyme(rng):
    """Couplets; the second end word follows from the first."""
    who = rng.pick(WORLD.people)
    lines = []
    for first, second in rng.sample(RHYMES, rng.between(2, 3)):
        adj = rng.skewed(ADJ_THING)
        if rng.chance(50):
            lines.append(f"{rng.pick(['There was', 'I saw', 'We found'])} "
                         f"{a(adj)} {first},")
        else:
            lines.append(f"{who.name} {rng.pick(['liked', 'forgot'])} "
                         f"the {first},")
        lines.append(rng.pick([
            f"and in the dark there was a {second}.",
            f"and {who.he} dreamed about a {second}.",
            f"and high above there hung a {second}.",
            f"but nobody had seen the {second}.",
        ]))
    return "\n".join(lines)


def town_facts(rng):
    i = rng.below(len(TOWNS))
    town = TOWNS[i]
    after, before = TOWNS[(i + 1) % len(TOWNS)], TOWNS[i - 1]
    folk = WORLD.by_town[town]
    out = rng.shuffled([
        f"It is known for its {WORLD.landmark[town]}.",
        f"It lies by {WORLD.water[town]}.",
        f"Its people sell {WORLD.ware[town]}.",
        f"Travellers sleep at {WORLD.inn[town]}.",
        f"Market day is {WORLD.market[town]}.",
        f"{join(p.name + ' the ' + p.job for p in folk)} "
        f"{'lives' if len(folk) == 1 else 'live'} there.",
        f"It is {number(WORLD.miles[i])} miles from {after}.",
    ])
    return " ".join([f"{town} lies on the ring road, after {before} and "
                     f"before {after}."] + out[:rng.between(3, 6)])


def portrait(rng):
    p = rng.pick(WORLD.people)
    out = rng.shuffled([
        f"{p.He} lives in {p.town}, the town of the "
        f"{WORLD.landmark[p.town]}.",
        f"{p.He} is {number(p.age)} years old.",
        f"{p.His} {p.animal} is called {p.pet}.",
        f"{p.His} favourite dish is {p.dish}, made with "
        f"{join(DISHES[p.dish][0])}.",
        f"{p.He} never leaves home without {p.his} {p.object}.",
        f"Every day {p.he} {JOB_WORK[p.job]}.",
        f"People know {p.him} by {p.his} {p.colour} coat.",
    ])
    return " ".join([f"{p.name} is {a(p.adjective)} {p.job}."]
                    + out[:rng.between(3, 6)])


def quest(rng):
    """A longer story; the hero, the thing and the place recur at the end."""
    who, helper, thief = rng.sample(WORLD.people, 3)
    full, noun = thing(rng)
    goal = rng.pick([t for t in TOWNS if t != who.town])
    name = rng.pick(list(ANIMALS))
    _, adjective, home, food, sound, _ = ANIMALS[name]
    nights = rng.between(2, 9)
    out = [
        f"{rng.pick(TIMES)} {who.name} left {who.town} to bring "
        f"{a(full)} to {goal}.",
        f"{who.He} took {a(rng.skewed(list(OBJECTS)))} and "
        f"{who.his} {who.animal} {who.pet}.",
    ]
    mood = rng.pick(WEATHER)
    events = rng.shuffled([
        f"On the way {mood}, and {who.he} {rng.pick(WEATHER_SO[mood])}.",
        f"{cap(a(adjective))} {name} came out of {home}. It wanted {food}, "
        f"so {who.name} gave it some {food}, and it let {who.him} pass.",
        f"At {WORLD.inn[helper.town]} in {helper.town} {who.he} met "
        f"{helper.name} the {helper.job}, who {JOB_WORK[helper.job]}.",
        f"{thief.name} tried to steal the {noun}, but {who.pet} was awake "
        f"and made such a noise that {thief.name} ran away.",
        f'"Where are you going?" asked {helper.name}. "To {goal}, with this '
        f'{noun}," answered {who.name}.',
        f'{helper.name} shook {helper.his} head and said: '
        f'"{rng.pick(PROVERBS)}."',
    ])
    out += events[:rng.between(2, 4)]
    out.append(f"After {number(nights)} nights {who.he} saw the "
               f"{WORLD.landmark[goal]} of {goal}.")
    out.append(rng.pick([
        f"The people of {goal} were glad to have the {noun} and gave "
        f"{who.him} {WORLD.ware[goal]}.",
        f'"Here is the {full}," said {who.name}, and everyone in {goal} '
        f"cheered.",
    ]))
    out.append(rng.pick([
        f"Then {who.name} and {who.pet} went home to {who.town}.",
        f"That is how {who.name} of {who.town} became famous.",
        f"The way back took {number(nights)} nights as well.",
    ]))
    return " ".join(out)


def calendar(rng):
    first = rng.below(12)
    out = []
    for i in range(rng.between(3, 5)):
        month = MONTHS[(first + i) % 12]
        out.append(f"In {month} {MONTH_IS[month]}.")
    day = rng.below(7)
    out.append(f"If today is {DAYS[day]}, tomorrow is "
               f"{DAYS[(day + 1) % 7]} and yesterday was "
               f"{DAYS[(day - 1) % 7]}.")
    return " ".join(out)


def meeting(rng):
    """Agreement and coreference in a short scene."""
    people = rng.sample(WORLD.people, 3)
    x, y, z = people
    chairs = rng.shuffled(["bench", "stool", "wall", "barrel", "armchair"])
    foods = rng.sample(list(DISHES), 3)
    out = [f"{x.name}, {y.name} and {z.name} met at {WORLD.inn[x.town]} in "
           f"{x.town}."]
    for i, p in enumerate(people):
        out.append(f"{p.name} sat on the {chairs[i]} and ate {foods[i]}.")
    q = rng.shuffled(range(3))
    for i in q[:2]:
        p = people[i]
        out.append(rng.pick([
            f"The one on the {chairs[i]} was {p.name}.",
            f"{cap(foods[i])} was for {p.name}."
            if not foods[i].endswith("s") else
            f"The {foods[i]} were for {p.name}.",
            f"{p.name} liked {p.his} {chairs[i]} because {p.he} was tired.",
        ]))
    out.append(f"When they left, the {join(chairs[i] for i in q)} were "
               f"empty.")
    return " ".join(out)


def animal_phrase(rng):
    """A subject with a clause behind it and the number that governs the
    verb."""
    name = rng.pick(list(ANIMALS))
    plural, adjective = ANIMALS[name][:2]
    other, other_many = [(n, v[0]) for n, v in ANIMALS.items()][
        rng.below(len(ANIMALS))]
    many = rng.chance(50)
    text = "the " + rng.pick([adjective + " ", rng.pick(COLOURS) + " ", ""])
    text += plural if many else name
    beside = rng.pick([f"the {other}", f"the {other_many}"])
    text += rng.pick([
        "", f" near {beside}", f" behind {beside}",
        f" that {'were' if many else 'was'} bitten by {beside}",
        f" that {'belong' if many else 'belongs'} to "
        f"{rng.pick(WORLD.people).name}",
        f" in the {rng.pick(SPOTS)}",
    ])
    return text, many


def scene(rng):
    """Freely combined sentences: little to predict but grammar."""
    who, other = rng.sample(WORLD.people, 2)
    out = []
    for i in range(rng.between(3, 6)):
        full, noun = thing(rng)
        name = who.name if i == 0 or rng.chance(30) else who.he
        kind = rng.below(6)
        if kind == 0:
            line = (f"{name} {rng.pick(VERBS)} {a(full)} in the "
                    f"{rng.pick(SPOTS)} because {rng.pick(REASONS)}.")
        elif kind == 1:
            line = (f"when {name} {rng.pick(VERBS)} the {full} of "
                    f"{other.name}, {rng.pick(RESULTS)}.")
        elif kind == 2:
            subject, many = animal_phrase(rng)
            line = f"{subject} {rng.pick(VERBS_NOW)[0 if many else 1]}."
        elif kind == 3:
            line = (f"{name} {rng.pick(MANNERS)} {rng.pick(VERBS)} "
                    f"{rng.pick(['every', 'the', 'another', 'one more'])} "
                    f"{noun}, and {rng.pick(RESULTS)}.")
        elif kind == 4:
            line = (f"the {rng.pick(ADJ_THING)} {rng.pick(SPOTS)} "
                    f"{rng.pick(['was full of', 'smelled of'])} "
                    f"{rng.pick(STUFF)} and {rng.pick(STUFF)}, but {name} "
                    f"{rng.pick(VERBS)} nothing.")
        else:
            line = (f"{rng.pick(RESULTS)}, so {other.name} "
                    f"{rng.pick(VERBS)} {who.his} {full} {rng.pick(HIDING)}.")
        out.append(cap(line))
    return " ".join(out)


# Weights: the varied kinds more often than the short and the regular ones.
KINDS = [(scene, 40), (lost_and_found, 10), (market, 6), (handover, 8),
         (route, 5), (recipe, 5), (animal_facts, 7), (riddle, 6),
         (ordering, 7), (dialogue, 12), (letter, 9), (diary, 7), (box, 7),
         (sums, 4), (rhyme, 5), (town_facts, 7), (portrait, 10), (quest, 12),
         (calendar, 4), (meeting, 6)]
DRAW = [kind for kind, weight in KINDS for _ in range(weight)]


def documents(seed):
    """An endless stream of documents for one seed."""
    rng = Rng(seed)
    while True:
        yield rng.pick(DRAW)(rng)


def text(seed, size):
    """Whole documents, each followed by an empty line, until there are at
    least `size` bytes of them."""
    parts = []
    total = 0
    for doc in documents(seed):
        parts.append(doc + "\n\n")
        total += len(parts[-1].encode())
        if total >= size:
            return "".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", choices=sorted(SEEDS), default="train")
    parser.add_argument("--bytes", type=int, default=100000)
    args = parser.parse_args()
    sys.stdout.buffer.write(text(SEEDS[args.seed], args.bytes).encode())


if __name__ == "__main__":
    main()
