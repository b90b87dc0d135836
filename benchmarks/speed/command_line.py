"""How soon the command line answers, beside an interpreter that does nothing."""

import subprocess
import sys

from benchmarks.figures import Figure, compared, in_turn

TYPED = {
    "python -c pass": ["-c", "pass"],
    "fewpair --help": ["-m", "trainer", "--help"],
    "fewpair train --stpes 3": ["-m", "trainer", "train", "--stpes", "3"],
    "fewpair serve --prot 3000": ["-m", "trainer", "serve", "--prot", "3000"],
}


def measure(*, threads: int, quick: bool) -> list[Figure]:
    """From start to end of the process."""

    def asked(words: list[str]) -> None:
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
        if done.returncode not in (0, 2):
            raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")

    actions = {name: lambda words=words: asked(words) for name, words in TYPED.items()}
    return compared("command", in_turn(actions, rounds=2 if quick else 15), {})
