"""Exceptions whose message is meant for the user."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")


class UserError(ValueError):
    """An error that the user can fix: it names the value and the remedy, and is printed without a traceback."""


class BrokenFile(UserError):
    """A file that cannot be decoded."""


def named(known: Mapping[str, Value], name: str, *, what: str) -> Value:
    """Return the value of a name. Raises UserError, with the nearest name, where there is none."""
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"{name} is not a {what}; {hint}Known: {', '.join(known)}")
