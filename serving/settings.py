"""How this server is configured: FEWPAIR_* environment variables, read once into one frozen value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from serving.errors import ServingError

Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("auto", "cpu", "cuda")
PIXELS_CEILING = 178_000_000  # Pillow itself refuses to open more

VARIABLES = {
    "models": "FEWPAIR_MODELS",
    "device": "FEWPAIR_DEVICE",
    "default_model": "FEWPAIR_DEFAULT_MODEL",
    "ui": "FEWPAIR_UI",
    "workers": "FEWPAIR_WORKERS",
    "threads": "FEWPAIR_THREADS",
    "runs_at_once": "FEWPAIR_RUNS_AT_ONCE",
    "queue": "FEWPAIR_QUEUE",
    "timeout": "FEWPAIR_TIMEOUT",
    "max_bytes": "FEWPAIR_MAX_BYTES",
    "max_pixels": "FEWPAIR_MAX_PIXELS",
    "cors_origins": "FEWPAIR_CORS_ORIGINS",
    "access_log": "FEWPAIR_ACCESS_LOG",
    "max_pictures": "FEWPAIR_MAX_PICTURES",
    "max_unpacked_bytes": "FEWPAIR_MAX_UNPACKED_BYTES",
    "max_pixels_in_all": "FEWPAIR_MAX_PIXELS_IN_ALL",
    "url_hosts": "FEWPAIR_URL_HOSTS",
}


@dataclass(frozen=True)
class Settings:
    """Everything an operator may choose, each beside the variable of VARIABLES that sets it."""

    models: Path
    device: Device = "auto"
    default_model: str | None = None
    ui: bool = True
    workers: int = 1
    threads: int = 0  # of one run; 0: the cores of this machine, shared out between workers and runs
    runs_at_once: int = 1
    queue: int = 32
    timeout: int = 60
    max_bytes: int = 32 * 2**20
    max_pixels: int = 25_000_000
    cors_origins: tuple[str, ...] = ()
    access_log: bool = False
    max_pictures: int = 64  # of one request
    max_unpacked_bytes: int = 128 * 2**20  # of a ZIP
    max_pixels_in_all: int = 100_000_000  # of the pictures of one request
    url_hosts: tuple[
        str, ...
    ] = ()  # from which pictures are fetched; "example.org" stands for its ports 80 and 443, "example.org:8080" for one

    @property
    def intra_op_threads(self) -> int:
        """Threads of one run of a model."""
        if self.threads:
            return self.threads
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores // (self.workers * self.runs_at_once))

    def environment(self) -> dict[str, str]:
        """These settings as the variables that a child process reads back with `from_environment`."""
        spelled: dict[str, str] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if isinstance(value, bool):
                value = "on" if value else "off"
            elif isinstance(value, tuple):
                value = ",".join(value)
            spelled[VARIABLES[field.name]] = str(value)
        return spelled

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the variables; a value that makes no sense is refused with its name and what would."""
        read = _Reader(environment)
        models = read.text("models")
        settings = Settings(
            models=Path(models) if models else default_models_folder(),
            device=read.device(),
            default_model=read.text("default_model"),
            ui=read.switch("ui", default=True),
            workers=read.whole("workers", default=1, least=1, most=256),
            threads=read.whole("threads", default=0, least=0, most=1024),
            runs_at_once=read.whole("runs_at_once", default=1, least=1, most=64),
            queue=read.whole("queue", default=32, least=0, most=100_000),
            timeout=read.whole("timeout", default=60, least=1, most=3600),
            max_bytes=read.whole("max_bytes", default=32 * 2**20, least=1024, most=2**31),
            max_pixels=read.whole("max_pixels", default=25_000_000, least=1, most=PIXELS_CEILING),
            cors_origins=read.several("cors_origins"),
            access_log=read.switch("access_log", default=False),
            max_pictures=read.whole("max_pictures", default=64, least=1, most=10_000),
            max_unpacked_bytes=read.whole("max_unpacked_bytes", default=128 * 2**20, least=1024, most=2**33),
            max_pixels_in_all=read.whole("max_pixels_in_all", default=100_000_000, least=1, most=2**40),
            url_hosts=read.several("url_hosts"),
        )
        if settings.ui and settings.workers > 1:
            raise ServingError(
                f"the page keeps its visitors' state in one process, so it cannot be shared by {settings.workers} workers.",
                hint="Say --no-ui (FEWPAIR_UI=off) to scale the API, or --workers 1 to keep the page.",
            )
        return settings


def default_models_folder() -> Path:
    """`./exported` where it exists, otherwise the models that came with the package, installed or not."""
    here, package = Path("exported"), Path(__file__).parent
    return next((folder for folder in (here, package / "exported", package.parent / "exported") if folder.is_dir()), here)


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, field: str) -> str | None:
        return self._environment.get(VARIABLES[field], "").strip() or None

    def several(self, field: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in (self.text(field) or "").split(",") if part.strip())

    def switch(self, field: str, *, default: bool) -> bool:
        value = self.text(field)
        if value is None:
            return default
        if value.lower() in ("on", "1", "true", "yes"):
            return True
        if value.lower() in ("off", "0", "false", "no"):
            return False
        raise ServingError(f"{VARIABLES[field]}={value} is neither on nor off.")

    def whole(self, field: str, *, default: int, least: int, most: int) -> int:
        value = self.text(field)
        if value is None:
            return default
        try:
            number = int(value)
        except ValueError:
            raise ServingError(f"{VARIABLES[field]}={value} is not a whole number.") from None
        if not least <= number <= most:
            raise ServingError(f"{VARIABLES[field]}={value} lies outside {least} to {most}.")
        return number

    def device(self) -> Device:
        value = self.text("device") or "auto"
        if value not in DEVICES:
            raise ServingError(f"device {value} is none of {', '.join(DEVICES)}.")
        return value
