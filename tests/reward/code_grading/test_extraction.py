"""Extraction of programs from answers, and the imports that are put before them."""

from __future__ import annotations

import time

import pytest

from verl_rsim.reward.code_grading.extraction import extract_code
from verl_rsim.reward.code_grading.prelude import prelude_of

pytestmark = pytest.mark.sandbox

F = "def f(x):\n    return x\n"
DOCSTRING = 'def f(x):\n    """\n    ```\n    f(1)\n    ```\n    """\n    return x\n'
EXTRACTIONS = [
    ("Answer: ```python\nx = 1\n```", "x = 1\n"),
    ("text\n```python\nx = 1\n```\nmore", "x = 1\n"),
    ("```py\nx = 1\n```\n```python\nx = 2\n```", "x = 2\n"),
    ("```python\nx = 1\n```\nIt prints:\n```\n1\n```", "x = 1\n"),
    ("```\nx = 1\n```", "x = 1\n"),
    ("```Python title=a\nx = 1\n```", "x = 1\n"),
    ("  ```python\n  x = 1\n  ```", "x = 1\n"),
    ("```cpp\nint x;\n```", None),
    ("```python\nx = 1", "x = 1"),
    ("```python\n\n```", None),
    ("def f(x):\n    return x", "def f(x):\n    return x"),
    ("    return x + 1\n", "    return x + 1\n"),
    ("    if x == 1: return 1\n    return x + 1\n", "    if x == 1: return 1\n    return x + 1\n"),
    ("I do not know.", None),
    ("", None),
    ("```python\n" + "x = 1\n" * 100_000 + "```", None),
    (f"```python\n{F}```\nDemo:\n```python\nprint(f(3))\n```", F),
    (f"```python\nf = None\n```\nBetter:\n```python\n{F}```\nTest:\n```python\nassert f(1) == 1\n```", F),
    (f"```python\nimport math\n\nNow answer.\n```python\n{F}```", F),
    ("1. So:\n   ```python\n   def f(x):\n       return x\n   ```\n", F),
    (f"~~~python\n{F}~~~\nok", F),
    (f"````python\n{F}````", F),
    (f"[PYTHON]\n{F}[/PYTHON]\nThis works.", F),
    (f"<answer>\n{F}</answer>", F),
    (f"```python\nx = 1\n```\n<answer>```python\n{F}```</answer>", F),
    (f"```python\n{F}```\n<answer>done</answer>", F),
    (f"\ufeff```python\n\ufeff{F}```", F),
    (f"{F}```\nThis returns x.", F),
    ("def f(x):\n    return x```\nThis returns x.", F[:-1]),
    (f"Sure, here is the function:\n\n{F}\nThis function returns its argument (x) unchanged.\n", F),
    (f"Solution:\n@cache\n{F}\nDone.", f"@cache\n{F}"),
    (f"<think>```python\ndef f(x): return 1\n```</think>\n```python\n{F}```", F),
    ("<think>```python\ndef f(x): return 1\n```", None),
    (f"```python\n{DOCSTRING}```", DOCSTRING),
    (f"Use ```f(x)``` so:\n```\n{F}```", F),
    ("```python\r\ndef f(x):\r\n    return x\r\n```", F),
    ("```python\nclass Solution:\n    pass\n```\n```python\nprint(Solution())\n```", "class Solution:\n    pass\n"),
]


@pytest.mark.parametrize(("text", "code"), EXTRACTIONS, ids=[str(i) for i in range(len(EXTRACTIONS))])
def test_extraction(text: str, code: str | None):
    assert extract_code(text, ["f"]) == code


READ = ["print(int(input()))\n", "import sys\nprint(sys.stdin.read())\n", "print(open(0).read())\n"]


@pytest.mark.parametrize("program", READ)
def test_the_block_that_reads_stdin_wins_where_the_tests_are_inputs(program: str):
    demo = f"```python\n{program}```\nFor example:\n```python\nprint(3)\n```"
    assert extract_code(demo, reads_stdin=True) == program
    assert extract_code("```python\nprint(1)\n```", reads_stdin=True) == "print(1)\n"


ADVERSARIAL = [
    "`",
    "\n",
    " ",
    "~~ ",
    "a, ",
    "for : ",
    "```python ",
    "[PYTHON]",
    "<answer>",
    "\tdef",
    "x =\n",
    "if :",
]


@pytest.mark.parametrize("unit", ADVERSARIAL, ids=[repr(unit) for unit in ADVERSARIAL])
def test_extraction_takes_linear_time(unit: str):
    started = time.thread_time()  # of this thread alone, whatever else the machine does
    extract_code(unit * 200_000, ["f"], reads_stdin=True)
    assert time.thread_time() - started < 2.0  # in quadratic time it would be minutes


PRELUDES = [
    ("def f(x: List[int]) -> Optional[int]: pass", ["from typing import List", "from typing import Optional"]),
    ("print(math.pi, sqrt(2))", ["import math", "from math import sqrt"]),
    ("d = defaultdict(int)", ["from collections import defaultdict"]),
    ("import math\nfrom collections import deque\nx = math.pow(2, 3)", ["import collections"]),
    ("print(pow(2, 3, 5), open, sum)", []),
    ("x.sqrt(log=1)", ["from math import log"]),
]


@pytest.mark.parametrize(("code", "statements"), PRELUDES, ids=[code[:20] for code, _ in PRELUDES])
def test_a_program_gets_the_imports_whose_names_it_mentions(code: str, statements: list[str]):
    assert set(prelude_of(code)) - {"from collections import deque"} == set(statements)
