"""Compare the losses of 20 steps of each recipe with those of another checkout, on drawn scenes in fp32.

python -m benchmarks.loss_curves CHECKOUT --out CURVES --vgg VGG > docs/results/loss_curves.md

Both checkouts run in this environment. What is trained in the folder CURVES already is not trained again.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data.class_table import class_rows
from trainer.data.synthetic.scenes import CLASSES, draw
from trainer.experiment.report import markdown
from trainer.recipes import RECIPES

STEPS, SIZE, SCENES = 20, 64, 24
TRAIN = """
import json, sys
from pathlib import Path
from trainer.commands.train import train
from trainer.recipes import RECIPES

out, common, own, recipes = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
for name, recipe in recipes.items():
    run = RECIPES[recipe]
    if not (out / name / "last.ckpt").exists():
        counts = ["--pairs", "8" if run.pairs else "0", "--unpaired", "0" if run.unpaired == 0 else "16"]
        train([recipe, "--out", str(out / name), *common, *counts, *own.get(run.method, ()), *own.get(name, ())])
"""
FORMER = {
    "hybrid-paper": "hybrid-paper",
    "hybrid-paper-pix2pix": "pix2pix-paper",
    "hybrid-paper-cyclegan": "cyclegan-paper",
    "hybrid-paper-tripathy": "tripathy-paper",
    "ucsd-paired": "ucsd-paired",
    "ucsd-unpaired": "ucsd-unpaired",
}
"""The recipes at a paper's size, and what they are called in the other checkout."""
LARGE = ["--size", "256x256", "--batch", "1"]
"""A U-Net of eight levels takes no smaller picture."""
LEFT_OUT = {
    "bicycle-gan-compact": "not compared: new",
    "cc-fpse-compact": "not compared: new",
    "mean-teacher-compact": "not compared: another network, schedule and colour jitter since ([camvid.md](camvid.md))",
    "painter-compact": "not compared: new",
    "pix2pixhd-compact": "not compared: new",
    "dance-compact": "not compared: new",
    "scenes-demo": "not compared: it trains `mean_teacher` since, not `hybrid`",
}
PAPERS = """\
`ucsd-paired` and `ucsd-unpaired` ran at 256x256 with batches of one. The `-paper` recipes of spade, oasis, usis,
semipaired, pix2pix and cyclegan were not compared: they have had other settings since, each its own paper's."""


def main() -> None:
    """Train what is missing, and print the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vgg", type=Path, required=True)
    asked = parser.parse_args()
    out, vgg = asked.out.resolve(), ["--config.vgg", str(asked.vgg.resolve())]
    if not (out / "data").exists():
        write_scenes(out / "data")
    common = ["--data", "folders", "--root", str(out / "data"), "--size", f"{SIZE}x{SIZE}", "--steps", str(STEPS)]
    common += ["--precision", "fp32", "--device", "cpu", "--threads", "1", "--log-every", "1"]
    own = {"tripathy": ["--config.paired-steps", "5"], "spade": vgg, "semipaired": vgg}
    own |= {"ucsd-paired": LARGE, "ucsd-unpaired": LARGE}
    compact = [name for name in RECIPES if (name == "judge" or "-compact" in name) and name not in LEFT_OUT]
    now = {name: name for name in (*compact, *FORMER)}
    for name, checkout, recipes in (
        ("before", asked.checkout.resolve(), now | FORMER),
        ("now", Path(__file__).parents[1], now),
    ):
        words = [str(out / name), *map(json.dumps, (common, own, recipes))]
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        script = [sys.executable, "-c", TRAIN, *words]
        subprocess.run(script, cwd=checkout, env=environment, stdout=sys.stderr, check=True)
    commit, here = (
        subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=each, text=True).strip()
        for each in (asked.checkout, Path(__file__).parent)
    )
    print(f"# Losses beside those of commit {commit}\n")
    print(
        f"The recipes with their own networks, rates and batches: {STEPS} steps on {SIZE}x{SIZE} crops of "
        f"{SCENES} drawn scenes (8 pairs, 16 unpaired), seed 0, fp32, one CPU thread, both commits (this one: {here}) "
        "on one machine with the same packages. Losses are compared step by step, by their "
        "place in the log: some have other names since.\n"
    )
    rows = [row(name, out) for name in sorted(path.name for path in (out / "now").iterdir())]
    rows += [[name, why, "-", "-", "-"] for name, why in LEFT_OUT.items()]
    print(
        markdown(["recipe", "losses with other names", "steps", "values", "largest relative difference"], rows, words=2)
    )
    print(f"\n{PAPERS} Written by `benchmarks/loss_curves.py`.")


def write_scenes(root: Path) -> None:
    """Write scenes as photos, label maps of ids and a class table: each commit would draw its own otherwise."""
    for side in ("photos", "labels"):
        (root / side).mkdir(parents=True)
    for number in range(SCENES):
        photo, label = draw(number, height=SIZE, width=SIZE * 3 // 2)
        for side, picture in (("photos", photo), ("labels", CLASSES.index_to_id()[label])):
            Image.fromarray(picture).save(root / side / f"{number:02}.png")
    (root / "classes.csv").write_text(class_rows(CLASSES))


def row(name: str, out: Path) -> list[str]:
    """Compare the two runs of a recipe."""
    before, now = (losses(out / which / name) for which in ("before", "now"))
    pairs = [pair for each in zip(before, now, strict=True) for pair in zip(*each, strict=True)]
    old, new = np.array([[former[1], latter[1]] for former, latter in pairs]).T
    largest = (np.abs(new - old) / np.maximum(np.abs(old), 1e-12)).max()
    renamed = dict.fromkeys(f"`{former[0]}` is `{latter[0]}`" for former, latter in pairs if former[0] != latter[0])
    return [name, ", ".join(renamed), str(len(now)), str(len(pairs)), f"{largest:.1e}" if largest else "0 (equal)"]


def losses(run: Path) -> list[list[tuple[str, float]]]:
    """The losses of each step, by name."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [[each for each in line.items() if "/" in each[0]] for line in lines if "peak_memory_mib" in line]


if __name__ == "__main__":
    main()
