"""Exceptions whose message is meant for the user."""

import difflib
from collections.abc import Iterable, Mapping
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
    raise UserError(f"{name} is not a {what}{suggestion(name, known)} Known: {', '.join(known)}")


def suggestion(name: str, known: Iterable[str], *, otherwise: str = ";") -> str:
    """The end of a clause on an unknown name: the nearest known one as a question, or `otherwise`."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else otherwise
