"""A task of which the right strategies are known: nine kinds of questions, and a reasoner that answers a question only
after the strategies that its kind asks for.

The tiny models' tokenizers are trained on what the models read, so that rows are short. A question says its kind eight
times: said once, in a prompt of 160 tokens, it takes a tiny planner several times as long to find. An oracle's accuracy
is 1; choosing at random it is 1/9 with one turn and 1/81 with two; the best strategy for all questions gets 1 / kinds.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

import torch

from verl_rsim.core.dialogue import Dialogue, Generation, Limits, Observer, Request, TokenRow
from verl_rsim.core.prompts import Codec, eos_ids, planner_messages
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.data.prepare_models import prepare_tiny
from verl_rsim.data.question import Question
from verl_rsim.data.rows import write_rows
from verl_rsim.data.verl_row import verl_row
from verl_rsim.utils.artifact_folders import build_folder, is_intact

KINDS = "ABCDEFGHI"
NUMBERS = 10
"""Questions of a kind."""
UNKNOWN = "?"
ROOM = 2048


@dataclass(frozen=True, slots=True)
class Taught:
    """A reasoner.

    Attributes:
        kinds: of questions that it knows, 1 to 9.
        turns: 1 or 2.
        skill: how probably its answer is right after the right strategies. Below 1 it also learns to answer without a
            planner, always wrongly; and it is taught for longer, since at first it learns to be wrong always.
        family: of the model, "llama" or "qwen2".
        vocabulary: most tokens.
        layers: of the model.
        seed: of the weights.
    """

    kinds: int
    turns: int = 1
    skill: float = 1.0
    family: str = "llama"
    vocabulary: int = 512
    layers: int = 2
    seed: int = 0


def wanted(kind: int, turns: int) -> list[int]:
    """The strategies that a kind asks for, one a turn: its own, after *decomposition* where there are two turns.

    With two turns the first is the same for all kinds and the second is the kind's own: for *validation*, say,
    decomposition must precede it.
    """
    first = next(i for i, strategy in enumerate(STRATEGIES) if strategy.name == "decomposition")
    return [kind] if turns == 1 else [first, kind]


def question(kind: int, number: int) -> Question:
    """The question of a kind with a number of 0 to 9 in it, which is its answer."""
    return Question(f"Kind {' '.join(KINDS[kind] * 8)}, number {number}.", str(number))


def drawn(source: random.Random, kinds: int) -> tuple[int, Question]:
    """One of the first ``kinds`` kinds and a question of it, by chance."""
    kind = source.randrange(kinds)
    return kind, question(kind, source.randrange(NUMBERS))


class Script(Observer):
    """What the reasoner is taught to write in one episode, under strategies drawn at random (``source``).

    After the right strategies its answer is right with probability ``skill``.
    """

    def __init__(
        self,
        codec: Codec,
        labels: tuple[int, ...],
        kind: int,
        answer: str,
        taught: Taught,
        source: random.Random,
    ) -> None:
        self.codec, self.labels, self.answer, self.source, self.skill = codec, labels, answer, source, taught.skill
        self.wanted, self.chosen = wanted(kind, taught.turns), list[int]()

    def chose(self, strategy: int) -> None:
        """Note what the planner chose."""
        self.chosen.append(strategy)

    async def plan(self, request: Request) -> Generation:
        """The right strategy half the time; with two turns more often, since both must be right for an answer."""
        right, often = self.wanted[len(self.chosen)], 0.5 if len(self.wanted) == 1 else 0.8
        return sure([self.labels[right if self.source.random() < often else self.source.randrange(len(self.labels))]])

    async def write(self, request: Request) -> Generation:
        """An answer in the last turn, or after *termination*; it is right if every strategy was."""
        good = self.chosen == self.wanted[: len(self.chosen)]
        if len(self.chosen) < len(self.wanted) and STRATEGIES[self.chosen[-1]].name != "termination":
            return sure(self.codec.encode("Yes.\n\n" if good else "No.\n\n"))
        good = good and len(self.chosen) == len(self.wanted)
        good = good and (self.skill == 1 or self.source.random() < self.skill)
        return sure(answer_ids(self.codec, self.answer if good else UNKNOWN))


def answer_ids(codec: Codec, answer: str) -> tuple[int, ...]:
    """A final answer's tokens."""
    return (*codec.encode(f"\\boxed{{{answer}}}"), codec.tokenizer.eos_token_id)


