"""The tutorial's commands, one after the other, on drawn street scenes; and the figures of the README."""

import json
import re
import shlex
import textwrap
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from serving.imaging.annotations import FORMATS
from serving.imaging.domain import ClassRow, Domain
from tests.serving.process import running_server
from trainer.__main__ import main
from trainer.data.class_table import read_classes
from trainer.data.synthetic import scenes

ROOT = Path(__file__).parents[1]
SHORTER = {
    "fewpair train --root mine --out": "--size 64x96 --steps 60 --config.warm-up 30",
    "fewpair train --root mine --to photo": "--size 64x96 --steps 2",
}
"""What is added to commands that take long."""


def commands(page: str) -> list[str]:
    """The page's commands that begin with `fewpair`, in order."""
    return re.findall(r"^    (fewpair .+?)(?: +#.*)?$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorial_leads_from_photos_to_a_server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine"
    (mine / "photos").mkdir(parents=True)
    truth = {}
    for index in range(12):
        photo, truth[f"{index:04d}"] = scenes.draw(index, height=96, width=128, split="train")
        Image.fromarray(photo).save(mine / "photos" / f"{index:04d}.jpg", quality=92)
    rows = [ClassRow(255 if row.ignore else row.id, row.name, row.color, row.ignore) for row in scenes.CLASSES.rows]
    lines = [f"{row.id},{row.name},{','.join(map(str, row.color))},{int(row.ignore)}" for row in rows]
    (mine / "classes.csv").write_text("\n".join(["id,name,r,g,b,ignore", *lines]))
    served = []
    for command in commands("docs/tutorial.md"):
        if command.startswith("fewpair import"):
            label_by_hand(tmp_path, truth, Domain("classes", tuple(rows)))
        if command.split()[1] == "studio":  # tests/browser walks through it
            continue
        if command.split()[1] == "serve":
            served.append(command)
        else:
            more = next((more for begin, more in SHORTER.items() if command.startswith(begin)), "")
            assert main(shlex.split(f"{command} {more}")[1:]) == 0, command
    assert len(list((mine / "labels").iterdir())) == 6
    assert len(list((tmp_path / "predicted").iterdir())) == 12
    assert served == ["fewpair serve --default-model mine"]
    with running_server(tmp_path / "exported", tmp_path / "home", "--default-model", "mine", "--no-ui") as server:
        photo = (mine / "photos/0001.jpg").read_bytes()
        answer = httpx.post(f"{server.url}/segment", files={"image": photo}, timeout=60)
    assert answer.headers["x-model"] == "mine"
    assert {path.name for path in (tmp_path / "exported").iterdir()} == {"mine", "painter"}


def label_by_hand(folder: Path, truth: dict[str, np.ndarray], domain: Domain) -> None:
    """Label the picks as a user of labelme would."""
    tool = FORMATS["labelme"](folder / "labelled", domain)
    for pick in json.loads((folder / "pairs.json").read_text())["pairs"]:
        tool.add(Path(Path(pick["photo"]).name), truth[pick["name"]], photo=folder / "mine" / pick["photo"])
    tool.close()


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_class_table_of_a_page_is_one_that_a_model_can_have(page, tmp_path):
    table = re.search(
        r"^    id,name,r,g,b,ignore\n(?:    .+\n)+", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE
    )
    (tmp_path / "classes.csv").write_text(textwrap.dedent(table.group()), encoding="utf-8")
    rows = read_classes(tmp_path / "classes.csv").rows
    assert len({row.color for row in rows}) == len(rows)  # the server refuses models of which two classes look alike


def test_the_figures_of_the_readme_are_those_of_the_results():
    readme, page = ((ROOT / name).read_text() for name in ("README.md", "docs/results/camvid.md"))
    figures = json.loads((ROOT / "exported/camvid-segmenter/manifest.json").read_text())["metrics"]
    val, devtest = (f"{figures[split]['mean_iou']:.3f}" for split in ("val", "devtest"))
    assert f"| {val} | {devtest} |" in readme
    rows = re.findall(r"\| `([\w-]+)` \| (val|devtest) \| \d+ \| ([\d.]+) \|", page)
    kid = {(model, split): value for model, split, value in rows}
    assert f"| {kid['camvid-painter', 'val']} | {kid['camvid-painter', 'devtest']} |" in readme
    other = (kid["camvid-semipaired-compact", split] for split in ("val", "devtest"))
    assert f"`camvid-semipaired-compact`: {', '.join(other)} |" in readme
