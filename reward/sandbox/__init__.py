"""Runs programs that nobody has read: back-ends, limits, and the program that runs inside."""
