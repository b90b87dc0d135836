"""How the command lines of serving are read: as argparse does, and a misspelt option is answered with the nearest that there is."""

from __future__ import annotations

import argparse
import difflib
import itertools
import re
from collections.abc import Sequence


def parsed(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The options as typed; exit code 2 with a sentence where something is not to be understood."""
    options = ["--help", *re.findall(r"--[a-z-]+", parser.format_usage())]
    for word in itertools.takewhile(lambda word: word != "--", words):
        name = word.partition("=")[0]
        if name.startswith("--") and not any(option.startswith(name) for option in options):  # argparse takes beginnings too
            near = difflib.get_close_matches(name, options, n=1)
            parser.error(f"there is no option {name}; {f'did you mean {near[0]}?' if near else '--help lists those that there are'}")
    return parser.parse_args(words)
