"""Extracts answers to mathematical questions and compares them with ground truths."""
