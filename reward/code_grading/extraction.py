"""Finds the program in the text of an answer.

Only regular expressions and loops that take linear time look at the text: it is model-written, so it is never parsed as
Python in this process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from verl_rsim.reward.math_grading.markup import after_thinking

MAX_CODE_CHARS = 1 << 18
_PYTHON = ("python", "python3", "py", "py3", "python2")
_FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*([\w+#.-]*)")
_LLAMA_TAGS = re.compile(r"^[ \t]*\[(/?)PYTHON\][ \t]*\n?", re.MULTILINE | re.IGNORECASE)
_CODE_LINE = re.compile(
    r"[ \t]*(?:(?:async )?def \w|class \w|import \w|from [\w.]+ import\b|@\w|return\b|print\(|if __name__"
    r"|\w+(?:, ?\w+)* ?[-+*/|&]?= ?\S|(?:for|while|with|if) [^\n]*:[ \t]*(?:#|$)|while True:|try:)"
)
_READS_STDIN = re.compile(r"\binput\b|\bstdin\b|\bfileinput\b|\bopen\(0\b|\bread\(0,")
_CODE_SIGNS = re.compile(r"[=()\[\]{}#@:]|^(?:pass|break|continue|else|finally|try|import|from|del|global|raise)\b")


@dataclass
class _Block:
    """A fenced block of a text, and its lines so far."""

    fence: str
    indent: int
    language: str
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Adds a line without the indentation of the fence, as Markdown has it for blocks inside of lists."""
        removable = min(self.indent, len(line) - len(line.lstrip(" \t")))
        self.lines.append(line[removable:])


def extract_code(text: str, functions: Collection[str] = (), reads_stdin: bool = False) -> str | None:
    """Returns the program of an answer, None if it has none.

    Text up to the end of the thinking is ignored. Of the Python blocks (else of those without a language) the last one
    wins that defines what the tests call, or reads stdin where the tests are inputs; without one, the last block. A
    block that is never closed, because the answer was cut short, counts up to the text's end. Without any block the
    lines that look like code are the program.

    Args:
        text: the answer.
        functions: names of functions that the tests call.
        reads_stdin: True if the tests are inputs of a program.
    """
    answer = after_thinking(text)
    if answer is None:
        return None
    answer = answer.replace("\ufeff", "")
    tagged = answer.rpartition("<answer>")[2].partition("</answer>")[0] if "<answer>" in answer else ""
    return _code_of(tagged, functions, reads_stdin) or _code_of(answer, functions, reads_stdin)


def _code_of(text: str, functions: Collection[str], reads_stdin: bool) -> str | None:
    blocks = _fenced_blocks(_LLAMA_TAGS.sub(_as_fence, text))
    for languages in (_PYTHON, ("",)):
        bodies = ["".join(block.lines) for block in blocks if block.language.lower() in languages]
        if bodies:
            wanted = [body for body in bodies if _is_wanted(body, functions, reads_stdin)]
            return _usable((wanted or bodies)[-1])
    return None if blocks else _usable(_bare_code(text))


def _usable(code: str) -> str | None:
    return code if code.strip() and len(code) <= MAX_CODE_CHARS else None


def _as_fence(tag: re.Match[str]) -> str:
    return "```\n" if tag[1] else "```python\n"


def _is_wanted(body: str, functions: Collection[str], reads_stdin: bool) -> bool:
    """Returns True if a block defines what the tests call, or reads stdin: it is no demonstration of another block."""
    if reads_stdin and _READS_STDIN.search(body):
        return True
    if any(re.search(rf"^[ \t]*(?:(?:async )?def {name}\b|{name} *[:=])", body, re.MULTILINE) for name in functions):
        return True
    return bool(functions) and re.search(r"^class Solution\b", body, re.MULTILINE) is not None


