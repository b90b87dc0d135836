"""`fewpair import`: the labels of every tool, on exports made by hand."""

import base64
import io
import json
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from serving.imaging.domain import IGNORE
from tests.trainer.folders import photo_of, write
from trainer.__main__ import main
from trainer.data.catalogue import open_dataset
from trainer.data.formats.coco import run_lengths
from trainer.data.formats.geometry import filled, mask_of_runs
from trainer.data.layouts.files import reads_heif

V = IGNORE
SQUARE = [1, 1, 4, 1, 4, 3, 1, 3]
"""A polygon over x 1..3 and y 1..2 of a photo of 6x4 pixels (width x height)."""
SQUARE_IDS = [[V, V, V, V, V, V], [V, 0, 0, 0, V, V], [V, 0, 0, 0, V, V], [V, V, V, V, V, V]]
POINTS = [SQUARE[place : place + 2] for place in range(0, 8, 2)]


@pytest.fixture
def export(tmp_path):
    """A folder with one photo of 6x4 pixels."""
    return with_photo(tmp_path / "export", "images/a.jpg")


def with_photo(folder, name):
    write(folder / name, photo_of(len(name), height=4, width=6))
    return folder


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def png(array):
    file = io.BytesIO()
    Image.fromarray(np.asarray(array)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def imported(export, *options, photo="a"):
    """Import, and return the names of the classes and the ids of one photo."""
    out = export.parent / "out"
    main(["import", str(export), "--out", str(out), *options])
    with Image.open(out / "labels" / f"{photo}.png") as label:
        ids = np.array(label).tolist()
    assert (out / "overlay.png").is_file()
    return open_dataset("folders", out).label_domain.classes.names, ids


def refused(capsys, export, *options, out="out"):
    """Import in vain; what is said on stdout and stderr."""
    assert main(["import", str(export), "--out", str(export.parent / out), *options]) == 2
    return capsys.readouterr()


def coco(*annotations, categories=("car", "road"), name="a.jpg", height=4, width=6):
    return {
        "images": [{"id": "7", "file_name": name, "height": height, "width": width}],
        "categories": [{"id": 10 + place, "name": name} for place, name in enumerate(categories)],
        "annotations": [{"id": place, "image_id": 7, **each} for place, each in enumerate(annotations)],
    }


def outline(*polygons, category=10):
    return {"category_id": category, "segmentation": list(polygons)}


def rle(counts, size=(4, 6)):
    return {"category_id": 10, "segmentation": {"counts": counts, "size": list(size)}, "iscrowd": 1}


def brush(alpha):
    """Label Studio's stream of a mask: the first two thirds of its values as one run each, the others literally."""
    values = np.repeat(np.asarray(alpha, np.uint8).ravel(), 4) * 255
    bits = f"{values.size:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    ends = np.flatnonzero(np.diff(values, append=-1)) + 1
    ends = ends[ends <= values.size * 2 / 3]
    for start, end in zip([0, *ends], ends, strict=False):
        bits += f"110{end - start - 1:08b}{values[start]:08b}"
    literal = values[ends[-1] :]
    bits += f"010{literal.size - 1:08b}" + "".join(f"{value:08b}" for value in literal)
    return [int(bits[place : place + 8].ljust(8, "0"), 2) for place in range(0, len(bits), 8)]


def studio(kind, value, **more):
    label = {"id": "r", "type": kind, "original_width": 6, "original_height": 4, "value": {**value, kind: ["car"]}}
    return [{"data": {"image": "/data/upload/3/0a1b2c3d-a.jpg"}, "annotations": [{"result": [{**label, **more}]}]}]


def with_results(tasks, *results):
    tasks[0]["annotations"][0]["result"] += results
    return tasks


def cvat(shapes, *, labels="<label><name>car</name><color>#ff0000</color></label><label><name>road</name></label>"):
    image = f'<image id="0" name="a.jpg" width="6" height="4">{shapes}</image>'
    return f"<annotations><meta><task><labels>{labels}</labels></task></meta>{image}</annotations>"


def labelme(*shapes, **more):
    shapes = [{"shape_type": "polygon", **shape} for shape in shapes]
    return {"shapes": shapes, "imagePath": "..\\images\\a.jpg", "imageHeight": 4, "imageWidth": 6, **more}


def supervisely(kind, **value):
    return {"size": {"height": 4, "width": 6}, "objects": [{"classTitle": "car", "geometryType": kind, **value}]}


WHOLE = [0, 0, 6, 0, 6, 4, 0, 4]
"""A polygon around the photo."""
INSIDE = np.array(SQUARE_IDS) == 0
BITMAP = base64.b64encode(zlib.compress(base64.b64decode(png(np.full((2, 3), True))))).decode()
LIST = {"labels.txt": "__ignore__\ncar\nroad\n"}
META = {"meta.json": {"classes": [{"title": "car"}, {"title": "road"}]}}
CORNERS = {"points": [[4, 3], [1, 1]], "shape_type": "rectangle"}
RIM = {"points": [[2.5, 2], [3.8, 2]], "shape_type": "circle"}
PATCH = {"points": [[1, 1], [3, 2]], "shape_type": "mask", "mask": png(np.full((2, 3), True))}
PERCENT = np.multiply(POINTS, [100 / 6, 25]).tolist()
YOLO_SQUARE = "0 .16667 .25 .66667 .25 .66667 .75 .16667 .75\n"
YAML = "names: {0: car, 1: road}\n"
CVAT_POLYGON = '<polygon label="car" points="1,1;4,1;4,3;1,3" z_order="0"/>'
TWO_SIZES = with_results(
    studio("polygonlabels", {"points": PERCENT}),
    *studio("polygonlabels", {"points": PERCENT}, id="s", original_width=9)[0]["annotations"][0]["result"],
)
OVAL = {"x": 250 / 6, "y": 50, "radiusX": 160 / 6, "radiusY": 30}
NUMBERED = ((10, "car"), (11, "road"))
CLOSED = {"interior": [], "exterior": POINTS}
SQUARES = {
    "COCO polygon of Roboflow": {"x.json": coco(outline(SQUARE), name="a_jpg.rf.0123456789abcdef.jpg")},
    "COCO runs as a list, by columns": {"x.json": coco(rle([5, 2, 2, 2, 2, 2, 9]))},
    "COCO runs as a string": {"x.json": coco(rle("5220007"))},
    "COCO ids as text, colours as hexadecimals, classes that are their own supercategories, a path of Windows": {
        "x.json": coco(outline(SQUARE, category="10"), name="images\\a.jpg")
        | {"categories": [{"id": n, "name": c, "supercategory": c, "color": "#ff0000"} for n, c in NUMBERED]}
    },
    "CVAT polygon": {"x.xml": cvat(CVAT_POLYGON)},
    "CVAT box": {"x.xml": cvat('<box label="car" xtl="1" ytl="1" xbr="4" ybr="3"/>')},
    "CVAT box, turned": {"x.xml": cvat('<box label="car" xtl="1.5" ytl=".5" xbr="3.5" ybr="3.5" rotation="90"/>')},
    "CVAT ellipse": {"x.xml": cvat('<ellipse label="car" cx="2.5" cy="2" rx="1.6" ry="1.2"/>')},
    "CVAT mask": {"x.xml": cvat('<mask label="car" rle="1, 3, 1, 3" left="0" top="1" width="4" height="2"/>')},
    "labelme polygon": LIST | {"json/a.json": labelme({"label": "car", "points": POINTS})},
    "labelme rectangle": LIST | {"json/a.json": labelme({"label": "car", **CORNERS})},
    "labelme circle": {"json/a.json": labelme({"label": "car", **RIM}), "json/labels.txt": "car\nroad\n"},
    "labelme mask": LIST | {"json/a.json": labelme({"label": "car", **PATCH})},
    "VOC palette": {"labelmap.txt": "car:1,1,1::\nroad:2,2,2::\n", "SegmentationClass/a.png": INSIDE}
    | {"SegmentationObject/a.png": np.full((4, 6), 9)},
    "YOLO": {"data.yaml": YAML, "labels/a.txt": YOLO_SQUARE},
    "Supervisely polygon": META | {"ann/a.jpg.json": supervisely("polygon", points=CLOSED)},
    "Supervisely bitmap": META | {"ann/a.jpg.json": supervisely("bitmap", bitmap={"data": BITMAP, "origin": [1, 1]})},
    "binary masks": {"masks/car/a.png": np.where(INSIDE, 255, 0), "masks/road/a.png": np.zeros((4, 6, 3))},
    "Label Studio ellipse": {"x.json": studio("ellipselabels", OVAL)},
    "Label Studio polygon": {"x.json": studio("polygonlabels", {"points": PERCENT})},
    "Label Studio with a rating, a number and a relation": {
        "x.json": with_results(
            studio("polygonlabels", {"points": PERCENT}),
            {"id": "q", "type": "rating", "value": {"rating": 4}},
            {"id": "n", "type": "number", "value": {"number": 3}},
            {"type": "relation", "from_id": "r", "to_id": "r", "direction": "right"},
        )
    },
    "Label Studio brush": {"x.json": studio("brushlabels", {"format": "rle", "rle": brush(INSIDE)})},
    "Label Studio rectangle, turned about its corner": {
        "x.json": studio("rectanglelabels", {"x": 400 / 6, "y": 25, "width": 200 / 6, "height": 75, "rotation": 90})
    },
}
"""The same square in every format."""


def lay(export, files):
    """Write texts, JSON and PNG files; a mask of booleans as a palette PNG of 0 and 255."""
    for name, content in files.items():
        if not isinstance(content, np.ndarray):
            put(export / name, content)
            continue
        indexed = content.dtype == bool
        picture = Image.fromarray((np.where(content, 0, 255) if indexed else content).astype(np.uint8))
        if indexed:
            picture.putpalette([1, 1, 1, 2, 2, 2] + [0] * 759 + [224, 224, 192])
        (export / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(export / name)


@pytest.mark.parametrize("format", SQUARES)
def test_a_square_is_the_same_pixels_in_every_format(export, format):
    lay(export, SQUARES[format])
    names, ids = imported(export, *(["--classes", "car,road"] if "Studio" in format else []))
    assert names == ("car", "road")
    assert ids == SQUARE_IDS


def test_compressed_runs_are_those_that_pycocotools_writes():
    y, x = np.mgrid[:12, :9]
    expected = ((7 * x * x + 5 * y) % 11 < 4) | ((x >= 3) & (x < 6) & (y > 3))
    runs = run_lengths("0140M00000000030M01020M00010O90G07210HN0000010O00030M000000030M")
    assert np.array_equal(mask_of_runs(runs, (12, 9), by="columns"), expected)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"x.json": coco(outline([0, 0, 1, 1]))}, "of fewer than 3 points (1: a.jpg)"),
        ({"x.json": coco(rle([5, 2, 99]))}, "a mask whose runs add up to 106 pixels, not 4x6"),
        ({"x.json": coco(rle([4], size=(2, 2)))}, "a mask of another size than its picture"),
        ({"x.json": coco(outline())}, "an annotation with a box alone"),
        ({"x.json": coco(outline(SQUARE, category=99))}, "a shape that cannot be read (KeyError: '99')"),
        ({"x.json": coco(outline([9, 9, 8, 8, 7, 9]))}, "a shape that covers no pixel"),
        ({"x.xml": cvat('<polyline label="car" points="1,1;2,2"/>')}, "area (polyline)"),
        ({"x.json": studio("polygonlabels", {"points": POINTS}, image_rotation=90)}, "on a photo that was turned"),
        (
            {"x.json": studio("polygonlabels", {"points": [], "labels": ["car", "road"]})},
            "a region with several labels",
        ),
        ({"x.json": studio("bitmask", {"imageDataURL": ""})}, "a bitmask, which is not read"),
        ({"x.json": [{"data": {"one": "/d/a.jpg", "two": "/d/b.jpg"}}]}, "a task with several pictures"),
        ({"x.json": coco({"image_id": 8})}, "dropped: 1 annotation of images that are not listed"),
        ({"a.json": labelme({"label": "car", "points": POINTS, "shape_type": "linestrip"})}, "area (linestrip)"),
        ({"a.json": labelme({"label": "car", "points": POINTS, "shape_type": "point"})}, "area (point)"),
        ({"data.yaml": YAML, "labels/a.txt": "2 0 0 1 0 1 1\n1 nan 0 1 0 1 1\n"}, "that are not finite"),
        ({"data.yaml": YAML, "labels/a.txt": "0 .5 .5 .2 .2\n", "b.txt": "car"}, "ignored: b.txt"),
        (
            {"masks/car/a.png": np.full((4, 6), 255), "masks/road/a.png": np.full((2, 3), 255)},
            "labels of one photo for several sizes (2x3, 4x6, height x width) (1: masks/a)",
        ),
        ({"x.json": TWO_SIZES}, "labels of one photo for several sizes (4x6, 4x9, height x width)"),
        ({"data.yaml": YAML, "labels/a.txt": "0 .5 .5 .2 .2\n"}, "every shape: the photo counts as unlabelled (1"),
        ({"data.yaml": YAML, "labels/a.txt": "2 .1 .1 .9 .1 .9 .9\n"}, "class 2, of 2 classes"),
        ({"labelmap.txt": "car:9,9,9::\n", "SegmentationClass/a.png": np.full((4, 6), 77)}, "77 (24 pixels"),
        (
            {"x.json": coco(outline(SQUARE), height=6, width=4)},
            "6x4 (height x width, before its EXIF rotation), which is 4x6",
        ),
        ({"x.json": coco(outline(SQUARE), height=8, width=12)}, "8x12 (height x width), which is 4x6"),
    ],
)
def test_what_is_dropped_is_named_with_its_reason(export, capsys, files, reason):
    lay(export, files)
    said = refused(capsys, export, "--classes=car,road")
    assert reason in said.out
    assert "no label could be read" in said.err


