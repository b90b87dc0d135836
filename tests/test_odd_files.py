"""Odd image files are read alike on every path: `serving.imaging`, `fewpair predict` and the REST API."""

import io

import numpy as np
import pytest
from PIL import Image

from serving.client import Client
from serving.errors import Refusal
from serving.imaging.decode import ImageError, image_size, read_photo
from serving.imaging.labels import read_label
from serving.predict import predict
from tests.odd_files import COLOURS, DOMAIN, LABELS, PHOTOS, VOID
from tests.serving.factory import write_model, write_picture_model
from tests.serving.process import running_server


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("file", PHOTOS, ids=str)
def test_a_photo_is_decoded(file):
    if isinstance(file.expected, str):
        with pytest.raises(ImageError) as refused:
            read_photo(file.content)
        assert refused.value.code == file.expected
    else:
        assert np.array_equal(read_photo(file.content), file.expected)
        assert image_size(file.content) == file.expected.shape[:2]


@pytest.mark.parametrize("file", LABELS, ids=str)
def test_a_label_map_is_decoded(file, tmp_path):
    path = tmp_path / file.name
    path.write_bytes(file.content)
    if isinstance(file.expected, str):
        with pytest.raises(ImageError) as refused:
            read_label(path, DOMAIN)
        assert refused.value.code == file.expected
    else:
        assert np.array_equal(read_label(path, DOMAIN).ids, file.expected)
        assert image_size(path) == file.expected.shape[:2]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`colours` paints label maps in their class colours; `negative` answers photos with 255 minus their values."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "colours", noise=False)
    write_picture_model(folder / "negative")
    return folder


def shown(file, answer):
    """Assert that a model's answer to a file is that to the expected pixels."""
    found = np.asarray(Image.open(io.BytesIO(answer)).convert("RGB"))
    if file.expected.ndim == 3:
        assert np.array_equal(found, 255 - file.expected), file.name
    else:
        assert np.array_equal(found, COLOURS[np.where(file.expected == 255, VOID, file.expected)]), file.name


def compared(file, translate):
    """Assert that the answer to a file is as expected, or its error."""
    if isinstance(file.expected, str):
        with pytest.raises(Refusal) as refused:
            translate(file.content)
        assert refused.value.code == file.expected, file.name
    else:
        shown(file, translate(file.content))


def test_the_rest_api_reads_the_same_pixels_or_gives_the_same_error(models, tmp_path):
    with running_server(models, tmp_path, "--no-ui") as server, Client(server.url) as client:
        for file in LABELS:
            compared(file, lambda content: client.synthesize(content, model="colours", format="png").photo)
        for file in PHOTOS:
            compared(file, lambda content: client.segment(content, model="negative"))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    ("files", "options"),
    [(LABELS, ("colours", "to_photo")), (PHOTOS, ("negative", "to_label"))],
    ids=["labels", "photos"],
)
def test_predict_reads_the_same_pixels_and_names_what_it_refuses(files, options, models, tmp_path, capsys):
    for number, file in enumerate(files):
        path = tmp_path / "in" / str(number) / file.name
        path.parent.mkdir(parents=True)
        path.write_bytes(file.content)
    model, direction = options
    out = ["--out", str(tmp_path / "out"), "--direction", direction, "--format", "png"]
    assert predict([str(models / model), str(tmp_path / "in"), *out]) == 1
    errors = capsys.readouterr().err
    for number, file in enumerate(files):
        written = list((tmp_path / "out" / str(number)).glob("*"))
        if isinstance(file.expected, str):
            assert written == [], file.name
            assert f"{number}/{file.name}: " in errors
        else:
            shown(file, written[0].read_bytes())
