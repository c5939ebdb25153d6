"""What people should hear of a part that is unlike those trained on: its verdict may be about that, or about a part of it alone."""

from __future__ import annotations

from das3d_cli.data.capture import Form, Geometry

_WIDE, _SMALL = 1.25, 1 / 3  # of the window's side
_MEASURED = 0.5  # of a part's pixels: where fewer have a point, most of its depth is filled in
_CLIPPED = 0.1  # of its points: a bump that leaves the range is a defect, and seen as one
_OTHER_PITCH = (
    1.1  # times the largest pitch, or least: from there on good parts were rejected, though shown at one scale
)
_WIDER, _WIDER_M = 1.5, 2e-3  # times the widest gap, and over it


def oddities(geometry: Geometry, form: Form, window_m: float | None) -> list[str]:
    """What to say of a sample that is unlike most, for people to look at its capture.

    Args:
        geometry: the sample's.
        form: of the captures that the window was measured on.
        window_m: of the window about the parts, as for `preprocess`.
    """
    return [*_of_view(geometry, form, window_m), *_of_points(geometry, form)]


def _of_view(geometry: Geometry, form: Form, window_m: float | None) -> list[str]:
    told, pitch = [], geometry.pitch_m
    if window_m and pitch and geometry.side * pitch > _WIDE * window_m:
        told.append(
            f"what stands there is too wide for the parts' window by a factor of {geometry.side * pitch / window_m:.1f}, and so shown"
            " smaller than others; look whether it is more than one part"
        )
    if window_m and geometry.span_m and geometry.span_m < _SMALL * window_m:
        told.append(
            f"what stands there is {geometry.span_m * 1e3:.3g} mm across, in the parts' window of {window_m * 1e3:.3g} mm; look whether"
            " the part is there and was measured"
        )
    if form.pitch_m and pitch and not form.pitch_m[0] / _OTHER_PITCH < pitch < form.pitch_m[1] * _OTHER_PITCH:
        least, most = (length * 1e3 for length in form.pitch_m)
        told.append(
            f"a pixel shows {pitch * 1e3:.3g} mm of the part, where it showed {least:.3g} to {most:.3g} mm of those trained on; capture"
            " it from as far away, for it is judged less surely"
        )
    if form.within and not geometry.within:
        told.append("the part reaches the image's border, as few others do; look whether all of it is in view")
    return told


def _of_points(geometry: Geometry, form: Form) -> list[str]:
    told = []
    if geometry.measured_fraction < _MEASURED:
        told.append(f"{1 - geometry.measured_fraction:.0%} of the part have no points; look why they were not measured")
    elif form.gap_m is not None and geometry.gap_m and geometry.gap_m > _WIDER * form.gap_m + _WIDER_M:
        told.append(
            f"in a circle of {geometry.gap_m * 1e3:.3g} mm the part has no points, where those trained on lacked"
            f" {form.gap_m * 1e3:.3g} mm at most; a dent or a bump there cannot be seen"
        )
    if geometry.clipped_fraction > _CLIPPED:
        told.append(
            f"{geometry.clipped_fraction:.0%} of the part's points are higher or lower than the heights that parts are looked at in;"
            " what is there looks level; look whether the part stands as others do"
        )
    return told
