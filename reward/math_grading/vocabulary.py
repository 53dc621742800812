"""Lists words that follow or precede numbers: common countable things, qualifiers, and words that change a number.

Any other word after a number is a noun too; the listed ones are so even where a product of letters could be meant.
"""

from __future__ import annotations

_COUNTABLES = """
animal apple baby bacteria bag ball balloon banana basket bead bean bear bed bee bike bill bird biscuit block board
boat book boss bottle bowl box boy bracelet branch bread brick brother brownie bucket bug building bus butterfly
button cake calorie camel can candle candy car card carrot cat chair cheese chicken child children chip chocolate
choice city class classmate clip coin color cookie corner cousin cow cracker crate crayon cup cupcake customer daisy
dancer daughter desk diamond dinner dog doll donut door dot doughnut dress drink duck ear edge egg elephant employee
error event eye face factor family fan farmer feather female fish flag floor flower foal fork friend frog fruit game
gift girl glass goal goat grade grandchild grandchildren grape group guest gumball guppy guy hand hat hen home horse
house ice inning item jar jellybean job juice jump kid kitten lap leaf leaves leg lemon lesson letter level lily line
lion loaf loaves lollipop lunch machine male man marble mango match meal melon member men mice mistake monkey mouse
movie mug muffin mushroom necklace nickel notebook nut onion orange order outfit ounce owl oyster package packet pack
page painting pair pan pancake paper parent parrot party passenger patient peach peanut pear pearl pen pencil penny
pennies people person pet petal photo piece pie pig pill pineapple pizza plant plate player point pony pool potato
potatoes prize problem puppy puzzle quiz quizzes question rabbit race red rep ribbon ride ring robot rock room rose
round row runner sandwich school score scoop seat seashell seed set sheep shelf shelves shirt shoe shop shot sibling
side sister slice snack sock son song spider spoon sprinkle squirrel stair stamp star state step stick sticker stone
store story straw strawberry strawberries student subject sunflower swimmer table taco task tea teacher team teaspoon
tablespoon teeth test ticket tile time tire tomato tomatoes tool toothpick tooth topping town toy train tree trip
truck tulip turkey turtle tv unit vase vegetable vehicle video visit visitor vote wall watermelon way wheel whale
window wing wolf woman women word worker yard zebra arrangement combination divisor element integer number outcome
path permutation possibility possibilities prime root solution subset term triangle value vertex vertices cube marker
hour girlfriend boyfriend battery batteries
"""
_QUALIFIERS = """
left remaining more extra total altogether each per every a an of the in for on old long tall wide high away apart and
"""
_CHANGING = """
or not no nor neither either never but except without than less more fewer least most greater above below under over
minus negative plus times divided twice double triple half thrice quarter third root square squared cube cubed power
factorial factor factors product quotient log ln sin cos tan exp inverse reciprocal difference between from to modulo
mod percent hundred thousand million billion trillion dozen one two three four five six seven eight nine ten eleven
twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty
ninety nearly almost wrong incorrect anything isn isnt maybe perhaps
"""


def _with_plurals(text: str) -> frozenset[str]:
    words = text.split()
    plain = [f"{word}s" for word in words]
    sibilants = [f"{word}es" for word in words if word.endswith(("s", "x", "ch", "sh", "z"))]
    return frozenset([*words, *plain, *sibilants, *(f"{word[:-1]}ies" for word in words if word.endswith("y"))])


COUNTABLES = _with_plurals(_COUNTABLES) - {"ones", "squares"}
"""Countable things, which may follow a number without changing it."""
QUALIFIERS = frozenset(_QUALIFIERS.split())
"""Words that may stand among units or countable things."""
CHANGING_WORDS = frozenset(_CHANGING.split())
"""Words that change a number that they precede. This class of words is closed, unlike that of the harmless ones."""
