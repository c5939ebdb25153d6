"""From a raw capture to a sample: the part cut out of the scene, made square, resized and scaled."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.alignment import photo_offset
from das3d_cli.data.capture import Fixture, Foreground, Geometry, Masks, RawCapture, Sample, is_grey
from das3d_cli.data.fill import enclosed, fill, part_coloured, stray
from das3d_cli.data.foreground import find_foreground
from das3d_cli.data.parallax import displacement, pixel_aspect, pixel_pitch
from das3d_cli.data.plane import Table, away, height_over
from das3d_cli.data.sharpness import sharpness
from das3d_cli.data.square import check_shown, circle_around, cut_square, place_square, resized, resized_truth
from das3d_cli.errors import DataError

DepthAxis = Literal["camera", "plane"]
_TAIL_PERCENT = 0.5  # of the part's points, left out of the depth range at each end, where a defect may lie
_MIN_SPAN_M = 1e-3
# A point this far in depth from all its neighbours is stray: share of the depth range, and the least in metres.
_STRAY, _STRAY_M = 0.1, 1e-3
_OTHER_UNIT = 5.0  # times the usual pitch: no other camera or distance, as units differ by a factor of ten at least
OTHER_SCALE = 1.4  # factor beyond the largest or smallest pitch: another resolution or camera, not a part farther away
_NO_DEPTH = 0.5  # depth of a part without points: the synthesis can then change it either way
_NO_COLOUR = 128
# A pitch within this factor of the usual counts as usual: resampling from sizes a pixel or two apart makes parts look
# less alike than this difference in scale does, and more good blocks were rejected (tests/quality/CHOICES.md).
_HARDLY = 1.025
# Linear interpolation blurs, more or less depending on where a sample falls between pixels: in small captures,
# scratches and digits were hard to tell from that (tests/quality/CHOICES.md).
_SHARP = cv2.INTER_CUBIC
_SMALLEST = 16  # pixels, the least height and width


class Extent(NamedTuple):
    """The size of a part and its depth range.

    Attributes:
        near_m, far_m: nearest and farthest depth in metres, leaving out half a percent of the points at each end.
        span_m: diameter of the smallest circle around the part, metres; the same however the part is turned.
        pitch_m: pixel pitch on the part, metres.
        low_fraction: share of the part that is too low to be told from the table; see `_low_fraction`.
        aspect: ratio of a pixel's longer to its shorter side.
        standing: bool, (H, W): what was measured of the part.
    """

    near_m: float
    far_m: float
    span_m: float
    pitch_m: float
    low_fraction: float
    aspect: float
    standing: NDArray[np.bool_]


class _Part(NamedTuple):
    """The part in raw pixels, (H, W), and values for its `Geometry`.

    Attributes:
        mask: the part including its pixels without a point.
        measured: its pixels with a point, without stray points beside missing ones.
        depth: scaled so that the depth range is 0 to 1, not clipped; 0 off the part.
        rising: how far a point's image moves as it rises from depth 1 to 0, x and y in pixels.
        clipped: share of the measured points whose depth is not in that range.
    """

    mask: NDArray[np.bool_]
    measured: NDArray[np.bool_]
    depth: NDArray[np.float32]
    plane: tuple[float, float, float, float] | None
    tilt_deg: float | None
    near_m: float | None
    far_m: float | None
    missing: float
    rising: tuple[float, float]
    clipped: float
    pitch_m: float | None
    gap_m: float | None
    fixture_share: float | None


def extent_of(
    capture: RawCapture,
    *,
    plane_distance_m: float,
    depth_axis: DepthAxis,
    foreground: Foreground = "table",
    fixture: Fixture | None = None,
) -> Extent:
    """Measure the part in a capture with points.

    Raises:
        DataError: as `preprocess`, or the capture has no points.
    """
    check_capture(capture)
    if capture.xyz is None:
        raise DataError("holds no points from which to measure the part")
    table = find_foreground(capture.xyz, foreground, plane_distance_m=plane_distance_m, fixture=fixture)
    near, far = _range_of(_depth(capture.xyz, table, depth_axis)[table.foreground])
    part = table.foreground | _missing_part(capture.rgb, capture.xyz, table)
    pitch, low = pixel_pitch(capture.xyz, table.foreground), _low_fraction(capture.xyz, table, plane_distance_m)
    span, aspect = 2 * circle_around(part)[2] * pitch, pixel_aspect(capture.xyz, table.foreground)
    return Extent(near, far, span, pitch, low, aspect, table.foreground)


def preprocess(
    capture: RawCapture,
    *,
    size: int,
    plane_distance_m: float,
    depth_axis: DepthAxis,
    depth_range_m: tuple[float, float] | None,
    window_m: float | None,
    pitch_m: tuple[float, float] | None = None,
    foreground: Foreground = "table",
    fixture: Fixture | None = None,
    ground_truth: NDArray[np.bool_] | None = None,
    by_type: Masks | None = None,
) -> Sample:
    """Cut the part out of a capture and resize it to a square of `size` x `size` pixels.

    Args:
        capture: colour (H, W, 3) and points (H, W, 3) in metres, or one of the two. Without points the whole image
            is the part.
        size: side of the sample in pixels.
        plane_distance_m: points this near to the table's plane belong to the table.
        depth_axis: "camera": depth is the distance along the optical axis; "plane": minus the height over the
            table, so that a tilted table does not tilt the part's depth.
        depth_range_m: depths in metres that become 0 and 1; values beyond are clipped. None: this capture's own range,
            as we read the paper, but leaving out half a percent of the points at each end, so that a small protruding
            defect is clipped and does not rescale the part.
        window_m: side in metres of a square window around the part, so that parts are shown at one scale from any
            distance; it grows if the part does not fit. None: the whole image, padded to a square.
        pitch_m: smallest and largest pixel pitch on the parts that `window_m` was measured on, metres; None: unknown.
        foreground, fixture: how the part is told from its surroundings, see `find_foreground`.
        ground_truth: bool, (H, W), or None.
        by_type: for a part with several types of defect, the mask of each, bool, (H, W).

    Returns:
        The sample. `valid` is true only where the part itself was measured; `ground_truth` covers all of `by_type`.

    Raises:
        DataError: the arrays do not fit each other, nothing was measured, there is no table, nothing stands on it, the
            fixture was found in images of another size, the part is too small, its pixel pitch is far from `pitch_m`, or
            most of the ground truth is outside the square.
    """
    several = by_type or {}
    truths = [*([] if ground_truth is None else [ground_truth]), *several.values()]
    check_capture(capture, *truths)
    if capture.xyz is None:
        part = _whole_image(capture.shape)
    else:
        if pitch_m:
            _check_unit(capture.xyz, pitch_m)
        table = find_foreground(capture.xyz, foreground, plane_distance_m=plane_distance_m, fixture=fixture)
        part = _on_table(capture.rgb, capture.xyz, table, depth_axis, depth_range_m)
    if pitch_m and part.pitch_m:
        _check_scale(part.pitch_m, pitch_m)
    geometry = _geometry(capture, part, window_m and part.pitch_m and window_m / _shown_as(part.pitch_m, pitch_m))

    weight = cut_square(part.mask, geometry)
    coverage = resized(weight, size, _SHARP)
    known = resized(cut_square(part.measured, geometry), size, _SHARP)
    inside = coverage >= 0.5
    if not inside.any():
        raise DataError(f"the part is too small: no pixel of {size} x {size} is at least half covered by it")
    share = np.maximum(coverage, np.float32(1e-6))
    small = np.clip(resized(cut_square(part.depth, geometry), size, _SHARP) / share, 0, 1)
    small = np.where(inside, small, small[inside].max())
    if capture.rgb is None:
        rgb = np.repeat(np.where(inside, np.uint8(_NO_COLOUR), np.uint8(0))[..., None], 3, axis=2)
    else:
        colour = resized(cut_square(capture.rgb, geometry) * weight[..., None], size, _SHARP) / share[..., None]
        rgb = np.where(inside[..., None], np.rint(np.clip(colour, 0, 255)), 0).astype(np.uint8)
        geometry = replace(geometry, sharpness=sharpness(rgb, inside))
    for given in truths:
        check_shown(given, geometry)
    truth = None if ground_truth is None else resized_truth(ground_truth, geometry, size)
    masks = {name: resized_truth(mask, geometry, size) for name, mask in several.items()}
    for mask in masks.values():  # a tiny defect's one pixel may be only in the mask of its type
        truth = mask if truth is None else truth | mask
    return Sample(rgb, small.astype(np.float32), inside, inside & (known >= 0.5 * coverage), geometry, truth, masks)


def _geometry(capture: RawCapture, part: _Part, window_px: float | None) -> Geometry:
    side, top, left, span_px = place_square(part.mask, window_px)
    height, width = capture.shape
    rgb, xyz = capture.rgb, capture.xyz
    colour = None if rgb is None else cv2.mean(rgb, part.mask.astype(np.uint8))[:3]
    return Geometry(
        plane=part.plane,
        tilt_deg=part.tilt_deg,
        near_m=part.near_m,
        far_m=part.far_m,
        raw_height=height,
        raw_width=width,
        side=side,
        pad_top=top,
        pad_left=left,
        missing_fraction=part.missing,
        parallax=(part.rising[0] / (side / 2), part.rising[1] / (side / 2)),
        within=xyz is None or _within(part.mask),
        measured_fraction=1.0 if xyz is None else float(part.measured.sum() / part.mask.sum()),
        clipped_fraction=part.clipped,
        pitch_m=part.pitch_m,
        span_m=span_px and part.pitch_m and span_px * part.pitch_m,
        gap_m=part.gap_m,
        fixture_share=part.fixture_share,
        brightness=None if colour is None else sum(colour) / 3,
        grey=None if rgb is None else is_grey(rgb),
        tint=None if colour is None else (colour[0] - colour[2]) / max(1.0, sum(colour)),
        photo_offset=None if rgb is None or xyz is None else photo_offset(rgb, part.mask, ~np.isnan(xyz[..., 2])),
    )


def _within(part: NDArray[np.bool_]) -> bool:
    """Whether the part (H, W) does not reach the image's border."""
    return not (part[[0, -1]].any() or part[:, [0, -1]].any())


