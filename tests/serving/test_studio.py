"""The studio's project folder and work, without the page."""

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from serving.api.auth import client_of
from serving.errors import Refusal, ServingError
from serving.imaging.domain import ClassRow
from serving.studio.project import Project
from serving.studio.routes import model_name
from serving.studio.work import Work, run_folders, runs_of
from trainer.export.export import NAME


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if "labels" in path.parts else "RGB", (8, 6), value).save(path)


def save(project, ids, *, before_erasing=lambda: None):
    project.save_label("a", ids, before_erasing=before_erasing)


@pytest.fixture
def project(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "photos" / f"{name}.png", (9, 9, 9))
    project = Project(tmp_path)
    project.prepare()
    return project


def test_files_of_the_same_name_in_val_are_never_overwritten_or_removed(project):
    root = project.root
    write(root / "labels" / "a.png", 0)
    write(root / "val" / "labels" / "a.png", 1)  # of no photo in val/
    assert project.labels() == {"a": root / "labels" / "a.png"}
    save(project, np.ones((6, 8), np.uint8))
    assert (root / "val" / "labels" / "a.png").exists()
    write(root / "val" / "photos" / "b.jpg", (1, 1, 1))
    for name in ("a", "b"):
        with pytest.raises(Refusal, match="has the name of"):
            project.keep(name, kept=True)
        assert (root / "photos" / f"{name}.png").exists()
    with pytest.raises(ServingError, match="two photos have the same name"):
        project.prepare()


def test_erasing_a_label_removes_its_file_whatever_its_type(project):
    write(project.root / "labels" / "a.bmp", 1)
    assert project.labelled() == {"a": 1.0}
    save(project, np.full((6, 8), 255, np.uint8))
    assert project.labels() == {}
    assert list((project.root / "labels").iterdir()) == []


def test_a_stroke_on_a_map_that_is_shown_small_keeps_the_details_elsewhere(project):
    fine = (np.indices((6, 8)).sum(0) % 2).astype(np.uint8)
    save(project, fine)
    shown = np.array(project.label("a", 4))
    shown[0] = 1 - shown[0]
    save(project, shown)
    changed = shown[:1].repeat(2, 0).repeat(2, 1)
    assert np.array_equal(project.label("a", 8), np.concatenate([changed, fine[2:]]))


def test_what_is_too_fine_to_be_shown_is_not_erased(project):
    fine = np.full((6, 8), 255, np.uint8)
    fine[1, 0] = 1
    save(project, fine)
    shown = np.array(project.label("a", 4))
    assert (shown == 255).all()
    save(project, shown)
    assert np.array_equal(project.label("a", 8), fine)


def test_a_label_that_may_not_be_erased_stays(project):
    def refuse():
        raise Refusal(409, "training", "a training runs.")

    save(project, np.ones((6, 8), np.uint8))
    with pytest.raises(Refusal, match="a training runs"):
        save(project, np.full((6, 8), 255, np.uint8), before_erasing=refuse)
    assert project.labelled() == {"a": 1.0}


def test_label_maps_in_class_colours_keep_their_classes_when_colours_are_swapped(project):
    first, second, void = project.domain().classes
    path = project.root / "labels" / "a.bmp"
    path.parent.mkdir()
    Image.new("RGB", (8, 6), second.color).save(path)
    swapped = [replace(first, color=second.color), replace(second, color=first.color), void]
    project.save_classes(swapped)
    assert project.domain().classes == tuple(swapped)
    assert (project.label("a", 8) == second.id).all()


def test_a_table_with_a_black_class_gets_a_void_class_of_another_colour(project):
    (project.root / "classes.csv").write_text("id,name,r,g,b\n0,background,0,0,0\n1,road,9,9,9\n")
    assert project.domain().classes[-1] == ClassRow(255, "void", (1, 1, 1), True)


def test_a_label_map_that_cannot_be_read_is_named(project):
    write(project.root / "labels" / "a.png", 7)
    with pytest.raises(Refusal, match=r"labels/a\.png: the label map holds ids that belong to no class: 7"):
        project.labelled()


@pytest.mark.parametrize(
    ("id", "name", "color"), [(1, "sky", (1, 2, 3)), (2, "road", (1, 2, 3)), (2, "sky", (0, 0, 0))]
)
def test_classes_with_the_same_id_name_or_colour_are_refused_and_nothing_is_lost(project, id, name, color):
    rows = (ClassRow(1, "road", (128, 64, 128), False), ClassRow(255, "void", (0, 0, 0), True))
    project.save_classes(rows)
    with pytest.raises(Refusal, match="two classes have the"):
        project.save_classes((ClassRow(id, name, color, False), *rows))
    assert project.domain().classes == rows


def test_export_accepts_the_models_name_of_any_folder(tmp_path):
    for folder in ("Photos of Mars", "2024-06-01", "фото", "x" * 63 + "-photos", "9" * 100):
        assert NAME.fullmatch(model_name(tmp_path / folder)), folder
    assert model_name(tmp_path / "2024 Trees") == "model-2024-trees"


def test_other_folders_beside_the_runs_are_left_alone(tmp_path):
    for name in ("10", "2", "1-first", "notes"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert [path.name for path in run_folders(tmp_path)] == ["2", "10"]


def test_a_run_s_outcome_is_its_evaluation_and_no_cross_validation(tmp_path):
    run = tmp_path / "runs" / "1"
    (run / "evaluation").mkdir(parents=True)
    settings = {"recipe": "own", "pairs": 5, "size": [64, 96], "steps": 10, "progressive": []}
    (run / "config.json").write_text(json.dumps(settings))
    for name in ("train-best-averaged", "cross-validation"):
        (run / "evaluation" / f"{name}.json").write_text(json.dumps({"split": name}))
    assert runs_of(tmp_path)[0]["evaluation"] == {"split": "train-best-averaged"}


def test_the_reason_of_an_earlier_failure_is_not_shown_for_a_new_one(tmp_path):
    log = tmp_path / "1.log"
    log.write_text("fewpair: the disk is full\n")

    async def run():
        work = Work()
        work.begin("train", [["no-such-command"]], log=log)
        while work.running:
            await asyncio.sleep(0.02)
        return work.state()

    state = asyncio.run(run())
    assert state["error"]
    assert "disk is full" not in state["error"]


def test_the_addresses_of_one_ipv6_network_are_one_client():
    assert client_of("2001:db8:1:2::5") == client_of("2001:db8:1:2:ffff::9") != client_of("2001:db8:1:3::5")
    assert client_of("::ffff:192.0.2.1") == client_of("192.0.2.1") != client_of("192.0.2.2")
    assert client_of("unknown") == "unknown"
