"""Real files to upload: pictures by Pillow, documents of any size."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

KB, MB = 1024, 1024 * 1024


@dataclass(frozen=True)
class Material:
    """A file on the visitor's disk."""

    path: Path
    field: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name, without folders."""
        return self.path.name


def document(folder: Path, name: str, size: int) -> Material:
    """Make a file of ``size`` bytes that are the same in every show."""
    path, source = folder / name, random.Random(name)
    with path.open("wb") as file:
        for start in range(0, size, MB):
            file.write(source.randbytes(min(MB, size - start)))
    return _measured(path, "document")


def picture(folder: Path, name: str, width: int, height: int) -> Material:
    """Paint hills under a sun; the noise of the air makes the file as large as a photograph."""
    path, dice = folder / name, random.Random(name)
    sky = Image.linear_gradient("L").resize((width, height))
    image = Image.merge("RGB", [sky.point(lambda v, low=low: low + v * (255 - low) // 255) for low in (70, 120, 190)])
    draw = ImageDraw.Draw(image)
    radius = height // 9
    x, y = dice.randrange(width // 4, 3 * width // 4), height // 4
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(255, 236, 170))
    for depth in range(1, 5):
        _hills(draw, dice, width, height, depth)
    noise = Image.merge("RGB", [Image.effect_noise((width, height), 40) for _ in range(3)])
    Image.blend(image.filter(ImageFilter.SMOOTH), noise, 0.15).save(path)
    return _measured(path, "picture")


def _hills(draw: ImageDraw.ImageDraw, dice: random.Random, width: int, height: int, depth: int) -> None:
    top, step = height * (2 + depth) // 8, width // 8
    ridge = [(x, top + dice.randrange(-height // 12, height // 12)) for x in range(0, width + step, step)]
    shade = 150 - depth * 30
    draw.polygon([(0, height), *ridge, (width, height)], fill=(shade // 2, shade, shade * 2 // 3))


def _measured(path: Path, field: str) -> Material:
    with path.open("rb") as file:
        digest = sha256(iter(lambda: file.read(MB), b""))
    return Material(path, field, path.stat().st_size, digest)


def sha256(chunks: Iterable[bytes]) -> str:
    """Return the SHA-256 of a body in hex."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
