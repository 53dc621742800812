"""Plays one episode of a planner and a reasoner with plain transformers, without a server and without training.

python examples/one_episode.py PLANNER_FOLDER REASONER_FOLDER "What is 12 + 30?"
"""

from __future__ import annotations

import asyncio
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from verl_rsim.core.dialogue import Dialogue
from verl_rsim.core.episode import Generate, Generation, Limits, Request
from verl_rsim.core.prompts import Codec, eos_ids


def load(folder: str) -> tuple[Codec, Generate]:
    """Loads a model; returns its codec and an async function that samples from it."""
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    codec = Codec(tokenizer, eos_ids(tokenizer, model.generation_config))

    async def generate(request: Request) -> Generation:
        ids, log_probs = list(request.prompt_ids), []
        for _ in range(request.max_tokens):
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0, -1].float()
            if request.allowed_ids is not None:
                allowed = torch.full_like(logits, -torch.inf)
                allowed[list(request.allowed_ids)] = 0
                logits = logits + allowed
            distribution = torch.distributions.Categorical(logits=logits)
            token = distribution.sample()
            ids.append(token.item())
            log_probs.append(distribution.log_prob(token).item())
            text = codec.decode(ids[len(request.prompt_ids) :])
            if ids[-1] in codec.eos_ids or any(stop in text for stop in request.stop):
                break
        return Generation(tuple(ids[len(request.prompt_ids) :]), tuple(log_probs))

    return codec, generate


if __name__ == "__main__":
    (planner, choose), (reasoner, write) = load(sys.argv[1]), load(sys.argv[2])
    rows = {"planner_prompt": 2000, "planner_response": 1000, "reasoner_prompt": 1000, "reasoner_response": 1000}
    limits = Limits(max_turns=4, max_step_tokens=40, max_answer_tokens=40, **rows)
    question = [{"role": "user", "content": sys.argv[3]}]
    episode = asyncio.run(Dialogue(planner, reasoner, limits).play(question, choose, write))
    for strategy, turn in zip(episode.strategies, episode.turns, strict=True):
        print(f"[{strategy.title}] {turn.step_text.strip()}")
    print(f"ended by: {episode.stop.value}")
