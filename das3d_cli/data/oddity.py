"""Notes on parts unlike those trained on: the verdict may reflect that difference, or cover only some of the part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.capture import Camera, Form, Geometry

_WIDE, _SMALL = 1.25, 1 / 3  # limits for too wide and too small, as shares of the window's side
_MEASURED = 0.5  # share of a part's pixels with a point: below it, most of its depth is filled in
_CLIPPED = 0.1  # share of its points; less may be a bump beyond the range, which is detected as a defect
_OTHER_PITCH = 1.1  # factor beyond the largest or smallest pitch
_WIDER, _WIDER_M = 1.5, 2e-3  # factor and margin over the widest gap
_TOO_DARK, _TOO_BRIGHT = 1.5, 1.4  # factors beyond the darkest and the brightest part
_LIGHT, _WHITE = 10, 255  # margin beyond both; half the way from the brightest part to white is too bright as well
_BLACK = 1 / 3  # share of the darkest part: the stricter limit where parts are dark
_ASPECT = 1.1
_OTHER_TILT = 10.0  # degrees beyond the training captures'
_BLURRED = 0.75  # of the least sharp; defects do not take more than a tenth away, blur of 1.5 pixels a quarter to half
_TINT = 0.05  # of (red - blue) / (red + green + blue): less says nothing about the order of the channels
_NO_TABLE = (
    "no table is visible around the part, so depths are measured along the camera's axis and sizes across it, which come out too"
    " short if the axis is tilted"
)
_LOW = 0.2  # share of a part's area; the foot of any part takes less
_FEW, _FEW_IN = 0.1, 3  # share of the parts that counts as few; of 3 or more parts, one always does
_OFFSET, _OFFSET_SHARE = 2.0, 0.00125  # factor on the usual deviation, and margin as a share of the window's side
_ALL_OVER = 0.3  # share of a part's pixels; a defect seldom takes as much, and a wrong part or photo nearly always more
# Of the usual share of the fixture's area that stands out of the table: moved by 2.6 pixels, brackets lack 12 % of it.
_MOVED = 0.95
_OFFSETS = 8  # parts; fewer do not show what is usual


@dataclass(frozen=True)
class Usual:
    """Statistics of a category's good training captures, used to recognise an odd one.

    Attributes:
        within: most parts lie entirely within the image.
        gap_m: the widest gap in any part's points, metres; None without points.
        low_fraction: median share of a part that is too low to be told from the table.
        aspect: median ratio of a pixel's longer to its shorter side.
        table: a table shows around most parts with points.
        brightness: mean brightness of the darkest and of the brightest part, 0 to 255; None without images.
        size: width and height of the images, pixels; None where they differ.
        photos: "PNG" or "JPEG" if all colour images are of that kind; else "".
        photo_offset: offset of photos from their points, raw pixels: median x and y, and the distance from it within
            which nine of ten lie; None if too few parts show it.
        grey: whether images have no colours; None without images, or where only some have none.
        tilt_deg: least and largest angle between the table's normal and the optical axis, degrees; None without a table.
        tint: least and largest `Geometry.tint`; None without images.
        sharpness: least `Geometry.sharpness`; None without images.
        fixture_share: the `Geometry.fixture_share` that nine of ten exceed; None without a fixture.
    """

    within: bool = False
    gap_m: float | None = None
    low_fraction: float = 0.0
    aspect: float = 1.0
    table: bool = True
    brightness: tuple[float, float] | None = None
    size: tuple[int, int] | None = None
    photos: str = ""
    photo_offset: tuple[float, float, float] | None = None
    grey: bool | None = None
    tilt_deg: tuple[float, float] | None = None
    tint: tuple[float, float] | None = None
    sharpness: float | None = None
    fixture_share: float | None = None


def usual_of(geometries: Sequence[Geometry], low_fraction: float, aspect: float, photos: str) -> Usual:
    """Collect the statistics from the samples of good training captures; the other arguments are as in `Usual`."""
    if not geometries:
        return Usual(low_fraction=low_fraction, aspect=aspect, photos=photos)
    gaps = [one.gap_m for one in geometries if one.gap_m is not None]
    lights = [one.brightness for one in geometries if one.brightness is not None]
    tilts = [one.tilt_deg for one in geometries if one.tilt_deg is not None]
    tints = [one.tint for one in geometries if one.tint is not None]
    sharp = [one.sharpness for one in geometries if one.sharpness is not None]
    held = [one.fixture_share for one in geometries if one.fixture_share is not None]
    sizes, greys = {(one.raw_width, one.raw_height) for one in geometries}, {one.grey for one in geometries}
    return Usual(
        within=sum(not one.within for one in geometries) <= max(_FEW * len(geometries), len(geometries) >= _FEW_IN),
        gap_m=max(gaps, default=None),
        low_fraction=low_fraction,
        aspect=aspect,
        table=sum(_lacks_table(one) for one in geometries) <= len(geometries) / 2,
        brightness=_range(lights),
        size=sizes.pop() if len(sizes) == 1 else None,
        photos=photos,
        photo_offset=_usual_offset([one.photo_offset for one in geometries if one.photo_offset is not None]),
        grey=greys.pop() if len(greys) == 1 else None,
        tilt_deg=_range(tilts),
        tint=_range(tints),
        sharpness=min(sharp, default=None),
        fixture_share=float(np.percentile(held, 10)) if held else None,
    )


def _range(values: Sequence[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if values else None


def _lacks_table(geometry: Geometry) -> bool:
    return geometry.near_m is not None and geometry.tilt_deg is None


def _usual_offset(offsets: Sequence[tuple[float, float]]) -> tuple[float, float, float] | None:
    if len(offsets) < _OFFSETS:
        return None
    x, y = (float(value) for value in np.median(offsets, axis=0))
    return x, y, float(np.percentile([math.dist(own, (x, y)) for own in offsets], 90))


def oddities(geometry: Geometry, form: Form, usual: Usual, window_m: float | None) -> list[str]:
    """Return notes on how a sample differs from most, so that its capture can be checked.

    Args:
        geometry: of the sample.
        form, window_m: how the sample was made from its capture.
        usual: statistics of the training captures.
    """
    return [
        *_of_view(geometry, form, usual, window_m),
        *_of_points(geometry, form, usual),
        *_of_photo(geometry, form, usual),
    ]


def of_defects(outlined: NDArray[np.bool_]) -> list[str]:
    """Return a note if what is outlined on a part can hardly be a defect.

    Args:
        outlined: (N,): which of the part's pixels are outlined.
    """
    if (share := float(outlined.mean())) < _ALL_OVER:
        return []
    note = (
        f"{share:.0%} of the part looks defective, more than a defect usually takes; check that it is the right part, and that it"
        " lies and was captured like the others"
    )
    return [note]


def of_all(usual: Usual, form: Form) -> list[str]:
    """Return notes that concern all parts of a category."""
    told = []
    if form.fixture:
        told.append(
            f"{form.fixture.taken:.0%} of what stands on the table is in the same place in all captures, unlike the rest: it is taken for"
            " a fixture and ignored (--set preprocess.fixture=keep counts it as part of the parts)"
        )
    if usual.low_fraction > _LOW:
        told.append(
            f"{usual.low_fraction:.0%} of a typical part's area rises by less than {form.plane_distance_m * 1000:.2g} mm above the table"
            " and is ignored; try a lower --set preprocess.plane_distance_mm"
        )
    if not usual.table and form.foreground == "table":
        told.append(f"{_NO_TABLE}; if there is a table, leave it in the captures")
    if usual.aspect > _ASPECT:
        told.append(
            f"pixels are not square, with one side {usual.aspect:.1f} times as long as the other, so a part's shape changes as it"
            " turns; capture with square pixels, or leave out every n-th row or column"
        )
    if form.camera and usual.size and _is_of_another_size(form.camera, usual.size):
        width, height = usual.size
        told.append(
            f"the camera's axis, cx {form.camera.cx} and cy {form.camera.cy}, lies far from the middle of {width} x {height} pixels; if"
            " these values belong to another image size, so does fx, and all measured sizes are wrong"
        )
    return told


def _is_of_another_size(camera: Camera, size: tuple[int, int]) -> bool:
    """Whether the principal point is outside the middle half of the image; with most cameras and crops it is inside."""
    points = [(at, length) for at, length in zip((camera.cx, camera.cy), size, strict=True) if at is not None]
    return any(not 0.25 < at / length < 0.75 for at, length in points)


def _of_view(geometry: Geometry, form: Form, usual: Usual, window_m: float | None) -> list[str]:
    told, pitch = [], geometry.pitch_m
    if window_m and pitch and geometry.side * pitch > _WIDE * window_m:
        told.append(
            f"what was found is {geometry.side * pitch / window_m:.1f} times as wide as the window that shows a part, so it is"
            " shown smaller than others; check whether it is more than one part"
        )
    if window_m and geometry.span_m and geometry.span_m < _SMALL * window_m:
        told.append(
            f"what was found is only {geometry.span_m * 1e3:.3g} mm across, in a window of {window_m * 1e3:.3g} mm; check that"
            " the part is there and was measured"
        )
    if form.pitch_m and pitch and not form.pitch_m[0] / _OTHER_PITCH < pitch < form.pitch_m[1] * _OTHER_PITCH:
        least, most = (length * 1e3 for length in form.pitch_m)
        size, own = usual.size, (geometry.raw_width, geometry.raw_height)
        how = f"in {size[0]} x {size[1]} pixels, as these were" if size and size != own else "from the same distance"
        told.append(
            f"a pixel shows {pitch * 1e3:.3g} mm of the part, but {least:.3g} to {most:.3g} mm of the training parts, so the verdict is"
            f" less reliable; capture it {how}"
        )
    if usual.tilt_deg and geometry.tilt_deg is not None:
        least, most = usual.tilt_deg
        if not least - _OTHER_TILT <= geometry.tilt_deg <= most + _OTHER_TILT:
            told.append(
                f"the table is seen at {geometry.tilt_deg:.0f} degrees to its normal, but at {least:.0f} to {most:.0f} in training"
                " captures; capture it from where these were taken"
            )
    held = geometry.fixture_share
    if usual.fixture_share is not None and held is not None and held < _MOVED * usual.fixture_share:
        told.append(
            "the fixture does not stand where it stood in training captures, and what sticks out counts as the part; check whether it"
            " or the camera has moved"
        )
    if usual.within and not geometry.within:
        told.append("the part reaches the image's border, unlike most others; check that all of it is in view")
    return told


def _of_points(geometry: Geometry, form: Form, usual: Usual) -> list[str]:
    told = []
    if form.foreground == "table" and geometry.near_m is not None and _lacks_table(geometry) == usual.table:
        told.append(
            f"{_NO_TABLE}; most training parts show a table, so check that it was measured"
            if usual.table
            else "a table is visible around the part, unlike around most training parts; cut the part out as those were"
        )
    if geometry.measured_fraction < _MEASURED:
        told.append(f"{1 - geometry.measured_fraction:.0%} of the part has no points; check why it was not measured")
    elif usual.gap_m is not None and geometry.gap_m and geometry.gap_m > _WIDER * usual.gap_m + _WIDER_M:
        told.append(
            f"the part has no points in a circle of {geometry.gap_m * 1e3:.3g} mm, while the gaps of training parts are at most"
            f" {usual.gap_m * 1e3:.3g} mm wide; a dent or a bump there cannot be seen"
        )
    if geometry.clipped_fraction > _CLIPPED:
        told.append(
            f"{geometry.clipped_fraction:.0%} of the part's points are above or below the range of heights that the detector sees,"
            " and look level to it; check that the part lies like the others"
        )
    return told


def _of_photo(geometry: Geometry, form: Form, usual: Usual) -> list[str]:
    told, own = [], (geometry.raw_width, geometry.raw_height)
    if usual.brightness and geometry.brightness is not None:
        darkest, brightest = usual.brightness
        least = max(darkest / _TOO_DARK - _LIGHT, darkest * _BLACK)
        most = max(min(brightest * _TOO_BRIGHT + _LIGHT, (brightest + _WHITE) / 2), brightest + _LIGHT)
        if not least <= geometry.brightness <= most:
            told.append(
                f"the part's mean brightness is {geometry.brightness:.0f} of 255, but {darkest:.0f} to {brightest:.0f} for training parts;"
                " check that it was exposed as they were"
            )
    exposed = not told  # a photo that is nearly black or white has neither details nor colours
    if exposed and usual.sharpness and geometry.sharpness is not None:
        share = geometry.sharpness / usual.sharpness
        if share < _BLURRED:
            told.append(
                f"the photo shows {share:.0%} of the fine detail that the least sharp training photo shows, so scratches may be lost in it;"
                " check focus, lens and motion"
            )
    if exposed and usual.grey is not None and geometry.grey is not None and usual.grey != geometry.grey:
        own_kind, others = ("is grey", "have colours") if geometry.grey else ("has colours", "are grey")
        told.append(f"the photo {own_kind}, but training photos {others}; take it as they were taken")
    if usual.tint and geometry.tint is not None and _are_exchanged(geometry.tint, usual.tint):
        told.append(
            "red and blue seem to be exchanged, compared with training photos; give colours in the order red, green, blue"
        )
    if usual.photo_offset and geometry.photo_offset:
        *middle, within = usual.photo_offset
        off = math.dist(geometry.photo_offset, middle)
        if off > _OFFSET * within + _OFFSET_SHARE * geometry.side:
            told.append(
                f"the photo lies {off:.1f} pixels from where training photos lie on their points, most of which lie within"
                f" {max(within, 0.1):.1f} of it; check that both are of one capture, and whether one camera has moved relative to the other"
            )
    if form.modalities == "rgb" and usual.size and own != usual.size:
        told.append(
            f"the photo has {own[0]} x {own[1]} pixels, but training photos have {usual.size[0]} x {usual.size[1]}; check that it"
            " shows the part as they do"
        )
    return told


def _are_exchanged(tint: float, usual: tuple[float, float]) -> bool:
    """Whether parts are redder than blue in all training photos and this one is bluer by half as much, or the reverse."""
    least, most = usual
    return (least > _TINT and tint < -_TINT / 2 - least / 2) or (most < -_TINT and tint > _TINT / 2 - most / 2)
