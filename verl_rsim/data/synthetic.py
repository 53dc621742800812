"""Generates synthetic questions: the quickstart's sums, and one dataset for each type of answer, ``{type}_synthetic``.

They replace the public datasets where there is no network, and test that answers of each type are learned and scored.
Financial questions (``finance_synthetic``) come from :mod:`verl_rsim.data.finance`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from fractions import Fraction

from verl_rsim.data import finance
from verl_rsim.data.published import multiple_choice
from verl_rsim.data.question import Question

QuestionGenerator = Callable[[random.Random], Question]
"""Draws one question from a random source."""


def _sum(rng: random.Random) -> Question:
    left, right = rng.randint(1, 23), rng.randint(1, 23)
    return Question(f"What is {left} + {right}?", str(left + right))


def _math(rng: random.Random) -> Question:
    first, second = (Fraction(rng.randint(1, 20), rng.randint(2, 20)) for _ in range(2))
    total = first + second
    answer = f"\\frac{{{total.numerator}}}{{{total.denominator}}}" if total.denominator > 1 else str(total)
    return Question(f"Add $\\frac{{{first.numerator}}}{{{first.denominator}}}$ and {second}.", answer)


def _number(rng: random.Random) -> Question:
    price, count = rng.randint(101, 999), rng.randint(2, 60)
    return Question(f"A ticket costs ${price / 100:.2f}. What do {count} tickets cost?", f"${price * count / 100:,.2f}")


def _integer(rng: random.Random) -> Question:
    left, right = rng.randint(10, 99), rng.randint(10, 99)
    return Question(f"A hall has {left} rows of {right} seats. How many seats does it have?", str(left * right))


def _float(rng: random.Random) -> Question:
    side, height = rng.randint(2, 90), rng.randint(2, 90)
    return Question(
        f"How long is the diagonal of a {side} by {height} rectangle?", f"{(side**2 + height**2) ** 0.5:.4f}"
    )


def _list(rng: random.Random) -> Question:
    numbers = rng.sample(range(100), 4)
    return Question(f"Sort {', '.join(map(str, numbers))} in ascending order.", str(sorted(numbers)))


def _bool(rng: random.Random) -> Question:
    number, divisor = rng.randint(100, 999), rng.randint(2, 9)
    return Question(f"True or false: {number} is divisible by {divisor}.", str(number % divisor == 0))


def _yes_no(rng: random.Random) -> Question:
    left, right = rng.sample(range(100, 1000), 2)
    return Question(f"Is {left} greater than {right}?", "yes" if left > right else "no")


def _option(rng: random.Random) -> Question:
    left, right = rng.randint(10, 99), rng.randint(10, 99)
    values = [left + right, *rng.sample([left + right + off for off in range(-9, 10) if off], 4)]
    rng.shuffle(values)
    letter = "ABCDE"[values.index(left + right)]
    return Question(multiple_choice(f"Which is {left} + {right}?", [str(value) for value in values]), letter)


def _string(rng: random.Random) -> Question:
    names = rng.sample(("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ida", "Jon"), 3)
    return Question(f"{names[0]} is taller than {names[1]}, {names[1]} than {names[2]}. Who is the tallest?", names[0])


def _date(rng: random.Random) -> Question:
    month, days = rng.choice((("January", 31), ("April", 30), ("May", 31), ("June", 30), ("October", 31)))
    first = rng.randint(1, days - 15)
    later = rng.randint(2, 14)
    return Question(f"It is {month} {first}. What is the date {later} days later?", f"{month} {first + later}")


def _auto(rng: random.Random) -> Question:
    return rng.choice((_integer, _float, _list, _bool, _option))(rng)


def _finance(rng: random.Random) -> Question:
    return Question(*finance.draw_question(rng))


SYNTHETIC: Mapping[str, QuestionGenerator] = {
    "sums": _sum,
    "finance_synthetic": _finance,
    "math_synthetic": _math,
    "number_synthetic": _number,
    "integer_synthetic": _integer,
    "float_synthetic": _float,
    "list_synthetic": _list,
    "bool_synthetic": _bool,
    "yes_no_synthetic": _yes_no,
    "option_synthetic": _option,
    "string_synthetic": _string,
    "date_synthetic": _date,
    "auto_synthetic": _auto,
}
"""Generators by the name of their dataset. ``sums`` has 529 different questions; ``auto_synthetic`` mixes the types of
TheoremQA."""


def generate_synthetic(name: str, count: int, seed: int) -> list[Question]:
    """Generates ``count`` questions of a dataset in :data:`SYNTHETIC`; some may occur twice."""
    rng = random.Random(seed)
    return [SYNTHETIC[name](rng) for _ in range(count)]
