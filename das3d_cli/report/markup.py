"""HTML and SVG as element trees, so that all text is escaped on output."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, tostring

import cv2
import numpy as np

from das3d_cli.files import encodable
from das3d_cli.report.draw import Picture

_QUALITY = 80  # of WebP, high enough that grain on a part still looks like grain
# Makes the browser refuse whatever is not in the file.
_NOTHING_FROM_OUTSIDE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def percent(share: float) -> str:
    """A share in whole percent; only exactly none and all are shown as 0% and 100%."""
    text = f"{share:.0%}"
    if 0 < share < 1:
        return {"0%": "under 1%", "100%": "over 99%"}.get(text, text)
    return text


def tag(name: str, /, *content: Element | str | None, **attributes: object) -> Element:
    """An element with its content in order; None as content or attribute value is left out.

    Attribute names are written as Python names: `class_` is class, `aria_label` is aria-label.
    """
    given = {key.strip("_").replace("_", "-"): str(value) for key, value in attributes.items() if value is not None}
    made = Element(name, given)
    for item in content:
        if isinstance(item, Element):
            made.append(item)
        elif item and len(made):
            made[-1].tail = (made[-1].tail or "") + item
        elif item:
            made.text = (made.text or "") + item
    return made


def table(
    columns: Sequence[str], rows: Iterable[Element], *, title: str | None = None, **attributes: object
) -> Element:
    """A table with a header row, and a caption where no heading says what it holds."""
    head = tag("thead", tag("tr", *(tag("th", column, scope="col") for column in columns)))
    return tag("table", tag("caption", title) if title else None, head, tag("tbody", *rows), **attributes)


def document(title: str, style: str, *body: Element) -> bytes:
    """A whole page in UTF-8 that can load nothing from outside."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_NOTHING_FROM_OUTSIDE),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", style),
    )
    text = tostring(tag("html", head, tag("body", *body), lang="en"), encoding="unicode", method="html")
    return encodable(f"<!DOCTYPE html>\n{text}\n").encode()


def image(picture: Picture, description: str) -> Element:
    """The picture, embedded in the page."""
    _, encoded = cv2.imencode(".webp", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    height, width = picture.shape[:2]
    source = "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode()
    return tag("img", src=source, alt=description, width=width, height=height, decoding="async")
