"""Uses a trained planner: plays episodes, evaluates the planner against controls, transfers it to other reasoners."""

from verl_rsim.core.rules import Rules
from verl_rsim.evaluation.engines.base import Sampling
from verl_rsim.evaluation.models import Planner, Reasoner, play

__all__ = ["Planner", "Reasoner", "Rules", "Sampling", "play"]
