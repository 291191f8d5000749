"""Draw a scene: a PIL image, and the share of every visual token that each item covers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .layout import Plate, Scene, Thing
from .vocabulary import ALPHABET, CATEGORIES, COLORS, TINTS

ASSETS = Path(__file__).parent / "assets"
PHOTOS = {  # photographs of scikit-image, disjoint between the splits
    "train": ("astronaut", "brick", "camera", "cell", "clock", "coins", "grass", "hubble", "retina", "text"),
    "validation": ("gravel", "ihc"),
    "test": ("chelsea", "coffee", "rocket"),
}
TEXTURES = 14  # procedural backgrounds, training split only
PLATE_COLORS = {
    "number": ((240, 240, 235), (15, 15, 20)),
    "word": (None, (245, 245, 245)),
    "code": ((250, 205, 60), (15, 15, 20)),
}
WORD_GROUNDS = ((20, 80, 45), (25, 45, 110), (110, 25, 30))
CELL, CAP, BASELINE = 64, 44, 54


@cache
def sprites() -> tuple[np.ndarray, np.ndarray]:
    """Pictograms [category, style, 2, 64, 64] and characters [char, font, 64, 64], uint8."""
    with np.load(ASSETS / "sprites.npz") as data:
        return data["shapes"], data["letters"]


@cache
def backgrounds(split: str) -> tuple[Image.Image, ...]:
    photos = []
    for name in PHOTOS[split]:
        with Image.open(ASSETS / f"{name}.jpg") as image:
            photos.append(image.convert("RGB"))
    if split == "train":
        photos += [_texture(np.random.default_rng(seed), seed % 3) for seed in range(TEXTURES)]
    return tuple(photos)


def _texture(rng: np.random.Generator, sort: int) -> Image.Image:
    """A procedural background, 640x480: cloud noise, bent stripes or blobs."""
    y, x = np.mgrid[:480, :640].astype(np.float32)
    if sort == 0:
        out = np.zeros((480, 640, 3), np.float32)
        for cells, weight in ((4, 1.0), (9, 0.6), (24, 0.4), (60, 0.25), (160, 0.15)):
            noise = Image.fromarray((rng.random((cells * 3 // 4, cells, 3)) * 255).astype(np.uint8))
            out += weight * np.asarray(noise.resize((640, 480), Image.Resampling.BICUBIC), np.float32)
        return Image.fromarray(((out - out.min()) / (out.max() - out.min()) * 255).astype(np.uint8))
    if sort == 1:
        angle, period = rng.random() * np.pi, rng.uniform(14, 60)
        wave = 0.5 + 0.5 * np.sin((x * np.cos(angle) + y * np.sin(angle)) / period * 2 * np.pi + 2 * np.sin(x / 90))
        stripes = 255 * (wave[..., None] * rng.random(3) + (1 - wave[..., None]) * rng.random(3))
        return Image.fromarray(stripes.astype(np.uint8))
    image = np.ones((480, 640, 3), np.float32) * rng.random(3)
    for _ in range(90):
        radius = rng.uniform(8, 60)
        inside = ((x - rng.uniform(0, 640)) / radius) ** 2 + (
            (y - rng.uniform(0, 480)) / (radius * rng.uniform(0.4, 1.6))
        ) ** 2 < 1
        image[inside] = image[inside] * 0.3 + 0.7 * rng.random(3)
    return Image.fromarray((255 * image).astype(np.uint8))


@dataclass(frozen=True)
class Rendering:
    image: Image.Image
    things: np.ndarray  # [things, grid, grid] share of each token that the thing covers
    characters: tuple[np.ndarray, ...]  # per plate [characters, grid, grid]
    plates: np.ndarray  # [plates, grid, grid]


def render(scene: Scene, grid: int = 24) -> Rendering:
    """Draw `scene`. `grid` is the number of token rows and columns for the coverage maps."""
    rng = np.random.default_rng(scene.seed)
    ground = _background(scene, rng)
    _clutter(ground, rng)
    pixels = np.asarray(ground, np.float32).copy()
    things = [_draw_thing(pixels, thing, index in scene.occluded, rng) for index, thing in enumerate(scene.things)]
    plates, characters = [], []
    for plate in scene.plates:
        characters.append(np.stack([_tokens(*part, scene.size, grid) for part in _draw_plate(pixels, plate, rng)]))
        plates.append(_box_tokens(plate.box, scene.size, grid))
    height, width = pixels.shape[:2]
    grain = rng.normal(0, 4, (height // 2 + 1, width // 2 + 1, 1)).astype(np.float32)
    pixels += grain.repeat(2, 0).repeat(2, 1)[:height, :width]
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    empty = np.zeros((0, grid, grid), np.float32)
    covered = np.stack([_tokens(*part, scene.size, grid) for part in things]) if things else empty
    return Rendering(image, covered, tuple(characters), np.stack(plates) if plates else empty)


def _background(scene: Scene, rng: np.random.Generator) -> Image.Image:
    photos = backgrounds(scene.split)
    photo = photos[scene.photo % len(photos)]
    width, height = scene.size
    zoom = 0.6 + 0.4 * scene.crop[2]
    ratio = min(photo.width / width, photo.height / height) * zoom
    inner = (width * ratio, height * ratio)
    left, top = (photo.width - inner[0]) * scene.crop[0], (photo.height - inner[1]) * scene.crop[1]
    out = photo.resize(scene.size, Image.Resampling.BILINEAR, box=(left, top, left + inner[0], top + inner[1]))
    if scene.crop[3]:
        out = out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(out, np.float32) * (0.65 + 0.4 * float(rng.random()))
    if scene.tint:  # a duotone print: grey values in one ink
        gray = pixels @ np.array([0.3, 0.59, 0.11], np.float32)
        ink = np.array(TINTS[scene.tint], np.float32) / 255
        pixels = 0.15 * pixels + 0.85 * (gray[..., None] * 0.75 + 50) * ink
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _clutter(image: Image.Image, rng: np.random.Generator) -> None:
    """A few faint lines and ellipses under the things."""
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(int(rng.integers(0, 6))):
        x, y, w, h = rng.random(4) * np.array([image.width, image.height, 90, 90])
        ink = (*(int(v) for v in rng.integers(0, 256, 3)), int(rng.integers(40, 110)))
        if rng.random() < 0.5:
            draw.line((x, y, x + w - 45, y + h - 45), fill=ink, width=int(rng.integers(2, 6)))
        else:
            draw.ellipse((x, y, x + w, y + h), outline=ink, width=int(rng.integers(2, 5)))


Part = tuple[np.ndarray, int, int]  # alpha [h, w] and where its top-left corner lies


def _blend(pixels: np.ndarray, ink: np.ndarray, alpha: np.ndarray, left: int, top: int) -> Part:
    """Paint `ink` ([h, w, 3] or [3]) through `alpha`, clipped to the canvas."""
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(pixels.shape[1], left + alpha.shape[1]), min(pixels.shape[0], top + alpha.shape[0])
    alpha = alpha[y0 - top : y1 - top, x0 - left : x1 - left]
    if ink.ndim == 3:
        ink = ink[y0 - top : y1 - top, x0 - left : x1 - left]
    pixels[y0:y1, x0:x1] += alpha[..., None] * (ink - pixels[y0:y1, x0:x1])
    return alpha, x0, y0


def _warp(sprite: np.ndarray, x: float, y: float, scale: float, angle: float = 0.0) -> tuple[np.ndarray, int, int]:
    """Sample a 64x64 sprite at a sub-pixel place: [side, side] in [0, 255], left, top."""
    side = int(np.ceil(CELL * scale * 1.15)) + 2
    left, top = int(np.floor(x - side / 2)), int(np.floor(y - side / 2))
    cos, sin = np.cos(np.radians(angle)) / scale, np.sin(np.radians(angle)) / scale
    dx, dy = x - left, y - top
    affine = (cos, sin, CELL / 2 - cos * dx - sin * dy, -sin, cos, CELL / 2 + sin * dx - cos * dy)
    image = Image.fromarray(sprite)
    if scale < 0.6:  # bilinear sampling alone would skip pixels
        image = image.resize((CELL // 2, CELL // 2), Image.Resampling.BOX)
        affine = tuple(v / 2 for v in affine)
    out = image.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return np.asarray(out, np.float32), left, top


def _draw_thing(pixels: np.ndarray, thing: Thing, occluded: bool, rng: np.random.Generator) -> Part:
    base = np.array(COLORS[thing.color], np.float32)
    if thing.tier == "tiny":
        return _draw_tiny(pixels, thing, base)
    shape = sprites()[0][CATEGORIES.index(thing.name), thing.style]
    scale = thing.size / 56
    luminance, left, top = _warp(shape[0], thing.x, thing.y, scale, thing.angle)
    alpha = _warp(shape[1], thing.x, thing.y, scale, thing.angle)[0] / 255
    level = np.clip(luminance / 255 / np.maximum(alpha, 0.3), 0, 1)[..., None]
    ink = np.where(level < 0.5, base * 2 * level, base + (255 - base) * (2 * level - 1))
    part = _blend(pixels, ink, alpha, left, top)
    if occluded:  # a thin bar in front
        offset = float(rng.uniform(-0.3, 0.3)) * thing.size
        bar = np.full((max(2, round(thing.size * 0.1)), round(thing.size * 1.2)), 0.85, np.float32)
        _blend(
            pixels,
            rng.integers(30, 200, 3).astype(np.float32),
            bar,
            round(thing.x - thing.size * 0.6),
            round(thing.y + offset),
        )
    return part


def _draw_tiny(pixels: np.ndarray, thing: Thing, base: np.ndarray) -> Part:
    side = int(np.ceil(thing.size)) + 4
    left, top = int(np.floor(thing.x - side / 2)), int(np.floor(thing.y - side / 2))
    y, x = np.mgrid[:side, :side] + 0.5
    dx, dy, radius = x + left - thing.x, y + top - thing.y, thing.size / 2
    distance = np.hypot(dx, dy)
    rim = np.clip(radius + 0.5 - distance, 0, 1)
    if thing.name == "ring":
        core = np.clip(radius - 0.5 - distance, 0, 1) * np.clip(distance - radius * 0.42, 0, 1)
        rim = rim * np.clip(distance - radius * 0.3, 0, 1)
    elif thing.name == "cross":
        arm = np.minimum(np.abs(dx), np.abs(dy))
        far = np.maximum(np.abs(dx), np.abs(dy))
        core = np.clip(radius * 0.3 + 0.5 - arm, 0, 1) * np.clip(radius - 0.5 - far, 0, 1)
        rim = np.clip(radius * 0.3 + 1.5 - arm, 0, 1) * np.clip(radius + 0.5 - far, 0, 1)
    else:
        core = np.clip(radius - 1 - distance, 0, 1)
    _blend(pixels, np.zeros(3, np.float32), rim.astype(np.float32), left, top)
    _blend(pixels, base, core.astype(np.float32), left, top)
    return rim.astype(np.float32), left, top


def _draw_plate(pixels: np.ndarray, plate: Plate, rng: np.random.Generator) -> list[Part]:
    ground, ink = PLATE_COLORS[plate.kind]
    color = np.array(ground or WORD_GROUNDS[int(rng.integers(len(WORD_GROUNDS)))], np.float32) * float(
        rng.uniform(0.88, 1.03)
    )
    x0, y0, x1, y1 = (round(v) for v in plate.box)
    panel = np.full((y1 - y0, x1 - x0), 0.97, np.float32)
    _blend(pixels, np.array(ink, np.float32), panel, x0, y0)
    _blend(pixels, color, panel[1:-1, 1:-1], x0 + 1, y0 + 1)
    scale, parts = plate.height / CAP, []
    lift = (BASELINE - CAP / 2 - CELL / 2) * scale  # from the middle of the letter to the middle of its sprite
    for slot, char in enumerate(plate.text):
        sprite = sprites()[1][ALPHABET.index(char), plate.font]
        alpha, left, top = _warp(sprite, plate.x + plate.pitch * (slot + 0.5), plate.y - lift, scale)
        parts.append(_blend(pixels, np.array(ink, np.float32), alpha / 255, left, top))
    return parts


def _tokens(alpha: np.ndarray, left: int, top: int, size: tuple[int, int], grid: int) -> np.ndarray:
    """[grid, grid] share of each token that is covered by a part."""
    rows = ((top + np.arange(alpha.shape[0])) * grid // size[1]).clip(0, grid - 1)
    columns = ((left + np.arange(alpha.shape[1])) * grid // size[0]).clip(0, grid - 1)
    out = np.zeros((grid, grid), np.float32)
    np.add.at(out, (rows[:, None], columns[None, :]), (alpha > 0.5).astype(np.float32))
    return out * (grid * grid / (size[0] * size[1]))


def _box_tokens(box: tuple[float, float, float, float], size: tuple[int, int], grid: int) -> np.ndarray:
    """[grid, grid] share of each token inside a box."""
    edges = np.arange(grid + 1)
    across = np.diff(np.clip(edges * size[0] / grid, box[0], box[2])) * grid / size[0]
    down = np.diff(np.clip(edges * size[1] / grid, box[1], box[3])) * grid / size[1]
    return (down[:, None] * across[None, :]).astype(np.float32)
