"""Defines a task with known right strategies: nine kinds of questions, and a reasoner that answers a question only
after the strategies of its kind.

The tiny models' tokenizers are trained on the texts that the models read, so that rows are short. A question names its
kind eight times: with one mention in a prompt of 160 tokens, a tiny planner needs several times as many steps. An
oracle has accuracy 1; random choices have 1/9 with one turn and 1/81 with two; the best single strategy has 1 / kinds.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

import torch

from verl_rsim.core.dialogue import Dialogue
from verl_rsim.core.episode import Generation, Limits, Observer, Request, TokenRow
from verl_rsim.core.prompts import Codec, eos_ids, planner_messages
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.data.prepare_models import prepare_tiny
from verl_rsim.data.question import Question
from verl_rsim.data.rows import write_rows
from verl_rsim.data.verl_row import verl_row
from verl_rsim.utils.artifact_folders import build_folder, is_intact

KINDS = "ABCDEFGHI"
NUMBERS = 10
"""Questions per kind."""
WRONG_ANSWER = "?"
MAX_LENGTH = 2048
"""Tokens of every prompt and response; more than any episode of this task needs."""


@dataclass(frozen=True, slots=True)
class ReasonerSpec:
    """Describes a reasoner and what it is taught.

    Attributes:
        kinds: number of kinds of questions that it knows, 1 to 9.
        turns: turns of an episode, 1 or 2.
        skill: probability of a right answer after the right strategies. Below 1 the reasoner also learns to answer
            without a planner, always wrongly, and is taught for longer, since it first learns to be always wrong.
        family: model family, "llama" or "qwen2".
        vocabulary: maximum size of the vocabulary.
        layers: layers of the model.
        seed: seed of the weights.
    """

    kinds: int
    turns: int = 1
    skill: float = 1.0
    family: str = "llama"
    vocabulary: int = 512
    layers: int = 2
    seed: int = 0


def right_strategies(kind: int, turns: int) -> list[int]:
    """Returns the right strategies of a kind, one per turn: its own, after *decomposition* if there are two turns.

    The first of two turns is the same for all kinds; for *validation*, for example, the right strategies are
    decomposition and then validation.
    """
    first = next(i for i, strategy in enumerate(STRATEGIES) if strategy.name == "decomposition")
    return [kind] if turns == 1 else [first, kind]


def question(kind: int, number: int) -> Question:
    """Returns the question of a kind that contains a number from 0 to 9, which is its answer."""
    return Question(f"Kind {' '.join(KINDS[kind] * 8)}, number {number}.", str(number))


def random_question(rng: random.Random, kinds: int) -> tuple[int, Question]:
    """Returns a random one of the first ``kinds`` kinds and a random question of it."""
    kind = rng.randrange(kinds)
    return kind, question(kind, rng.randrange(NUMBERS))


class Script(Observer):
    """Plays both models of one episode: the planner chooses partly at random, the reasoner writes what it is taught.

    After the right strategies its answer is right with probability ``skill``.
    """

    def __init__(
        self,
        codec: Codec,
        labels: tuple[int, ...],
        kind: int,
        answer: str,
        spec: ReasonerSpec,
        rng: random.Random,
    ) -> None:
        self.codec, self.labels, self.answer = codec, labels, answer
        self.rng, self.skill = rng, spec.skill
        self.right = right_strategies(kind, spec.turns)
        self.chosen: list[int] = []

    def chose(self, strategy: int) -> None:
        """Records the planner's choice."""
        self.chosen.append(strategy)

    async def plan(self, request: Request) -> Generation:
        """Chooses the right strategy half the time; with two turns more often, since both must be right."""
        strategy, probability = self.right[len(self.chosen)], 0.5 if len(self.right) == 1 else 0.8
        if self.rng.random() >= probability:
            strategy = self.rng.randrange(len(self.labels))
        return certain([self.labels[strategy]])

    async def write(self, request: Request) -> Generation:
        """Writes an answer in the last turn or after *termination*; it is right if every strategy was right."""
        good = self.chosen == self.right[: len(self.chosen)]
        if len(self.chosen) < len(self.right) and STRATEGIES[self.chosen[-1]].name != "termination":
            return certain(self.codec.encode("Yes.\n\n" if good else "No.\n\n"))
        good = good and len(self.chosen) == len(self.right)
        good = good and (self.skill == 1 or self.rng.random() < self.skill)
        return certain(answer_ids(self.codec, self.answer if good else WRONG_ANSWER))


def answer_ids(codec: Codec, answer: str) -> tuple[int, ...]:
    """Returns the tokens of a final answer."""
    return (*codec.encode(f"\\boxed{{{answer}}}"), codec.tokenizer.eos_token_id)


