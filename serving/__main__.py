"""The launcher, `python -m serving`: checks what can be checked, says what it starts, starts it and stops it; also `predict`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

from serving.child import ROOT, end_with_parent, listens
from serving.configuration import Configured, Said, child_environment, configure, is_loopback, strangers
from serving.errors import ServingError
from serving.hosts import answers_to, example
from serving.jobstore import open_store
from serving.misspelt import parsed
from serving.settings import DEVICES, Settings
from serving.temporary import folder_of_its_own
from serving.trial import try_models

_READY_WITHIN = 300.0
_STOP = (signal.SIGTERM, signal.SIGINT)
_LEAVING = 20.0  # beyond the requests: streams of the page, sessions and threads
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # what is bound, and where that is reached from here
_LAST_STREAMS = "3"  # seconds: once all requests are answered, only the event streams of open pages are left
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
    asked = parsed(_parser(), argv)
    configured = _from_anywhere(configure(_flags(asked), os.environ, file=asked.config))
    settings = configured.settings
    if asked.print_settings:
        print(*configured.lines(), sep="\n")
        return 0
    say = partial(print, flush=True, file=sys.stderr if settings.log == "json" else sys.stdout)  # there stdout is for lines of JSON
    for sentence in strangers(os.environ):
        print(sentence, file=sys.stderr)
    host = _address(configured)
    _check_open(configured, host)
    _check_port(host, settings.port)
    if settings.jobs is not None:
        open_store(settings.jobs)  # every worker opens it for itself, and would end without it
    for number in _STOP:  # the first process of a container has no default for them, and would load the models to the end
        signal.signal(number, _leave)
    # What cannot work is said here, not by a server that restarts for ever.
    try_models(child_environment(settings, os.environ), spelled=configured.spelled)
    url = _url(host, settings.port)
    where = f"{_bound(host, settings.port)}, here {url}" if host in _EVERYWHERE else url
    say(*_first_words(configured, where, host=host), sep="\n")
    return _Server(settings, host=host, say=say).run(url)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fewpair serve",
        description="Serve the exported models over REST and in the browser. `fewpair predict` runs one over a folder.",
        epilog="Each option has an environment variable (FEWPAIR_MODELS, FEWPAIR_DEVICE, ...) and a key of the configuration file (models, "
        "device, ...); the option wins over the variable, the variable over the file. By variable and file only: limits, tokens "
        "(FEWPAIR_TOKENS_FILE), CORS, host names and logs. docs/operations.md lists them all, --print-settings tells what they are here.",
    )
    parser.add_argument("--config", metavar="FILE", help="a TOML file of settings (default: the one that FEWPAIR_CONFIG names)")
    parser.add_argument("--models", metavar="FOLDER", help="folder of exported models (default: exported)")
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1, this machine only); others need tokens")
    parser.add_argument("--open", action="store_true", help="without tokens on a public address: everybody who reaches it may use it")
    parser.add_argument("--port", help="port to listen on (default: 3000)")
    parser.add_argument(
        "--device", choices=DEVICES, help="auto: CUDA where there is one; cuda, tensorrt: refuse to start without (default: auto)"
    )
    parser.add_argument("--default-model", metavar="NAME", help="who answers when no model is named (default: the first by name)")
    parser.add_argument("--no-ui", action="store_true", help="without the page at /ui")
    parser.add_argument("--workers", metavar="N", help="processes, each with its own copy of the models; over 1 needs --no-ui")
    parser.add_argument("--threads", metavar="N", help="CPU threads of one run (default: all cores, shared out)")
    parser.add_argument("--access-log", action="store_true", help="write a line for every request")
    parser.add_argument("--print-settings", action="store_true", help="print every setting with where it comes from, and start nothing")
    return parser


def _flags(asked: argparse.Namespace) -> dict[str, Said]:
    """What was typed, by the setting it sets."""
    typed = {"models": asked.models, "host": asked.host, "port": asked.port, "device": asked.device, "default_model": asked.default_model}
    typed |= {"workers": asked.workers, "threads": asked.threads}
    flags = {name: Said(value, f"--{name.replace('_', '-')}") for name, value in typed.items() if value is not None}
    if asked.no_ui:
        flags["ui"] = Said("off", "--no-ui")
    if asked.open:
        flags["open"] = Said("on", "--open")
    if asked.access_log:
        flags["access_log"] = Said("on", "--access-log")
    return flags


def _first_words(configured: Configured, where: str, *, host: str) -> Iterator[str]:
    reaching = "for programs of this machine" if is_loopback(host) else "for whoever reaches it"
    door = "for whoever has a token" if configured.settings.tokens else reaching
    threads = configured.settings.intra_op_threads
    yield f"Starting on {where}, {door}, {threads} {'thread' if threads == 1 else 'threads'} a run, with:"
    yield from configured.decisive()
    yield from configured.hidden_models()
    yield f"All settings (--print-settings tells where each comes from): {configured.in_one_line()}"


def _from_anywhere(configured: Configured) -> Configured:
    """The server is started in another folder."""
    settings = configured.settings
    jobs = settings.jobs and settings.jobs.expanduser().resolve()
    return replace(configured, settings=replace(settings, models=settings.models.expanduser().resolve(), jobs=jobs))


def _check_open(configured: Configured, host: str) -> None:
    """Refuse to let everybody in by accident."""
    settings = configured.settings
    if not (is_loopback(host) or settings.tokens or settings.open):
        raise ServingError(
            f"{configured.spelled('host')} is reached from other machines, and no token is asked for.",
            hint="Give out tokens (FEWPAIR_TOKENS_FILE=tokens.txt, one a line), or say --open (FEWPAIR_OPEN=on) if everybody may use it.",
        )


def _leave(*_: Any) -> NoReturn:
    """Stop while nothing has been started but the trial, which is killed with this."""
    raise SystemExit(0)


def _address(configured: Configured) -> str:
    """BentoML binds addresses, people type names."""
    try:
        return str(socket.getaddrinfo(configured.settings.host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        raise ServingError(
            f"{configured.spelled('host')} is no address of this machine.",
            hint="Say 127.0.0.1 for this machine only, 0.0.0.0 for everybody.",
        ) from None


def _url(host: str, port: int) -> str:
    """What can be opened on this machine."""
    return f"http://{_EVERYWHERE.get(host) or (f'[{host}]' if ':' in host else host)}:{port}"


def _bound(host: str, port: int) -> str:
    return f"{f'[{host}]' if ':' in host else host}:{port} (every address of this machine)"


def _check_port(host: str, port: int) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ServingError(
            f"port {port} of {host} cannot be used: {error.strerror}.",
            hint=f"Stop what listens there, or say --port {min(port + 1, 65535)}.",
        ) from None


class _Server:
    """BentoML's own server as a child process: started, waited for, told to stop."""

    def __init__(self, settings: Settings, *, host: str, say: Callable[[str], object] = print) -> None:
        self._command = [
            sys.executable, "-m", "bentoml", "serve", "serving.service:Translator", "--working-dir", str(ROOT),
            "--host", host, "--port", str(settings.port), "--timeout-graceful-shutdown", _LAST_STREAMS,
        ]  # fmt: skip
        inherited = {"BENTOML_DO_NOT_TRACK": "True", "GRADIO_ANALYTICS_ENABLED": "False", **os.environ}
        inherited.pop("BENTOML_CONTAINERIZED", None)  # with it a worker that is killed would not come back
        self._environment = child_environment(settings, inherited)
        self._settings = settings
        self._bound = f"{_bound(host, settings.port)}; others open it by this machine's name" if host in _EVERYWHERE else None
        self._say = say
        self._stopping = False
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, url: str) -> int:
        """Until a signal comes, or the server ends by itself."""
        for number in _STOP:
            signal.signal(number, self._stop)
        with folder_of_its_own() as folder:
            return self._run(url, {**self._environment, "TMPDIR": str(folder)})

    def _run(self, url: str, environment: dict[str, str]) -> int:
        child = self._child = subprocess.Popen(self._command, env=environment, start_new_session=True, preexec_fn=end_with_parent)
        if self._stopping:  # the signal came while there was no child yet to pass it on to
            self._stop()
        try:
            trouble = self._until_ready(url, child)
            if trouble is None and not self._stopping:
                self._say(_welcome(url, self._settings, bound=self._bound))
            elif trouble is not None:
                print(trouble, file=sys.stderr)
                self._stop()
            code = child.wait() if not self._stopping else _wait_for_the_end(child, self._settings.longest() + _LEAVING)
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
            if not listens(child.pid, self._settings.port):  # another server may have taken the port since it was tried
                time.sleep(0.1)
                continue
            try:
                _direct.open(f"{url}/readyz", timeout=5).close()
                return None
            except urllib.error.HTTPError as error:
                return f"the server cannot serve: {json.loads(error.read())['error']['message']}"
            except OSError:
                time.sleep(0.1)
        return None if self._stopping else f"the server was not ready within {_READY_WITHIN:g} s."


