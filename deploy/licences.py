"""Write the list of the packages that fewpair installs, with their licences, as their metadata names them.

python -m deploy.licences > THIRD_PARTY.md      # in an environment with every package of requirements.lock
"""

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
HEAD = """# Third-party packages

The packages of `requirements.lock` and the licences that their metadata names. A server needs those of the extra
`serve` alone; some are for development only. Written by `python -m deploy.licences`. Datasets, and weights trained on
them, have terms of their own: see the cards in `exported/`.

| package | licence |
| --- | --- |"""


def main() -> None:
    """Print the list."""
    print(HEAD)
    for name in locked():
        print(f"| {name} | {licence(name)} |")


def locked() -> list[str]:
    """The names in the lock file, in its order."""
    return list(dict.fromkeys(re.findall(r"^([A-Za-z0-9_.-]+)==", LOCK.read_text(encoding="utf-8"), re.MULTILINE)))


def licence(name: str) -> str:
    """The licence of an installed package: its expression, else its classifiers, else the first line of the field."""
    try:
        found = metadata(name)
    except PackageNotFoundError:
        return "not installed here (another platform or Python)"
    classifiers = [each.rpartition(":: ")[2] for each in found.get_all("Classifier", []) if each.startswith("License")]
    names = [
        *found.get_all("License-Expression", []),
        ", ".join(classifiers),
        *found.get_all("License", []),
        "not named",
    ]
    return next(name.strip().splitlines()[0] for name in names if name.strip())


if __name__ == "__main__":
    main()
