"""A text that ends inside a code fence or a display formula is told from one that does not."""

from __future__ import annotations

import pytest

from verl_rsim.core.open_blocks import closing_fence, is_open

OPEN = [
    "```python\nimport math\n\n",
    "Here it is:\n\n```\nx = 1\n\n",
    "~~~\ncode\n\n",
    "  ```py\n  x\n\n",
    "1. First:\n   ```python\n   x = 1\n\n",
    "- ```python\n  x = 1\n\n",
    "```python\ns = '''\n~~~\n'''\n\n",  # another fence inside is code
    "````\n```\n\n",
    "```\na\n```\n\n```\nb\n\n",
    "So\n$$\nx = 1\n\n",
    "\\[\nx = 1\n\n",
    "\\begin{align*}\nx &= 1 \\\\\n\n",
    "$$\\begin{cases} 1 \\end{cases}\n\n",
]
CLOSED = [
    "",
    "Just prose.\n\n",
    "```python\nx = 1\n```\n\n",
    "```python\ns = '$$'\n\\begin{x}\n```\n\n",  # a formula's marks inside a fence are code
    "Use `$$` or ``\\[`` here.\n\n",
    "```inline``` code\n\n",
    "$$x = 1$$\n\n",
    "\\[ x \\]\n\n",
    "\\begin{align}\nx\n\\end{align}\n\n",
    "$$\\begin{cases} 1 $$\n\n",  # closed with what it stands in
    "A row break \\\\[2pt] is no formula.\n\n",
    "It costs \\$$5.\n\n",
    "text with ``` in the middle\n\n",
]


@pytest.mark.parametrize("text", OPEN)
def test_open(text):
    assert is_open(text)


@pytest.mark.parametrize("text", CLOSED)
def test_closed(text):
    assert not is_open(text)


@pytest.mark.parametrize(
    ("text", "closing"), [("```py\nx", "\n```"), ("~~~\nx\n", "\n~~~"), ("``````\nx", ""), ("$$x", ""), ("x", "")]
)
def test_a_code_fence_is_closed_by_its_own_kind(text, closing):
    assert closing_fence(text) == closing
    if closing:
        assert not is_open(text + closing)
