"""Street sketches drawn in code, a photo-like picture and its label map together: the page's examples to click."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from serving.imaging import Bytes
from serving.manifest import Domain

SKETCHES = 3
_HEIGHT, _WIDTH = 288, 432
_SPELLINGS = {  # what the common street datasets call the same thing
    "sky": ("sky",),
    "building": ("building", "wall"),
    "road": ("road", "street"),
    "pavement": ("sidewalk", "pavement"),
    "tree": ("tree", "vegetation"),
    "car": ("car", "vehicle"),
    "pole": ("pole", "column_pole", "column"),
    "person": ("pedestrian", "person"),
    "sign": ("sign", "signsymbol", "traffic sign"),
}
_SKIES = ((120, 165, 215), (180, 185, 190), (225, 170, 130))
_WALLS = ((150, 110, 90), (165, 150, 125), (115, 120, 130), (180, 165, 150))
_CARS = ((170, 40, 40), (40, 60, 120), (200, 200, 205))

Points = Sequence[tuple[float, float]]


def sketch(index: int, domain: Domain) -> tuple[Bytes, Bytes]:
    """Photo-like uint8[H,W,3] and ids uint8[H,W] of one street; things the domain has no class for are void."""
    street = _Street(np.random.default_rng(index), domain)
    street.draw(_SKIES[index % len(_SKIES)])
    return street.photo(), np.asarray(street.label_picture)


class _Street:
    def __init__(self, random: np.random.Generator, domain: Domain) -> None:
        self._random = random
        self._ids = _ids(domain)
        self._picture = Image.new("RGB", (_WIDTH, _HEIGHT))
        self.label_picture = Image.new("L", (_WIDTH, _HEIGHT), self._ids["sky"])
        self._pen, self._marker = ImageDraw.Draw(self._picture), ImageDraw.Draw(self.label_picture)
        self._horizon = int(_HEIGHT * random.uniform(0.42, 0.5))
        self._vanishing = int(_WIDTH * random.uniform(0.42, 0.58))

    def draw(self, sky: tuple[int, int, int]) -> None:
        for row in range(self._horizon + 40):
            brightness = 0.85 + 0.3 * row / self._horizon
            self._pen.line((0, row, _WIDTH, row), fill=_lit(sky, brightness))
        self._ground()
        for side in (-1, 1):
            self._buildings(side)
            self._trees(side)
        self._cars()
        self._poles_and_people()

    def photo(self) -> Bytes:
        """Softened, unevenly lit and grainy, as a camera would have it."""
        soft = np.asarray(self._picture.filter(ImageFilter.GaussianBlur(0.8))).astype(np.float32)
        light = self._random.uniform(0.9, 1.1) + 0.1 * np.linspace(-1, 1, _WIDTH)[None, :, None]
        grain = self._random.normal(0, 5, (_HEIGHT, _WIDTH, 1))
        return np.clip(soft * light + grain, 0, 255).astype(np.uint8)

    def _polygon(self, what: str, points: Points, fill: tuple[int, int, int]) -> None:
        self._pen.polygon(list(points), fill=fill)
        self._marker.polygon(list(points), fill=self._ids[what])

    def _ground(self) -> None:
        top, middle = self._horizon, self._vanishing
        self._polygon("pavement", [(0, top), (_WIDTH, top), (_WIDTH, _HEIGHT), (0, _HEIGHT)], (140, 135, 130))
        self._polygon("road", [(middle - 14, top), (middle + 14, top), (_WIDTH * 0.95, _HEIGHT), (_WIDTH * 0.05, _HEIGHT)], (75, 75, 80))
        for start in np.linspace(0.1, 0.9, 6):  # the dashed line down the middle
            near, far = top + (_HEIGHT - top) * (start + 0.06) ** 1.5, top + (_HEIGHT - top) * start**1.5
            self._pen.polygon([(middle - 1, far), (middle + 1, far), (middle + 3, near), (middle - 3, near)], fill=(225, 225, 220))

    def _buildings(self, side: int) -> None:
        edge = 0.0 if side < 0 else float(_WIDTH)
        while abs(edge - self._vanishing) > 50:
            width = abs(edge - self._vanishing) * self._random.uniform(0.25, 0.45)
            inner = edge - side * width
            near, far = abs(edge - self._vanishing) / _WIDTH, abs(inner - self._vanishing) / _WIDTH
            height, wall = self._random.uniform(0.7, 1.3), _WALLS[self._random.integers(len(_WALLS))]
            roof_near, roof_far = (self._horizon - height * _HEIGHT * 0.75 * depth - 10 for depth in (near, far))
            foot_near, foot_far = (self._horizon + _HEIGHT * 0.22 * depth for depth in (near, far))
            self._polygon("building", [(edge, roof_near), (inner, roof_far), (inner, foot_far), (edge, foot_near)], wall)
            for across in np.arange(0.15, 0.9, 0.24):
                for up in np.arange(0.12, 0.85, 0.2):
                    left, roof, foot = (
                        edge - side * width * across,
                        *(_mix(a, b, across) for a, b in ((roof_near, roof_far), (foot_near, foot_far))),
                    )
                    top, size = roof + (foot - roof) * up, max(2.0, width * 0.1)
                    self._pen.rectangle((left - size / 2, top, left + size / 2, top + (foot - roof) * 0.1), fill=_lit(wall, 0.5))
            edge = inner

    def _trees(self, side: int) -> None:
        for depth in self._random.uniform(0.25, 0.8, 2):
            x, foot = self._vanishing + side * _WIDTH * 0.5 * depth, self._horizon + _HEIGHT * 0.25 * depth
            size = 70 * depth
            self._polygon("tree", [(x - 3 * depth, foot), (x + 3 * depth, foot), (x + 2, foot - size), (x - 2, foot - size)], (80, 60, 45))
            for _ in range(9):
                dx, dy, radius = *self._random.normal(0, size * 0.28, 2), size * self._random.uniform(0.2, 0.4)
                box = (x + dx - radius, foot - 1.3 * size + dy - radius, x + dx + radius, foot - 1.3 * size + dy + radius)
                self._pen.ellipse(box, fill=_lit((60, 100, 50), self._random.uniform(0.6, 1.3)))
                self._marker.ellipse(box, fill=self._ids["tree"])

    def _cars(self) -> None:
        for depth, lane in ((0.3, 0.22), (0.62, -0.25)):
            x, foot = self._vanishing + lane * _WIDTH * depth, self._horizon + (_HEIGHT - self._horizon) * depth
            width, height = 120 * depth, 62 * depth
            paint = _CARS[self._random.integers(len(_CARS))]
            body = [
                (x - width / 2, foot),
                (x + width / 2, foot),
                (x + width / 2, foot - height * 0.55),
                (x - width / 2, foot - height * 0.55),
            ]
            cabin = [(x - width * 0.42, foot - height * 0.5), (x + width * 0.42, foot - height * 0.5), (x + width * 0.3, foot - height)]
            self._polygon("car", [*cabin, (x - width * 0.3, foot - height)], _lit(paint, 0.6))
            self._polygon("car", body, paint)
            for wheel in (-0.34, 0.34):
                box = (x + width * (wheel - 0.1), foot - height * 0.16, x + width * (wheel + 0.1), foot + height * 0.1)
                self._pen.rectangle(box, fill=(25, 25, 28))
                self._marker.rectangle(box, fill=self._ids["car"])

    def _poles_and_people(self) -> None:
        x = self._vanishing + _WIDTH * 0.3
        foot = self._horizon + _HEIGHT * 0.2
        self._polygon("pole", [(x - 2, foot), (x + 2, foot), (x + 2, foot - 130), (x - 2, foot - 130)], (100, 100, 100))
        self._polygon("sign", [(x - 11, foot - 128), (x + 11, foot - 128), (x + 11, foot - 104), (x - 11, foot - 104)], (30, 70, 160))
        for at, size in ((-0.33, 54), (0.37, 40)):
            left, low = self._vanishing + _WIDTH * at, foot + size * 0.35
            coat = _CARS[self._random.integers(len(_CARS))]
            self._polygon("person", [(left - 6, low), (left + 6, low), (left + 8, low - size * 0.75), (left - 8, low - size * 0.75)], coat)
            head = (left - 5, low - size, left + 5, low - size * 0.74)
            self._pen.ellipse(head, fill=(205, 165, 140))
            self._marker.ellipse(head, fill=self._ids["person"])


def _ids(domain: Domain) -> dict[str, int]:
    """The id of each thing in the street. Where the classes are of another world, they take turns."""
    named = {row.name.lower().replace("_", " "): row.id for row in domain.classes}
    found = {
        what: next((named[name.replace("_", " ")] for name in names if name.replace("_", " ") in named), None)
        for what, names in _SPELLINGS.items()
    }
    taught = [row.id for row in domain.classes if not row.ignore] or [domain.void]
    if all(id is None for id in found.values()):
        return {what: taught[index % len(taught)] for index, what in enumerate(_SPELLINGS)}
    return {what: domain.void if id is None else id for what, id in found.items()}


def _lit(colour: tuple[int, int, int], brightness: float) -> tuple[int, int, int]:
    red, green, blue = (min(255, int(value * brightness)) for value in colour)
    return red, green, blue


def _mix(first: float, second: float, weight: float) -> float:
    return first + (second - first) * weight
