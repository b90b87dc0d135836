"""Run the Dockerfile's steps in a clean root without a container engine, and start its server.

    sudo .venv/bin/python deploy/rehearse.py BASE [--device cuda] [--folder FOLDER]

BASE is the root of a Debian with python3 and python3-venv, as `debootstrap --variant=minbase
--include=python3,python3-venv,ca-certificates bookworm BASE` makes it: Debian 12 has the Python of the base image
(3.11), whose own Debian (13, trixie) has another. It stands in for that image, a chroot for the engine: what it shows
holds of the steps and of the server's user and files, not of an image. Needs Linux, root and the internet; FOLDER needs
2 GB (cuda: 6 GB).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
READY_WITHIN = 180.0


@dataclass
class Stage:
    """A root folder, and what ENV, WORKDIR, USER, HEALTHCHECK and ENTRYPOINT have said about it so far."""

    root: Path
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    )
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    healthcheck: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)

    def expand(self, text: str) -> str:
        """${NAME} as ARG and ENV have it."""
        return re.sub(r"\$\{(\w+)\}", lambda found: {**self.arguments, **self.environment}.get(found[1], ""), text)

    def note(self, word: str, rest: str, *, device: str) -> None:
        """Take down an instruction that runs and copies nothing."""
        if word == "ARG":
            name, _, default = rest.partition("=")
            self.arguments[name] = device if name == "DEVICE" else default
        elif word == "ENV":
            for name, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|(\S*))', rest):
                self.environment[name] = self.expand(quoted or bare)
        elif word == "WORKDIR":
            self.folder = rest
        elif word == "USER":
            self.user = rest
        elif word == "HEALTHCHECK":
            self.healthcheck = json.loads(rest.partition(" CMD ")[2])
        elif word == "ENTRYPOINT":
            self.entrypoint = json.loads(rest)
        elif word not in ("LABEL", "EXPOSE"):
            raise SystemExit(f"{word} {rest}: this instruction cannot be rehearsed; teach deploy/rehearse.py to do it.")


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Each instruction with its arguments on one line, comments dropped."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        (word.upper(), rest.strip())
        for word, _, rest in (line.strip().partition(" ") for line in joined.splitlines())
        if word
    ]


def build(dockerfile: str, *, base: Path, folder: Path, device: str) -> Stage:
    """Run every step; the last stage."""
    stages: dict[str, Stage] = {}
    stage = Stage(folder)
    for word, rest in instructions(dockerfile):
        print(f"{word} {rest[:150]}", flush=True)
        if word == "FROM":
            name = rest.split()[-1] if " AS " in rest else "last"
            stage = stages[name] = Stage(fresh_root(base, folder / name))
            lend_network(stage.root)
        elif word == "RUN":
            run(["/bin/sh", "-c", rest], stage)
        elif word == "COPY":
            copy(rest, stage, stages)
        else:
            stage.note(word, rest, device=device)
            if word == "WORKDIR":
                (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
    return stage


def fresh_root(base: Path, root: Path) -> Path:
    if root.exists():
        shutil.rmtree(root)
    subprocess.run(["cp", "-a", "--reflink=auto", base, root], check=True)
    return root


def lend_network(root: Path) -> None:
    """How this machine finds and trusts others, as an engine would lend it to a build."""
    for file in ("etc/resolv.conf", "etc/hosts", "etc/ssl/certs/ca-certificates.crt", "etc/pip.conf"):
        if Path("/", file).exists():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).unlink(missing_ok=True)
            shutil.copyfile(Path("/", file), root / file)


def run(command: list[str], stage: Stage) -> None:
    lent = {
        name: value
        for name, value in os.environ.items()
        if re.match(r"(?i)(https?|all|no)_proxy$|SSL_CERT_FILE$|PIP_|UV_", name)
    }
    environment = {**lent, **stage.arguments, **stage.environment}
    subprocess.run(["chroot", str(stage.root), *in_folder(stage.folder), *command], env=environment, check=True)


def in_folder(folder: str) -> list[str]:
    return ["/usr/bin/env", f"--chdir={folder}"]


def copy(rest: str, stage: Stage, stages: dict[str, Stage]) -> None:
    words = rest.split()
    options = [word for word in words if word.startswith("--")]
    *sources, place = [stage.expand(word) for word in words if not word.startswith("--")]
    origin = next(
        (stages[option.removeprefix("--from=")].root for option in options if option.startswith("--from=")), ROOT
    )
    target = stage.root / os.path.normpath(f"{stage.folder}/{place}" if not place.startswith("/") else place).lstrip(
        "/"
    )
    for source in sources:
        path = origin / source.lstrip("/")
        into = target / path.name if path.is_file() and (place.endswith("/") or len(sources) > 1) else target
        into.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(
                path,
                into,
                symlinks=True,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("__pycache__", ".*_cache", "ruff.toml"),
            )
        else:
            shutil.copyfile(path, into)
        for option in options:
            if option.startswith("--chown="):
                subprocess.run(["chown", "--recursive", option.removeprefix("--chown="), into], check=True)


def serve(stage: Stage, *, picture: Path) -> None:
    """Start the entry point as the image's user on a read-only root, ask it, and stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**stage.environment, "FEWPAIR_PORT": str(port), "FEWPAIR_HOST": "127.0.0.1"}
    for where in ("proc", "tmp", "dev"):
        (stage.root / where).mkdir(exist_ok=True)
    mount("--bind", stage.root, stage.root)
    mount("--types", "proc", "proc", stage.root / "proc")
    mount("--rbind", "/dev", stage.root / "dev")
    mount("--types", "tmpfs", "--options", "mode=1777,size=512m,noexec,nosuid,nodev", "tmpfs", stage.root / "tmp")
    mount("--options", "remount,bind,ro", stage.root)
    as_user = ["chroot", f"--userspec={stage.user}", "--groups=", str(stage.root)]
    inside = [*as_user, *in_folder(stage.folder), "setpriv", "--no-new-privs"]
    for place in ("/app/new", "/models/new", "/opt/fewpair/new", "/etc/new"):
        touched = subprocess.run([*inside, "touch", place], env=environment, capture_output=True, check=False)
        assert touched.returncode, f"{place} was written"
    began = time.monotonic()
    server = subprocess.Popen([*inside, *stage.entrypoint], env=environment)
    try:
        while subprocess.run(
            [*inside, *stage.healthcheck], env=environment, capture_output=True, check=False
        ).returncode:
            assert server.poll() is None, f"the server ended with exit code {server.returncode}"
            assert time.monotonic() - began < READY_WITHIN, f"not healthy within {READY_WITHIN:g} s"
            time.sleep(0.5)
        print(f"\nhealthy after {time.monotonic() - began:.1f} s", flush=True)
        ask(port, picture)
    finally:
        server.send_signal(signal.SIGTERM)
        print(f"SIGTERM: exit code {server.wait(60)}")
    written = sorted(path for path in (stage.root / "tmp").rglob("*") if path.is_file())
    print("left under /tmp:", ", ".join(str(path.relative_to(stage.root)) for path in written) or "nothing")


