"""A trained planner without training: play with it, evaluate it against controls, transfer it to other reasoners."""

from verl_rsim.evaluate.engines import Sampling
from verl_rsim.evaluate.players import Planner, Reasoner, play
from verl_rsim.evaluate.rules import Rules

__all__ = ["Planner", "Reasoner", "Rules", "Sampling", "play"]
