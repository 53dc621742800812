"""Writes a report on a run (``verl-rsim report``) as one file, from its metrics file and its episode log.

:mod:`report_data` gathers the data, :mod:`stats` computes statistics, and the other modules write the formats. Nothing
here imports torch or verl.
"""