def check_capture(capture: RawCapture, *truths: NDArray[np.bool_]) -> None:
    """Raise a DataError unless the arrays fit each other and are large enough to show a part."""
    shapes = [array.shape for array in (capture.rgb, capture.xyz) if array is not None]
    if any(len(shape) != 3 or shape[2] != 3 for shape in shapes):
        raise DataError(f"rgb and xyz must be (H, W, 3), got {' and '.join(map(str, shapes))}")
    if len(set(shapes)) > 1:
        (height, width, _), (rows, columns, _) = shapes
        raise DataError(f"rgb is {width} x {height} pixels, xyz {columns} x {rows}; both must have the same size")
    if min(shapes[0][:2]) < _SMALLEST:
        raise DataError(
            f"{shapes[0][1]} x {shapes[0][0]} pixels cannot show a part; at least {_SMALLEST} x {_SMALLEST} are needed"
        )
    for truth in truths:
        if truth.shape != shapes[0][:2]:
            raise DataError(f"the ground truth has the shape {truth.shape}, but the capture {shapes[0][:2]}")


def _shown_as(pitch_m: float, usual: tuple[float, float] | None) -> float:
    """The pixel pitch to use: the usual one if it hardly differs, so that nearly equal scales are resampled alike."""
    middle = sum(usual) / 2 if usual else pitch_m
    return middle if max(pitch_m / middle, middle / pitch_m) < _HARDLY else pitch_m


