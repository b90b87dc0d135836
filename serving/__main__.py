"""Launcher: check the settings, start BentoML's server and wait until it is ready. Also `predict` and `studio`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil

from serving.errors import ServingError
from serving.settings import Settings, load_settings

_ROOT = Path(__file__).resolve().parent.parent  # the folder that holds the package, so that it can be imported
_READY_WITHIN = 300.0  # seconds
_FOLDER = "fewpair-server-"  # with which the name of a server's temporary folder begins
_GRACE = 5  # seconds beyond the timeout of a request that a stop waits for requests
_REACHED_AT = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_DEFAULTS = {
    "BENTOML_DO_NOT_TRACK": "True",
    "GRADIO_ANALYTICS_ENABLED": "False",
    # glibc: one arena, and blocks over 128 KiB of their own, so that the weights of replaced models return to the
    # system; large pages, so that those blocks cost a request few page faults.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "16777216",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Serve, predict or open the studio; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["predict"]:
            from serving.predict import predict  # imports onnxruntime

            return predict(arguments[1:])
        return _serve(_studio_settings(arguments[1:]) if arguments[:1] == ["studio"] else load_settings(arguments))
    except ServingError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 2


def _studio_settings(arguments: Sequence[str]) -> Settings:
    """The settings of `fewpair studio FOLDER`. Raises ServingError where the folder holds no photos."""
    from serving.studio.project import Project  # imports numpy

    about = "Pick photos to label, label them, train, and try the model, in the browser. Everything stays in FOLDER."
    parser = argparse.ArgumentParser(prog="fewpair studio", description=about)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="holds photos/; labels, runs and models are added")
    parser.add_argument("--port", default="3000", help="port of this machine to listen on (3000)")
    given = parser.parse_args(arguments)
    folder = given.folder.expanduser().resolve()
    Project(folder).prepare()
    return load_settings(["--studio", str(folder), "--models", str(folder / "exported"), "--port", given.port])


def _serve(settings: Settings) -> int:
    address = _address(settings)
    if settings.jobs is not None:
        from serving.jobs.store import open_store  # imports onnxruntime

        open_store(settings.jobs.expanduser())
    folders = ("models", "jobs", "studio", "label_studio_files")
    paths = {name: path.expanduser().resolve() for name in folders if (path := getattr(settings, name))}
    with _temporary_folder(paths.get("jobs")) as (folder, lock):
        return _Server(settings.model_copy(update=paths), address=address, folder=folder).run(lock)


@contextlib.contextmanager
def _temporary_folder(jobs: Path | None) -> Iterator[tuple[str, int]]:
    """A folder for the files of the server, beside the jobs, whose uploads may be larger than the disk of TMPDIR.

    Yield it with its lock, which the server inherits: folders whose lock is free are of servers that were killed, and
    are removed.
    """
    try:
        parent = Path(tempfile.gettempdir()) if jobs is None else jobs
        for former in parent.glob(f"{_FOLDER}*/lock"):
            with contextlib.suppress(OSError), former.open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(former.parent)
        made = tempfile.TemporaryDirectory(prefix=_FOLDER, dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        message = f"there is no folder for temporary files: {error.strerror or error}."
        raise ServingError(message, hint="Set TMPDIR to a folder that can be written to.") from None
    with made as folder, Path(folder, "new").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Path(folder, "new").rename(Path(folder, "lock"))  # once it is locked
        yield folder, lock.fileno()


def _address(settings: Settings) -> str:
    """Return the IP address to listen on (BentoML takes no names) after a check that it may and can be used."""
    host, port = settings.host, settings.port
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        hint = "Use 127.0.0.1 for this machine only, 0.0.0.0 for all addresses."
        raise ServingError(f"host {host} is no address of this machine.", hint=hint) from None
    loopback = ipaddress.ip_address(address[0]).is_loopback
    if settings.studio and not loopback:
        raise ServingError(f"host {host} is reached from other machines; the studio listens on 127.0.0.1 alone.")
    if not (loopback or settings.tokens or settings.open or settings.public):
        hint = "Set tokens (FEWPAIR_TOKENS_FILE=tokens.txt, one a line), or --open (--public limits each client too)."
        raise ServingError(f"host {host} is reached from other machines, and no tokens are set.", hint=hint)
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        hint = f"Stop the program that listens there, or choose another one: --port {min(port + 1, 65535)}."
        raise ServingError(f"port {port} of {host} cannot be used: {error.strerror}.", hint=hint) from None
    return str(address[0])


def _end_with_parent() -> None:
    """Have Linux stop the calling process when its parent dies."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


