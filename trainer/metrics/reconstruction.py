"""How near a picture is to the true one, pixel by pixel: L1, PSNR, and the accuracy that the maps dataset is judged by."""

import math

import numpy as np


def l1_levels(truth: np.ndarray, picture: np.ndarray) -> float:
    """Mean absolute difference in levels, 0..255. Both uint8[H,W,3]. In [-1,1] it is this over 127.5."""
    return float(np.abs(truth.astype(np.int16) - picture.astype(np.int16)).mean())


def psnr(truth: np.ndarray, picture: np.ndarray) -> float:
    """10 log10(255^2 / mean squared difference) in dB, of uint8[H,W,3]; equal pictures are infinitely near."""
    error = float(np.square(truth.astype(np.float64) - picture.astype(np.float64)).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def maps_accuracy(truth: np.ndarray, picture: np.ndarray, *, below: int = 20) -> float:
    """Share of pixels whose largest channel difference is strictly below 20 levels (Shukla et al., section 6, maps)."""
    difference = np.abs(truth.astype(np.int16) - picture.astype(np.int16)).max(axis=-1)
    return float((difference < below).mean())