def _check_unit(xyz: NDArray[np.float32], usual: tuple[float, float]) -> None:
    """Raise a DataError if the scene is shown at so odd a scale that its points must be in another unit.

    To be called before the part is sought, which is not found in the wrong unit, or is not all that is found.
    """
    measured = ~np.isnan(xyz[..., 2])
    every = math.ceil(math.sqrt(np.count_nonzero(measured)) / 50)  # a rough figure will do
    few = np.s_[::every, ::every]
    times = pixel_pitch(xyz[few], measured[few]) / every / math.sqrt(usual[0] * usual[1])
    if not 1 / _OTHER_UNIT < times < _OTHER_UNIT:
        factor = max(times, 1 / times)
        about = round(factor, -int(math.log10(factor)))
        share = f"about {about:.0f} times" if times > 1 else f"about 1/{about:.0f} of"
        raise DataError(
            f"a pixel shows {share} what it shows in the captures that set the scale; check that the points are in the unit of those, and"
            " that its camera is the right one"
        )


def _check_scale(pitch_m: float, usual: tuple[float, float]) -> None:
    """Raise a DataError unless the part is shown at about the usual scale."""
    least, most = usual
    if not least / OTHER_SCALE < pitch_m < most * OTHER_SCALE:
        raise DataError(
            f"a pixel shows {pitch_m * 1e3:.3g} mm of the part, but {least * 1e3:.3g} to {most * 1e3:.3g} mm in the captures that set the"
            " scale; capture it at the same resolution and distance, and check that its camera is the right one"
        )


