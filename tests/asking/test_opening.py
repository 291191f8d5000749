"""Image files against an image viewer (libvips), or against the picture that was written into them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin
from tests.support.profiles import grey_profile

from vlm_pruner.asking import as_shown, notes_of, open_image
from vlm_pruner.errors import InputError

pyvips = pytest.importorskip("pyvips")

Y, X = np.mgrid[0:48, 0:64]
RGB = np.stack([X * 4 % 256, (Y * 5 + X) % 256, 255 - (X + Y) % 256], -1).astype(np.uint8)
GREY = ((X * 3 + Y) % 256).astype(np.uint8)
ALPHA = (X * 4 % 256).astype(np.uint8)
WIDE = np.uint16(257)  # 8 bits spread over 16


def viewer(path: Path) -> np.ndarray:
    """[h, w, 3] what libvips shows of a file, on white."""
    image = pyvips.Image.new_from_file(str(path)).autorot()
    if "icc-profile-data" in image.get_fields():
        image = image.icc_transform("srgb", embedded=True, depth=8)
    image = image.colourspace("srgb")
    image = image.flatten(background=255) if image.hasalpha() else image
    return np.asarray(image.cast("uchar").numpy()).reshape(image.height, image.width, -1).repeat(3 // image.bands, -1)


def mode(name: str) -> Image.Image:
    colour, grey = Image.fromarray(RGB), Image.fromarray(GREY)
    if name in ("RGBA", "LA", "PA"):
        image = {"RGBA": colour, "LA": grey, "PA": colour.quantize(32).convert("PA")}[name].copy()
        image.putalpha(Image.fromarray(ALPHA))
        return image
    if name == "P":
        return colour.quantize(32)
    return colour.convert(name) if name in ("RGB", "CMYK") else grey.convert(name)


def deep(image: np.ndarray, kind: str, profile: bytes = b"", **options: object) -> Callable[[Path], None]:
    """Writes samples of a depth that Pillow does not write."""

    def write(path: Path) -> None:
        made = pyvips.Image.new_from_array(image).copy(interpretation=kind)
        if profile:
            made.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
        made.write_to_file(str(path), **options)

    return write


def profiled(name: str, profile: bytes, **options: object) -> Callable[[Path], None]:
    return lambda path: mode(name).save(path, icc_profile=profile, **options)


def palette(colours: int, **options: object) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(RGB).quantize(colours).save(path, **options)


P3, CMYK, SRGB = (bytes(pyvips.Image.profile_load(name)) for name in ("p3", "cmyk", "srgb"))
LINEAR = grey_profile(1.0)
STEPS = {1: (GREY > 99) * np.uint8(255), 2: GREY // 64 * np.uint8(85), 4: GREY // 16 * np.uint8(17)}


FILES: dict[str, Callable[[Path], None]] = {
    **{
        f"{name}.{ending}": (lambda path, name=name: mode(name).save(path))
        for ending, names in {
            "png": ("1", "L", "P", "RGB", "RGBA", "LA"),
            "tiff": ("1", "L", "P", "RGB", "RGBA", "LA", "PA"),
            "gif": ("L", "P", "RGBA"),
            "jpg": ("L", "RGB"),
        }.items()
        for name in names
    },
    "lossless.webp": lambda path: mode("RGBA").save(path, lossless=True),
    "entry.png": lambda path: mode("P").save(path, transparency=3),
    "entry.gif": lambda path: mode("P").save(path, transparency=3),
    "entries.png": lambda path: mode("P").save(path, transparency=bytes(range(0, 256, 8))),
    "key.png": lambda path: mode("L").save(path, transparency=int(GREY[9, 9])),
    "colourkey.png": lambda path: mode("RGB").save(path, transparency=tuple(int(v) for v in RGB[9, 9])),
    "deepkey.png": lambda path: Image.fromarray(GREY * WIDE).save(path, transparency=int(GREY[9, 9] * WIDE)),
    "grey16.png": deep((GREY * WIDE)[..., None], "grey16"),
    "grey16.tif": deep((GREY * WIDE)[..., None], "grey16"),
    "lzw16.tif": deep((GREY * WIDE)[..., None], "grey16", compression="lzw"),
    "fromwhite16.tif": deep((GREY * WIDE)[..., None], "grey16", miniswhite=True),
    "fromwhite8.tif": deep(GREY[..., None], "b-w", miniswhite=True),
    "greyalpha16.png": deep(np.dstack([GREY, ALPHA]) * WIDE, "grey16"),
    "rgb16.png": deep(RGB * WIDE, "rgb16"),
    "rgb16.tif": deep(RGB * WIDE, "rgb16"),
    "rgba16.png": deep(np.dstack([RGB, ALPHA]) * WIDE, "rgb16"),
    "rgba16.tif": deep(np.dstack([RGB, ALPHA]) * WIDE, "rgb16"),
    "greyalpha8.tif": deep(np.dstack([GREY, ALPHA]), "b-w"),
    "premultiplied.tif": deep(np.dstack([RGB, ALPHA]), "srgb", premultiply=True),
    "inside.tif": deep(RGB, "srgb", compression="jpeg", Q=95),
    "lossy.webp": lambda path: mode("RGBA").save(path, quality=95),
    "bitkey.png": lambda path: mode("1").save(path, transparency=1),
    **{
        f"grey{bits}.{ending}": deep(steps[..., None], "b-w", bitdepth=bits)
        for bits, steps in STEPS.items()
        for ending in ("png", "tif")
    },
    "palette1.png": palette(2, bits=1, transparency=0),
    "palette2.png": palette(4, bits=2, transparency=bytes([0, 99, 255, 255])),
    "palette4.png": palette(16, bits=4, transparency=2),
    **{f"p3.{ending}": profiled("RGB", P3) for ending in ("png", "jpg", "tiff")},
    "p3.webp": profiled("RGB", P3, lossless=True),
    "p3alpha.png": profiled("RGBA", P3),
    "p3palette.png": profiled("P", P3),
    "p3entry.png": profiled("P", P3, transparency=3),
    "p3grey.png": profiled("L", P3),
    "p3deep.png": deep(RGB * WIDE, "rgb16", P3),
    "p3deep.tif": deep(RGB * WIDE, "rgb16", P3),
    "p3deepalpha.png": deep(np.dstack([RGB, ALPHA]) * WIDE, "rgb16", P3),
    "srgb.png": profiled("RGB", SRGB),
    "cmyk.tiff": profiled("CMYK", CMYK),
    "cmyk.jpg": profiled("CMYK", CMYK),
    "linear.png": profiled("L", LINEAR),
    "linear.jpg": profiled("L", LINEAR),
    "linearalpha.png": profiled("LA", LINEAR),
    "linear16.png": deep((GREY * WIDE)[..., None], "grey16", LINEAR),
    "linear16.tif": deep((GREY * WIDE)[..., None], "grey16", LINEAR),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_shown_as_by_a_viewer(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    FILES[name](path)
    shown = np.asarray(open_image(path)).astype(int)
    assert np.abs(shown - viewer(path)).mean() <= 1


SAMPLES = {  # what libvips shows as black or clips: the picture that was written is what is right
    "float": (GREY / np.float32(255), 0.5),
    "int32": (GREY.astype(np.int32) * 257, 0.5),
    "int8in32": (GREY.astype(np.int32), 0.5),
    "all32": (GREY.astype(np.uint32) * np.uint32(16843009), 1.0),
    "12in16": (GREY.astype(np.uint16) * 16, 1.0),
    "8in16": (GREY.astype(np.uint16), 0.5),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_deep_samples_are_scaled(name: str, tmp_path: Path) -> None:
    samples, most = SAMPLES[name]
    path = tmp_path / "deep.tiff"
    if samples.dtype == np.uint32:  # Pillow writes signed ones alone
        deep(samples[..., None], "b-w")(path)
    else:
        Image.fromarray(samples).save(path)
    assert np.abs(np.asarray(open_image(path))[..., 0].astype(int) - GREY).mean() <= most


def test_a_range_is_said_unless_it_is_the_files_own(tmp_path: Path) -> None:
    image = Image.fromarray(GREY.astype(np.uint16) * 16)
    image.save(tmp_path / "guessed.png")
    assert notes_of(open_image(tmp_path / "guessed.png")) == (
        "its samples reach from 0 to 3776: shown by the range from 0 to 4095",
    )
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = 8160
    image.save(tmp_path / "named.tiff", tiffinfo=tags)
    shown = open_image(tmp_path / "named.tiff")
    assert notes_of(shown) == ()
    assert abs(np.asarray(shown)[..., 0].astype(int) - GREY // 2).max() <= 1


def test_negative_samples_and_no_numbers_are_shown_too() -> None:
    values = np.linspace(-2, 2, 256, dtype=np.float32).reshape(16, 16)
    values[0, 0] = np.nan
    shown = np.asarray(as_shown(Image.fromarray(values)))[..., 0].flatten()
    assert (shown[0], shown[-1]) == (0, 255)
    assert (np.diff(shown[1:].astype(int)) >= 0).all()


def test_lab_is_shown_in_its_colours(tmp_path: Path) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    ImageCms.profileToProfile(Image.fromarray(RGB), srgb, lab, outputMode="LAB").save(tmp_path / "lab.tiff")
    assert np.abs(np.asarray(open_image(tmp_path / "lab.tiff")).astype(int) - RGB).mean() <= 2


def test_cmyk_without_a_profile_is_shown_as_in_browsers(tmp_path: Path) -> None:
    Image.new("CMYK", (32, 32), (255, 128, 0, 0)).save(tmp_path / "c.jpg", quality=95)
    assert np.abs(np.asarray(open_image(tmp_path / "c.jpg")).astype(int) - (0, 127, 255)).max() <= 1


def test_a_profile_that_is_broken_or_of_another_kind_is_left_out(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "broken.png", icc_profile=b"no profile")
    shown = open_image(tmp_path / "broken.png")
    assert np.array_equal(np.asarray(shown), RGB)
    assert "its colour profile cannot be used" in notes_of(shown)[0]
    for other in (CMYK, LINEAR):
        Image.fromarray(RGB).save(tmp_path / "other.png", icc_profile=other)
        assert np.array_equal(np.asarray(open_image(tmp_path / "other.png")), RGB)


def test_a_plain_picture_is_itself_and_others_are_shown_once() -> None:
    plain = Image.fromarray(RGB)
    assert as_shown(plain) is plain
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain.info["icc_profile"] = srgb
    once = as_shown(plain)
    assert as_shown(once) is once


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tiff"])
def test_the_first_of_several_frames_is_shown_and_it_is_said(ending: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    path = tmp_path / f"frames.{ending}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    shown = open_image(path)
    red = shown.getpixel((4, 4))
    assert red[0] > 200 > 90 > max(red[1:])
    assert notes_of(shown) == ("it holds 3 frames: the first one is shown",)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_file_too_large_is_told_our_own_limit(side: int, tmp_path: Path) -> None:
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "huge.bmp").write_bytes(header)
    with pytest.raises(InputError, match=f"{side**2 // 10**6} megapixels; at most 64 are read"):
        open_image(tmp_path / "huge.bmp")


def test_what_decoders_write_to_the_error_stream_is_in_the_one_line(tmp_path: Path, capfd) -> None:
    path = tmp_path / "broken.tif"
    Image.fromarray(GREY).save(path, compression="tiff_lzw")
    with Image.open(path) as image:
        first, length = image.tag_v2[273][0], image.tag_v2[279][0]
    data = bytearray(path.read_bytes())
    data[first + 4 : first + length] = bytes(byte ^ 0x5A for byte in data[first + 4 : first + length])
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"is not a readable image: .*\(.*code") as raised:
        open_image(path)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""
