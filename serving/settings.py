"""What an operator may choose: by flag, by FEWPAIR_* variable, or in one TOML file, read once into one frozen value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from serving.errors import ServingError

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
DEVICES: tuple[Device, ...] = ("auto", "cpu", "cuda", "tensorrt")
LogFormat = Literal["text", "json"]
PIXELS_CEILING = 178_000_000  # Pillow itself refuses to open more


def _text(default: str | None = None) -> Any:
    return field(default=default, metadata={"kind": "text"})


def _switch(default: bool) -> Any:
    return field(default=default, metadata={"kind": "switch"})


def _whole(default: int, least: int, most: int) -> Any:
    return field(default=default, metadata={"kind": "whole", "least": least, "most": most})


def _choice(default: str, *others: str) -> Any:
    return field(default=default, metadata={"kind": "choice", "choices": (default, *others)})


def _several() -> Any:
    return field(default=(), metadata={"kind": "several"})


def _secret(*, several: bool) -> Any:
    """Never printed, and also read from the file that the variable with `_FILE` (in TOML: the name with `_file`) leads to."""
    return field(default=() if several else None, metadata={"kind": "several" if several else "text", "secret": True})


@dataclass(frozen=True)
class Settings:
    """Everything an operator may choose. A field `queue` is the variable FEWPAIR_QUEUE and the key `queue` of the file."""

    models: Path = field(metadata={"kind": "path"})
    device: Device = _choice(*DEVICES)  # noqa: RUF009 - makes a field, as the others do
    default_model: str | None = _text()
    ui: bool = _switch(True)
    workers: int = _whole(1, 1, 256)
    threads: int = _whole(0, 0, 1024)  # of one run; 0: the cores of this machine, shared out between workers and runs
    runs_at_once: int = _whole(1, 1, 64)
    batch: int = _whole(0, 0, 64)  # pictures of one size that share a run, whoever sent them; 0: as the device likes it
    batch_wait: int = _whole(0, 0, 1000)  # milliseconds that a run which is not full waits for more
    deterministic: bool = _switch(False)  # the same bytes on CUDA too: its own order of sums for every run, and no shared runs
    queue: int = _whole(32, 0, 100_000)
    queue_wait: int = _whole(2000, 0, 3_600_000)  # milliseconds that a request may wait for its first turn; 0: any time
    timeout: int = _whole(60, 1, 3600)  # seconds from the end of a request's body to its answer
    max_bytes: int = _whole(32 * 2**20, 1024, 2**31)
    max_pixels: int = _whole(25_000_000, 1, PIXELS_CEILING)
    cors_origins: tuple[str, ...] = _several()
    access_log: bool = _switch(False)
    max_pictures: int = _whole(64, 1, 10_000)  # of one request
    max_unpacked_bytes: int = _whole(128 * 2**20, 1024, 2**33)  # of a ZIP
    max_pixels_in_all: int = _whole(100_000_000, 1, 2**40)  # of the pictures of one request
    url_hosts: tuple[str, ...] = _several()  # pictures are fetched from; "example.org": its ports 80 and 443, "example.org:8080": one
    tokens: tuple[str, ...] = _secret(several=True)  # without one of them nothing but health is answered; none: everybody is
    admin_token: str | None = _secret(several=False)  # for what changes the server; without it that is off
    host: str = _text("127.0.0.1")
    port: int = _whole(3000, 1, 65535)
    open: bool = _switch(False)  # a public address without tokens is meant
    allowed_hosts: tuple[str, ...] = _several()  # that requests may be addressed to (Host); none: any
    body_timeout: int = _whole(60, 1, 3600)  # seconds that a request's body may take to arrive
    max_answer_bytes: int = _whole(256 * 2**20, 1024, 2**33)  # of the answers to one request
    log: LogFormat = _choice("text", "json")  # noqa: RUF009
    jobs: Path | None = field(default=None, metadata={"kind": "path"})  # the folder of the jobs of POST /v1/jobs; none: there are none
    jobs_queue: int = _whole(100, 1, 100_000)  # jobs that wait or run
    jobs_hours: int = _whole(24, 1, 8760)  # that a job's answers are kept after its end
    jobs_max_bytes: int = _whole(512 * 2**20, 1024, 2**36)  # of one job's upload, and of a picture in it once unpacked
    jobs_max_bytes_in_all: int = _whole(10 * 2**30, 1024, 2**50)  # of the files of all jobs, uploads and answers
    jobs_max_pictures: int = _whole(1000, 1, 100_000)  # of one job
    jobs_max_pixels: int = _whole(100_000_000, 1, PIXELS_CEILING)  # of one picture

    @property
    def intra_op_threads(self) -> int:
        """Threads of one run of a model."""
        if self.threads:
            return self.threads
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores // (self.workers * self.runs_at_once))

    @property
    def all_tokens(self) -> tuple[str, ...]:
        """Whoever may change the server may use it."""
        return (*self.tokens, self.admin_token) if self.admin_token else self.tokens

    def longest(self) -> int:
        """Seconds that a request may take from its first byte to its answer."""
        largest = max(self.max_bytes, self.jobs_max_bytes if self.jobs else 0)
        return self.body_timeout + largest // 2**20 + self.timeout + 1

    def environment(self) -> dict[str, str]:
        """These settings as the variables that a child process reads back with `from_environment`."""
        spelled: dict[str, str] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None:
                continue
            if isinstance(value, bool):
                value = "on" if value else "off"
            elif isinstance(value, tuple):
                value = ",".join(value)
            spelled[VARIABLES[one.name]] = str(value)
        return spelled

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the variables, and the file that FEWPAIR_CONFIG names; what makes no sense is refused with its name and what would."""
        from serving.configuration import configure

        return configure({}, environment).settings


VARIABLES = {one.name: f"FEWPAIR_{one.name.upper()}" for one in fields(Settings)}


def check(settings: Settings) -> Settings:
    """Refuse settings that each make sense and do not go together."""
    if settings.ui and settings.workers > 1:
        raise ServingError(
            f"the page keeps its visitors' state in one process, so it cannot be shared by {settings.workers} workers.",
            hint="Say --no-ui (FEWPAIR_UI=off) to scale the API, or --workers 1 to keep the page.",
        )
    if settings.device == "tensorrt" and settings.deterministic:
        raise ServingError(
            "TensorRT chooses its kernels by the clock, so device tensorrt and deterministic do not go together.",
            hint="Say --device cuda (FEWPAIR_DEVICE=cuda), or leave FEWPAIR_DETERMINISTIC out.",
        )
    return settings


def default_models_folder() -> Path:
    """`./exported` where it exists, otherwise the models that came with the package, installed or not."""
    here = Path("exported")
    return here if here.is_dir() else packaged_models_folder() or here


def packaged_models_folder() -> Path | None:
    """The models that came with the package, installed or not; None where there are none."""
    package = Path(__file__).parent
    return next((folder for folder in (package / "exported", package.parent / "exported") if folder.is_dir()), None)
