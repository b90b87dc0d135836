"""Exceptions whose message is meant for the user."""


class UserError(ValueError):
    """An error that the user can fix: it names the value and the remedy, and is printed without a traceback."""


class BrokenFile(UserError):
    """A file that cannot be decoded."""
