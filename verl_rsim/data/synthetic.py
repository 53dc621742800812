"""Made-up questions, one set for each type of answer, named ``{type}_synthetic``.

They stand in for the public sets where there is no network, and show that answers of each type are learned and scored.
``finance_synthetic`` (:mod:`verl_rsim.data.finance`) stands for financial ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from fractions import Fraction

from verl_rsim.data import finance
from verl_rsim.data.published import multiple_choice
from verl_rsim.data.question import Question

Draw = Callable[[random.Random], Question]


def _math(source: random.Random) -> Question:
    first, second = (Fraction(source.randint(1, 20), source.randint(2, 20)) for _ in range(2))
    total = first + second
    answer = f"\\frac{{{total.numerator}}}{{{total.denominator}}}" if total.denominator > 1 else str(total)
    return Question(f"Add $\\frac{{{first.numerator}}}{{{first.denominator}}}$ and {second}.", answer)


def _number(source: random.Random) -> Question:
    price, count = source.randint(101, 999), source.randint(2, 60)
    return Question(f"A ticket costs ${price / 100:.2f}. What do {count} tickets cost?", f"${price * count / 100:,.2f}")


def _integer(source: random.Random) -> Question:
    left, right = source.randint(10, 99), source.randint(10, 99)
    return Question(f"A hall has {left} rows of {right} seats. How many seats does it have?", str(left * right))


def _float(source: random.Random) -> Question:
    side, height = source.randint(2, 90), source.randint(2, 90)
    return Question(
        f"How long is the diagonal of a {side} by {height} rectangle?", f"{(side**2 + height**2) ** 0.5:.4f}"
    )


def _list(source: random.Random) -> Question:
    numbers = source.sample(range(100), 4)
    return Question(f"Sort {', '.join(map(str, numbers))} in ascending order.", str(sorted(numbers)))


def _bool(source: random.Random) -> Question:
    number, divisor = source.randint(100, 999), source.randint(2, 9)
    return Question(f"True or false: {number} is divisible by {divisor}.", str(number % divisor == 0))


def _yes_no(source: random.Random) -> Question:
    left, right = source.sample(range(100, 1000), 2)
    return Question(f"Is {left} greater than {right}?", "yes" if left > right else "no")


def _option(source: random.Random) -> Question:
    left, right = source.randint(10, 99), source.randint(10, 99)
    values = [left + right, *source.sample([left + right + off for off in range(-9, 10) if off], 4)]
    source.shuffle(values)
    letter = "ABCDE"[values.index(left + right)]
    return Question(multiple_choice(f"Which is {left} + {right}?", [str(value) for value in values]), letter)


def _string(source: random.Random) -> Question:
    names = source.sample(("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ida", "Jon"), 3)
    return Question(f"{names[0]} is taller than {names[1]}, {names[1]} than {names[2]}. Who is the tallest?", names[0])


def _date(source: random.Random) -> Question:
    month, days = source.choice((("January", 31), ("April", 30), ("May", 31), ("June", 30), ("October", 31)))
    first = source.randint(1, days - 15)
    later = source.randint(2, 14)
    return Question(f"It is {month} {first}. What is the date {later} days later?", f"{month} {first + later}")


def _auto(source: random.Random) -> Question:
    return source.choice((_integer, _float, _list, _bool, _option))(source)


SYNTHETIC: Mapping[str, Draw] = {
    "finance_synthetic": lambda source: Question(*finance.draw(source)),
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
"""Name to what draws a question; ``auto_synthetic`` mixes the types of TheoremQA."""


def synthetic(name: str, count: int, seed: int) -> list[Question]:
    """So many questions of a set of :data:`SYNTHETIC`; some may be drawn twice."""
    source = random.Random(seed)
    return [SYNTHETIC[name](source) for _ in range(count)]
