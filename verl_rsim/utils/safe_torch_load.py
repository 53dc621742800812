"""Loads files that torch saved without running code: such files are pickles, which can call any function."""

from __future__ import annotations

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch

from verl_rsim.utils.errors import DataError


def read_tensors(path: Path) -> Any:
    """Returns the tensors, plain values and containers of them that a file holds, on the CPU.

    Import ``torch.distributed.tensor`` before reading a file with sharded tensors.

    Raises:
        DataError: the file holds something else, or is damaged.
    """
    # torch falls back to a legacy pickle reader for other files; its errors for a truncated one are unreadable.
    if not is_zipfile(path):
        raise DataError(f"{path} is damaged or unfinished: it is not a file that torch saved")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        # torch's own message advises to set weights_only=False, which is exactly what must not be done.
        function = re.search(r"GLOBAL (\S+)", str(error))
        content = f"calls for {function[1]}" if function else "holds more than tensors and plain values"
        fix = "it was not loaded, because that can run code; torch.serialization.add_safe_globals allows a class"
        raise DataError(f"{path} {content}: {fix}") from None
