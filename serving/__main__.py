"""The launcher, `python -m serving`: checks what can be checked, says what it starts, starts it and stops it; also `predict`."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from serving.errors import ServingError
from serving.settings import DEVICES, Settings

_READY_WITHIN = 300.0
_STOP_WITHIN = 40.0
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of the environment does not reach this server


def main(argv: Sequence[str] | None = None) -> int:
    """Serve, or predict; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv[:1] == ["predict"]:
            from serving.predict import predict  # onnxruntime is imported only where it is needed

            return predict(argv[1:])
        return _serve(argv)
    except ServingError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 2


def _serve(argv: Sequence[str]) -> int:
    asked = _parser().parse_args(argv)
    settings = _settings(asked)
    host = _address(asked.host)
    _check_port(host, asked.port)
    _check_models(settings)
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else f'[{host}]' if ':' in host else host}:{asked.port}"
    print(f"Starting on {url}: {_configuration(settings)}", flush=True)
    return _Server(settings, host=host, port=asked.port).run(url)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fewpair serve",
        description="Serve the exported models over REST and in the browser. `fewpair predict` runs one over a folder.",
        epilog="Each option has an environment variable (FEWPAIR_MODELS, FEWPAIR_DEVICE, ...); the option wins. "
        "Limits by variable only: FEWPAIR_MAX_BYTES, FEWPAIR_MAX_PIXELS, FEWPAIR_QUEUE, FEWPAIR_TIMEOUT; of one request with several "
        "pictures FEWPAIR_MAX_PICTURES, FEWPAIR_MAX_PIXELS_IN_ALL, FEWPAIR_MAX_UNPACKED_BYTES. FEWPAIR_URL_HOSTS names the hosts that "
        "pictures may be fetched from (none).",
    )
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="folder of exported models (default: exported)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)")
    parser.add_argument("--port", type=int, default=3000, help="port to listen on (default: %(default)s)")
    parser.add_argument("--device", choices=DEVICES, help="auto: CUDA where there is one; cuda: refuse to start without (default: auto)")
    parser.add_argument("--default-model", metavar="NAME", help="who answers when no model is named (default: the first by name)")
    parser.add_argument("--no-ui", action="store_true", help="without the page at /ui")
    parser.add_argument("--workers", type=int, metavar="N", help="processes, each with its own copy of the models; over 1 needs --no-ui")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of one run (default: all cores, shared out)")
    parser.add_argument("--access-log", action="store_true", help="log every request")
    return parser


def _settings(asked: argparse.Namespace) -> Settings:
    """The environment, overridden by what was typed."""
    chosen = {
        "FEWPAIR_MODELS": asked.models,
        "FEWPAIR_DEVICE": asked.device,
        "FEWPAIR_DEFAULT_MODEL": asked.default_model,
        "FEWPAIR_UI": "off" if asked.no_ui else None,
        "FEWPAIR_WORKERS": asked.workers,
        "FEWPAIR_THREADS": asked.threads,
        "FEWPAIR_ACCESS_LOG": "on" if asked.access_log else None,
    }
    settings = Settings.from_environment({**os.environ, **{name: str(value) for name, value in chosen.items() if value is not None}})
    return replace(settings, models=settings.models.expanduser().resolve())


def _address(host: str) -> str:
    """BentoML binds addresses, people type names."""
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        raise ServingError(
            f"--host {host} is no address of this machine.", hint="Say 127.0.0.1 for this machine only, 0.0.0.0 for everybody."
        ) from None