def check_cuda(stage: Stage) -> None:
    """Load onnxruntime's CUDA provider with the image's libraries: without a driver only that may be missing."""
    program = """
import ctypes, pathlib, onnxruntime
onnxruntime.preload_dlls(directory="")
libraries = pathlib.Path(onnxruntime.__file__).parent / "capi"
try:
    ctypes.CDLL(str(libraries / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(libraries / "libonnxruntime_providers_cuda.so"))
except OSError as error:
    print("the CUDA provider lacks", error)
else:
    print("the CUDA provider lacks nothing")
"""
    command = ["chroot", str(stage.root), "/opt/fewpair/bin/python", "-c", program]
    said = subprocess.run(command, env=stage.environment, check=True, capture_output=True, text=True).stdout
    print(said, end="")
    assert "lacks nothing" in said or "lacks libcuda.so.1" in said, "a library that the image should bring is missing"


def ask(port: int, picture: Path) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/segment",
        data=picture.read_bytes(),
        headers={"Content-Type": "image/png"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        body = answer.read()
        assert body.startswith(b"\x89PNG"), body[:200]
        print(f"POST /v1/segment: {answer.status}, a PNG of {len(body)} bytes")
    until = time.monotonic() + READY_WITHIN
    while True:  # the page comes after the API
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ui/", timeout=60) as answer:
                print(f"GET /ui/: {answer.status}")
                return
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > until:
                raise
            time.sleep(0.5)


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def report(stage: Stage, base: Path) -> None:
    """What was added to the base, in MB on disk."""
    packages = next((stage.root / "opt/fewpair/lib").glob("python*/site-packages"))
    assert not (packages / "torch").exists(), "torch is in the image"
    for place in ("opt/fewpair", "app", "models"):
        print(f"/{place}: {megabytes(stage.root / place):.0f} MB")
    print(f"the stand-in base: {megabytes(base):.0f} MB")
    largest = sorted(((megabytes(path), path.name) for path in packages.iterdir()), reverse=True)[:12]
    print("largest packages:", ", ".join(f"{name} {size:.0f}" for size, name in largest))


def megabytes(path: Path) -> float:
    return (
        int(subprocess.run(["du", "-sk", path], check=True, capture_output=True, text=True).stdout.split()[0])
        * 1024
        / 1e6
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "fewpair-rehearsal")
    asked = parser.parse_args()
    if os.geteuid():
        raise SystemExit(
            "deploy/rehearse.py changes roots, which only root may: sudo .venv/bin/python deploy/rehearse.py ..."
        )
    if (
        "FEWPAIR_REHEARSING" not in os.environ
    ):  # once more, where what is mounted is seen by nobody else and goes away with us
        os.execvpe(
            "unshare", ["unshare", "--mount", sys.executable, *sys.argv], {**os.environ, "FEWPAIR_REHEARSING": "1"}
        )
    folder = asked.folder.resolve() / asked.device
    folder.mkdir(parents=True, exist_ok=True)
    stage = build(
        (ROOT / "deploy" / "Dockerfile").read_text(), base=asked.base.resolve(), folder=folder, device=asked.device
    )
    report(stage, asked.base.resolve())
    if asked.device == "cuda":
        check_cuda(stage)
        stage.environment["FEWPAIR_DEVICE"] = "auto"  # cuda refuses to start where there is none
    serve(stage, picture=ROOT / "exported" / "camvid-hybrid-compact" / "preview.png")


if __name__ == "__main__":
    main()
