"""Summarizes the records of an evaluation and writes its tables and figures."""
