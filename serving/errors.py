"""What can go wrong in serving, in the words of the person who asked."""

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


class SettingError(ModelError):
    """A setting that does not go with the models there are. Only the launcher knows where it was said; others name its variable."""

    def __init__(self, setting: str, value: str, why: str) -> None:
        super().__init__(f"FEWPAIR_{setting.upper()}={value} {why}")
        self.setting = setting
        self.why = why


class DeviceError(ServingError):
    """A device that was demanded and is not there."""


class Refusal(ServingError):
    """A request that is not answered as asked: an HTTP status, a code for programs and a sentence for people."""

    def __init__(self, status: int, code: str, message: str, *, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, dict[str, str]]:
        """The one JSON shape every error of the server has."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}
