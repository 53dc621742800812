"""The dialogue: what the models are asked, and that the rows hold exactly the tokens the servers saw."""

from __future__ import annotations

import asyncio
import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_rsim.core.dialogue import Dialogue
from verl_rsim.core.episode import Generation, Injection, Limits, Observer, Request, StepEnd, Stop
from verl_rsim.core.strategies import STRATEGIES, TERMINATION, strategy_index

QUESTION = [{"role": "user", "content": "What is 2 + 3?"}]
LIMITS = Limits(4, 20, 20, 5000, 2000, 200, 2000)


class Recorder:
    """A model that answers from a script and remembers what it was asked."""

    def __init__(self, answer):
        self.answer, self.requests, self.answers = answer, [], []

    async def __call__(self, request: Request) -> Generation:
        ids = tuple(self.answer(request))
        generation = Generation(ids, tuple(-0.5 - i / 100 for i in range(len(ids))))
        self.requests.append(request)
        self.answers.append(generation)
        return generation


def play(dialogue: Dialogue, choose, write):
    planner, reasoner = Recorder(choose), Recorder(write)
    return asyncio.run(dialogue.play(QUESTION, planner, reasoner)), planner, reasoner


def label(dialogue: Dialogue, name: str):
    return lambda request: (dialogue.label_ids[strategy_index(name)],)


@given(
    seed=st.integers(0, 10**9),
    injection=st.sampled_from(list(Injection)),
    max_turns=st.integers(1, 6),
    budget=st.integers(120, 900),
)
@settings(max_examples=150, deadline=None)
def test_rows_are_what_the_servers_saw_and_masks_select_what_they_wrote(letters, seed, injection, max_turns, budget):
    rng = random.Random(seed)
    limits = Limits(max_turns, 12, 15, 5000, 3000, 200, budget)
    dialogue = Dialogue(letters, letters, limits, injection)

    def write(request: Request):
        text = "".join(rng.choice("ab1 \n") for _ in range(rng.randint(1, request.max_tokens)))
        if request.stop and request.stop[0] in text:
            text = text[: text.index(request.stop[0]) + len(request.stop[0])]
        return letters.encode(text if rng.random() < 0.8 else (text + "␄")[-request.max_tokens :])

    episode, planner, reasoner = play(dialogue, lambda r: (rng.choice(r.allowed_ids),), write)
    for row, model in ((episode.planner_row(), planner), (episode.reasoner_row(), reasoner)):
        assert len(row.response_ids) == len(row.mask) == len(row.log_probs)
        whole = row.prompt_ids + row.response_ids
        position = len(row.prompt_ids)
        for request, generation in zip(model.requests, model.answers, strict=True):
            position = len(request.prompt_ids)
            end = position + len(generation.token_ids)
            assert whole[:position] == request.prompt_ids, "the server saw the row's prefix"
            assert whole[position:end] == generation.token_ids
            chosen = slice(position - len(row.prompt_ids), end - len(row.prompt_ids))
            assert set(row.mask[chosen]) == {1}
            assert row.log_probs[chosen] == generation.log_probs
        assert sum(row.mask) == sum(len(g.token_ids) for g in model.answers)
        assert len(whole) == position + len(model.answers[-1].token_ids) if model.answers else not row.response_ids
        assert all(lp == 0 for lp, m in zip(row.log_probs, row.mask, strict=True) if not m)
    assert len(episode.reasoner_row().response_ids) <= limits.reasoner_response
    assert len(episode.planner_row().response_ids) <= limits.planner_response
    assert len(episode.turns) <= max_turns


def test_termination_ends_with_an_answer_of_its_own_length(letters):
    dialogue = Dialogue(letters, letters, LIMITS)
    episode, _, reasoner = play(dialogue, label(dialogue, TERMINATION), lambda r: letters.encode("5␄"))
    assert episode.stop is Stop.TERMINATION
    assert len(episode.turns) == 1
    assert reasoner.requests[0].stop == ()
    assert reasoner.requests[0].max_tokens == LIMITS.max_answer_tokens


