"""Exceptions whose message is meant for the user."""


class UserError(ValueError):
    """An error that the user can fix: it names the value and the remedy, and is printed without a traceback."""


class BrokenFile(UserError):
    """A file that cannot be decoded; `--skip-broken` leaves it out and prints its `reason`."""

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(reason + remedy)
        self.reason = reason