def test_the_pixels_of_a_polygon_are_those_whose_centre_is_inside():
    rng = np.random.default_rng(0)
    for _ in range(20):
        ring = rng.uniform(-3, 13, (rng.integers(3, 9), 2))
        expected = np.zeros((10, 11), bool)
        for y, x in np.ndindex(10, 11):
            pairs = zip(ring, np.roll(ring, -1, axis=0), strict=True)
            crossed = [
                a[0] + (y + 0.5 - a[1]) * (b[0] - a[0]) / (b[1] - a[1])
                for a, b in pairs
                if (a[1] <= y + 0.5) != (b[1] <= y + 0.5)
            ]
            expected[y, x] = sum(place < x + 0.5 for place in crossed) % 2
        assert np.array_equal(filled(ring, (10, 11)), expected)


def test_holes_parts_and_hairlines(export):
    hole = [2, 1, 2, 3, 4, 3, 4, 1]
    ring = [[0, 0, 0, 0, 0, 0], [0, 0, V, V, 0, 0], [0, 0, V, V, 0, 0], [0, 0, 0, 0, 0, 0]]
    bridged = np.reshape([*WHOLE, 0, 0, *hole, 2, 1], (-1, 2)) / [6, 4]
    lay(export, {"data.yaml": YAML, "labels/a.txt": "0 " + " ".join(map(str, bridged.ravel()))})
    assert imported(export)[1] == ring
    points = {"exterior": np.reshape(WHOLE, (-1, 2)).tolist(), "interior": [np.reshape(hole, (-1, 2)).tolist()]}
    other = with_photo(export.parent / "b" / "export", "img/a.jpg")
    lay(other, {"ann/a.jpg.json": supervisely("polygon", points=points)})
    assert imported(other, "--unlabelled", "void")[1] == ring
    third = with_photo(export.parent / "c" / "export", "a.jpg")
    put(third / "x.json", coco(outline([0, 0, 1, 0, 1, 4, 0, 4], [5, 0, 6, 0, 6, 4, 5, 4])))
    assert imported(third)[1] == [[0, V, V, V, V, 0]] * 4