def certain(ids) -> Generation:
    """Returns a generation that has probability 1."""
    return Generation(tuple(ids), (0.0,) * len(ids))


def lessons(dialogue: Dialogue, count: int, spec: ReasonerSpec, rng: random.Random) -> list[TokenRow]:
    """Returns the reasoner's rows of scripted episodes; with a skill below 1, a fifth of them has no planner."""

    async def play() -> list[TokenRow]:
        rows = []
        for _ in range(count):
            kind, drawn = random_question(rng, spec.kinds)
            if spec.skill < 1 and rng.random() < 0.2:
                ids = answer_ids(dialogue.reasoner, WRONG_ANSWER)
                rows.append(
                    TokenRow(tuple(dialogue.reasoner.chat(chat(drawn))), ids, (1,) * len(ids), (0.0,) * len(ids))
                )
                continue
            script = Script(dialogue.reasoner, dialogue.label_ids, kind, drawn.answer, spec, rng)
            rows.append((await dialogue.play(chat(drawn), script.plan, script.write, script)).reasoner_row())
        return rows

    return asyncio.run(play())


def chat(question: Question) -> list[dict[str, str]]:
    """Returns a question as a chat."""
    return [{"role": "user", "content": question.text}]


def codec(folder: Path) -> Codec:
    """Returns the codec of a model's folder."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return Codec(tokenizer, eos_ids(tokenizer))


def build_dialogue(planner: Path, reasoner: Path, turns: int) -> Dialogue:
    """Returns the dialogue of training between the models in two folders."""
    return Dialogue(
        codec(planner), codec(reasoner), Limits(turns, 16, 16, MAX_LENGTH, MAX_LENGTH, MAX_LENGTH, MAX_LENGTH)
    )


def make_planner(folder: Path, seed: int) -> None:
    """Writes an untrained planner."""
    rng = random.Random(0)
    menus = []
    for _ in range(50):
        _, drawn = random_question(rng, len(KINDS))
        menus.append(planner_messages(chat(drawn))[0]["content"])
    prepare_tiny(folder, "qwen2", seed, menus, 1024)


def make_reasoner(folder: Path, planner: Path, spec: ReasonerSpec, batch: int = 32) -> None:
    """Trains a tiny reasoner on the script's rows by cross-entropy; does nothing if ``folder`` has it already.

    Args:
        folder: folder of the model.
        planner: folder of a planner, for the dialogue; its weights do not matter.
        spec: the reasoner.
        batch: rows per step of its training.
    """
    from transformers import AutoModelForCausalLM

    steps = 300 if spec.skill == 1 and spec.turns == 1 and spec.layers == 2 else 1000
    made_from = f"{spec}, {steps} steps of {batch}"
    if is_intact(folder, made_from):
        return
    kinds, turns = spec.kinds, spec.turns
    rng, untaught = random.Random(0), folder.with_name(folder.name + "-untaught")
    corpus = []
    for _ in range(50):
        _, drawn = random_question(rng, kinds)
        corpus.append(drawn.text)
    corpus += [strategy.instruction for strategy in STRATEGIES] * 5
    prepare_tiny(untaught, spec.family, spec.seed, corpus, spec.vocabulary, spec.layers)
    dialogue, rng = build_dialogue(planner, untaught, turns), random.Random(1)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(untaught, dtype=torch.float32, trust_remote_code=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        rows = lessons(dialogue, batch, spec, rng)
        longest = max(len(row.prompt_ids) + len(row.response_ids) for row in rows)
        ids, labels = torch.zeros(batch, longest, dtype=torch.long), torch.full((batch, longest), -100)
        for i, row in enumerate(rows):
            whole, start = (*row.prompt_ids, *row.response_ids), len(row.prompt_ids)
            ids[i, : len(whole)] = torch.tensor(whole)
            for j, (token, mask) in enumerate(zip(row.response_ids, row.mask, strict=True)):
                labels[i, start + j] = token if mask else -100
        # Needs no attention mask: the padding is on the right, where the causal mask hides it.
        loss = model(input_ids=ids, labels=labels).loss
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
    """Writes the questions as verl's rows: random ones for training, each of them once for the test."""
    rng = random.Random(1)
    questions = {
        "train": [random_question(rng, kinds)[1] for _ in range(train)],
        "test": [question(kind, number) for number in range(NUMBERS) for kind in range(kinds)],
    }
    for split, of_split in questions.items():
        rows = [verl_row(one, "controlled", split, i, instruction="") for i, one in enumerate(of_split)]
        write_rows(folder / f"{split}.parquet", rows)
