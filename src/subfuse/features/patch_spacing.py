"""The size of patches by where they lie, for feature files that do not record it."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num

from subfuse.errors import DataError

NO_PATCH_SIZE = "the size of the patches is not recorded: taken from their spacing, as without overlap"
SPACING_RULE = 3  # counts up when the same places give another size: slides are then imported again
_TOLERANCE = 0.01  # of a distance, and a pixel: places are rounded
_MOST = 0.9  # of the patches, that lie on a grid
_FEW = 10  # patches, all of which must lie on a grid
_TOUCHING = 4  # patches at one distance from their neighbour, two pairs, that show it where they are half of all
_COMPARED = 50  # distances, the most frequent ones, of which a grid is made
_FINER = 3  # times than the usual distance, that a grid may be
_BY_CHANCE = 1e-8  # probability below which patches of a fine grid do not lie on a coarse one
_PLAUSIBLE_UM = (30.0, 700.0)  # sides of patches: 224 px at 40x with overlap, and 512 px at 5x with some reserve
_PLAUSIBLE_PX = (64.0, 2048.0)  # where the pixel size is not known


def spacing(coords: Num[np.ndarray, "patch 2"], path: Path, mpp: float | None = None) -> float:
    """Returns the side of the patches, as if they touched each other without overlap.

    Where at least half of the patches have their nearest neighbour, beside or across a corner, at one distance, and
    nearly all at a multiple of it, it is that. Where tissue is sparse, it is the common divisor of all places where
    that is a plausible side, or else the coarsest grid that nearly all distances between neighbours lie on: pieces of
    tissue may have grids of their own (CLAM), whose common divisor is far smaller than a patch.

    Args:
        coords: Corners of the patches.
        path: Their file, for the message.
        mpp: µm per pixel; None where it is not known.

    Raises:
        DataError: There is no grid, or no patch is that small or large.
    """
    places = np.unique(coords, axis=0)
    are_in_lines = any(len(np.unique(places[:, axis])) < len(places) for axis in (0, 1))
    least, largest = np.divide(_PLAUSIBLE_UM, mpp) if mpp else _PLAUSIBLE_PX
    side = _side_by_neighbours(places) if are_in_lines else None
    common = float(np.gcd.reduce((places - places[0]).round().astype(np.int64), axis=None))
    is_plausible = least <= common <= largest and (are_in_lines or len(places) >= _TOUCHING)
    if is_plausible and (side is None or _may_be_chance(side / common, len(places))):
        side = common
    elif not are_in_lines:
        raise _unknown_size(path, f"no two of the {len(coords)} patches lie in one row or column")
    if side is None:
        raise _unknown_size(path, f"the {len(coords)} patches lie on no common grid")
    if not least <= side <= largest:
        found = f"{side:.4g} px" + (f" ({side * mpp:.4g} µm)" if mpp else "")
        raise _unknown_size(path, f"patches lie {found} apart, which is no size of patches that do not overlap")
    return side


def _unknown_size(path: Path, found: str) -> DataError:
    return DataError(
        f"{path}: the size of the patches is required, as attribute `patch_size_level0` of `coords`. Found none, and "
        f"{found}. Leave the slide out, or write the attribute into the file."
    )


def _may_be_chance(coarser: float, n_places: int) -> bool:
    """Returns whether so few patches may lie on a coarser grid by chance; every second distance is that of a pair."""
    return coarser > 1 and coarser ** (-n_places / 2) > _BY_CHANCE


def _side_by_neighbours(places: Num[np.ndarray, "place 2"]) -> float | None:
    """Returns the side of the grid that distances between neighbours show; None: they lie on no grid."""
    distances = nearest_distances(places)
    most = _most_frequent(distances)
    n_touching = int(_are_near(distances, most).sum())
    is_usual = n_touching >= max(_TOUCHING, len(places) / 2)
    if is_usual and _lie_on(distances, most).mean() >= _MOST:
        return most
    common = np.gcd.reduce(distances.round().astype(np.int64))
    if common >= most / _FINER:
        return float(common)
    share = 1.0 if len(places) < _FEW else _MOST
    on_grid = (side for side in _sides(distances) if _lie_on(distances, side).mean() >= share)
    return most if is_usual else next(on_grid, None)


def _most_frequent(distances: Float[np.ndarray, " place"]) -> float:
    """Returns the middle of the distance that most places have, but for rounding; the shortest of several."""
    values, counts = np.unique(distances, return_counts=True)
    frequent = values[np.sort(np.argsort(-counts, kind="stable")[:_COMPARED])]
    most = max(frequent, key=lambda value: _are_near(distances, value).sum())
    return float(np.median(distances[_are_near(distances, most)]))


def _sides(distances: Float[np.ndarray, " place"]) -> list[float]:
    """Returns the sides that a grid may have, the longest first: distances and what divides two of them."""
    values, counts = np.unique(distances, return_counts=True)
    frequent = values[np.argsort(-counts, kind="stable")[:_COMPARED]]
    whole = frequent.round().astype(np.int64)
    divisors = np.gcd(whole[:, None], whole).ravel()
    sides = np.unique(np.concatenate([frequent, divisors]))
    return sides[sides >= values[0] / _FINER][::-1].tolist()


def _lie_on(distances: Float[np.ndarray, " place"], side: float) -> Bool[np.ndarray, " place"]:
    """Returns which distances are a whole number of sides, but for rounding."""
    return _are_near(distances, side * np.maximum(1, np.round(distances / side)))


def _are_near(distances: Float[np.ndarray, " place"], others: Any) -> Bool[np.ndarray, " place"]:
    return np.abs(distances - others) <= np.maximum(1, _TOLERANCE * distances)


def nearest_distances(places: Num[np.ndarray, "place 2"]) -> Float[np.ndarray, " place"]:
    """Returns how far each place's nearest other one is, by the longer of the distances along x and y."""
    from scipy.spatial import KDTree  # imports slowly

    return KDTree(places).query(places, k=2, p=np.inf)[0][:, 1]
