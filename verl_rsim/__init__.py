"""rSIM for verl: a planner LLM picks a reasoning strategy, a reasoner LLM writes the step, both are trained together.

Importing this package is cheap: neither torch nor verl is imported until a module that needs them is.
"""

__version__ = "0.1.0"
