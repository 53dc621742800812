"""Uses a trained planner: plays episodes, evaluates the planner against controls, transfers it to other reasoners."""

from verl_rsim.evaluation.engines.base import Sampling
from verl_rsim.evaluation.models import Planner, Reasoner, play
from verl_rsim.evaluation.rules import Rules

__all__ = ["Planner", "Reasoner", "Rules", "Sampling", "play"]
