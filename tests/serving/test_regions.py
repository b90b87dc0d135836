"""Connected regions: their areas, boxes and outlines, against filling and counting pixel by pixel."""

import numpy as np

from serving.imaging import regions as module
from serving.imaging.domain import ClassRow, Domain
from serving.imaging.regions import regions

DOMAIN = Domain(
    "classes",
    (*(ClassRow(id, f"class {id}", (id, id, id), False) for id in range(3)), ClassRow(3, "void", (9, 9, 9), True)),
)


def flooded(mask):
    """Each 4-connected part of a mask as a mask of its own."""
    left, parts = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while left:
        part, edge = np.zeros_like(mask), [left.pop()]
        while edge:
            y, x = edge.pop()
            part[y, x] = True
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            edge.extend(near)
        parts.append(part)
    return parts


def filled(outline, shape):
    """The pixels whose centres a polygon surrounds, by the even-odd rule."""
    down, right = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, bool)
    for (x, y), (after_x, after_y) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        assert x == after_x or y == after_y
        if x == after_x:
            inside ^= ((y > down) != (after_y > down)) & (right < x)
    return inside


def drawn(seed):
    """A small random map: from few large regions to noise, some enlarged as an answer at a model's scale is."""
    random = np.random.default_rng(seed)
    share = 0.05 + 0.9 * random.random()
    ids = random.choice(3, random.integers(1, 14, 2), p=[share, (1 - share) / 2, (1 - share) / 2]).astype(np.uint8)
    return np.kron(ids, np.ones(random.integers(1, 4, 2), np.uint8)) if seed % 3 == 0 else ids


def test_each_outline_surrounds_exactly_the_pixels_of_one_region_without_its_holes():
    for seed in range(60):
        ids = drawn(seed)
        found = regions(ids, DOMAIN, min_area=1)
        for id in range(3):
            surrounded = [filled(region.outline, ids.shape) for region in found if region.row.id == id]
            assert sorted(part.tobytes() for part in surrounded) == sorted(
                part.tobytes() for part in flooded(ids == id)
            )
        for region in found:
            y, x = np.nonzero(filled(region.outline, ids.shape))
            assert region.area == len(y)
            assert region.box == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)


def test_a_ring_in_a_ring_keeps_all_its_holes():
    ids = np.ones((15, 15), np.uint8)
    ids[2:13, 2:13] = 0
    ids[4:11, 4:11] = 1
    ids[5:7, 5:7] = ids[8:10, 8:10] = 0
    areas = [(region.row.id, region.area) for region in regions(ids, DOMAIN, min_area=1)]
    assert areas == [(1, 225 - 121), (0, 121 - 49), (1, 49 - 8), (0, 4), (0, 4)]


def test_an_outline_has_no_more_corners_than_it_needs():
    ids = np.zeros((40, 60), np.uint8)
    ids[10:20, 10:40] = 1
    outlines = {region.row.id: region.outline for region in regions(ids, DOMAIN, min_area=1)}
    assert sorted(map(tuple, outlines[1])) == [(10, 10), (10, 20), (40, 10), (40, 20)]
    assert (
        len(outlines[0]) == 10
    )  # four of the picture, four of the hole, and two where the cut between them begins and ends


def test_void_and_smaller_regions_are_left_out_and_the_rest_is_largest_first():
    ids = np.zeros((10, 10), np.uint8)
    ids[0, 0], ids[5, 2:6], ids[8, 2:4], ids[9, :5], ids[9, 5:] = 1, 1, 1, 3, 255
    assert [(region.row.id, region.area) for region in regions(ids, DOMAIN, min_area=2)] == [(0, 83), (1, 4), (1, 2)]


def test_a_map_of_nothing_but_edges_is_not_listed(monkeypatch):
    monkeypatch.setattr(module, "MOST_EDGES", 100)
    ids = np.random.default_rng(0).integers(0, 3, (20, 20), dtype=np.uint8)
    assert regions(ids, DOMAIN, min_area=1) is None
    enlarged = np.kron(np.array([[0, 1], [1, 0]], np.uint8), np.ones((200, 200), np.uint8))
    assert len(regions(enlarged, DOMAIN, min_area=1)) == 4  # long edges are not many
