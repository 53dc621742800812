"""Checks a job before anything is started: configuration, models, data, hardware, memory."""
