"""Reading what torch saved, without running what it may hold: such files are pickles, which can call any function."""

from __future__ import annotations

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch

from verl_rsim.utils.errors import DataError


def read_tensors(path: Path) -> Any:
    """Tensors, plain values and containers of them, on the CPU.

    Import ``torch.distributed.tensor`` before a file with sharded tensors is read.

    Raises:
        DataError: the file holds something else, or is damaged.
    """
    if not is_zipfile(path):
        raise DataError(f"{path} is damaged or unfinished: it is no file that torch saved")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch's own text advises to load it nevertheless
        named = re.search(r"GLOBAL (\S+)", str(error))
        found = f"calls for {named[1]}" if named else "holds more than tensors and plain values"
        fix = "it was not loaded, because that can run code; torch.serialization.add_safe_globals allows a class"
        raise DataError(f"{path} {found}: {fix}") from None
