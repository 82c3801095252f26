"""Drawing of a garment with Pillow. Equal arguments give equal images."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageChops, ImageDraw

from mmretrieve.wardrobe import scene, shapes
from mmretrieve.wardrobe.attributes import Colour, Detail, Garment, Kind, Length, Neckline, Pattern, Pose, Trim
from mmretrieve.wardrobe.scene import RGB

SMALL_SIZE = 128  # pixels
SMALL_OVERSAMPLING, LARGE_OVERSAMPLING = 3, 2

COLOUR_RGB: dict[Colour, RGB] = {
    Colour.RED: (208, 36, 44), Colour.ORANGE: (240, 132, 32), Colour.YELLOW: (247, 212, 58),
    Colour.GREEN: (52, 150, 68), Colour.TEAL: (22, 150, 152), Colour.BLUE: (48, 110, 220),
    Colour.NAVY: (28, 40, 98), Colour.PURPLE: (126, 62, 170), Colour.PINK: (244, 140, 178),
    Colour.BROWN: (118, 74, 44), Colour.BEIGE: (218, 196, 158), Colour.GREY: (142, 145, 150),
    Colour.BLACK: (34, 34, 38), Colour.WHITE: (248, 248, 246),
}  # fmt: skip
TRIM_RGB: dict[Trim, RGB] = {
    Trim.WHITE: (252, 252, 250), Trim.BLACK: (20, 20, 24), Trim.GOLD: (222, 176, 52),
    Trim.ROSE: (226, 92, 128), Trim.MINT: (130, 226, 190),
}  # fmt: skip
TALL, WIDE = (0.14, 0.43, 0.78), (0.17, 0.50, 0.98)  # top, half width and height of a garment, as shares of the image
BOX: dict[Kind, tuple[float, float, float]] = {
    Kind.DRESS: TALL, Kind.COAT: TALL, Kind.JUMPSUIT: TALL, Kind.SKIRT: (0.11, 0.52, 0.92),
    Kind.TROUSERS: (0.08, 0.52, 0.88), Kind.SHORTS: (0.14, 0.62, 1.15),
}  # fmt: skip


@dataclass(frozen=True)
class Canvas:
    """Maps the coordinates of `shapes` to pixels of the oversampled image.

    `side` is in pixels; the position of the garment is given as shares of the side.
    """

    side: int
    centre_x: float
    top: float
    half_width: float
    height: float

    def points(self, outline: shapes.Outline) -> list[tuple[float, float]]:
        """An outline in pixels."""
        return [
            ((self.centre_x + x * self.half_width) * self.side, (self.top + y * self.height) * self.side) for x, y in outline
        ]

    def mask(self, outlines: list[shapes.Outline]) -> Image.Image:
        """A mask that is 255 inside the outlines."""
        mask = Image.new("L", (self.side, self.side))
        pen = ImageDraw.Draw(mask)
        for outline in outlines:
            pen.polygon(self.points(outline), fill=255)
        return mask


def draw(garment: Garment, detail: Detail, *, seed: int, size: int = 224) -> Image.Image:
    """A drawing of a garment.

    Parameters
    ----------
    garment, detail : what the image shows.
    seed : varies position, rotation, scale and shade a little.
    size : side of the image in pixels.

    Returns
    -------
    An RGB image of `size` × `size` pixels.
    """
    random = Random(f"{seed}/{garment}/{detail}")  # the names of their classes are a part of the seed: keep them
    is_small = size <= SMALL_SIZE
    side = size * (SMALL_OVERSAMPLING if is_small else LARGE_OVERSAMPLING)
    canvas = _canvas(garment.kind, side, random)
    picture = scene.background(detail.background, side)
    layer = _clothing(garment, detail, canvas, random)
    turn = random.uniform(-2, 2) + (9 if detail.pose is Pose.TILTED else 0)
    layer = layer.rotate(turn, Image.Resampling.BILINEAR)
    scene.cast_shadow(picture, layer.getchannel("A"), detail.light)
    if detail.pose in (Pose.HANGER, Pose.STAND):
        scene.draw_holder(picture, detail.pose, canvas.centre_x, canvas.top, canvas.height)
    picture.paste(layer, mask=layer.getchannel("A"))
    return picture.resize((size, size), Image.Resampling.LANCZOS if is_small else Image.Resampling.BOX)


def _canvas(kind: Kind, side: int, random: Random) -> Canvas:
    top, half_width, height = BOX.get(kind, WIDE)
    scale, across, down = random.uniform(0.94, 1.03), random.uniform(-0.02, 0.02), random.uniform(-0.015, 0.02)
    return Canvas(side, 0.5 + across, top + down, half_width * scale, height * scale)


def _clothing(garment: Garment, detail: Detail, canvas: Canvas, random: Random) -> Image.Image:
    """The garment alone, as RGBA."""
    paint = _vary_shade(COLOUR_RGB[garment.colour], random)
    layer = _fabric(garment.pattern, paint, canvas, random).convert("RGBA")
    layer.putalpha(canvas.mask(shapes.sleeves(garment) + shapes.body(garment)))
    pen = ImageDraw.Draw(layer)
    for outline in shapes.seams(garment):
        pen.line(canvas.points(outline), fill=(*scene.darken(paint, 0.5), 255), width=max(2, canvas.side // 120))
    whole = layer.getchannel("A")
    _fastenings(layer, garment, paint, canvas)
    _trim(layer, garment, detail.trim, canvas)
    _motif(layer, garment, detail, paint, canvas)
    layer.putalpha(_without_neck(whole, garment, canvas))
    _collar(layer, garment, paint, canvas)
    return scene.add_light(layer, detail.light)


def _vary_shade(paint: RGB, random: Random) -> RGB:
    """The color, changed so little that it keeps its name."""
    return tuple(max(0, min(255, round(c * random.uniform(0.97, 1.03) + random.uniform(-3, 3)))) for c in paint)  # type: ignore[return-value]


def _contrast(paint: RGB) -> RGB:
    """A visible shade of the same color: lighter for dark colors, darker for light ones."""
    return scene.darken(paint, 0.68) if scene.brightness(paint) > 150 else scene.lighten(paint, 0.55)


def _fabric(pattern: Pattern, paint: RGB, canvas: Canvas, random: Random) -> Image.Image:
    """A square of cloth with the pattern."""
    side, second = canvas.side, _contrast(paint)
    cloth = Image.new("RGB", (side, side), paint)
    pen = ImageDraw.Draw(cloth)
    phase = random.random()
    step = side * 0.075
    rows = range(-1, int(side / step) + 2)
    match pattern:
        case Pattern.STRIPED:
            for row in rows:
                y = (row + phase) * step
                pen.rectangle((0, y, side, y + step * 0.45), fill=second)
        case Pattern.CHECKED:
            half = scene.blend(paint, second, 0.5)
            for row in rows:
                at = (row + phase) * step * 1.15
                pen.rectangle((0, at, side, at + step * 0.55), fill=half)
            for row in rows:
                at = (row + phase) * step * 1.15
                pen.rectangle((at, 0, at + step * 0.55, side), fill=half)
                for other in rows:
                    y = (other + phase) * step * 1.15
                    pen.rectangle((at, y, at + step * 0.55, y + step * 0.55), fill=second)
        case Pattern.DOTTED:
            for row in rows:
                for column in rows:
                    x, y = (column + phase + 0.5 * (row % 2)) * step, (row + phase) * step
                    pen.ellipse((x, y, x + step * 0.46, y + step * 0.46), fill=second)
        case Pattern.ZIGZAG:
            for row in rows:
                points = [
                    (i * step * 0.55, (row * 1.25 + phase + 0.6 * (i % 2)) * step) for i in range(int(side / step / 0.55) + 2)
                ]
                pen.line(points, fill=second, width=max(2, round(step * 0.30)), joint="curve")
        case Pattern.DIAMOND:
            wide, tall = step * 1.25, step * 1.7
            for row in rows:
                for column in rows:
                    x, y = (column + phase) * wide, (row + phase) * tall
                    pen.polygon(
                        [(x, y - tall * 0.42), (x + wide * 0.42, y), (x, y + tall * 0.42), (x - wide * 0.42, y)], fill=second
                    )
        case Pattern.PLAIN:
            pass
    return cloth


def _fastenings(layer: Image.Image, garment: Garment, paint: RGB, canvas: Canvas) -> None:
    """The parts that identify a kind of garment: buttons, zips, pockets, waistbands, drawstrings."""
    pen = ImageDraw.Draw(layer)
    dark = scene.darken(paint, 0.45) if scene.brightness(paint) > 60 else scene.lighten(paint, 0.35)
    width = max(1, canvas.side // 150)

    def line(*points: shapes.Point, wide: int = width) -> None:
        pen.line(canvas.points(list(points)), fill=dark, width=wide)

    match garment.kind:
        case Kind.SHIRT | Kind.COAT:
            bottom = 0.66 if garment.kind is Kind.SHIRT else shapes.HEM[garment.length or Length.KNEE]
            line((0.0, 0.1), (0.0, bottom))
            for y in (0.18, 0.29, 0.40, 0.51):
                ((x0, y0),) = canvas.points([(0.05, y)])
                r = canvas.side * (0.008 if garment.kind is Kind.SHIRT else 0.012)
                pen.ellipse((x0 - r, y0 - r, x0 + r, y0 + r), fill=dark)
            if garment.kind is Kind.COAT:
                line((-0.30, 0.50), (-0.14, 0.47), wide=2 * width)
                line((0.30, 0.50), (0.14, 0.47), wide=2 * width)
        case Kind.JACKET:
            line((0.0, 0.06), (0.0, 0.58), wide=3 * width)
            line((-0.36, 0.52), (0.36, 0.52))
        case Kind.HOODIE:
            pen.polygon(canvas.points([(-0.18, 0.46), (0.18, 0.46), (0.26, 0.62), (-0.26, 0.62)]), outline=dark, width=width)
            line((-0.06, 0.09), (-0.07, 0.22))
            line((0.06, 0.09), (0.07, 0.22))
        case Kind.SWEATER:
            for x in range(-6, 7):
                line((x * 0.055, 0.575), (x * 0.055, 0.62))
        case Kind.TROUSERS | Kind.SHORTS | Kind.SKIRT | Kind.JUMPSUIT:
            y = 0.145 if garment.kind is not Kind.JUMPSUIT else 0.44
            line((-0.34, y), (0.34, y))
        case _:
            pass


def _trim(layer: Image.Image, garment: Garment, trim: Trim, canvas: Canvas) -> None:
    """A band along the hem and the cuffs."""
    if trim is Trim.NONE:
        return
    cloth = layer.getchannel("A")
    band = ImageChops.subtract(cloth, ImageChops.offset(cloth, 0, -round(canvas.side * 0.03)))
    hem = Image.new("L", cloth.size)
    lowest = cloth.getbbox() or (0, 0, 0, 0)
    hem.paste(
        band.crop((0, lowest[3] - round(canvas.side * 0.07), canvas.side, canvas.side)),
        (0, lowest[3] - round(canvas.side * 0.07)),
    )
    mask = ImageChops.lighter(hem, ImageChops.multiply(canvas.mask(shapes.cuffs(garment)), cloth))
    layer.paste(TRIM_RGB[trim], mask=mask)
    layer.putalpha(cloth)


def _motif(layer: Image.Image, garment: Garment, detail: Detail, paint: RGB, canvas: Canvas) -> None:
    """The motif on a plain patch: on the chest, or on one leg of trousers and shorts."""
    x, y = {Kind.SKIRT: (0.0, 0.32), Kind.TROUSERS: (0.19, 0.38), Kind.SHORTS: (0.19, 0.33)}.get(garment.kind, (0.0, 0.31))
    ((cx, cy),) = canvas.points([(x, y)])
    radius = canvas.side * (0.075 if garment.kind not in (Kind.TROUSERS, Kind.SHORTS) else 0.062)
    pen = ImageDraw.Draw(layer)
    patch = radius * 1.22
    pen.ellipse((cx - patch, cy - patch, cx + patch, cy + patch), fill=(*paint, 255))
    ink = (24, 26, 40) if scene.brightness(paint) > 120 else (250, 246, 232)
    for outline in shapes.MOTIFS[detail.motif]:
        pen.polygon([(cx + px * radius, cy + py * radius) for px, py in outline], fill=(*ink, 255))


def _without_neck(alpha: Image.Image, garment: Garment, canvas: Canvas) -> Image.Image:
    """The mask of the garment without the opening of its neckline."""
    if garment.kind in (Kind.SKIRT, Kind.TROUSERS, Kind.SHORTS) or garment.neckline is Neckline.HIGH:
        return alpha
    return ImageChops.subtract(alpha, canvas.mask([shapes.neck(garment)]))


def _collar(layer: Image.Image, garment: Garment, paint: RGB, canvas: Canvas) -> None:
    """The parts around the neck: collar, lapels, hood, turtleneck, or the rim of a neckline."""
    pen = ImageDraw.Draw(layer)
    dark, width = scene.darken(paint, 0.5), max(1, canvas.side // 110)
    fill, rim = (*scene.lighten(paint, 0.08), 255), (*dark, 255)

    def flap(*points: shapes.Point) -> None:
        for sign in (1, -1):
            pen.polygon(canvas.points([(sign * x, y) for x, y in points]), fill=fill, outline=rim, width=width)

    match garment.kind:
        case Kind.SHIRT:
            flap((0.0, 0.10), (0.13, -0.03), (0.21, 0.03), (0.14, 0.15))
        case Kind.COAT:
            flap((0.0, 0.24), (0.12, -0.03), (0.24, 0.03), (0.22, 0.17), (0.15, 0.17))
        case Kind.JACKET:
            flap((0.02, 0.09), (0.12, -0.045), (0.20, 0.02), (0.14, 0.075))
        case Kind.HOODIE:
            outer = [(0.24, 0.03), (0.24, -0.06), (0.15, -0.12), (0.0, -0.14)]
            inner = [(0.13, 0.05), (0.13, -0.03), (0.08, -0.07), (0.0, -0.085)]
            arch = outer + [(-x, y) for x, y in reversed(outer)] + [(-x, y) for x, y in inner] + list(reversed(inner))
            pen.polygon(canvas.points(arch), fill=fill, outline=rim, width=width)
        case _ if garment.neckline is Neckline.HIGH:
            pen.polygon(canvas.points(shapes.neck(garment)), fill=fill, outline=rim, width=width)
        case _ if garment.neckline is not None:
            outline = shapes.neck(garment)
            lower = [outline[1], outline[2], outline[0]] if garment.neckline is Neckline.V else outline
            lower = [outline[1], outline[2], outline[3], outline[0]] if garment.neckline is Neckline.SQUARE else lower
            pen.line(canvas.points(lower), fill=rim, width=2 * width)
