"""HTML for notebooks: fragments with inline styles, without scripts and requests.

Notebooks that are not trusted, and pages that render them, remove style sheets and scripts but keep inline styles and pictures in data:
URLs. Text has the color of the notebook and there is no background, so that light and dark themes are readable.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from html import escape

WIDTH = 132  # pixels of a picture
COLORS = {
    **dict.fromkeys(("image", "joint", "imagined"), "#2f8f8c"),
    "text": "#8d8075",
    "composed": "#c96a22",
    "prompt": "#8463b4",
}
OTHER = "#b5473c"  # of terms of other roles
SOFT = "opacity:.7;font-size:12px"
PAGE = """<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<title>{title}</title>
<body style="font-family:system-ui,sans-serif;margin:24px">{body}</body>
"""


def document(title: str, fragment: str) -> str:
    """A page of a fragment."""
    return PAGE.format(title=escape(title), body=fragment)


def fragment(head: str, cards: Sequence[str] = (), remarks: Iterable[str | None] = ()) -> str:
    """A head, cards beside each other, and remarks in one line; those that are empty are left out."""
    shown = f'<div style="display:flex;flex-wrap:wrap;gap:14px;margin:8px 0">{"".join(cards)}</div>' if cards else ""
    return f'<div>{head}{shown}<div style="{SOFT}">{escape(" · ".join(filter(None, remarks)))}</div></div>'


def table(rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; the first cell of each row is a name."""
    cells = (f"<th>{escape(name)}</th>" + "".join(f"<td>{escape(one)}</td>" for one in more) for name, *more in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def card(thumbnail: Callable[[str], bytes] | None, id_: str, title: str, lines: Iterable[str] = ()) -> str:
    """The picture of an item, its title, and lines of HTML. A picture that cannot be read is a frame.

    >>> 'title="&lt;b&gt;"' in card(None, "<b>", "a title")
    True
    """
    name = f'<div style="font-size:13px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap">{escape(title)}</div>'
    return f'<div style="width:{WIDTH}px" title="{escape(id_)}">{_picture(thumbnail, id_, title)}{name}{"".join(lines)}</div>'


def line(text: str) -> str:
    """A small line of text."""
    return f'<div style="{SOFT}">{escape(text)}</div>'


def bar(term: str, value: float, longest: float) -> str:
    """A bar in the color of a term, as long as its value; a negative one is pale."""
    width, style = 100 * abs(value) / longest, "opacity:.45" if value < 0 else ""
    filled = f'<div style="width:{width:.0f}%;height:5px;border-radius:3px;background:{_color(term)};{style}"></div>'
    return f'<div style="margin-top:3px" title="{escape(term)} {value:+.3f}">{filled}</div>'


def legend(values: Iterable[tuple[str, str]]) -> str:
    """Terms with their colors, each with a text."""
    swatch = '<span style="display:inline-block;width:10px;height:10px;border-radius:3px;background:{}"></span>'
    parts = (
        f'<span style="margin-right:12px">{swatch.format(_color(name))} {escape(name)} {escape(text)}</span>'
        for name, text in values
    )
    return f'<div style="font-size:12px">{"".join(parts)}</div>'


def _picture(thumbnail: Callable[[str], bytes] | None, id_: str, title: str) -> str:
    size = f"display:block;width:{WIDTH}px;height:{WIDTH}px;border-radius:6px"
    try:
        if thumbnail is not None:
            data = base64.b64encode(thumbnail(id_)).decode()
            return f'<img alt="{escape(title)}" src="data:image/jpeg;base64,{data}" style="{size};object-fit:contain">'
    except Exception:  # of any kind: what cannot be shown must not keep the rest from being shown
        pass
    return f'<div style="{size};border:1px dashed;opacity:.4;box-sizing:border-box"></div>'


def _color(term: str) -> str:
    return COLORS.get(term.split(" ")[0], OTHER)