def _fenced_blocks(text: str) -> list[_Block]:
    """Returns the fenced blocks of a text, in order."""
    blocks: list[_Block] = []
    before = _Block("```", 0, "")  # lines before the first fence
    current: _Block | None = None
    for line in text.replace("\r\n", "\n").splitlines(keepends=True):
        fence = _FENCE.search(line) if "```" in line or "~~~" in line else None
        if current is None:
            if fence is None:
                if not blocks:
                    before.lines.append(line)
            elif not blocks and _closes_bare_code(before, line, fence):
                before.lines.append(line[: fence.start()])
                blocks.append(before)  # the fence that opened it stood in the prompt
            elif _opens(line, fence):
                current = _Block(fence[1], fence.start() if not line[: fence.start()].strip() else 0, fence[2])
                blocks.append(current)
        elif fence is not None and fence[2] and not line[: fence.start()].strip() and fence.start() <= current.indent:
            # A fence with a language closes nothing. The block before it was left open by a step that was cut short.
            current = _Block(fence[1], fence.start(), fence[2])
            blocks.append(current)
        elif fence is not None and _closes(current, line, fence):
            if line[: fence.start()].strip():
                current.add(line[: fence.start()])
            current = None
        else:
            current.add(line)
    return blocks


def _opens(line: str, fence: re.Match[str]) -> bool:
    """Returns True if a fence starts its line, or names Python at the end of prose."""
    rest = line[fence.end() :]
    if fence[1][0] in rest.rstrip() and fence[1] in rest:  # code between two fences within one line of prose
        return False
    return not line[: fence.start()].strip() or fence[2].lower() in _PYTHON


def _closes(block: _Block, line: str, fence: re.Match[str]) -> bool:
    """Returns True if a fence ends a block: of the same kind, nothing behind it, and not deep inside of the code."""
    if fence[1][0] != block.fence[0] or len(fence[1]) < len(block.fence) or line[fence.end() :].strip() or fence[2]:
        return False
    head = line[: fence.start()]
    # Further in than Markdown allows it is part of the code: an example in a docstring.
    return len(head) <= block.indent + 3 if not head.strip() else True


def _closes_bare_code(before: _Block, line: str, fence: re.Match[str]) -> bool:
    """Returns True if the text before the first fence is code from its first line on."""
    first = next((line for line in before.lines if line.strip()), "")
    return not fence[2] and not line[fence.end() :].strip() and _is_code_line(first) and bool(first)


def _is_code_line(line: str) -> bool:
    return _CODE_LINE.match(line) is not None


def _bare_code(text: str) -> str:
    """Returns the lines of a text without fences from the first that looks like code to the last that may be code."""
    lines = text.splitlines(keepends=True)
    first = _first_index(lines, _is_code_line)
    if first is None:
        return ""
    if text.lstrip("\r\n")[:1] in (" ", "\t"):  # an answer that begins indented continues the prompt
        first = 0
    while first > 0 and lines[first - 1][0] in " \t#@":  # the rest of a statement, or of a body without its head
        first -= 1
    end = len(lines)
    while end > first and not _may_be_code(lines[end - 1]):
        end -= 1
    return "".join(lines[first:end])


def _first_index(lines: list[str], holds: Callable[[str], bool]) -> int | None:
    return next((index for index, line in enumerate(lines) if holds(line)), None)


def _may_be_code(line: str) -> bool:
    """Returns False for a line of prose and for an empty one."""
    if not line.strip():
        return False
    words = re.findall(r"[A-Za-z']+", line)
    if line[0] in " \t" or _is_code_line(line):
        return True
    if len(words) <= 2:  # such as "main()" or "]", but not "Done."
        return line.rstrip()[-1] not in ".!?"
    # Prose also has parentheses and colons. What ends like a sentence and starts like one is no statement.
    sentence = line[0].isupper() and line.rstrip()[-1] in ".!?:)`" and len(words) > 3 and "=" not in line
    return not sentence and _CODE_SIGNS.search(line) is not None