def _check_port(host: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise ServingError(f"--port {port} lies outside 1 to 65535.")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ServingError(
            f"port {port} of {host} cannot be used: {error.strerror}.",
            hint=f"Stop what listens there, or say --port {min(port + 1, 65535)}.",
        ) from None


def _check_models(settings: Settings) -> None:
    """Load every model once, so that what cannot work is said here and not by a server that restarts for ever."""
    from serving.shelf import fill, model_folders

    how = "Export a model with `fewpair export RUN`, or make one with `make demo`; say --models FOLDER if they are elsewhere."
    if not settings.models.is_dir():
        raise ServingError(f"the models folder {settings.models} does not exist.", hint=how)
    if not model_folders(settings.models):
        raise ServingError(f"the models folder {settings.models} holds no model.", hint=how)
    shelf = fill(settings)
    if not shelf.models:
        raise ServingError(f"no model in {settings.models} can be served: {'; '.join(shelf.broken.values())}", hint=how)
    del shelf
    gc.collect()


def _configuration(settings: Settings) -> str:
    return ", ".join(
        f"{name}={value}"
        for name, value in (
            ("models", settings.models),
            ("device", settings.device),
            ("page", "on" if settings.ui else "off"),
            ("workers", settings.workers),
            ("threads", settings.intra_op_threads),
            ("runs at once", settings.runs_at_once),
            ("queue", settings.queue),
            ("limit", f"{settings.max_bytes / 2**20:.4g} MiB, {settings.max_pixels / 1e6:.4g} megapixels"),
            ("fetches from", ",".join(settings.url_hosts) or "nowhere"),
        )
    )


class _Server:
    """BentoML's own server as a child process: started, waited for, told to stop."""

    def __init__(self, settings: Settings, *, host: str, port: int) -> None:
        root = Path(__file__).resolve().parent.parent  # the folder that holds the package, so that the import works from anywhere
        self._command = [
            sys.executable, "-m", "bentoml", "serve", "serving.service:Translator", "--working-dir", str(root),
            "--host", host, "--port", str(port), "--timeout-graceful-shutdown", "20",
        ]  # fmt: skip
        self._environment = {"BENTOML_DO_NOT_TRACK": "True", "GRADIO_ANALYTICS_ENABLED": "False", **os.environ, **settings.environment()}
        self._settings = settings
        self._stopping = False
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, url: str) -> int:
        """Until a signal comes, or the server ends by itself."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        child = self._child = subprocess.Popen(self._command, env=self._environment, start_new_session=True, preexec_fn=_end_with_parent)
        if self._stopping:  # the signal came while there was no child yet to pass it on to
            self._stop()
        try:
            trouble = self._until_ready(url, child)
            if trouble is None and not self._stopping:
                print(_welcome(url, page=self._settings.ui), flush=True)
            elif trouble is not None:
                print(trouble, file=sys.stderr)
                self._stop()
            code = child.wait() if not self._stopping else _wait_for_the_end(child)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
        if self._stopping:
            return 0 if trouble is None else 1
        print(f"the server ended by itself with exit code {code}.", file=sys.stderr)
        return 1

    def _stop(self, *_: Any) -> None:
        self._stopping = True
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)

    def _until_ready(self, url: str, child: subprocess.Popen[bytes]) -> str | None:
        """None once the server is ready, or the reason why it will not be."""
        until = time.monotonic() + _READY_WITHIN
        while time.monotonic() < until and not self._stopping:
            if child.poll() is not None:
                return "the server ended while it started; what it printed above says why."
            try:
                _direct.open(f"{url}/readyz", timeout=5).close()
                return None
            except urllib.error.HTTPError as error:
                return f"the server cannot serve: {json.loads(error.read())['error']['message']}"
            except OSError:
                time.sleep(0.1)
        return None if self._stopping else f"the server was not ready within {_READY_WITHIN:g} s."


def _wait_for_the_end(child: subprocess.Popen[bytes]) -> int:
    try:
        return child.wait(_STOP_WITHIN)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        return child.wait()


def _welcome(url: str, *, page: bool) -> str:
    listed = json.loads(_direct.open(f"{url}/v1/models", timeout=30).read())
    lines = ["", "Ready.", ""]
    lines += [f"  model   {model['name']}: {', '.join(model['directions'])} on {model['provider']}" for model in listed["models"]]
    lines += [f"  broken  {broken['name']}: {broken['reason']}" for broken in listed["broken"]]
    if page:
        lines.append(f"  page    {url}/ui/")
    lines += [f"  API     {url}/v1/docs", f"  try     curl -F image=@photo.jpg {url}/segment -o label.png", "", "Ctrl-C stops it.", ""]
    return "\n".join(lines)


def _end_with_parent() -> None:
    """On Linux the kernel stops the child when this process is killed, so that no server lingers on its port."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
