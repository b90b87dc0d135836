"""The figures of label maps, against a slow count pixel by pixel, and sample grids."""

import numpy as np
import pytest

from tests.trainer.factories import class_table
from trainer.batch import IGNORE
from trainer.grids import sample_grid
from trainer.metrics.evaluate import l1_levels, maps_accuracy, psnr
from trainer.metrics.segmentation import Confusion

CLASSES = class_table(
    [
        (0, "sky", (128, 128, 128), False),
        (9, "road", (128, 64, 128), False),
        (4, "void", (0, 0, 9), True),
        (7, "car", (64, 0, 128), False),
        (5, "bird", (1, 2, 3), False),
    ]
)


def two_images(*, seed: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth (with void, without class 3) and prediction (with class 3) of two sizes."""
    generator = np.random.default_rng(seed)
    images = []
    for shape in ((7, 11), (5, 6)):
        truth = generator.integers(0, 3, shape).astype(np.uint8)
        truth[generator.random(shape) < 0.2] = IGNORE
        images.append((truth, generator.integers(0, 4, shape).astype(np.uint8)))
    return images


def counted(images: list[tuple[np.ndarray, np.ndarray]]) -> Confusion:
    confusion = Confusion(CLASSES)
    for truth, prediction in images:
        confusion.add(truth, prediction)
    return confusion


def test_the_figures_agree_with_a_count_pixel_by_pixel() -> None:
    images = two_images()
    pixels = [
        (int(truth[y, x]), int(prediction[y, x]))
        for truth, prediction in images
        for y in range(truth.shape[0])
        for x in range(truth.shape[1])
        if truth[y, x] != 255
    ]
    accuracy, iou = {}, {}
    for c in range(4):
        of_class = [p for t, p in pixels if t == c]
        if of_class:
            hits = sum(p == c for p in of_class)
            union = sum(t == c or p == c for t, p in pixels)
            accuracy[c], iou[c] = hits / len(of_class), hits / union
    figures = counted(images).figures()
    assert figures["pixel_accuracy"] == pytest.approx(sum(t == p for t, p in pixels) / len(pixels))
    assert figures["mean_class_accuracy"] == pytest.approx(sum(accuracy.values()) / len(accuracy))
    assert figures["mean_iou"] == pytest.approx(sum(iou.values()) / len(iou))
    assert figures["mean_iou_absent_as_zero"] == pytest.approx(sum(iou.values()) / 4)
    assert figures["per_class_iou"] == {
        "sky": pytest.approx(iou[0]),
        "road": pytest.approx(iou[1]),
        "car": pytest.approx(iou[2]),
        "bird": None,
    }


def test_a_class_that_the_truth_lacks_is_left_out_of_the_mean_but_costs_where_it_is_predicted() -> None:
    confusion = Confusion(CLASSES)
    confusion.add(np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 3, 1, 1]], np.uint8))
    figures = confusion.figures()
    assert figures["mean_iou"] == pytest.approx((0.5 + 1) / 2)
    assert figures["mean_iou_absent_as_zero"] == pytest.approx((0.5 + 1) / 4)


def test_void_pixels_change_no_figure_whatever_is_predicted_there() -> None:
    truth, prediction = two_images()[0]
    other = np.where(truth == IGNORE, 3 - prediction, prediction).astype(np.uint8)
    assert (counted([(truth, prediction)]).matrix == counted([(truth, other)]).matrix).all()


def test_a_split_that_is_all_void_has_no_figures_instead_of_a_division_by_zero() -> None:
    figures = counted([(np.full((3, 4), IGNORE, np.uint8), np.zeros((3, 4), np.uint8))]).figures()
    assert figures["mean_iou"] is None
    assert figures["pixel_accuracy"] is None
    assert figures["per_class_iou"] == {"sky": None, "road": None, "car": None, "bird": None}


def test_a_prediction_outside_the_classes_or_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="the prediction holds class 4, but the last class is 3"):
        Confusion(CLASSES).add(np.zeros((1, 2), np.uint8), np.array([[0, 4]], np.uint8))
    with pytest.raises(ValueError, match="must have one size"):
        Confusion(CLASSES).add(np.zeros((1, 2), np.uint8), np.zeros((2, 2), np.uint8))


def test_l1_and_psnr_are_their_formulas_and_do_not_wrap_around() -> None:
    truth, picture = np.full((2, 3, 3), 250, np.uint8), np.full((2, 3, 3), 5, np.uint8)
    assert l1_levels(truth, picture) == 245
    assert psnr(truth, picture) == pytest.approx(10 * np.log10(255**2 / 245**2))
    assert psnr(truth, truth) == float("inf")


def test_the_maps_accuracy_is_its_definition_pixel_by_pixel() -> None:
    generator = np.random.default_rng(2)
    truth = generator.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    picture = np.clip(truth.astype(int) + generator.integers(-25, 26, truth.shape), 0, 255).astype(np.uint8)
    right = sum(
        max(abs(int(truth[y, x, c]) - int(picture[y, x, c])) for c in range(3)) < 20 for y in range(6) for x in range(9)
    )
    assert 0 < right < 54
    assert maps_accuracy(truth, picture) == right / 54


def test_a_label_map_is_painted_in_its_table_s_colours_and_void_in_the_void_colour() -> None:
    painted = CLASSES.index_to_color()[np.array([[0, 1, 2], [3, IGNORE, 200]], np.uint8)]
    assert painted.tolist() == [[[128, 128, 128], [128, 64, 128], [64, 0, 128]], [[1, 2, 3], [0, 0, 9], [0, 0, 9]]]


def test_a_grid_shows_every_cell_at_its_scale_and_leaves_missing_ones_empty() -> None:
    cell = np.full((20, 60, 3), (200, 10, 10), np.uint8)
    page = np.asarray(sample_grid([{"photo": cell}, {"label": cell}], scale=2, names=["one", "two"], caption="a\nb"))
    assert (page == (200, 10, 10)).all(axis=-1).sum() == 2 * 40 * 120


def test_a_grid_has_a_legend_of_the_classes_below_and_prints_names_in_other_alphabets() -> None:
    plain = sample_grid([{"label": np.zeros((20, 300, 3), np.uint8)}])
    page = np.asarray(sample_grid([{"label": np.zeros((20, 300, 3), np.uint8)}], classes=CLASSES))
    legend = page[plain.height - 4 :]
    for colour in CLASSES.palette:
        assert (legend == colour).all(axis=-1).sum() > 20
    words = [class_table([(0, word, (1, 2, 3), False)]) for word in ("дорога", "облако", "\uffff" * 6)]
    drawn = [np.asarray(sample_grid([{"label": np.zeros((20, 300, 3), np.uint8)}], classes=each)) for each in words]
    assert drawn[0].shape != drawn[1].shape or (drawn[0] != drawn[1]).any(), "both are boxes"
