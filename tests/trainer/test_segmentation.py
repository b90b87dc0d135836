"""The figures of label maps, against a slow count pixel by pixel and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score

from trainer.batch import IGNORE, class_table
from trainer.metrics.pictures import colourise, overlay, sheet, shrink
from trainer.metrics.reconstruction import l1_levels, maps_accuracy, psnr
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


def test_the_matrix_and_the_iou_agree_with_scikit_learn() -> None:
    images = two_images(seed=8)
    truth = np.concatenate([image[0].ravel() for image in images])
    prediction = np.concatenate([image[1].ravel() for image in images])[truth != IGNORE]
    truth = truth[truth != IGNORE]
    confusion = counted(images)
    assert (confusion.matrix == confusion_matrix(truth, prediction, labels=range(4))).all()
    figures = confusion.figures()
    by_class = jaccard_score(truth, prediction, labels=range(4), average=None)
    per_class = figures["per_class_iou"]
    assert isinstance(per_class, dict)
    assert [per_class[name] for name in ("sky", "road", "car")] == pytest.approx(by_class[:3].tolist())
    assert figures["mean_iou_absent_as_zero"] == pytest.approx(by_class.mean())


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


def test_the_count_does_not_overflow_on_a_large_split() -> None:
    confusion = Confusion(CLASSES)
    confusion.matrix[:] = 2**40
    confusion.add(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    assert confusion.matrix[0, 0] == 2**40 + 4


def test_a_prediction_outside_the_classes_or_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="the prediction holds class 4, but the classes end at 3"):
        Confusion(CLASSES).add(np.zeros((1, 2), np.uint8), np.array([[0, 4]], np.uint8))
    with pytest.raises(ValueError, match="bring them to one size"):
        Confusion(CLASSES).add(np.zeros((1, 2), np.uint8), np.zeros((2, 2), np.uint8))


def test_l1_and_psnr_are_their_formulas_and_do_not_wrap_around() -> None:
    truth, picture = np.full((2, 3, 3), 250, np.uint8), np.full((2, 3, 3), 5, np.uint8)
    assert l1_levels(truth, picture) == 245
    assert psnr(truth, picture) == pytest.approx(10 * np.log10(255**2 / 245**2))
    assert psnr(truth, truth) == float("inf")


def test_a_map_pixel_is_right_only_where_every_channel_is_less_than_20_levels_off() -> None:
    truth = np.zeros((1, 3, 3), np.uint8)
    picture = np.array([[[19, 19, 19], [0, 20, 0], [0, 0, 200]]], np.uint8)
    assert maps_accuracy(truth, picture) == pytest.approx(1 / 3)


def test_the_maps_accuracy_is_its_definition_pixel_by_pixel() -> None:
    generator = np.random.default_rng(2)
    truth = generator.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    picture = np.clip(truth.astype(int) + generator.integers(-25, 26, truth.shape), 0, 255).astype(np.uint8)
    right = sum(max(abs(int(truth[y, x, c]) - int(picture[y, x, c])) for c in range(3)) < 20 for y in range(6) for x in range(9))
    assert 0 < right < 54
    assert maps_accuracy(truth, picture) == right / 54


def test_a_label_map_is_painted_in_its_table_s_colours_and_void_in_the_void_colour() -> None:
    painted = colourise(np.array([[0, 1, 2], [3, IGNORE, 200]], np.uint8), CLASSES)
    assert painted.tolist() == [[[128, 128, 128], [128, 64, 128], [64, 0, 128]], [[1, 2, 3], [0, 0, 9], [0, 0, 9]]]


def test_an_overlay_is_half_photo_and_half_label() -> None:
    mixed = overlay(np.full((2, 2, 3), 100, np.uint8), np.full((2, 2, 3), 201, np.uint8))
    assert set(mixed.ravel().tolist()) <= {150, 151}


def test_a_sheet_shows_every_cell_at_its_scale_and_leaves_missing_ones_empty() -> None:
    cell = np.full((20, 60, 3), (200, 10, 10), np.uint8)
    page = np.asarray(sheet(["photo", "truth"], [[cell, None], [None, cell]], scale=2, names=["one", "two"], caption="a\nb"))
    assert (page == (200, 10, 10)).all(axis=-1).sum() == 2 * 40 * 120
    with pytest.raises(ValueError, match="1 pictures does not fit under 2 columns"):
        sheet(["photo", "truth"], [[cell]])


def test_a_shrunk_label_map_holds_no_colour_that_it_did_not_hold() -> None:
    label = colourise(np.random.default_rng(0).integers(0, 4, (40, 60)), CLASSES)
    small = shrink(label, 17, ids=True)
    assert small.shape == (11, 17, 3)
    assert set(map(tuple, small.reshape(-1, 3).tolist())) <= set(map(tuple, label.reshape(-1, 3).tolist()))
