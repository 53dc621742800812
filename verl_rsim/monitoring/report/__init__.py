"""``verl-rsim report``: what a run did, from its metrics file and its episode log, as one file.

:mod:`stats` counts, :mod:`facts` gathers, the other modules write. Nothing here imports torch or verl.
"""
