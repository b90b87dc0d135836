"""A folder that breaks the contract is refused with what is wrong and what to do."""

import hashlib
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serving.errors import ModelError
from serving.models.manifest import read_graph, read_manifest
from serving.models.model import load_model
from serving.models.repository import EMPTY, reload_repository
from serving.settings import Settings
from tests.serving.backends import model_of
from tests.serving.factory import CLASSES, signed, write_model


def change(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_a_complete_folder_is_read(tmp_path):
    manifest = read_manifest(write_model(tmp_path / "tiny"))
    assert manifest.name == "tiny"
    assert set(manifest.directions) == {"to_label", "to_photo"}
    assert manifest.label.void == 3
    assert [row.name for row in manifest.label.classes] == ["dark", "middle", "bright", "void"]
    assert manifest.directions["to_photo"].noise.shape == (3,)


def test_a_manifest_that_cannot_be_read_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ModelError, match=r"has no manifest\.json.*fewpair export"):
        read_manifest(tmp_path)
    folder = change(write_model(tmp_path / "tiny"), metrics={"val": {"mean_iou": float("nan")}})
    with pytest.raises(ModelError, match="NaN is no number of JSON"):
        read_manifest(folder)
    (folder / "manifest.json").write_text(json.dumps(["long"] * 10_000))
    with pytest.raises(ModelError, match="breaks the manifest schema at the top level") as caught:
        read_manifest(folder)
    assert len(str(caught.value)) < 1000
    (folder / "manifest.json").write_text("{half")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "schema at format"),
        ({"multiple_of": 0}, "schema at multiple_of"),
        ({"surprise": 1}, "surprise"),
        ({"name": "1.10"}, "schema at name"),
        ({"name": "other"}, "its folder is called tiny"),
        ({"resize": {"rule": "exact", "height": None, "width": None, "filter": "box"}}, "schema at resize"),
    ],
)
def test_a_manifest_that_breaks_the_schema_is_refused_with_the_place(tmp_path, changes, words):
    with pytest.raises(ModelError, match=words):
        read_manifest(change(write_model(tmp_path / "tiny"), **changes))


def test_no_path_and_no_link_leads_out_of_the_folder(tmp_path):
    folder = write_model(tmp_path / "tiny", directions=("to_label",))
    (folder / "to_label.onnx").rename(tmp_path / "outside.onnx")
    (folder / "to_label.onnx").symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(ModelError, match="leads out of its folder"):
        read_manifest(folder)
    directions = json.loads((folder / "manifest.json").read_text())["directions"]
    for file in ("../outside.onnx", "/etc/model.onnx", "sub/model.onnx", ".hidden.onnx"):
        directions["to_label"]["file"] = file
        with pytest.raises(ModelError, match="schema at directions/to_label/file"):
            read_manifest(change(folder, directions=directions))


@pytest.mark.parametrize("vnni", [True, False])
def test_the_graph_in_8_bits_runs_on_cpus_that_multiply_them_exactly_and_is_checked_as_the_other(
    tmp_path, monkeypatch, vnni
):
    for module in ("session", "model"):
        monkeypatch.setattr(f"serving.models.{module}.has_vnni", lambda: vnni)
    folder = write_model(tmp_path / "tiny", directions=("to_label",))
    directions = json.loads((folder / "manifest.json").read_text())["directions"]
    other = onnx.load(folder / "to_label.onnx")
    other.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.float32(1), "low"))  # to tell them apart
    onnx.save(other, folder / "to_label.int8.onnx")
    digest = hashlib.sha256((folder / "to_label.int8.onnx").read_bytes()).hexdigest()
    directions["to_label"]["int8"] = {"file": "to_label.int8.onnx", "sha256": digest, "change": "nothing much"}
    model = load_model(change(folder, directions=directions), device="cpu", threads=1)
    found = model.run_batch("to_label", np.full((1, 4, 4, 3), 40, np.uint8), seeds=[0])
    assert (found["label"] == (1 if vnni else 0)).all()
    assert model.int8 == vnni
    (folder / "to_label.int8.onnx").unlink()
    (folder / "to_label.int8.onnx").symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(ModelError, match="leads out of its folder"):
        read_manifest(folder)


def test_two_classes_may_not_share_a_colour(tmp_path):
    classes = [{**row, "color": [1, 2, 3]} for row in CLASSES]
    domains = {"photo": {"kind": "picture", "classes": None}, "label": {"kind": "classes", "classes": classes}}
    with pytest.raises(ModelError, match="to two classes"):
        read_manifest(change(write_model(tmp_path / "tiny"), domains=domains))


def test_255_may_be_the_id_of_an_ignored_class_alone(tmp_path):
    for ignore in (False, True):
        classes = [*CLASSES, {"id": 255, "name": "last", "color": [9, 9, 9], "ignore": ignore}]
        domains = {"photo": {"kind": "picture", "classes": None}, "label": {"kind": "classes", "classes": classes}}
        folder = change(write_model(tmp_path / f"ignored-{ignore}".lower()), domains=domains)
        if ignore:
            assert 255 in read_manifest(folder).label.known_ids
        else:
            with pytest.raises(ModelError, match="schema at domains/label/classes/4/ignore"):
                read_manifest(folder)


def test_a_graph_that_is_not_the_promised_one_is_refused_with_both_sums(tmp_path):
    folder = write_model(tmp_path / "tiny")
    graph = folder / "to_label.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"does not match its manifest \(sha256 ....\.\. expected ....\.\.\)"):
        read_graph(read_manifest(folder).directions["to_label"])


def test_a_graph_with_other_names_than_promised_is_refused(tmp_path):
    folder = write_model(tmp_path / "tiny", directions=("to_label",))
    directions = json.loads((folder / "manifest.json").read_text())["directions"]
    directions["to_label"]["input"]["name"] = "picture"
    with pytest.raises(ModelError, match=r"takes \['photo'\], its manifest promises \['picture'\]"):
        model_of(change(folder, directions=directions))


def rewrite_answer(folder, output, *, operator, **attributes):
    """The to_label graph with one more operator behind `output`, and a manifest that matches the file."""
    path = folder / "to_label.onnx"
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = [f"plain_{name}" if name == output else name for name in node.output]
    model.graph.node.append(helper.make_node(operator, [f"plain_{output}"], [output], **attributes))
    answer = next(value for value in model.graph.output if value.name == output)
    answer.CopyFrom(helper.make_empty_tensor_value_info(output))
    onnx.save(model, path)
    signed(folder)


@pytest.mark.parametrize(
    ("output", "operator", "attributes", "answered"),
    [
        ("label", "Cast", {"to": TensorProto.INT64}, "int64[128,192]"),
        ("confidence", "Cast", {"to": TensorProto.FLOAT}, "float32[128,192]"),
        ("label", "Transpose", {"perm": [0, 2, 1]}, "uint8[192,128]"),
    ],
    ids=["another dtype", "another dtype of the confidence", "another size"],
)
def test_a_graph_that_answers_in_another_size_or_dtype_is_not_served(tmp_path, output, operator, attributes, answered):
    write_model(tmp_path / "good")
    rewrite_answer(write_model(tmp_path / "bad"), output, operator=operator, **attributes)
    repository = reload_repository(EMPTY, Settings(models=tmp_path, device="cpu", threads=1))
    assert list(repository.models) == ["good"]
    assert (
        f"answers {output} as {answered}, its manifest promises uint8[128,192]. Export it again."
        in repository.broken["bad"]
    )
