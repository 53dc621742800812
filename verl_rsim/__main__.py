"""Runs the command ``verl-rsim`` as ``python -m verl_rsim``."""

from verl_rsim.cli import main

if __name__ == "__main__":
    main()
