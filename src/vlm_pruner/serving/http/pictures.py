"""The pictures of a request: data URLs, files of its form, URLs that the server was told to fetch. Nothing else."""

from __future__ import annotations

import base64
import binascii
import http.client
import io
import urllib.error
import urllib.request
from typing import Any

from PIL import Image

from vlm_pruner.asking.opening import opened, read_image
from vlm_pruner.errors import InputError
from vlm_pruner.serving.http.limits import HttpError, Limits
from vlm_pruner.serving.http.uploads import UPLOAD, Uploads

__all__ = ["open_picture"]


def open_picture(url: object, number: int, limits: Limits, files: Uploads) -> Image.Image:
    """The picture of an `image_url` part.

    Args:
        number: of the picture in its request, from 1 on.
        files: that came with it.

    Raises:
        HttpError: no data URL, no file that came, and no URL that is allowed, no picture, or one that is too large.
    """
    name = f"picture {number}"
    if not isinstance(url, str):
        raise HttpError(400, f"{name}: 'url' is a text", "invalid_image_url")
    if url.startswith("data:"):
        data = _decoded(url, name)
    else:
        data = files.take(url, name) if url.startswith(UPLOAD) else _fetched(url, name, limits)
    try:
        with opened(io.BytesIO(data)) as head:
            pixels = head.width * head.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _large(name, limits) from None
    except Exception:
        pixels = 0  # whatever is wrong is told by `read_image`
    if pixels > limits.pixels:
        raise _large(name, limits)
    try:
        return read_image(data, name)
    except InputError as error:
        raise HttpError(400, str(error), "invalid_image") from None


def _large(name: str, limits: Limits) -> HttpError:
    return HttpError(413, f"{name} has more than {limits.pixels / 1e6:.0f} megapixels", "image_too_large")


def _decoded(url: str, name: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma or not head.endswith(";base64") or not head.startswith("data:image/"):
        raise HttpError(400, f"{name}: a data URL starts with data:image/...;base64,", "invalid_image_url")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise HttpError(400, f"{name}: not base64: {error}", "invalid_image_url") from None


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect would lead to where nobody allowed it."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _fetched(url: str, name: str, limits: Limits) -> bytes:
    """What lies at a URL under one of the allowed prefixes, without redirects and proxies of the environment."""
    if not _allowed(url, limits.prefixes):
        what = "only data URLs are read" if not limits.prefixes else f"not under {', '.join(limits.prefixes)}"
        raise HttpError(400, f"{name}: this server does not fetch {url[:80]!r}: {what}", "image_url_not_allowed")
    opener = urllib.request.build_opener(_Stay, urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=limits.read_seconds) as answer:
            data: bytes = answer.read(limits.body + 1)
    except (OSError, urllib.error.URLError, http.client.HTTPException, ValueError) as error:
        raise HttpError(400, f"{name}: {url[:80]!r} cannot be fetched: {error}", "image_url_failed") from None
    if len(data) > limits.body:
        raise HttpError(413, f"{name}: {url[:80]!r} is larger than {limits.body / 1e6:.0f} MB", "image_too_large")
    return data


def _allowed(url: str, prefixes: tuple[str, ...]) -> bool:
    """Under a prefix, as a client of HTTP will read both: no way up, no second name in front of an @."""
    if not url.startswith(("http://", "https://")) or any(mark in url for mark in ("..", "\\", "@")):
        return False
    if any(ord(letter) <= 32 or ord(letter) > 126 for letter in url):
        return False
    return any(url.startswith(prefix) for prefix in prefixes)
