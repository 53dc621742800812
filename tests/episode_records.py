"""Records of invented interactions, for tests of what reads them."""

from __future__ import annotations

from verl_rsim.episodes import EpisodeRecord, TurnRecord


def turn(strategy: str, text: str = "Some step.\n\n", **values) -> TurnRecord:
    """A turn with plain values where none are given."""
    return TurnRecord(
        strategy, text, **{"tokens": 5, "end": "delimiter", "log_prob": -2.2, "log_prob_mean": -0.5} | values
    )


def episode(*strategies: str, question: str = "What is 1 + 1?", **values) -> EpisodeRecord:
    """An interaction that used these strategies; it ended by *termination* if that is the last of them."""
    stop = "termination" if strategies and strategies[-1] == "termination" else "max_turns"
    fixed = {"kind": "validation", "step": 0, "question_id": f"{hash(question):x}"[-12:], "sample": 0, "stop": stop}
    return EpisodeRecord(
        **{**fixed, "question": question, "turns": tuple(map(turn, strategies)), "truth": "2", **values}
    )
