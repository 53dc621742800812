"""Implements rSIM for verl: a planner LLM picks a strategy, a reasoner LLM writes the step, both are trained together.

Importing this package imports neither torch nor verl.
"""

__version__ = "0.1.0"
