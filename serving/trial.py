"""Whether the models can be served at all, tried in a process of its own: what loading takes of RAM and of the device goes with it."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

from serving.child import ROOT, end_with_parent
from serving.errors import ServingError, SettingError
from serving.settings import Settings

_CANNOT = 2  # the exit code where the reason stands on standard output


def try_models(environment: Mapping[str, str], *, spelled: Callable[[str], str]) -> None:
    """Load every model once with the settings of these variables; ServingError says why none can be served.

    `spelled` tells how a setting was said, for what is the setting's fault.
    """
    tried = subprocess.run(
        [sys.executable, "-m", "serving.trial"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C is the launcher's to hear
        preexec_fn=end_with_parent,
        check=False,
    )
    said = _reason(tried.stdout) if tried.returncode == _CANNOT else None
    if said is not None:
        raise ServingError(f"{spelled(said['setting'])} {said['message']}" if "setting" in said else said["message"], hint=said["hint"])
    if tried.returncode:
        sys.stderr.write(tried.stdout)
        how = signal.Signals(-tried.returncode).name if tried.returncode < 0 else f"exit code {tried.returncode}"
        raise ServingError(
            f"loading the models ended with {how}.",
            hint="What it printed above says more; SIGKILL is what a lack of memory looks like.",
        )


def _reason(printed: str) -> dict[str, str] | None:
    """What `main` has said; None where it has not come to that. Libraries print to standard output too, and when they like."""
    for line in reversed(printed.splitlines()):
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and {"message", "hint"} <= said.keys():
            return said
    return None


def _load(settings: Settings) -> None:
    from serving.shelf import fill, model_folders

    how = "Export a model with `fewpair export RUN`, or make one with `make demo`; say --models FOLDER if they are elsewhere."
    if not settings.models.exists():
        raise ServingError(f"the models folder {settings.models} does not exist.", hint=how)
    if not settings.models.is_dir():
        raise ServingError(f"the models folder {settings.models} is a file, not a folder.", hint=how)
    if not model_folders(settings.models):
        if (settings.models / "manifest.json").is_file():
            raise ServingError(
                f"{settings.models} is a model, not a folder of models.",
                hint=f"Name the folder above it: --models {settings.models.parent}",
            )
        raise ServingError(f"the models folder {settings.models} holds no model.", hint=how)
    shelf = fill(settings)
    if not shelf.models:
        reasons = "".join(f"\n  {reason}" for reason in shelf.broken.values())
        raise ServingError(f"no model in {settings.models} can be served:{reasons}", hint=how)


def main() -> int:
    """Try the models of this environment's settings; the exit code."""
    logging.getLogger("fewpair.serving").setLevel(logging.ERROR)  # the service says again what is only worth a warning
    try:
        _load(Settings.from_environment())
    except SettingError as error:
        print(json.dumps({"setting": error.setting, "message": error.why, "hint": error.hint}))
        return _CANNOT
    except ServingError as error:
        print(json.dumps({"message": error.message, "hint": error.hint}))
        return _CANNOT
    return 0


if __name__ == "__main__":
    sys.exit(main())
