"""Every error the library raises on purpose. A message carries shapes, names and the known alternatives.

Each has a page that says what is seen, why, and what to do: `vlm-pruner explain CODE`, also below a traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec
from typing import ClassVar

__all__ = [
    "HELP",
    "BackendUnavailableError",
    "InputError",
    "InvalidSelectionError",
    "MissingSignalError",
    "NotFiniteError",
    "PlanError",
    "PrunedCacheError",
    "UnsupportedModelError",
    "VlmPrunerError",
    "explained",
    "first_line",
    "missing_package",
    "not_compiled",
    "unknown_name",
]


class VlmPrunerError(Exception):
    """Root of all errors of this library."""

    code: ClassVar[str | None] = None
    """The name of its page; None of the root, which is never raised itself."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        if self.code:
            self.add_note(f"What to do: {self.help_command}")

    @property
    def help_command(self) -> str:
        """The command that prints the page of this error, or the list of all of them."""
        return f"vlm-pruner explain {self.code}" if self.code else "vlm-pruner explain"


class InputError(VlmPrunerError, ValueError):
    """An image, a question, a file, a model or an option that cannot be read or used."""

    code = "input"


class NotFiniteError(InputError):
    """The features or signals of a picture contain a NaN or an infinity, so that no method can choose.

    Args:
        method: name of the method.
        what: the features or the signal that is meant.
        picture: the number of the picture, from 1 on.
        of: how many pictures there are.
    """

    code = "not-finite"

    def __init__(self, method: str, what: str, picture: int = 1, of: int = 1) -> None:
        super().__init__(f"{method}: picture {picture} of {of} has {what} that are NaN or infinite")
        self.method, self.what, self.picture, self.of = method, what, picture, of

    def renumbered(self, picture: int, of: int) -> NotFiniteError:
        """The same of picture number `picture` among so many, for a caller that knows of more of them."""
        return NotFiniteError(self.method, self.what, picture, of)


class PlanError(VlmPrunerError, ValueError):
    """A budget, layer, method name or plan that cannot be carried out."""

    code = "plan"


class UnsupportedModelError(VlmPrunerError, TypeError):
    """A model, or a way of calling it, that cannot be pruned."""

    code = "model"


class InvalidSelectionError(VlmPrunerError, ValueError):
    """A method returned duplicates, indices out of range or the wrong count."""

    code = "selection"


class MissingSignalError(VlmPrunerError, RuntimeError):
    """A method needs something that is not available on this model or at this layer."""

    code = "signal"


class PrunedCacheError(VlmPrunerError, RuntimeError):
    """A pruned cache used outside a pruner, or with another plan."""

    code = "cache"


class BackendUnavailableError(VlmPrunerError, ImportError):
    """A backend asked for by name cannot run here."""

    code = "backend"


HELP = ("plan", "input", "not-finite", "model", "signal", "selection", "cache", "backend")
"""The codes of all errors, in the order in which users meet them."""


def explained(code: str) -> str:
    """The page of an error as Markdown: what is seen, why, what to do.

    Raises:
        InputError: no error has this code.
    """
    known = {cls.__name__.lower(): cls.code for cls in _children(VlmPrunerError) if cls.code}
    code = known.get(code.lower(), code)
    if code not in HELP:
        raise InputError(unknown_name("error", code, HELP))
    from importlib.resources import files

    return files("vlm_pruner").joinpath("help", f"{code}.md").read_text(encoding="utf-8")


def _children(cls: type[VlmPrunerError]) -> Iterable[type[VlmPrunerError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _children(child)


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Message for an unknown name: the nearest known one is offered, then all of them.

    >>> unknown_name("method", "vlm-prunner", ["divprune", "vlm-pruner"])
    "unknown method 'vlm-prunner'; did you mean 'vlm-pruner'? Known: divprune, vlm-pruner"
    >>> unknown_name("method", "foo", ["divprune", "vlm-pruner"])
    "unknown method 'foo'. Known: divprune, vlm-pruner"
    """
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}"


EXTRAS = {
    "torchvision": "processors",
    "num2words": "processors",
    "bitsandbytes": "bitsandbytes",
    "gptqmodel": "gptq",
    "optimum": "gptq",
    "torchao": "torchao",
    "accelerate": "accelerate",
    "gradio": "web",
    "lmms_eval": "eval",
    "matplotlib": "viz",
    "pyarrow": "batch",
    "ray": "ray",
    "vllm": "vllm",
}
"""Packages that something may need which is not always installed, and our extra that holds them."""


def missing_package(what: str, error: BaseException) -> BackendUnavailableError | None:
    """What to install, if `error` (or what it came from) says that one of `EXTRAS` is missing or cannot be imported.

    Args:
        what: the subject of the sentence: "the processor of this model".
    """
    said = ""
    cause: BaseException | None = error
    while cause is not None:
        said, cause = f"{said} {cause}", cause.__cause__ or cause.__context__
    if "torchvision::" in said:
        return BackendUnavailableError(
            f"{what} needs torchvision, and the one that is installed was built for another torch: install the release "
            "that belongs to this one"
        )
    for package, extra in EXTRAS.items():
        if package in said.lower().replace("optimum-quanto", "") and find_spec(package) is None:
            return BackendUnavailableError(f"{what} needs {package}: pip install 'vlm-pruner[{extra}]'")
    return None


def not_compiled(error: BaseException) -> BackendUnavailableError | None:
    """What to say where torch could not compile for this machine, as for flex attention; None for any other error."""
    if not type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
        return None
    return BackendUnavailableError(
        f"torch cannot compile this model's kernels on this machine ({type(error).__name__}): choose another --attn"
    )


def first_line(error: BaseException) -> str:
    """The first line of a message; one that only announces a list goes on with it."""
    first, *rest = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join([first, *rest])[:240] if first.endswith(":") else first
