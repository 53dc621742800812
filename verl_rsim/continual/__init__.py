"""Continual learning: a planner goes through tasks one after the other, and what it forgets on the way is measured."""
