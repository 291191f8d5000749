"""Pictures that come as files of a form (multipart/form-data, RFC 7578) beside the request, as curl sends them."""

from __future__ import annotations

import email.policy
from email.message import Message
from email.parser import BytesHeaderParser

from vlm_pruner.serving.http.limits import HttpError

__all__ = ["REQUEST", "UPLOAD", "Uploads", "is_form", "read_form"]

REQUEST = "request"
"""Name of the field with the JSON."""
UPLOAD = "upload:"
"""What the URL of an uploaded picture starts with; the name of its field follows."""


class Uploads:
    """The files of a request, by the names of their fields. None are kept when it has been answered."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files, self._left = files, set(files)

    def take(self, url: str, picture: str) -> bytes:
        """The file that a URL names.

        Args:
            url: `upload:` and the name.
            picture: what to call it in a message.

        Raises:
            HttpError: there is none of that name.
        """
        name = url.removeprefix(UPLOAD)
        if name not in self._files:
            known = ", ".join(sorted(self._files)[:8]) or "no file"
            raise HttpError(400, f"{picture}: no file {name[:80]!r} came with the request, but {known}", "no_upload")
        self._left.discard(name)
        return self._files[name]

    def check_all_taken(self) -> None:
        """A file that no message shows is a mistake of the client.

        Raises:
            HttpError: there is one.
        """
        if self._left:
            name = sorted(self._left)[0]
            raise HttpError(400, f"no message shows the file {name[:80]!r}: its URL is '{UPLOAD}NAME'", "upload_unused")


def is_form(kind: str) -> bool:
    """Is a body of this Content-Type a form with files?"""
    return kind.lower().lstrip().startswith("multipart/form-data")


def read_form(body: bytes, kind: str) -> tuple[bytes, Uploads]:
    """The JSON and the files of a form.

    Args:
        kind: its Content-Type, which says where the fields part.

    Raises:
        HttpError: no whole form, a field without a name, two of one name, or none with the request.
    """
    head = Message()
    head["Content-Type"] = kind
    boundary = head.get_boundary()
    if not boundary or not boundary.isascii():
        raise _bad("the form does not say where its fields part: Content-Type has no boundary")
    _, *fields = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if not fields or not fields[-1].startswith(b"--"):
        raise _bad("the form is cut off")
    files: dict[str, bytes] = {}
    for field in fields[:-1]:
        headers, gap, data = field.lstrip(b" \t").partition(b"\r\n\r\n")
        name = _name(headers.removeprefix(b"\r\n")) if gap else None
        if name is None:
            raise _bad("a field of the form has no name")
        if name in files:
            raise _bad(f"two fields of the form are called {name[:80]!r}")
        files[name] = data
    if REQUEST not in files:
        raise _bad(f"the form has no field {REQUEST!r} with the JSON of the request")
    return files.pop(REQUEST), Uploads(files)


def _bad(message: str) -> HttpError:
    return HttpError(400, message, "invalid_form")


def _name(headers: bytes) -> str | None:
    head = BytesHeaderParser(policy=email.policy.compat32).parsebytes(headers)
    name = head.get_param("name", header="Content-Disposition")
    return name if isinstance(name, str) and name else None
