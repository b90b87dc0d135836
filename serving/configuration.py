"""Where each setting comes from: a flag before a variable before the file before the default; read, checked and told."""

from __future__ import annotations

import difflib
import ipaddress
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from serving.errors import ServingError
from serving.settings import VARIABLES, Settings, check, default_models_folder, packaged_models_folder
from serving.tokens import why_unfit

CONFIG = "FEWPAIR_CONFIG"
_FIELDS: dict[str, Field[Any]] = {one.name: one for one in fields(Settings)}
_SECRETS = tuple(name for name, one in _FIELDS.items() if one.metadata.get("secret"))
_TOKEN_MAKER = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'
_DECISIVE = frozenset({"models", "device", "workers", "tokens"})
_TOLD_ELSEWHERE = frozenset({"host", "port"})  # by the address that is printed
_ELSEWHERE = frozenset({CONFIG, "FEWPAIR_DATA", "FEWPAIR_REQUIRE_BROWSER"})  # of the trainer and the tests


@dataclass(frozen=True)
class Said:
    """A value as text, and where it was said: "--queue", "FEWPAIR_QUEUE", "queue in fewpair.toml"."""

    text: str
    where: str
    folder: Path | None = None  # that paths in it start from

    @property
    def spelled(self) -> str:
        """The value as its author wrote it."""
        key, _, file = self.where.partition(" in ")
        return f"{key} = {self.text} in {file}" if file else f"{key}{' ' if key.startswith('--') else '='}{self.text}"


@dataclass(frozen=True)
class Configured:
    """The settings, and for each that was chosen how it was said."""

    settings: Settings
    said: Mapping[str, Said]

    def spelled(self, name: str) -> str:
        """A setting that is no secret, as its author wrote it: "--port 80", "FEWPAIR_PORT=80"."""
        return self.said[name].spelled if name in self.said else f"{name} {_shown(name, self.settings)}"

    def lines(self) -> Iterator[str]:
        """Every setting with where it came from, secrets hidden."""
        yield from self._lines(tuple(_FIELDS))

    def decisive(self) -> Iterator[str]:
        """The same of those that decide most, and of those that are not as they are by default."""
        chosen = {name for name, one in _FIELDS.items() if getattr(self.settings, name) != one.default} - _TOLD_ELSEWHERE
        yield from self._lines(tuple(name for name in _FIELDS if name in chosen or name in _DECISIVE))

    def in_one_line(self) -> str:
        """Every setting as `name=value`, quoted as a shell would have it, secrets hidden."""
        return shlex.join(f"{name}={_shown(name, self.settings)}" for name in _FIELDS)

    def hidden_models(self) -> Iterator[str]:
        """What is said where a folder called exported is served because it lies here, and models came with fewpair too."""
        packaged = packaged_models_folder()
        if "models" not in self.said and packaged is not None and packaged.resolve() != self.settings.models.resolve():
            names = ", ".join(sorted(path.parent.name for path in packaged.glob("*/manifest.json"))) or "none"
            yield f"  The folder exported hides the models that came with fewpair ({names}); --models {packaged.resolve()} serves these"

    def _lines(self, names: Sequence[str]) -> Iterator[str]:
        width = max(map(len, names))
        for name in names:
            where = self.said[name].where if name in self.said else "default"
            yield f"  {name:<{width}}  {_shown(name, self.settings)}  ({where})"


def configure(flags: Mapping[str, Said], environment: Mapping[str, str], *, file: str | None = None) -> Configured:
    """Settings of flags, variables, and the file that `file` or FEWPAIR_CONFIG names; ServingError says what is wrong, and where."""
    layers = [
        flags,
        _variables(environment),
        _file(file or environment.get(CONFIG, "").strip() or None),
    ]
    said: dict[str, Said] = {}
    for layer in layers:
        for name, one in layer.items():
            said.setdefault(name, one)
    values = {name: _read(_FIELDS[name], one) for name, one in said.items()}
    values.setdefault("models", default_models_folder())
    return Configured(check(Settings(**values)), said)


def strangers(environment: Mapping[str, str]) -> list[str]:
    """Sentences about variables that look like a setting's, and are none."""
    known = {*VARIABLES.values(), *(f"{VARIABLES[name]}_FILE" for name in _SECRETS), *_ELSEWHERE}
    sentences = []
    for name in environment:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85) if name.startswith("FEWPAIR_") and name not in known else []
        sentences += [f"{name} is no setting and does nothing; {nearest} is one." for nearest in near]
    return sentences