def test_one_class_beside_void_is_refused_before_anything_is_written(export, capsys):
    lay(export, {"ann/a.jpg.json": supervisely("polygon", points={"exterior": POINTS, "interior": []})})
    assert "add --unlabelled background if they are background" in refused(capsys, export).err
    assert not (export.parent / "out").exists()
    assert imported(export, "--unlabelled", "background")[0] == ("background", "car")


def test_the_order_or_the_area_decides_overlaps(export, capsys):
    whole = '<box label="road" xtl="0" ytl="0" xbr="6" ybr="4" z_order="1"/>'
    put(export / "x.xml", cvat(whole + CVAT_POLYGON))
    assert imported(export, "--overlaps", "order")[1] == [[1] * 6] * 4
    assert "25 % are in shapes of several classes: the later shape counts" in capsys.readouterr().out
    (export.parent / "out").rename(export.parent / "before")
    assert imported(export, "--overlaps", "area")[1] == np.where(INSIDE, 0, 1).tolist()


def test_of_overlapping_shapes_of_coco_the_smaller_one_counts(export):
    put(export / "x.json", coco(outline(SQUARE), outline(WHOLE, category=11)))
    assert imported(export)[1] == np.where(INSIDE, 0, 1).tolist()


def test_labels_of_another_folder_give_way_and_are_named(tmp_path, capsys):
    export = with_photo(with_photo(tmp_path / "export", "cam2/1.jpg"), "cam2/2.jpg")
    names = ("cam1/1.jpg", "cam2/1.jpg", "cam1/2.jpg")
    images = [{"id": n, "file_name": name, "height": 4, "width": 6} for n, name in enumerate(names)]
    annotations = [{"image_id": n, **outline(SQUARE, category=10 + n % 2)} for n in range(3)]
    put(export / "x.json", coco() | {"images": images, "annotations": annotations})
    assert imported(export, photo="cam2/1")[1][1][1] == 1
    said = capsys.readouterr().out
    assert "dropped: replaced by labels whose path matches the photo better (1: cam1/1.jpg)" in said
    assert "note: labels were given to a photo of that name in another folder (1: cam1/2.jpg to cam2/2.jpg)" in said