def sure(ids) -> Generation:
    """Tokens of which the writer is sure."""
    return Generation(tuple(ids), (0.0,) * len(ids))


def lessons(dialogue: Dialogue, count: int, taught: Taught, source: random.Random) -> list[TokenRow]:
    """The reasoner's rows of episodes played by the script; with a skill below 1, a fifth without a planner."""

    async def play() -> list[TokenRow]:
        rows = []
        for _ in range(count):
            kind, asked = drawn(source, taught.kinds)
            if taught.skill < 1 and source.random() < 0.2:
                ids = answer_ids(dialogue.reasoner, UNKNOWN)
                rows.append(
                    TokenRow(tuple(dialogue.reasoner.chat(chat(asked))), ids, (1,) * len(ids), (0.0,) * len(ids))
                )
                continue
            script = Script(dialogue.reasoner, dialogue.label_ids, kind, asked.answer, taught, source)
            rows.append((await dialogue.play(chat(asked), script.plan, script.write, script)).reasoner_row())
        return rows

    return asyncio.run(play())


def chat(asked: Question) -> list[dict[str, str]]:
    """What the reasoner is asked."""
    return [{"role": "user", "content": asked.text}]


def codec(folder: Path) -> Codec:
    """Of a model's folder."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return Codec(tokenizer, eos_ids(tokenizer))


def dialogue_of(planner: Path, reasoner: Path, turns: int) -> Dialogue:
    """What training plays, between the models in two folders."""
    return Dialogue(codec(planner), codec(reasoner), Limits(turns, 16, 16, ROOM, ROOM, ROOM, ROOM))


def make_planner(folder: Path, seed: int) -> None:
    """An untrained planner."""
    source = random.Random(0)
    menus = [planner_messages(chat(drawn(source, len(KINDS))[1]))[0]["content"] for _ in range(50)]
    prepare_tiny(folder, "qwen2", seed, menus, 1024)


def make_reasoner(folder: Path, planner: Path, taught: Taught, batch: int = 32) -> None:
    """A tiny model that has learned the script's words by cross-entropy; a no-op where there is one.

    Args:
        folder: gets the model.
        planner: a planner, for the dialogue; its weights do not matter.
        taught: what it is to be.
        batch: rows of a step of its training.
    """
    from transformers import AutoModelForCausalLM

    steps = 300 if taught.skill == 1 and taught.turns == 1 and taught.layers == 2 else 1000
    made_from = f"{taught}, {steps} steps of {batch}"
    if is_intact(folder, made_from):
        return
    kinds, turns = taught.kinds, taught.turns
    source, untaught = random.Random(0), folder.with_name(folder.name + "-untaught")
    said = [strategy.instruction for strategy in STRATEGIES]
    corpus = [drawn(source, kinds)[1].text for _ in range(50)] + said * 5
    prepare_tiny(untaught, taught.family, taught.seed, corpus, taught.vocabulary, taught.layers)
    dialogue, source = dialogue_of(planner, untaught, turns), random.Random(1)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(untaught, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        rows = lessons(dialogue, batch, taught, source)
        longest = max(len(row.prompt_ids) + len(row.response_ids) for row in rows)
        ids, labels = torch.zeros(batch, longest, dtype=torch.long), torch.full((batch, longest), -100)
        for i, row in enumerate(rows):
            whole, start = (*row.prompt_ids, *row.response_ids), len(row.prompt_ids)
            ids[i, : len(whole)] = torch.tensor(whole)
            for j, (token, mask) in enumerate(zip(row.response_ids, row.mask, strict=True)):
                labels[i, start + j] = token if mask else -100
        loss = model(input_ids=ids, labels=labels).loss  # padded on the right: the causal mask hides it
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"teaching the reasoner: step {step}, loss {loss.item():.4f}", flush=True)

    def write(target: Path) -> None:
        model.save_pretrained(target)
        dialogue.reasoner.tokenizer.save_pretrained(target)

    build_folder(folder, made_from, write)


def write_questions(folder: Path, kinds: int, train: int = 1024) -> None:
    """Write the questions as verl's rows: to train on, drawn by chance; to test with, each of them once."""
    source = random.Random(1)
    questions = {
        "train": [drawn(source, kinds)[1] for _ in range(train)],
        "test": [question(kind, number) for number in range(NUMBERS) for kind in range(kinds)],
    }
    for split, asked in questions.items():
        rows = [verl_row(one, "controlled", split, i, instruction="") for i, one in enumerate(asked)]
        write_rows(folder / f"{split}.parquet", rows)
