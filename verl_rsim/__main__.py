"""``python -m verl_rsim``: the command ``verl-rsim``."""

from verl_rsim.cli import main

if __name__ == "__main__":
    main()