def test_pixels_in_no_shape_are_void_or_a_class(export, capsys):
    put(export / "x.json", coco(outline(SQUARE), outline()))
    names, ids = imported(export, "--unlabelled", "rest")
    assert names == ("rest", "car", "road")
    assert ids == INSIDE.astype(int).tolist()
    said = capsys.readouterr().out
    assert "75 % of their pixels are in no shape: rest" in said
    assert "note: where shapes were dropped, the pixels are rest (1: a.jpg)" in said


def test_a_background_class_of_the_tool_takes_the_pixels_in_no_shape_unless_void_is_asked_for(export):
    put(export / "labels.txt", "__ignore__\n_background_\ncar\n")
    shapes = ({"label": "__ignore__", "points": [[0, 0], [6, 0], [6, 1], [0, 1]]}, {"label": "car", "points": POINTS})
    put(export / "json" / "a.json", labelme(*shapes))
    names, ids = imported(export)
    assert names == ("_background_", "car")
    assert ids == [[V] * 6, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]
    (export.parent / "out").rename(export.parent / "before")
    assert imported(export, "--unlabelled", "void") == (("car",), SQUARE_IDS)


def test_class_ids_do_not_depend_on_which_photo_comes_first(export, capsys):
    with_photo(export, "images/b.jpg")
    put(export / "json" / "a.json", labelme({"label": "road", "points": POINTS}))
    put(export / "json" / "b.json", labelme({"label": "car", "points": POINTS}, imagePath="../images/b.jpg"))
    names, ids = imported(export)
    assert names == ("car", "road")
    assert ids[1][1] == 1
    assert "they are the labels that occur, by name" in capsys.readouterr().out