@pytest.mark.parametrize(
    ("text", "stop", "end"),
    [
        ("a\n\n", Stop.MAX_TURNS, StepEnd.DELIMITER),
        ("x" * 20, Stop.MAX_TURNS, StepEnd.LENGTH),
        ("a␄", Stop.REASONER_EOS, StepEnd.EOS),
    ],
)
def test_stop_reasons(letters, text, stop, end):
    dialogue = Dialogue(letters, letters, LIMITS)
    episode, *_ = play(dialogue, label(dialogue, "decomposition"), lambda r: letters.encode(text))
    assert episode.stop is stop
    assert episode.turns[0].step_end is end


def test_the_reasoner_may_be_held_to_fewer_tokens_in_all(letters):
    limits = dataclasses.replace(LIMITS, max_written=25)
    dialogue = Dialogue(letters, letters, limits)
    choose, write = label(dialogue, "validation"), lambda request: letters.encode("ab" * 10)[: request.max_tokens]
    episode, _, reasoner = play(dialogue, choose, write)
    assert [request.max_tokens for request in reasoner.requests] == [20, 5]
    assert (episode.stop, episode.turns[-1].step_end) == (Stop.BUDGET, StepEnd.LENGTH)


def test_an_observer_is_told_each_turn_as_it_happens(letters):
    told = []

    class Note(Observer):
        def chose(self, strategy):
            told.append(STRATEGIES[strategy].name)

        def wrote(self, turn):
            told.append(turn)

    def write(request: Request):
        told.append("asked")
        return letters.encode("a\n\n")

    dialogue = Dialogue(letters, letters, dataclasses.replace(LIMITS, max_turns=2))
    planner, reasoner = Recorder(label(dialogue, "validation")), Recorder(write)
    episode = asyncio.run(dialogue.play(QUESTION, planner, reasoner, Note()))
    assert told == ["validation", "asked", episode.turns[0], "validation", "asked", episode.turns[1]]


def test_a_prompt_without_room_is_data_and_not_an_error(letters):
    limits = Limits(4, 20, 20, 10, 2000, 200, 2000)
    episode, planner, reasoner = play(Dialogue(letters, letters, limits), lambda r: (), lambda r: ())
    assert episode.stop is Stop.PROMPT_TOO_LONG
    assert not planner.requests
    assert not reasoner.requests


def test_chat_injection_keeps_the_template(letters):
    dialogue = Dialogue(letters, letters, LIMITS, Injection.CHAT)
    episode, *_ = play(dialogue, label(dialogue, "validation"), lambda r: letters.encode("ok␄"))
    row = episode.reasoner_row()
    request = STRATEGIES[strategy_index("validation")].request
    one_turn = f"<u>{request}<a>ok␄"
    text = letters.tokenizer.decode(row.prompt_ids + row.response_ids)
    assert text == f"<u>What is 2 + 3?\n\n{request}<a>ok␄" + one_turn * (LIMITS.max_turns - 1)


def test_chat_injection_closes_a_step_that_was_cut(letters):
    dialogue = Dialogue(letters, letters, LIMITS, Injection.CHAT)
    episode, *_ = play(dialogue, label(dialogue, "validation"), lambda r: letters.encode("x" * r.max_tokens))
    text = letters.tokenizer.decode(episode.reasoner_row().response_ids)
    assert "x␄<u>" in text


def test_the_planner_reads_each_step_once(letters):
    dialogue = Dialogue(letters, letters, LIMITS)
    steps = iter(["one\n\n", "two\n\n", "three\n\n", "four\n\n"])
    episode, planner, _ = play(dialogue, label(dialogue, "summarization"), lambda r: letters.encode(next(steps)))
    shown = letters.decode(episode.planner_row().response_ids)
    assert [shown.count(word) for word in ("one", "two", "three", "four")] == [1, 1, 1, 0]
    assert all(request.allowed_ids == dialogue.label_ids for request in planner.requests)
    assert all(request.max_tokens == 1 for request in planner.requests)


def test_free_decoding_reads_names_and_falls_back_to_continuation(letters):
    answers = iter(["Validation\n", "banana\n", "9\n"])
    dialogue = Dialogue(letters, letters, LIMITS, constrained=False)
    episode, *_ = play(dialogue, lambda r: letters.encode(next(answers)), lambda r: letters.encode("a\n\n"))
    assert [s.name for s in episode.strategies] == ["validation", "continuation", "termination"]
    assert [turn.parsed for turn in episode.turns] == [True, False, True]


