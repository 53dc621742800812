"""Lists the words of everyday answers: countable things and names of quantities. A word not listed is not accepted.

``18 eggs`` is 18 and ``\\text{total cost} = 18`` is 18; ``18 below zero`` and ``\\text{reciprocal} = 18`` are not.
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
left remaining more extra total altogether each per every a an of the in for on old long tall wide high away apart
"""
_QUANTITY_NAMES = """
age amount answer area average balance base capacity change circumference cost count degree density depth determinant
diameter difference dimension discount distance duration earnings energy expense expenses final force frequency gain
gcd grand height income interest intercept lcm length loss mass max maximum mean measure median midpoint min minimum
mode momentum new number payment percentage perimeter period population power price probability product profit
quantity quotient radius range rank rate ratio remainder remaining result revenue salary sale sales saving savings
score side slope solution speed sum surface tax temperature thickness time total value variance velocity volume wage
weight width winner work y-intercept x-intercept
"""
_FUNCTION_WORDS = """
a an and are at be by each for from has have he her his in is it its my of on our she the their there they was were
"""
_OPERATION_WORDS = "difference factor factors power product quotient root roots times"
_FILLERS = """
about approximately around equal equals exactly just only roughly simply so that then therefore thus hence to
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
_LABEL_NOUNS = (_with_plurals(_QUANTITY_NAMES) - {"power", "powers"}) | (COUNTABLES - {"root", "roots"})
LABEL_WORDS = _LABEL_NOUNS | frozenset(_FUNCTION_WORDS.split())
"""Words of a left side such as ``total cost = 5``."""
LEADING_WORDS = (LABEL_WORDS - frozenset(_OPERATION_WORDS.split())) | frozenset(_FILLERS.split())
"""Words that may stand between "the answer is" and a number."""