def test_labels_that_the_list_lacks_are_named(export, capsys):
    put(export / "json" / "a.json", labelme({"label": "tree", "points": POINTS}, {"label": "car", "points": POINTS}))
    assert imported(export, "--classes", "car,road") == (("car", "road"), SQUARE_IDS)
    assert "dropped: the label 'tree', which is not in the class table (1: " in capsys.readouterr().out


def test_a_class_table_gives_ids_and_colours_but_not_the_numbers_of_yolo(export, capsys):
    put(export / "own.csv", "id,name,r,g,b,ignore\n5,road,9,9,9,0\n8,car,7,7,7,0\n9,void,0,0,0,1\n")
    put(export.parent / "yolo" / "a.txt", YOLO_SQUARE)
    assert main(["import", str(export.parent / "yolo"), "--out=x", "--classes", str(export / "own.csv")]) == 2
    assert "into classes.txt beside the labels" in capsys.readouterr().err
    put(export / "json" / "a.json", labelme({"label": "car", "points": POINTS}))
    names, ids = imported(export, "--classes", str(export / "own.csv"))
    assert names == ("road", "car")
    assert ids == np.where(INSIDE, 8, 9).tolist()
    assert (export.parent / "out" / "classes.csv").read_text().splitlines() == (export / "own.csv").read_text().split()


def test_a_photo_embedded_in_its_labels_is_used_and_one_that_is_missing_is_named(tmp_path, capsys):
    embedded = {"imagePath": "a.png", "imageData": png(photo_of(1, height=4, width=6))}
    put(tmp_path / "export" / "a.json", labelme({"label": "car", "points": POINTS}, **embedded))
    assert imported(tmp_path / "export", "--unlabelled", "road")[0] == ("road", "car")
    put(tmp_path / "x" / "x.json", coco(outline(SQUARE)))
    said = refused(capsys, tmp_path / "x", out="y").out
    assert "a photo that was not found: name the folder of the photos with --photos (1: " in said


def test_points_refer_to_the_upright_photo(export):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to look at it
    write(export / "images" / "a.jpg", photo_of(1, height=6, width=4), exif=exif)
    put(export / "x.json", coco(outline(SQUARE)))
    assert imported(export)[1] == SQUARE_IDS


def test_photos_are_found_by_stem_and_folder_and_keep_their_splits(tmp_path):
    for split, left in (("train", 0), ("valid", 3)):
        folder = with_photo(tmp_path / "export" / split, "a.jpg")
        half = outline([left, 0, left + 3, 0, left + 3, 4, left, 4], category=11)
        document = coco(half, categories=("things", "car"))
        document["categories"][1]["supercategory"] = "things"
        put(folder / "_annotations.coco.json", document)
    out = tmp_path / "out"
    assert main(["import", str(tmp_path / "export"), "--unlabelled", "rest", "--out", str(out)]) == 0
    dataset = open_dataset("folders", out)
    assert dataset.label_domain.classes.names == ("rest", "car")  # without Roboflow's name of the project
    for split, row in (("train", [1, 1, 1, 0, 0, 0]), ("val", [0, 0, 0, 1, 1, 1])):
        (sample,) = dataset.samples(split)
        assert dataset.read_label(sample).tolist() == [row] * 4


def test_embedded_photos_of_one_name_keep_their_folders(tmp_path, capsys):
    with_photo(tmp_path / "x", "s3/1.png")
    for folder, level in (("s1", 50), ("s2", 200)):
        embedded = {"imagePath": "1.png", "imageData": png(np.full((4, 6, 3), level, np.uint8))}
        put(tmp_path / "x" / folder / "1.json", labelme({"label": "car", "points": POINTS}, **embedded))
    outside = {"imagePath": "../../2.png", "imageData": png(photo_of(2, height=4, width=6))}
    put(tmp_path / "x" / "s1" / "2.json", labelme({"label": "car", "points": POINTS}, **outside))
    assert main(["import", str(tmp_path / "x"), "--unlabelled", "rest", "--out", str(tmp_path / "out")]) == 0
    assert "dropped: an embedded photo whose path leaves the export" in capsys.readouterr().out
    for folder, level in (("s1", 50), ("s2", 200)):
        assert (tmp_path / "out" / "labels" / folder / "1.png").is_file()
        with Image.open(tmp_path / "out" / "photos" / folder / "1.png") as photo:
            assert photo.getpixel((0, 0)) == (level,) * 3


