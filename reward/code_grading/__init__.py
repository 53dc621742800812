"""Extracts programs from answers and grades them by their tests."""
