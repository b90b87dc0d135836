"""Weight files of others: read without running code, and refused where they hold something else."""

import pickle
from pathlib import Path

import torch
from torch import Tensor

from trainer.errors import UserError


def read_state_dict(path: Path, *, wanted: str) -> dict[str, Tensor]:
    """The tensors of a file by their names; `wanted` says what it has to be.

    Raises UserError where it cannot be read or holds anything but a flat mapping from names to tensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; give {wanted}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, IndexError, ValueError, pickle.UnpicklingError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as a file of weights ({said}); give {wanted}") from error
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        keys = f" with {', '.join(map(repr, list(state)[:3]))}" if isinstance(state, dict) else ""
        raise UserError(
            f"{path} holds a {type(state).__name__}{keys}, but {wanted} is expected: save `model.state_dict()`"
        )
    return dict(state)
