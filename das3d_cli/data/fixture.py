"""What holds the parts: pieces that stand in the same place in all captures, while the parts between them do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.capture import Fixture
from das3d_cli.data.plane import Table, without_specks
from das3d_cli.errors import DataError, NothingFoundError

_LEAST = 8  # captures; in fewer, parts may lie in the same place by chance
_ALWAYS = 0.9  # share of the captures in which a pixel of the fixture stands out of the table
_ALONE = 0.5  # share in which hardly anything stands around a piece of it; parts may lean on it in the others
_AROUND = 0.1  # share of a piece's surroundings that may stand out of the table: its outline varies by noise
_MARGIN = 0.004  # share of the image's longer side: width of these surroundings, and how far outlines vary anyway
_SMALLEST = 2e-4  # share of the image
# Share of all that stands on the table: fixtures of rendered scenes take 0.02 to 0.29 of it. Parts that lie still, with a
# lid or a tool that does not beside them, take 0.43 to 0.74, and must not be taken for a fixture.
_MOST = 0.4


def find_fixture(standing: Sequence[NDArray[np.bool_]]) -> Fixture | None:
    """Find the fixture by what stands on the table in each of several captures, bool, (H, W) each.

    A piece belongs to it if it is there in nearly all of them and ends in the same place. Parts that all lie in exactly
    the same place cannot be told from it, nor need they be.

    Returns:
        The fixture; None without one, or if the captures are too few or differ in size.
    """
    if len(standing) < _LEAST or len({mask.shape for mask in standing}) > 1:
        return None
    always = np.asarray(np.mean(standing, axis=0) >= _ALWAYS, np.uint8)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(always, connectivity=8)
    large = (piece for piece in range(1, count) if stats[piece, cv2.CC_STAT_AREA] >= _SMALLEST * always.size)
    fixed = [piece for piece in large if _stands_alone(pieces == piece, standing)]
    fixture = np.isin(pieces, fixed)
    area = _grown(fixture)
    taken = float(np.median([(mask & area).sum() / max(1, mask.sum()) for mask in standing]))
    if not fixed or taken > _MOST:
        return None
    outlines, _ = cv2.findContours(fixture.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    corners = (cv2.approxPolyDP(outline, 1.0, True)[:, 0].tolist() for outline in outlines)
    polygons = tuple(tuple((x, y) for x, y in polygon) for polygon in corners)
    height, width = fixture.shape
    return Fixture(width, height, polygons, taken)


def _grown(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The area and a margin around it."""
    margin = max(2, round(_MARGIN * max(area.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    return cv2.dilate(area.astype(np.uint8), disc).astype(bool)


def _stands_alone(piece: NDArray[np.bool_], standing: Sequence[NDArray[np.bool_]]) -> bool:
    """Whether in most captures hardly anything stands around the piece, as it does around the middle of a part."""
    area = _grown(piece)
    around = _grown(area) & ~area
    return bool(np.mean([mask[around].mean() <= _AROUND for mask in standing]) >= _ALONE)


def without_fixture(table: Table, fixture: Fixture) -> Table:
    """The table and the part without the fixture, and how much of that is there.

    Raises:
        DataError: the capture has another size than those in which the fixture was found, or nothing else stands on the
            table.
    """
    area = _area(fixture, table.foreground.shape)
    beside = ~_grown(area)
    left = table.foreground & beside
    part = without_specks(left, left)
    if not part.any():
        raise NothingFoundError(
            "no part found: nothing but the fixture stands on the table; check that a part is there"
        )
    share = float(table.foreground[area].mean())
    return replace(table, foreground=part, specks=table.specks & beside, fixture_share=share)


def blanked(xyz: NDArray[np.float32], fixture: Fixture | None) -> NDArray[np.float32]:
    """The points (H, W, 3), of which those on the fixture are missing. Raises DataError: as `without_fixture`."""
    if fixture is None:
        return xyz
    return np.where(_grown(_area(fixture, xyz.shape[:2]))[..., None], np.float32(np.nan), xyz)


def _area(fixture: Fixture, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The pixels that show the fixture, bool, of this shape."""
    height, width = shape
    if (width, height) != (fixture.width, fixture.height):
        raise DataError(
            f"the capture has {width} x {height} pixels, but those that show where the fixture stands have {fixture.width} x"
            f" {fixture.height}; capture it as these were"
        )
    area = np.zeros(shape, np.uint8)
    cv2.fillPoly(area, [np.array(polygon, np.int32) for polygon in fixture.outlines], 1)
    return area.astype(bool)