@pytest.mark.parametrize(
    "files",
    [
        {"x.json": coco(outline(SQUARE), name="train/a.jpg")},
        {"labelmap.txt": "car:1,1,1::\nroad:2,2,2::\n", "train/SegmentationClass/a.png": INSIDE},
    ],
)
def test_labels_do_not_go_to_a_photo_of_another_split(tmp_path, capsys, files):
    export = with_photo(tmp_path / "export", "val/a.jpg")
    lay(export, files)
    assert "a photo of the split train that is in another split only" in refused(capsys, export).out


def test_a_photo_at_the_exact_path_comes_before_those_of_its_name(export):
    with_photo(with_photo(export, "a.jpg"), "b/a.jpg")
    put(export / "x.json", coco(outline(SQUARE)))
    assert imported(export)[1] == SQUARE_IDS
    assert not (export.parent / "out" / "labels" / "b").exists()


def test_binary_masks_of_two_splits_are_one_class_and_two_photos(tmp_path):
    for split, mask in (("train", INSIDE), ("val", ~INSIDE)):
        folder = with_photo(tmp_path / "export", f"{split}/photos/a.jpg")
        lay(folder, {f"{split}/masks/road/a.png": np.where(mask, 255, 0)})
    assert main(["import", str(tmp_path / "export"), "--unlabelled", "rest", "--out", str(tmp_path / "out")]) == 0
    dataset = open_dataset("folders", tmp_path / "out")
    assert dataset.label_domain.classes.names == ("rest", "road")
    for split, mask in (("train", INSIDE), ("val", ~INSIDE)):
        (sample,) = dataset.samples(split)
        assert np.array_equal(dataset.read_label(sample), mask)


def test_void_is_confirmed_where_the_import_offers_it(export, capsys):
    put(export / "x.json", coco(outline(SQUARE)))
    assert main(["import", str(export), "--out", str(export.parent / "asked")]) == 1
    assert "confirm it with --void 255, of fewpair check and" in capsys.readouterr().out
    assert main(["import", str(export), "--unlabelled", "void", "--out", str(export.parent / "out")]) == 0


def test_the_quoted_numbers_of_yolo_are_sorted_as_numbers(export):
    lay(export, {"data.yaml": {"names": {str(n): f"c{n}" for n in range(11)}}, "labels/a.txt": YOLO_SQUARE})
    assert imported(export)[0] == tuple(f"c{n}" for n in range(11))


def test_cityscapes_polygons_are_painted_in_their_order(tmp_path):
    export = with_photo(tmp_path / "export", "leftImg8bit/train/ulm/ulm_1_leftImg8bit.png")
    whole = np.reshape(WHOLE, (-1, 2)).tolist()
    objects = [{"label": "road", "polygon": whole}, {"label": "cargroup", "polygon": POINTS}]
    objects.append({"label": "tree", "deleted": 1, "polygon": whole})
    document = {"imgHeight": 4, "imgWidth": 6, "objects": objects}
    put(export / "gtFine" / "train" / "ulm" / "ulm_1_gtFine_polygons.json", document)
    names, ids = imported(export, photo="ulm/ulm_1_leftImg8bit")
    assert names == ("car", "road")
    assert ids == np.where(INSIDE, 0, 1).tolist()


def test_separate_label_and_shape_of_label_studio_are_one_region_and_a_prediction_counts_where_there_is_no_annotation(
    export, capsys
):
    (task,) = studio("polygon", {"points": PERCENT})
    region = task["annotations"].pop()["result"][0]
    region["value"].pop("polygon")
    task["predictions"] = [{"result": [region, {**region, "type": "labels", "value": {"labels": ["car"]}}]}]
    put(export / "x.json", [task])
    assert imported(export, "--classes", "car,road")[1] == SQUARE_IDS
    assert "note: a task without annotations, whose prediction was read (1: " in capsys.readouterr().out


def test_an_export_that_cannot_be_read_to_its_end_leaves_nothing_behind(tmp_path, capsys):
    project, export = with_photo(with_photo(tmp_path / "mine", "photos/1.jpg"), "photos/2.jpg"), tmp_path / "export"
    put(export / "1.json", labelme({"label": "car", "points": POINTS}, imagePath="1.jpg"))
    put(export / "2.json", labelme({"label": "road", "points": [["x", "y"]]}, imagePath="2.jpg"))
    assert main(["import", str(export), "--out", str(project)]) == 2
    assert not (project / "labels").exists()
    assert not (project / "classes.csv").exists()


def test_photos_beside_a_single_file_come_along_only_if_it_names_them(tmp_path):
    with_photo(tmp_path, "downloads/shots/a.jpg")
    with_photo(tmp_path, "downloads/holiday/beach.jpg")
    put(tmp_path / "downloads/labels.json", coco(outline(SQUARE), name="a.jpg"))
    main(["import", str(tmp_path / "downloads/labels.json"), "--out", str(tmp_path / "out")])
    assert [path.name for path in (tmp_path / "out" / "photos").rglob("*.jpg")] == ["a.jpg"]


