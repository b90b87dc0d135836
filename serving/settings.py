"""Settings of the server: flags override FEWPAIR_* variables, which override a TOML file and the defaults."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, CliApp, CliSuppress, CliToggleFlag, NoDecode, SettingsConfigDict

from serving.errors import ServingError

Device = Literal["auto", "cpu", "cuda"]
PIXELS_CEILING = 178_000_000  # Pillow refuses to open more
MIB, GIB = 2**20, 2**30
_SHORTEST_TOKEN = 8
_PATHS = ("models", "jobs", "studio", "label_studio_files", "tokens_file", "admin_token_file")
_NEW_TOKEN = 'make one: python -c "import secrets; print(secrets.token_urlsafe(32))"'


def _split(value: Any, separator: str) -> Any:
    return [part.strip() for part in value.split(separator) if part.strip()] if isinstance(value, str) else value


def default_models_folder() -> Path:
    """Return `./exported` where it exists, otherwise the models that were installed with the package."""
    package = Path(__file__).parent
    folders = (Path("exported"), package / "exported", package.parent / "exported")
    return next((folder for folder in folders if folder.is_dir()), folders[0])


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(lambda value: _split(value, ","))]
Tokens = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(lambda value: _split(value, "\n"))]


class Settings(BaseSettings):
    """Serve exported models over REST and in the browser. Each flag is also a FEWPAIR_* variable and a TOML key."""

    model_config = SettingsConfigDict(
        env_prefix="FEWPAIR_",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        cli_prog_name="fewpair serve",
        cli_kebab_case=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_parse_none_str="none",
    )

    config: Path | None = Field(default=None, description="TOML file of settings")
    models: Path = Field(
        default=None,
        validate_default=True,
        description="folder of exported models; ./exported, or the installed models",
    )
    default_model: str | None = Field(default=None, description="model used when a request names none")
    device: Device = Field(default="auto", description="auto: CUDA where it works; cuda: refuse to start without")
    ui: CliToggleFlag[bool] = Field(default=True, description="switch off the page at /ui")
    host: str = Field(default="127.0.0.1", description="address to listen on; public ones need tokens")
    port: int = Field(default=3000, ge=1, le=65535, description="port to listen on")
    root_path: str = Field(default="", description="path prefix of the reverse proxy; auto: its X-Forwarded-Prefix")
    open: CliToggleFlag[bool] = Field(default=False, description="allow a public address without tokens")
    public: CliToggleFlag[bool] = Field(
        default=False, description="allow a public address without tokens, with a rate limit and without jobs"
    )
    tokens: CliSuppress[Tokens] = Field(default=(), description="bearer tokens, one a line")
    tokens_file: Path | None = Field(default=None, description="file of bearer tokens, one a line")
    admin_token: CliSuppress[SecretStr | None] = Field(default=None, description="token of the operator")
    admin_token_file: Path | None = Field(default=None, description="file that holds the operator's token")
    allowed_hosts: Names = Field(default=(), description="host names that requests may use, as a,*.b; all if empty")
    cors_origins: Names = Field(default=(), description="origins of web pages that may call the API, as a,b")
    threads: int = Field(default=0, ge=0, le=1024, description="CPU threads of one run; 0 shares out all cores")
    runs_at_once: int = Field(default=1, ge=1, le=64, description="runs of models at the same time")
    batch: int = Field(default=0, ge=0, le=64, description="most pictures in a run; 0: 4 on CUDA, 1 on the CPU")
    deterministic: CliToggleFlag[bool] = Field(default=False, description="the same bytes on CUDA each time, at a cost")
    queue: int = Field(default=32, ge=0, le=100_000, description="requests that may wait")
    queue_wait: int = Field(default=2000, ge=0, le=3_600_000, description="milliseconds of waiting; 0: no limit")
    timeout: int = Field(default=60, ge=1, le=3600, description="seconds from the end of a body to the answer")
    body_timeout: int = Field(default=60, ge=1, le=3600, description="seconds for a body, plus one for each MiB")
    max_bytes: int = Field(default=32 * MIB, ge=1024, le=2**31, description="bytes of a request")
    max_pixels: int = Field(default=25_000_000, ge=1, le=PIXELS_CEILING, description="pixels of a picture")
    max_pictures: int = Field(default=64, ge=1, le=10_000, description="pictures of a request")
    max_pixels_in_all: int = Field(default=100_000_000, ge=1, le=2**40, description="pixels of a request")
    jobs: Path | None = Field(default=None, description="folder of the jobs; without one there is no /v1/jobs")
    jobs_queue: int = Field(default=100, ge=1, le=100_000, description="jobs that wait or run")
    jobs_hours: int = Field(default=24, ge=1, le=8760, description="hours for which a finished job is kept")
    jobs_max_bytes: int = Field(default=512 * MIB, ge=1024, le=2**36, description="bytes of one job's upload")
    jobs_max_bytes_in_all: int = Field(default=10 * GIB, ge=1024, le=2**50, description="bytes of all jobs")
    jobs_max_pictures: int = Field(default=1000, ge=1, le=100_000, description="pictures of one job")
    jobs_max_pixels: int = Field(default=100_000_000, ge=1, le=PIXELS_CEILING, description="pixels of its pictures")
    label_studio_files: Path | None = Field(default=None, description="folder whose photos Label Studio serves")
    studio: CliSuppress[Path | None] = Field(default=None, description="project folder of `fewpair studio`")
    log: Literal["text", "json"] = Field(default="text", description="format of the log")
    access_log: CliToggleFlag[bool] = Field(default=False, description="log each request")

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Add the settings of the TOML file below those of flags and variables, and read the files of secrets."""
        values = {**_read_toml(values.get("config")), **values}
        for name in ("tokens", "admin_token"):
            if (path := values.pop(f"{name}_file", None)) is None:
                continue
            if values.get(name):
                raise ValueError(f"{name} and {name}_file are both set; set one of them")
            try:
                values[name] = Path(path).expanduser().read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{name}_file {path} cannot be read: {error}; {_NEW_TOKEN}") from None
            if not values[name]:
                raise ValueError(f"{name}_file {path} is empty; {_NEW_TOKEN}")
        return values

    @model_validator(mode="after")
    def _check_public(self) -> Settings:
        for name in ("jobs", "studio"):
            if self.public and getattr(self, name) is not None:
                raise ValueError(f"a public server keeps nothing of its clients: leave out {name} or public")
        return self

    @field_validator("tokens", "admin_token")
    @classmethod
    def _check_tokens(cls, value: Any) -> Any:
        for token in value if isinstance(value, tuple) else [value] if value else []:
            text = token.get_secret_value()
            if len(text) < _SHORTEST_TOKEN or not re.fullmatch(r"[!-~]+", text):
                raise ValueError(f"a token has {_SHORTEST_TOKEN} or more ASCII characters and no blanks; {_NEW_TOKEN}")
        return value

    @field_validator("models", mode="before")
    @classmethod
    def _find_models(cls, value: Any) -> Any:
        return default_models_folder() if value is None else value

    @field_validator("port", mode="before")
    @classmethod
    def _ignore_service_link(cls, value: Any) -> Any:
        # Kubernetes sets FEWPAIR_PORT=tcp://10.0.0.1:80 in a namespace that has a Service called fewpair.
        return 3000 if str(value).startswith("tcp://") else value

    @field_validator("cors_origins")
    @classmethod
    def _normalise_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(origin.rstrip("/").lower() for origin in value)
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/?#@\s]+", origin):
                raise ValueError(f"{origin} is no origin; write https://app.example or https://app.example:8443")
        return origins

    @field_validator("root_path")
    @classmethod
    def _normalise_root_path(cls, value: str) -> str:
        return value if value == "auto" else f"/{value.strip('/')}".rstrip("/")

    @property
    def intra_op_threads(self) -> int:
        """Threads of one run of a model."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.threads or max(1, cores // self.runs_at_once)

    @property
    def all_tokens(self) -> tuple[str, ...]:
        """The tokens that open the server, as text; the operator's is one of them where tokens are required."""
        tokens = self.tokens if self.admin_token is None else (*self.tokens, self.admin_token)
        return tuple(token.get_secret_value() for token in tokens) if self.tokens else ()

    def longest(self) -> int:
        """Return the seconds that a request may take from its first byte to its answer."""
        largest = max(self.max_bytes, self.jobs_max_bytes if self.jobs else 0)
        return self.body_timeout + largest // MIB + self.timeout + 1

    def environment(self) -> dict[str, str]:
        """Return the FEWPAIR_* variables from which a child process reads exactly these settings."""
        variables = {f"FEWPAIR_{name.upper()}": "" for name in type(self).model_fields}
        for name in self.model_fields_set - {"config"}:
            value = getattr(self, name)
            parts = value if isinstance(value, tuple) else [] if value is None else [value]
            texts = [part.get_secret_value() if isinstance(part, SecretStr) else str(part) for part in parts]
            variables[f"FEWPAIR_{name.upper()}"] = ("\n" if name == "tokens" else ",").join(texts)
        return variables


def load_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Read the settings, with command-line arguments where there are some. Raises ServingError for what is wrong."""
    try:
        return Settings() if arguments is None else CliApp.run(Settings, cli_args=list(arguments))
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors(include_url=False)]
        raise ServingError("\n".join(problems), hint="`fewpair serve --help` lists the settings.") from None


def _read_toml(name: str | None) -> dict[str, Any]:
    """Read the file that --config or FEWPAIR_CONFIG names; its relative paths start from its folder."""
    if not name:
        return {}
    path = Path(name).expanduser()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        hint = "It is TOML: lines like queue = 64."
        raise ServingError(f"the configuration file {path} cannot be read: {error}.", hint=hint) from None
    folder = path.resolve().parent
    paths = {key: folder / Path(values[key]).expanduser() for key in _PATHS if isinstance(values.get(key), str)}
    return {**values, **paths}


def _describe(problem: Any) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else ""
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"there is no setting {name}."
    if name == "" or name in ("tokens", "admin_token"):  # a secret is not repeated
        return f"{name}: {message}.".removeprefix(": ")
    return f"{name} = {problem['input']} (FEWPAIR_{name.upper()}): {message}."
