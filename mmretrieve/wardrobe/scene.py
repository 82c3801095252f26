"""The scene of a drawing: backgrounds, hangers and stands, light and shadow, and arithmetic of colors."""

from __future__ import annotations

from functools import lru_cache
from math import cos, pi, sin

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from mmretrieve.wardrobe.attributes import Background, Light, Pose

RGB = tuple[int, int, int]
METAL: RGB = (150, 132, 112)
SHADOW_OFFSET = {Light.LEFT: (0.022, 0.012), Light.RIGHT: (-0.022, 0.012), Light.ABOVE: (0.0, 0.03), Light.SOFT: (0.0, 0.006)}


def blend(a: RGB, b: RGB, share: float) -> RGB:
    """The color between `a` (share 0) and `b` (share 1)."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def darken(paint: RGB, share: float) -> RGB:
    """The color, darkened to a share of its brightness."""
    return blend((0, 0, 0), paint, share)


def lighten(paint: RGB, share: float) -> RGB:
    """The color, mixed with a share of white."""
    return blend(paint, (255, 255, 255), share)


def brightness(paint: RGB) -> float:
    """Luma in [0, 255] (ITU-R BT.601)."""
    return 0.299 * paint[0] + 0.587 * paint[1] + 0.114 * paint[2]


def background(kind: Background, side: int) -> Image.Image:
    """A new RGB image of the background."""
    return _background(kind, side).copy()


@lru_cache(maxsize=32)
def _background(kind: Background, side: int) -> Image.Image:
    picture = Image.new("RGB", (side, side), (243, 236, 224))
    pen = ImageDraw.Draw(picture)
    match kind:
        case Background.CREAM:
            pass
        case Background.SLATE:
            picture.paste((172, 184, 194), (0, 0, side, side))
        case Background.ROOM:
            picture.paste((221, 226, 218), (0, 0, side, side))
            pen.rectangle((0, side * 0.80, side, side), fill=(186, 150, 118))
            pen.rectangle((0, side * 0.785, side, side * 0.80), fill=(246, 246, 240))
        case Background.ARCH:
            picture.paste((236, 214, 200), (0, 0, side, side))
            pen.ellipse((side * 0.14, side * 0.04, side * 0.86, side * 0.76), fill=(206, 158, 138))
            pen.rectangle((side * 0.14, side * 0.40, side * 0.86, side), fill=(206, 158, 138))
        case Background.HALO:
            picture.paste((214, 222, 236), (0, 0, side, side))
            pen.ellipse((side * 0.08, side * 0.08, side * 0.92, side * 0.92), fill=(247, 249, 252))
        case Background.SPLIT:
            picture.paste((238, 226, 178), (0, 0, side, side))
            pen.polygon([(side, 0), (side, side), (0, side)], fill=(196, 208, 176))
        case Background.DUSK:
            top, bottom = (108, 104, 142), (232, 186, 168)
            for line in range(side):
                pen.line((0, line, side, line), fill=blend(top, bottom, line / side))
        case Background.SPECKS:
            picture.paste((226, 232, 230), (0, 0, side, side))
            step, r = side / 9, side * 0.0144
            for row in range(10):
                for column in range(10):
                    x, y = (column + 0.5 * (row % 2)) * step, row * step
                    pen.ellipse((x - r, y - r, x + r, y + r), fill=(168, 190, 190))
    return picture


def draw_holder(picture: Image.Image, pose: Pose, centre_x: float, top: float, height: float) -> None:
    """Draw the hanger above the shoulders, or the stand behind the garment."""
    side = picture.width
    pen = ImageDraw.Draw(picture)
    x, y, width = centre_x * side, top * side, max(2, side // 60)
    if pose is Pose.HANGER:
        r = side * 0.028
        pen.arc((x - r, y - 3.4 * r, x + r, y - 1.4 * r), 150, 90, fill=METAL, width=width)
        pen.line((x, y - 1.4 * r, x, y), fill=METAL, width=width)
        pen.line(
            (x - side * 0.15, y + side * 0.04, x, y - r * 0.3, x + side * 0.15, y + side * 0.04),
            fill=METAL,
            width=2 * width,
            joint="curve",
        )
        return
    foot = min(side * 0.97, y + height * side * 1.08)
    pen.line((x, y, x, foot), fill=METAL, width=2 * width)
    pen.rounded_rectangle((x - side * 0.14, foot - width, x + side * 0.14, foot + width), radius=width, fill=METAL)
    pen.rounded_rectangle(
        (x - side * 0.035, y - side * 0.09, x + side * 0.035, y + side * 0.1), radius=side * 0.03, fill=(224, 206, 184)
    )
    pen.ellipse((x - side * 0.022, y - side * 0.115, x + side * 0.022, y - side * 0.075), fill=METAL)


def cast_shadow(picture: Image.Image, alpha: Image.Image, light: Light) -> None:
    """Darken the image beside the garment, away from the light."""
    side = picture.width
    dx, dy = SHADOW_OFFSET[light]
    small = alpha.resize((side // 4, side // 4), Image.Resampling.BOX)
    blurred = small.filter(ImageFilter.GaussianBlur(side / 4 * 0.02))
    shadow = ImageChops.offset(blurred, round(dx * side / 4), round(dy * side / 4)).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    picture.paste((40, 34, 44), mask=shadow.point(lambda v: v * 0.42))


def add_light(layer: Image.Image, light: Light) -> Image.Image:
    """The garment with light and soft folds; its transparency is unchanged."""
    shade = _shade(light, layer.width)
    lit_layer = ImageChops.multiply(layer.convert("RGB"), shade)
    lit_layer.putalpha(layer.getchannel("A"))
    return lit_layer


@lru_cache(maxsize=8)
def _shade(light: Light, side: int) -> Image.Image:
    tile = 32
    values = []
    for row in range(tile):
        for column in range(tile):
            x, y = column / (tile - 1), row / (tile - 1)
            fall = {Light.LEFT: 1 - x, Light.RIGHT: x, Light.ABOVE: 1 - y, Light.SOFT: 0.62}[light]
            folds = 0.025 * cos(9 * pi * x + 2.5 * sin(3 * y)) * y
            values.append(round(255 * min(1.0, 0.70 + 0.30 * min(1.0, 1.25 * fall) + folds)))
    small = Image.new("L", (tile, tile))
    small.putdata(values)
    return small.resize((side, side), Image.Resampling.BICUBIC).convert("RGB")