class _Server:
    """BentoML's server as a child process."""

    def __init__(self, settings: Settings, *, address: str, folder: str) -> None:
        self._settings = settings
        self._grace = settings.timeout + _GRACE
        self._command = [
            sys.executable, "-m", "bentoml", "serve", "serving.service:Translator", "--working-dir", str(_ROOT),
            "--host", address, "--port", str(settings.port), "--timeout-graceful-shutdown", str(self._grace),
        ]  # fmt: skip
        own = {"BENTOML_HOME": folder, "GRADIO_TEMP_DIR": folder, "TMPDIR": folder}
        self._environment = {**_DEFAULTS, **os.environ, **own, **settings.environment()}
        self._environment.pop("BENTOML_CONTAINERIZED", None)  # with it BentoML does not replace a worker that died
        self._host = _REACHED_AT.get(address, address)
        self._url = f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{settings.port}"
        self._child: subprocess.Popen[bytes] | None = None
        self._signals = 0

    def run(self, lock: int) -> int:
        """Serve until a signal comes or the server ends by itself; return the exit code. The child inherits `lock`."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        chosen = self._settings.model_dump(mode="json", exclude_unset=True)  # secrets hidden
        self._say(f"Starting on {self._url} with {chosen or 'the default settings'}")
        self._child = child = subprocess.Popen(
            self._command, env=self._environment, start_new_session=True, preexec_fn=_end_with_parent, pass_fds=[lock]
        )
        try:
            if self._signals:  # the signal came before there was a child to pass it on to
                child.terminate()
            elif self._wait_until_ready(child):
                self._say(self._greeting())
            while not self._signals and child.poll() is None:
                time.sleep(0.1)
            if not self._signals:
                print(f"the server ended by itself with exit code {child.returncode}.", file=sys.stderr)
                return 1
            child.wait(self._grace + _GRACE)
        except subprocess.TimeoutExpired:
            print("the server did not stop in time and was killed.", file=sys.stderr)
        finally:
            self._kill()
        return 0

    def _stop(self, *_: Any) -> None:
        """Pass a first signal on; the server finishes its requests. A second signal stops it immediately."""
        self._signals += 1
        if self._child is not None and self._signals == 1:
            self._child.terminate()
        else:
            self._kill()

    def _kill(self) -> None:
        """Kill BentoML's supervisor, and then its worker, which is in a session of its own."""
        if self._child is not None and self._child.poll() is None:
            supervisor = psutil.Process(self._child.pid)
            for process in (supervisor, *supervisor.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def _wait_until_ready(self, child: subprocess.Popen[bytes]) -> bool:
        """Return whether the server is ready, False after a signal. Raises ServingError where it will not be ready."""
        until = time.monotonic() + _READY_WITHIN
        while not self._signals:
            if child.poll() is not None:
                raise ServingError("the server ended while it started; its messages above say why.")
            if time.monotonic() > until:
                raise ServingError(f"the server was not ready within {_READY_WITHIN:g} s.")
            # not httpx, which takes 7 MB that the launcher would keep
            with contextlib.closing(HTTPConnection(self._host, self._settings.port, timeout=5)) as connection:
                try:
                    connection.request("GET", "/readyz")
                    answer = connection.getresponse()
                    body = answer.read()
                except (OSError, HTTPException):
                    time.sleep(0.1)
                    continue
            if answer.status != 200:
                raise ServingError(f"the server cannot serve: {json.loads(body)['error']['message']}")
            return True
        return False

    def _say(self, text: str) -> None:
        print(text, flush=True, file=sys.stderr if self._settings.log == "json" else sys.stdout)

    def _greeting(self) -> str:
        settings, options, host = self._settings, "", self._host
        if settings.tokens:
            options = "-H 'Authorization: Bearer TOKEN' "
        if settings.allowed_hosts:
            host = settings.allowed_hosts[0].replace("*", "fewpair")
            options += f"-H 'Host: {host}' "
        base = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
        if settings.studio:
            return f"\nReady. Open the studio of {settings.studio}:\n\n  {base}/ui/\n\nCtrl-C stops it.\n"
        hint = " (any user name, a token as the password)" if settings.tokens else ""
        page = f"  models  {settings.models}\n"
        page += f"  page    {base}/ui/{hint}\n" if settings.ui else ""
        curl = f"  try     curl {options}-F image=@photo.jpg {self._url}/segment -o label.png\n"
        return f"\nReady.\n\n{page}  API     {base}/v1/docs\n{curl}\nCtrl-C stops it, a second Ctrl-C immediately.\n"


if __name__ == "__main__":
    sys.exit(main())
