"""Errors with a sentence for the user and a hint."""

from collections.abc import Mapping


class ServingError(Exception):
    """A sentence for the user, and a hint that says what to do about it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ModelError(ServingError):
    """An exported folder that cannot be served."""


class DeviceError(ServingError):
    """A required device that is not available."""


class Refusal(ServingError):
    """A refused request: an HTTP status, a code for programs and a sentence for people."""

    def __init__(
        self, status: int, code: str, message: str, *, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})

    @property
    def error(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message, "hint": self.hint}


def disk_full() -> Refusal:
    """Return the error (507) for a full disk."""
    hint = "Try again in a moment, or DELETE jobs whose results you have; TMPDIR or the jobs' folder needs more room."
    return Refusal(507, "disk_full", "the server's disk is full.", hint=hint)