def test_the_pictures_of_labelmes_converter_to_voc_are_no_photos(tmp_path):
    export = with_photo(with_photo(tmp_path / "export", "JPEGImages/a.jpg"), "SegmentationClassVisualization/a.jpg")
    write(export / "SegmentationClass" / "a.png", np.array(SQUARE_IDS, np.uint8))
    put(export / "class_names.txt", "car\nroad\n")
    assert imported(export) == (("car", "road"), SQUARE_IDS)


def test_heic_photos_are_read_where_the_plugin_is_installed(tmp_path, monkeypatch, heif_plugin):
    export = with_photo(tmp_path / "export", "images/a.png")
    (export / "images" / "a.png").rename(export / "images" / "a.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", heif_plugin)
    reads_heif.cache_clear()
    put(export / "x.json", coco(outline(SQUARE), name="a.heic"))
    assert imported(export)[1] == SQUARE_IDS
    reads_heif.cache_clear()


def test_a_zip_is_read_and_photos_without_labels_come_along(export):
    with_photo(export, "images/b.jpg")
    put(export / "x.json", coco(outline(SQUARE)))
    with zipfile.ZipFile(export.parent / "e.zip", "w") as archive:
        for path in export.rglob("*.*"):
            archive.write(path, path.relative_to(export))
    out = export.parent / "out"
    main(["import", str(export.parent / "e.zip"), "--out", str(out)])
    assert sorted(path.name for path in (out / "photos").iterdir()) == ["a.jpg", "b.jpg"]
    assert [path.name for path in (out / "labels").iterdir()] == ["a.png"]


ENTITIES = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
LAUGHS = f'<!DOCTYPE a [<!ENTITY l0 "lol">{ENTITIES}]><a>&l9;</a>'


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes.docx": "x"}, "holds no export that can be read (COCO JSON, CVAT for images,"),
        ({"x.json": coco(), "y.json": labelme()}, "several formats: COCO JSON (as x.json), labelme JSON (as y.json)"),
        ({"x.json": "{"}, "x.json cannot be read as JSON"),
        ({"x.json": coco() | {"images": [{}]}}, "COCO JSON without 'id'"),
        ({"x.json": coco() | {"annotations": None}}, "COCO JSON that cannot be read ('NoneType' object"),
        ({"data.yaml": "names: car\n", "labels/a.txt": YOLO_SQUARE}, "names is car, which is no list of classes"),
        ({"data.yaml": "names: {1: a, 2: b}\n", "labels/a.txt": YOLO_SQUARE}, "names has the numbers 1, 2: number the"),
        ({"x.xml": LAUGHS}, "x.xml cannot be read as XML"),
        ({"x.xml": "<annotations><track/></annotations>"}, 'export "CVAT for images 1.1"'),
        ({"masks/a.png": np.full((4, 6), 255)}, "its name says no class"),
        ({"labels/a.txt": "0 .1 .1 .9 .1 .9 .9\n"}, "without a list of their classes (data.yaml or classes.txt)"),
        (
            {"SegmentationClass/a.png": np.full((4, 6), 1)},
            "without a list of their classes (labelmap.txt or class_names.txt)",
        ),
    ],
)
def test_what_cannot_be_imported_is_refused_with_what_was_found(export, capsys, files, message):
    lay(export, files)
    assert message in refused(capsys, export).err


def test_a_mask_that_is_not_binary_is_refused_instead_of_left_out(export, capsys):
    lay(export, {"masks/car/a.png": np.where(INSIDE, 255, 0), "masks/road/a.png": np.full((4, 6, 3), 128)})
    said = refused(capsys, export).err
    assert "masks/road/a.png: beside masks of 0 and 255, but no whole PNG of 0 and 255" in said
    (export / "masks" / "road" / "a.png").write_bytes((export / "masks" / "car" / "a.png").read_bytes()[:-20])
    assert "masks/road/a.png: beside masks" in refused(capsys, export).err
    assert not (export.parent / "out").exists()


def test_masks_are_found_below_a_folder_of_any_name(tmp_path):
    export = with_photo(tmp_path / "Segmentation of streets", "images/a.jpg")
    lay(export, {"masks/car/a.png": np.where(INSIDE, 255, 0), "masks/road/a.png": np.zeros((4, 6))})
    assert imported(export)[1] == SQUARE_IDS


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"SegmentationClass/a.png": INSIDE}, "labelmap.txt"),
        ({"json/a.json": labelme({"label": "car", "points": POINTS})}, "labels.txt"),
        ({"labels/a.txt": YOLO_SQUARE}, "data.yaml"),
        ({"labels/a.txt": YOLO_SQUARE}, "classes.txt"),
    ],
)
def test_a_list_of_classes_that_is_not_utf_8_is_named(export, capsys, files, name):
    lay(export, files)
    (export / name).write_bytes("names: [Stra\xdfe]\n".encode("latin-1"))
    assert f"{name} is not UTF-8" in refused(capsys, export).err