def _whole_image(shape: tuple[int, int]) -> _Part:
    return _Part(
        mask=np.ones(shape, np.bool_),
        measured=np.zeros(shape, np.bool_),
        depth=np.full(shape, _NO_DEPTH, np.float32),
        plane=None,
        tilt_deg=None,
        near_m=None,
        far_m=None,
        missing=1.0,
        rising=(0.0, 0.0),
        clipped=0.0,
        pitch_m=None,
        gap_m=None,
        fixture_share=None,
    )


def _on_table(
    rgb: NDArray[np.uint8] | None,
    xyz: NDArray[np.float32],
    table: Table,
    axis: DepthAxis,
    depth_range_m: tuple[float, float] | None,
) -> _Part:
    depth = _depth(xyz, table, axis)
    near, far = depth_range_m if depth_range_m is not None else _range_of(depth[table.foreground])
    if not (np.isfinite([near, far]).all() and near < far):
        raise ValueError(f"depth_range_m must be finite and increasing, got ({near}, {far})")
    upwards = table.plane[:3] if axis == "plane" else (0.0, 0.0, -away(table.plane))
    mask = table.foreground | _missing_part(rgb, xyz, table)
    measured = mask & ~np.isnan(depth) & ~stray(depth, max(_STRAY * (far - near), _STRAY_M))
    missing = float(np.isnan(xyz[..., 2]).mean())
    pitch_m = pixel_pitch(xyz, table.foreground)
    x, y = displacement(xyz, table.foreground, upwards)
    depth = fill(depth, measured, mask & ~measured)
    scaled = np.where(mask, (depth - np.float32(near)) / np.float32(far - near), np.float32(0))
    return _Part(
        mask=mask,
        measured=measured,
        depth=scaled,
        plane=table.plane,
        tilt_deg=table.tilt_deg,
        near_m=near,
        far_m=far,
        missing=missing,
        rising=(x * (far - near), y * (far - near)),
        clipped=float(((scaled < 0) | (scaled > 1))[measured].mean()) if measured.any() else 0.0,
        pitch_m=pitch_m,
        gap_m=_gap_px(mask & ~measured) * pitch_m,
        fixture_share=table.fixture_share,
    )


def _gap_px(unmeasured: NDArray[np.bool_]) -> float:
    """Diameter of the largest circle in the part that contains no point, pixels."""
    left, top, width, height = cv2.boundingRect(unmeasured.astype(np.uint8))
    if not width:
        return 0.0
    about = np.pad(unmeasured[top : top + height, left : left + width], 1).astype(np.uint8)
    return 2 * float(cv2.distanceTransform(about, cv2.DIST_L2, 5).max()) - 1


def _low_fraction(xyz: NDArray[np.float32], table: Table, distance: float) -> float:
    """The share of the part that is too low to be told from the table: low pixels connected to the foreground.

    Heights from a third of the distance on count as low; an even table always stays below that.
    """
    height = height_over(table.plane, xyz)
    low = (height > distance / 3) & (height <= distance)
    _, labels = cv2.connectedComponents((low | table.foreground).astype(np.uint8), connectivity=4)
    reaching = np.zeros(labels.max() + 1, np.bool_)
    reaching[labels[table.foreground]] = True
    slope = int((low & ~table.foreground & reaching[labels]).sum())
    return slope / (slope + int(table.foreground.sum()))


def _missing_part(rgb: NDArray[np.uint8] | None, xyz: NDArray[np.float32], table: Table) -> NDArray[np.bool_]:
    """Pixels of the part that have no point, or one in a speck, bool (H, W)."""
    measured = np.asarray(~np.isnan(xyz[..., 2])) & ~table.specks
    holes = enclosed(measured, table.foreground)
    return holes if rgb is None else holes | part_coloured(rgb, measured, table.foreground)


def _depth(xyz: NDArray[np.float32], table: Table, axis: DepthAxis) -> NDArray[np.float32]:
    if axis == "camera":
        return np.asarray(np.float32(away(table.plane)) * xyz[..., 2])
    return -height_over(table.plane, xyz)


def _range_of(depth: NDArray[np.float32]) -> tuple[float, float]:
    near, far = (float(v) for v in np.percentile(depth, [_TAIL_PERCENT, 100 - _TAIL_PERCENT]))
    lacking = max(0.0, _MIN_SPAN_M - (far - near))
    return near - lacking / 2, far + lacking / 2
