"""The command line: `fewpair`, `python -m trainer`. Standard library only; each command imports what it needs."""

import ast
import errno
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from trainer.errors import UserError, suggestion


class Command(NamedTuple):
    """A command: its line in the help, its module and function, and the extra that installs what it imports."""

    summary: str
    module: str
    function: str
    extra: str = "train"


COMMANDS = {
    "pairs": Command("choose which k photos to label, and write pairs.json", "trainer.commands.pairs", "pairs"),
    "import": Command("turn a labelling tool's export into labels", "trainer.commands.import_labels", "import_labels"),
    "check": Command("report every problem of photos and label maps", "trainer.commands.check", "check_command"),
    "train": Command("train a recipe on pairs and unpaired data, or resume a run", "trainer.commands.train", "train"),
    "evaluate": Command("evaluate a run on a split", "trainer.commands.evaluate", "evaluate"),
    "experiment": Command("run what is missing of a paper's table", "trainer.commands.experiment", "experiment"),
    "report": Command("show runs side by side, or write a table's pages", "trainer.commands.experiment", "report"),
    "export": Command("write a run to exported/ as ONNX, compared with torch", "trainer.commands.export", "export"),
    "predict": Command("run an exported model over a folder of pictures", "serving.__main__", "main", "serve"),
    "serve": Command("serve exported models over REST and in the browser", "serving.__main__", "main", "serve"),
    "studio": Command(
        "pick, label and train in the browser, on a folder of photos", "serving.__main__", "main", "train,serve,studio"
    ),
    "poses": Command("draw poses as pictures, those of another person too", "trainer.commands.poses", "poses"),
    "demo": Command("pairs, train, evaluate, export and serve on drawn street scenes", "trainer.demo", "main"),
}

FREE = "free some space, or name a folder on another disk"
ALLOW = "name a place that you may read and write, or change its permissions"
HINTS = {
    errno.ENOSPC: FREE,
    errno.EDQUOT: FREE,
    errno.EACCES: ALLOW,
    errno.EPERM: ALLOW,
    errno.EROFS: "name a place that can be written to",
    errno.ENOTDIR: "this is a file, but a folder is needed",
    errno.EEXIST: "it exists already; name another place",
    errno.EISDIR: "this is a folder, but a file is needed",
    errno.ENOENT: "check the spelling, and that its folder exists",
}
"""What to do about an error of the operating system."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 done but not well, 2 refused, 130 stopped by Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in {"-h", "--help", "help"}:
        print(overview(), end="")
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"fewpair {version('fewpair')}")
        return 0
    name, rest = words[0], words[1:]
    try:
        if name not in COMMANDS:
            raise UserError(
                f"there is no command {name!r}{suggestion(name, COMMANDS)} `fewpair --help` lists the commands"
            )
        refuse_unknown_options(name, rest)
        return load(name)([name, *rest] if name in ("predict", "studio") else rest) or 0
    except UserError as error:
        print(f"fewpair: {error}", file=sys.stderr)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] in ("trainer", "serving"):
            raise
        extra = COMMANDS[name].extra
        install = f"pip install '.[{extra}]' in a clone of the project"
        print(f"fewpair: fewpair {name} needs {missing.name}, which is not installed: {install}", file=sys.stderr)
    except OSError as error:
        paths = " -> ".join(str(path) for path in (error.filename, error.filename2) if path is not None)
        parts = (paths, error.strerror or str(error), HINTS.get(error.errno or 0))
        print(f"fewpair: {': '.join(part for part in parts if part)}", file=sys.stderr)
    except KeyboardInterrupt as interrupt:
        print(f"\nfewpair: {str(interrupt) or 'stopped by Ctrl-C'}", file=sys.stderr)
        return 130
    return 2


def overview() -> str:
    """What `fewpair --help` prints."""
    lines = "".join(f"  {name:<12}{command.summary}\n" for name, command in COMMANDS.items())
    return (
        "usage: fewpair COMMAND [options]\n\n"
        "From a handful of labelled photos to a served model: photo -> label map, label map -> photo.\n\n"
        f"commands:\n{lines}\n"
        "`fewpair COMMAND --help` lists the options of a command. Start with `fewpair demo`.\n"
    )


def refuse_unknown_options(name: str, words: Sequence[str]) -> None:
    """Raise UserError for a mistyped option, before anything slow is imported.

    Files are parsed, not imported: the options are the fields of the dataclasses called *Options in the command's file,
    and those that begin with --config. the fields of all methods' dataclasses called *Config.
    """
    package = Path(__file__).parent
    module = COMMANDS[name].module
    if not module.startswith("trainer."):
        return
    file = package.joinpath(*module.split(".")[1:]).with_suffix(".py")
    shared = package / "commands" / "arguments.py"
    known = {"--help", *_fields("--", "Options", file), *_fields("--", "Options", shared)}
    if name == "train":
        known |= {"--help-all", *_fields("--", "Run", package / "run.py")}
    known |= {option.replace("--", "--no-", 1) for option in known}
    configs = (package / "methods").glob("*.py") if any(word.startswith("--config.") for word in words) else ()
    known |= {option for path in configs for option in _fields("--config.", "Config", path)}
    for word in words:
        option = word.partition("=")[0].replace("_", "-")
        plain = option.replace("--config.no-", "--config.", 1)
        if option.startswith("--") and option != "--" and option not in known and plain not in known:
            hint = suggestion(option, known)
            raise UserError(f"fewpair {name} has no option {option}{hint} `fewpair {name} --help` lists the options")


def load(name: str) -> Callable[[list[str]], int | None]:
    """Import a command's function; Ctrl-C ends the process at once, as it would break the import of torch."""
    command = COMMANDS[name]
    before = signal.signal(signal.SIGINT, _leave)
    try:
        return getattr(importlib.import_module(command.module), command.function)
    finally:
        signal.signal(signal.SIGINT, before)


def _fields(prefix: str, ending: str, path: Path) -> Iterator[str]:
    """Yield the options of the dataclasses in a file whose names end so, and the aliases of those options."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name.endswith(ending):
            for part in ast.walk(node):
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    yield prefix + part.target.id.replace("_", "-")
                elif isinstance(part, ast.Constant) and str(part.value).startswith("--"):
                    yield str(part.value)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"\nfewpair: stopped by Ctrl-C\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