def child_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for a child process that is to have exactly these settings."""
    ours = {CONFIG, *VARIABLES.values(), *(f"{VARIABLES[name]}_FILE" for name in _SECRETS)}
    return {**{name: value for name, value in environment.items() if name not in ours}, **settings.environment()}


def _variables(environment: Mapping[str, str]) -> dict[str, Said]:
    said = {
        name: Said(environment[variable], variable)
        for name, variable in VARIABLES.items()
        # Kubernetes puts tcp://10.0.0.1:80 into FEWPAIR_PORT where a Service is called fewpair.
        if environment.get(variable, "").strip() and not (name == "port" and environment[variable].startswith("tcp://"))
    }
    for name in _SECRETS:
        path = environment.get(f"{VARIABLES[name]}_FILE", "").strip()
        if path:
            said[name] = _secret(name, Path(path), where=f"{VARIABLES[name]}_FILE", twice=said.get(name))
    return said


def _file(name: str | None) -> dict[str, Said]:
    if name is None:
        return {}
    path = Path(name).expanduser()
    try:
        held = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ServingError(
            f"the configuration {path} cannot be read: {error.strerror or error}.",
            hint=f"Name a file of lines like queue = 64 with --config or {CONFIG}, or start without one: every setting has a default "
            "(--print-settings tells them).",
        ) from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise ServingError(
            f"the configuration {path} is no TOML: {error}.", hint='Lines look like this: queue = 64, or models = "/models".'
        ) from None
    folder = path.resolve().parent
    said: dict[str, Said] = {}
    files: dict[str, Path] = {}
    for key, value in held.items():
        where = f"{key} in {path}"
        text = _toml_text(value, where)
        if key.removesuffix("_file") in _SECRETS and key.endswith("_file"):
            files[key.removesuffix("_file")] = folder / Path(text).expanduser()
        elif key in _FIELDS:
            said[key] = Said(text, where, folder)
        else:
            raise ServingError(f"{path}: there is no setting {key!r}.", hint=_nearest(key))
    for key, secret in files.items():
        said[key] = _secret(key, secret, where=f"{key}_file in {path}", twice=said.get(key))
    return said


def _toml_text(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list) and all(isinstance(part, str) and "," not in part for part in value):
        return ",".join(value)
    if isinstance(value, str | int | float):
        return str(value)
    raise ServingError(f"{where} is neither a text, a number, a switch nor a list of texts without commas.")


def _nearest(key: str) -> str:
    keys = [*_FIELDS, *(f"{name}_file" for name in _SECRETS)]
    near = difflib.get_close_matches(key.lower().removeprefix("fewpair_"), keys, n=1)
    return f"Did you mean {near[0]}?" if near else f"Settings: {', '.join(sorted(keys))}."


def _secret(name: str, path: Path, *, where: str, twice: Said | None) -> Said:
    if twice is not None:
        raise ServingError(f"{twice.where} and {where} both say {name}.", hint="Say one of them.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ServingError(
            f"{where}: {path} cannot be read: {getattr(error, 'strerror', None) or error}.",
            hint=f"Name a text file that this user can read; make one: {_TOKEN_MAKER} > {shlex.quote(str(path))}",
        ) from None
    return Said(",".join(text.split()), where)


def _read(one: Field[Any], said: Said) -> Any:
    text = said.text.strip()
    if one.metadata.get("secret"):
        return _read_secret(one, text, said.where)
    match one.metadata["kind"]:
        case "path":
            return (said.folder or Path()) / Path(text).expanduser()
        case "switch":
            return _read_switch(text, said.spelled)
        case "whole":
            return _read_whole(one, text, said.spelled)
        case "several":
            return _parts(text)
        case "choice":
            if text not in one.metadata["choices"]:
                choices = ", ".join(one.metadata["choices"])
                raise ServingError(f"{one.name} {text} is none of {choices}.", hint=f"{said.where} says so.")
    return text


def _read_secret(one: Field[Any], text: str, where: str) -> Any:
    tokens = _parts(text)
    if not tokens:
        raise ServingError(f"{where} holds no token.", hint=f"Make one: {_TOKEN_MAKER}.")
    why = next((why for token in tokens if (why := why_unfit(token))), None)
    if why is not None:
        raise ServingError(f"{where} {why}.", hint=f"Make one: {_TOKEN_MAKER}.")
    if one.metadata["kind"] == "several":
        return tokens
    if len(tokens) > 1:
        raise ServingError(f"{where} holds {len(tokens)} tokens, there is one.")
    return tokens[0]


def _read_switch(text: str, spelled: str) -> bool:
    if text.lower() in ("on", "1", "true", "yes"):
        return True
    if text.lower() in ("off", "0", "false", "no"):
        return False
    raise ServingError(f"{spelled} is neither on nor off.")


def _read_whole(one: Field[Any], text: str, spelled: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ServingError(f"{spelled} is not a whole number.") from None
    least, most = one.metadata["least"], one.metadata["most"]
    if not least <= number <= most:
        raise ServingError(f"{spelled} lies outside {least} to {most}.")
    return number


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _shown(name: str, settings: Settings) -> str:
    value = getattr(settings, name)
    if name in _SECRETS:
        return "hidden" if isinstance(value, str) else f"{len(value)} hidden" if value else "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return "none" if value is None else str(value)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches that IP address."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
