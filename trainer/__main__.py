"""What `fewpair` and `python -m trainer` start. Standard library only; a command imports what it needs when it is asked for."""

import difflib
import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from trainer.errors import UserError


class Command(NamedTuple):
    """One word after `fewpair`: where its function lives, which extra brings what that imports, and its line in the help."""

    module: str
    function: str
    extra: str
    summary: str


COMMANDS = {
    "pairs": Command("trainer.commands.pairs", "pairs", "train", "choose which k photos to label, and write pairs.json"),
    "train": Command("trainer.commands.train", "train", "train", "train a recipe on the pairs and on everything unpaired, or resume a run"),
    "evaluate": Command(
        "trainer.commands.evaluate", "evaluate", "train", "measure a run on a split: mean and per-class IoU, L1, PSNR, pictures"
    ),
    "compare": Command("trainer.commands.compare", "compare", "train", "show runs side by side: the same samples, a column a run"),
    "experiment": Command(
        "trainer.commands.experiment", "experiment", "train", "rebuild a paper's table: run what is missing, beside the paper's figures"
    ),
    "report": Command("trainer.commands.report", "report", "train", "write a table's pages and plot from its results alone"),
    "export": Command("trainer.commands.export", "export", "train", "write a run to exported/ as ONNX, proven equal to torch"),
    "predict": Command("serving.__main__", "main", "serve", "run an exported model over a folder of pictures"),
    "serve": Command("serving.__main__", "main", "serve", "serve what lies in exported/, over REST and in the browser"),
    "demo": Command("trainer.demo", "main", "train", "the whole way once on built-in scenes: pairs, train, evaluate, export, serve"),
}

OURS = ("trainer", "serving")

REMEDIES = {
    errno.ENOSPC: "free some space, or name a folder on another disk",
    errno.EDQUOT: "free some space, or name a folder on another disk",
    errno.EACCES: "name a place that you may read and write, or change its permissions",
    errno.EPERM: "name a place that you may read and write, or change its permissions",
    errno.EROFS: "name a place that can be written to",
    errno.ENOTDIR: "a file stands where a folder is needed; name a folder",
    errno.EEXIST: "something stands there already; name another place",
    errno.EISDIR: "a folder stands where a file is needed; name a file",
    errno.ENOENT: "check the spelling, and that what it lies in is there",
}
"""What to do about what the operating system refused."""


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
            raise UserError(unknown(name))
        code = load(name)(["predict", *rest] if name == "predict" else rest)
    except UserError as error:
        print(f"fewpair: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] in OURS:
            raise
        print(f"fewpair: {lacking(name, missing.name)}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"fewpair: {refused(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nfewpair: stopped by Ctrl-C", file=sys.stderr)
        return 130
    return code or 0


def overview() -> str:
    """What `fewpair --help` prints."""
    lines = "".join(f"  {name:<12}{command.summary}\n" for name, command in COMMANDS.items())
    return (
        "usage: fewpair COMMAND [options]\n\n"
        "From a handful of labelled photos to a served model: photo -> label map, label map -> photo.\n\n"
        f"commands:\n{lines}\n"
        "`fewpair COMMAND --help` says what each one takes. Start with `fewpair demo`.\n"
    )


def unknown(name: str) -> str:
    """The sentence for a command that does not exist, with the nearest that does."""
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"there is no command {name!r}" + (f"; did you mean {near[0]!r}?" if near else f"; the commands are {', '.join(COMMANDS)}")


def lacking(name: str, package: str) -> str:
    """The sentence for a package that is not installed."""
    extra = COMMANDS[name].extra
    word = {"train": "training", "serve": "serving"}[extra]
    return f"fewpair {name} needs the {word} extra (there is no {package} here): pip install '.[{extra}]' in a clone of the project"


def refused(error: OSError) -> str:
    """The sentence for what the operating system would not do: the path where it named one, what it said, and the remedy."""
    places = [os.fsdecode(place) for place in (error.filename, error.filename2) if isinstance(place, str | bytes)]
    said = error.strerror or str(error) or type(error).__name__
    remedy = REMEDIES.get(error.errno or 0)
    return ": ".join([*([" -> ".join(places)] if places else []), said, *([remedy] if remedy else [])])


def load(name: str) -> Callable[[list[str]], int | None]:
    """Import the function behind a command."""
    command = COMMANDS[name]
    function: Callable[[list[str]], int | None] = getattr(importlib.import_module(command.module), command.function)
    return function


if __name__ == "__main__":
    sys.exit(main())