def test_free_decoding_keeps_the_chat_format(letters):
    answers = iter(["4␄", "5\n", "9␄"])
    steps = iter(["one\n\n", "two\n\n", "three␄"])
    dialogue = Dialogue(letters, letters, LIMITS, constrained=False)
    episode, *_ = play(
        dialogue, lambda r: letters.encode(next(answers))[: r.max_tokens], lambda r: letters.encode(next(steps))
    )
    row = episode.planner_row()
    shown = letters.tokenizer.decode(row.prompt_ids + row.response_ids)
    _, _, turns = shown.rpartition("<u>You direct")
    assert turns.partition("<a>")[2] == ("Next strategy:\n4␄<u>one<a>Next strategy:\n5\n␄<u>two<a>Next strategy:\n9␄")


def test_a_free_choice_goes_on_after_lines_without_a_word(letters):
    parts = iter(["\n", "\n", "4\n"])
    dialogue = Dialogue(letters, letters, dataclasses.replace(LIMITS, max_turns=1), constrained=False)
    episode, planner, _ = play(dialogue, lambda r: letters.encode(next(parts)), lambda r: letters.encode("a␄"))
    assert [request.max_tokens for request in planner.requests] == [8, 7, 6]
    assert [strategy.name for strategy in episode.strategies] == ["validation"]
    assert letters.decode(episode.turns[0].choice.token_ids) == "\n\n4\n"


def test_the_marks_of_thinking_are_no_choice(letters):
    parts = iter(["<think>\n", "\n", "</think>\n", "\n", "8\n"])
    limits = dataclasses.replace(LIMITS, max_turns=1, max_choice_tokens=40)
    dialogue = Dialogue(letters, letters, limits, constrained=False)
    episode, *_ = play(dialogue, lambda r: letters.encode(next(parts)), lambda r: letters.encode("a␄"))
    assert episode.turns[0].parsed
    assert [strategy.name for strategy in episode.strategies] == ["continuation"]


def test_every_choice_has_the_same_cue(letters):
    dialogue = Dialogue(letters, letters, LIMITS)
    _, planner, _ = play(dialogue, label(dialogue, "summarization"), lambda r: letters.encode("one\n\n"))
    assert all(letters.decode(request.prompt_ids).endswith("Next strategy:\n") for request in planner.requests)


def test_a_step_that_spells_a_control_token_opens_no_message_of_the_planner(tokenizers):
    from verl_rsim.core.prompts import Codec, eos_ids

    planner, reasoner = (Codec(tokenizers[name], eos_ids(tokenizers[name])) for name in ("qwen2", "llama"))
    dialogue = Dialogue(planner, reasoner, LIMITS)
    step = "a<|im_end|>\n\n"
    episode, *_ = play(dialogue, label(dialogue, "summarization"), lambda r: reasoner.encode(step))
    observed = episode.turns[1].observation_ids
    assert not set(observed) & set(planner.tokenizer.all_special_ids)
    assert "a<|im_end|>" in planner.decode(observed)


@pytest.mark.parametrize("injection", list(Injection))
def test_two_tokenizers(tokenizers, injection):
    from verl_rsim.core.prompts import Codec, eos_ids

    codecs = {name: Codec(t, eos_ids(t)) for name, t in tokenizers.items()}
    dialogue = Dialogue(codecs["qwen2"], codecs["llama"], LIMITS, injection)
    episode, *_ = play(dialogue, label(dialogue, "prioritization"), lambda r: codecs["llama"].encode("7 é\n\n"))
    assert "7 é" in codecs["qwen2"].decode(episode.planner_row().response_ids)
    assert codecs["llama"].decode(episode.reasoner_row().response_ids).count("7 é") == LIMITS.max_turns


def test_a_generation_is_checked():
    with pytest.raises(ValueError, match="2 tokens but 1"):
        Generation((1, 2), (0.0,))
    with pytest.raises(ValueError, match="at least one"):
        Generation((), ())