def _wait_for_the_end(child: subprocess.Popen[bytes], seconds: float) -> int:
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        return child.wait()


def _welcome(url: str, settings: Settings, *, bound: str | None) -> str:
    asked = urllib.request.Request(f"{url}/v1/models")
    if settings.tokens:
        asked.add_header("Authorization", f"Bearer {settings.tokens[0]}")
    if (name := _name_to_ask_by(url, settings)) is not None:
        asked.add_header("Host", name)
    listed = json.loads(_direct.open(asked, timeout=30).read())
    lines = ["", "Ready.", ""]
    lines += [f"  model   {model['name']}: {', '.join(model['directions'])} on {model['provider']}" for model in listed["models"]]
    lines += [f"  broken  {broken['name']}: {broken['reason']}" for broken in listed["broken"]]
    if bound:
        lines.append(f"  bound   {bound}")
    return "\n".join([*lines, *_addresses(url, settings), "", "Ctrl-C stops it.", ""])


def _addresses(url: str, settings: Settings) -> Iterator[str]:
    """What can be opened and asked, by a name that the server answers to."""
    name = _name_to_ask_by(url, settings)
    address = url if name is None else f"http://{name}:{settings.port}"
    if name is not None:
        yield f"  names   it answers to {', '.join(settings.allowed_hosts)} alone (allowed_hosts), which are to lead here"
    if settings.ui:
        yield f"  page    {address}/ui/{' (any user name, a token as the password)' if settings.tokens else ''}"
    yield f"  API     {address}/v1/docs"
    token = "-H 'Authorization: Bearer TOKEN' " if settings.tokens else ""
    host = f"-H 'Host: {name}' " if name else ""
    yield f"  try     curl {token}{host}-F image=@photo.jpg {url}/segment -o label.png"


def _name_to_ask_by(url: str, settings: Settings) -> str | None:
    """None where the server answers to the address itself."""
    names = settings.allowed_hosts
    return example(names) if names and not answers_to(url.removeprefix("http://"), names) else None


if __name__ == "__main__":
    sys.exit(main())
