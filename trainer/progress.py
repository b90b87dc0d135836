"""Progress bars on standard error."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(
    items: Any = None, *, what: str, unit: str, shown: bool, total: int | None = None, initial: int = 0
) -> "tqdm[Any]":
    """A tqdm bar over `items` or of `total` units; a line a minute where standard error is no terminal."""
    return tqdm(
        items,
        total=total,
        initial=initial,
        desc=what,
        unit=f" {unit}",
        disable=not shown,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 60.0,
    )
