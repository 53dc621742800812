"""Continual learning: trains a planner on tasks one after the other and measures what it forgets."""
