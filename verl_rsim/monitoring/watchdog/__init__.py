"""Ends a job that can no longer continue, with an error that names the process at fault."""