def test_each_class_gets_a_colour_of_its_own(export):
    color = "<color>#e0e0c0</color>"  # VOC's of void
    labels = "".join(f"<label><name>{name}</name>{color}</label>" for name in ("car", "road"))
    put(export / "x.xml", cvat(CVAT_POLYGON, labels=labels))
    assert imported(export)[1] == SQUARE_IDS
    rows = open_dataset("folders", export.parent / "out").label_domain.classes.rows
    assert rows[0].color == (224, 224, 192)
    assert len({row.color for row in rows}) == 3


def test_a_class_that_is_listed_twice_is_refused(export, capsys):
    put(export / "x.json", coco(outline(SQUARE)))
    assert "the classes have car twice" in refused(capsys, export, "--classes", "car,road,car").err


def test_a_zip_that_cannot_be_unpacked_and_a_folder_of_photos_that_is_not_there_are_refused(export, capsys):
    put(export / "x.json", coco(outline(SQUARE)))
    archive = export.parent / "e.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(export / "x.json", "x.json")
    content = bytearray(archive.read_bytes())
    content[6] |= 1  # the flag of a password, in the file's header and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    assert "e.zip cannot be unpacked (it is broken, has a password or" in refused(capsys, archive).err
    assert "--photos nowhere: there is no such folder" in refused(capsys, export, "--photos", "nowhere").err


def test_a_photo_that_cannot_be_read_is_dropped_and_named_and_the_others_are_imported(export, capsys):
    (export / "images" / "b.jpg").write_bytes(b"no picture")
    document = coco(outline(SQUARE))
    document["images"].append({"id": 8, "file_name": "b.jpg", "height": 4, "width": 6})
    document["annotations"].append({"id": 9, "image_id": 8, **outline(SQUARE)})
    put(export / "x.json", document)
    assert imported(export)[1] == SQUARE_IDS
    assert "b.jpg: the file is not an image" in capsys.readouterr().out
    assert [path.name for path in (export.parent / "out" / "labels").iterdir()] == ["a.png"]


def test_labels_come_into_a_project_that_has_its_photos_and_class_table(tmp_path, capsys):
    project = tmp_path / "mine"
    for name in "abc":
        with_photo(project / "photos", f"{name}.jpg")
    table = "id,name,r,g,b,ignore\n0,road,1,2,3,0\n7,car,4,5,6,0\n11,void,0,0,0,1\n"
    put(project / "classes.csv", table)
    write(project / "labels" / "b.tif", np.zeros((4, 6), np.uint8))
    with_photo(project / "val" / "photos", "e.jpg")
    shapes = {"label": "car", "points": POINTS}, {"label": "tree", "points": POINTS}
    for name in "abde":
        put(tmp_path / "labelled" / f"{name}.json", labelme(*shapes, imagePath=f"{name}.jpg"))
    assert main(["import", str(tmp_path / "labelled"), "--out", str(project), "--unlabelled", "sky"]) == 2
    assert "--unlabelled sky: it is no class of" in capsys.readouterr().err
    main(["import", str(tmp_path / "labelled"), "--out", str(project)])
    said = capsys.readouterr().out
    assert set(np.unique(np.asarray(Image.open(project / "labels" / "a.png")))) == {7, 11}
    assert not np.asarray(Image.open(project / "labels" / "b.tif")).any()
    assert (project / "classes.csv").read_text() == table
    assert sorted(path.name for path in (project / "labels").iterdir()) == ["a.png", "b.tif"]
    assert (project / "val" / "labels" / "e.png").is_file()
    for dropped in (
        "the label 'tree', which is not in the class table",
        "has a label map in --out",
        "add it to photos/ (1: d",
    ):
        assert dropped in said


def test_a_project_s_class_table_without_void_cannot_take_label_maps_with_gaps(tmp_path, capsys):
    project = tmp_path / "mine"
    with_photo(project / "photos", "a.jpg")
    put(project / "classes.csv", "id,name,r,g,b,ignore\n0,road,1,2,3,0\n7,car,4,5,6,0\n")
    put(tmp_path / "labelled" / "a.json", labelme({"label": "car", "points": POINTS}, imagePath="a.jpg"))
    words = ["import", str(tmp_path / "labelled"), "--out", str(project)]
    assert main(words) == 2
    assert "add the line 255,void,224,224,192,1" in capsys.readouterr().err
    assert not (project / "labels").exists()
    assert main([*words, "--unlabelled", "road"]) == 0


def test_a_folder_that_is_neither_new_nor_a_project_is_refused(export, capsys):
    put(export.parent / "mine" / "notes.txt", "mine")
    assert "is not empty and has no photos/" in refused(capsys, export, out="mine").err
