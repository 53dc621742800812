"""Grades answers and programs, and computes the planner's reward. Only ``manager`` imports verl."""
