"""What stands in one drawn street, in metres."""

from dataclasses import dataclass
from typing import Literal

Color = tuple[float, float, float]
"""Red, green, blue in [0,1]."""

Kind = Literal["tree", "car", "van", "person", "cyclist", "lamp", "sign", "signal", "bin", "bush"]


@dataclass(frozen=True)
class Light:
    """The hour and the weather."""

    sun: float
    """How hard the shadows are: 0 overcast, 1 clear."""
    sun_side: float
    """Which way shadows fall: -1 to the left, 1 to the right."""
    sky: tuple[Color, Color]
    """Overhead, and at the horizon."""
    clouds: float
    tint: Color
    exposure: float
    haze: float
    """Share of the haze's colour at 60 m."""
    wet: float
    lamps: float
    """Share of windows and headlights that are lit."""


@dataclass(frozen=True)
class Facade:
    """A building: its front follows the road from `near` to `far`, `lateral` metres from the centre line (left is negative)."""

    lateral: float
    near: float
    far: float
    height: float
    wall: Color
    trim: Color
    roof: Color
    roof_height: float
    floor: float
    bay: float
    window: tuple[float, float]
    """Width and height of a window as shares of bay and floor."""
    brick: float
    shop: Color | None
    """Colour of the shop sign above the ground floor."""
    seed: int


@dataclass(frozen=True)
class Fence:
    """A fence along the road."""

    lateral: float
    near: float
    far: float
    height: float
    color: Color
    pitch: float
    """Metres from bar to bar."""
    gap: float
    """The share of it that one sees through."""


@dataclass(frozen=True)
class Thing:
    """Whatever stands on the ground at one place."""

    kind: Kind
    lateral: float
    distance: float
    size: float
    color: Color
    facing: int
    """1: seen from behind, -1: seen from the front."""
    seed: int


@dataclass(frozen=True)
class Street:
    """One scene."""

    eye: float
    """Height of the camera."""
    horizon: float
    """Share of the picture above the horizon."""
    vanishing: float
    """The vanishing point's distance from the middle, as a share of the height."""
    zoom: float
    roll: float
    bend: float
    """The centre line runs at x = offset + bend * z^2."""
    offset: float
    half_road: float
    pavement: float
    asphalt: Color
    slabs: Color
    ground: Color
    dashes: float
    edge_lines: Literal["none", "white", "yellow"]
    crossing: float | None
    bonnet: Color | None
    light: Light
    facades: tuple[Facade, ...]
    fences: tuple[Fence, ...]
    things: tuple[Thing, ...]
    skyline: tuple[Color, Color]
    seed: int

    def centre(self, distance: float) -> float:
        """x of the centre line at a distance."""
        return self.offset + self.bend * distance * distance
