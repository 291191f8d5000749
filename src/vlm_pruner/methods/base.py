"""The contract of a pruning method, and the registry that finds every one of them.

A method is one file in this package (or, outside it, an entry point of the group `vlm_pruner.methods`): a pure function
and a final frozen dataclass of its hyper-parameters. It only chooses which tokens are kept; the engine does everything
else (budgets, masks, positions, caches).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import entry_points
from typing import Any, ClassVar

import torch
from torch import Tensor

from vlm_pruner.budget import Budget, Keep
from vlm_pruner.errors import InputError, MissingSignalError, NotFiniteError, PlanError, unknown_name
from vlm_pruner.ops.sync import declared_sync, may_read
from vlm_pruner.ops.threads import own_threads, share_out
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = [
    "PruningMethod",
    "create",
    "method_class",
    "refuse_what_is_not_finite",
    "register",
    "registry",
    "require",
    "select_alike",
]


class PruningMethod(ABC):
    """Chooses which visual tokens of one image are kept. Concrete methods are final frozen dataclasses."""

    name: ClassVar[str]  # registry key and JSON name
    title: ClassVar[str]  # how the field writes it
    source: ClassVar[str]  # "arXiv:2512.02700, Alg. 1"
    needs: ClassVar[frozenset[Signal]] = frozenset()  # refused where one is missing
    wants: ClassVar[frozenset[Signal]] = frozenset()  # used where available: one of several substitutes, or optional
    default_layer: ClassVar[int | str | None] = None  # None = before the language model; 2 = decoder layer 2; "tower"
    question_aware: ClassVar[bool] = False  # may the same image keep other tokens for another question?
    slow_from: ClassVar[int | None] = None  # tokens from which a choice takes minutes on a CPU, and is warned about
    looks_itself: ClassVar[bool] = False  # for what is not finite, in the course of its work, which costs less

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A choice has no gradient, no autocast and its own number of threads, whatever a method computes."""
        super().__init_subclass__(**kwargs)
        for verb in ("select", "select_batch"):
            if verb in vars(cls):
                setattr(cls, verb, _alone(vars(cls)[verb]))

    def needs_at(self, site: int) -> frozenset[Signal]:
        """The signals that the method needs before decoder layer `site`; 0 is before the language model."""
        return self.needs

    @property
    def budget(self) -> Budget:
        """What `keep` means to this method: an exact number, an upper limit (`ceiling`), or a mean over images."""
        return "fixed"

    @abstractmethod
    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        """Choose exactly `keep` of the n tokens, or 1 to `keep` if `budget` is "ceiling". The choice is deterministic.

        A method with an exact budget never waits for a value from the device.

        Raises:
            PlanError: `keep` is not in 1 ... n.
            InputError: features that are not [n, d].
            NotFiniteError: a NaN or an infinity in what the method reads; on a device, where looking for one would
                mean to wait, only the engine raises it.
            MissingSignalError: a signal that the method needs is missing.
        """

    def select_batch(self, tokens: Sequence[VisualTokens], keep: Sequence[int]) -> list[Selection]:
        """`select` for several images at once; methods that can share work or a budget override it.

        If `budget` is "mean", all images together keep `sum(keep)` tokens, and each at least one.
        """
        made = []
        for i, (t, k) in enumerate(zip(tokens, keep, strict=True), 1):
            try:
                made.append(self.select(t, k))
            except NotFiniteError as error:
                raise error.renumbered(i, len(tokens)) from None
        return made

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, Any]]:
        """(method, keep, layer) of each stage when the method is asked for by name alone.

        Methods whose paper prunes at several layers override it; a float `keep` is a share of the image's own tokens.
        """
        return [(self, keep, self.default_layer)]

    def params(self) -> dict[str, Any]:
        """Hyper-parameters by name, JSON values only."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]


def _alone(verb: Callable[..., Any]) -> Callable[..., Any]:
    """`select` or `select_batch` without gradient and autocast, on as few threads as needed, its budgets checked."""

    @functools.wraps(verb)
    def run(self: PruningMethod, tokens: Any, keep: Any) -> Any:
        images, budgets = ([tokens], [keep]) if isinstance(tokens, VisualTokens) else (tokens, keep)
        for image, budget in zip(images, budgets, strict=True):
            _check(self, image, budget)
        if not images:
            return []
        first = images[0].features
        with torch.no_grad(), _no_autocast(first.device.type), own_threads(first):
            if may_read(first) and not self.looks_itself:
                refuse_what_is_not_finite(self, images)
            try:
                return verb(self, tokens, keep)
            except NotFiniteError:  # by one that looks itself, at some of the images
                refuse_what_is_not_finite(self, images)
                raise

    return run


def _no_autocast(device: str) -> AbstractContextManager[None]:
    """Float32 stays float32 inside."""
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()


def _check(method: PruningMethod, image: VisualTokens, keep: int) -> None:
    n, shape = len(image), tuple(image.features.shape)
    if len(shape) != 2:
        raise InputError(f"{method.name}: the features of an image are [tokens, width], got {shape}")
    if not 1 <= keep <= n:
        raise PlanError(f"{method.name}: keep={keep} does not lie between 1 and the {n} tokens of the image")
    if method.slow_from is not None and n >= method.slow_from and image.device.type == "cpu":
        warnings.warn(
            f"{method.name} chooses from {n} tokens: from {method.slow_from} on that takes minutes on a CPU; its "
            "description has the cost, and vlm-pruner takes a second",
            stacklevel=4,
        )


def refuse_what_is_not_finite(method: PruningMethod, images: Sequence[VisualTokens]) -> None:
    """Raise if what `method` reads of one of `images` is not finite; reads one value for all of them.

    Raises:
        NotFiniteError: naming the first such image.
    """
    if not images:
        return
    read = [[(name, tensor) for name, tensor in _read_by(method, image)] for image in images]
    sums = torch.stack([tensor.sum(dtype=torch.float32) for image in read for _, tensor in image])
    with declared_sync():  # a sum with a NaN or an infinity has no number for its value
        if bool(sums.isfinite().all()):
            return
        for i, image in enumerate(read, 1):
            for name, tensor in image:
                if not bool(tensor.isfinite().all()):
                    raise NotFiniteError(method.name, name, i, len(images))


def _read_by(method: PruningMethod, image: VisualTokens) -> Iterator[tuple[str, Tensor]]:
    """The features and every signal that a method needs or wants and the image has, by name."""
    yield "features", image.features
    for signal in sorted(method.needs | method.wants):
        value: Any = image
        for part in signal.value.split("."):
            value = getattr(value, part, None)
        if isinstance(value, Tensor) and value.is_floating_point():
            yield signal.value, value


def select_alike(
    tokens: Sequence[VisualTokens],
    keep: Sequence[int],
    traits: Callable[[VisualTokens], tuple[object, ...]],
    select: Callable[[Sequence[VisualTokens], int], list[Selection]],
) -> list[Selection]:
    """A `select_batch` of calls of `select`, each for all images that agree in their budget and their `traits`.

    On a CPU they are shared out over the threads of torch, each of which goes through its images one by one: every op
    over all of them would find each image gone from the caches again.
    """

    def one_by_one(images: Sequence[VisualTokens], count: int) -> list[Selection]:
        return [made for image in images for made in select([image], count)]

    groups: dict[tuple[int, tuple[object, ...]], list[int]] = {}
    for i, (t, k) in enumerate(zip(tokens, keep, strict=True)):
        groups.setdefault((k, traits(t)), []).append(i)
    found: dict[int, Selection] = {}
    for (count, _), rows in groups.items():
        alike = [tokens[i] for i in rows]
        made = share_out(alike, one_by_one if alike[0].device.type == "cpu" else select, alike[0].device, count)
        found.update(zip(rows, made, strict=True))
    return [found[i] for i in range(len(tokens))]


def require(method: PruningMethod, tokens: VisualTokens, *signals: Signal) -> None:
    """Raise if a signal that `method` cannot do without is missing.

    Raises:
        MissingSignalError: naming the method, the signal and the site.
    """
    for signal in signals:
        value: Any = tokens
        for part in signal.value.split("."):
            value = getattr(value, part, None)
        if value is None:
            site = "before the language model" if tokens.layer in (None, 0) else f"at decoder layer {tokens.layer}"
            raise MissingSignalError(
                f"{method.name} needs {signal.name} ({signal.value}), which is not available {site}"
            )


@functools.cache
def registry() -> dict[str, type[PruningMethod]]:
    """Every known method by name: of this package, of the entry points of `vlm_pruner.methods`, registered by hand."""
    package = importlib.import_module("vlm_pruner.methods")
    modules = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    modules += [entry.load() for entry in entry_points(group="vlm_pruner.methods")]
    classes = {c for m in modules for c in vars(m).values() if _is_method(c)} | _registered
    return {c.name: c for c in sorted(classes, key=lambda c: c.name)}


_registered: set[type[PruningMethod]] = set()  # by hand


def register(method: type[PruningMethod]) -> type[PruningMethod]:
    """Add a method to the registry of this process, and return it; once more does nothing.

    Raises:
        PlanError: another method has this name.
    """
    if registry().get(method.name, method) is not method:
        raise PlanError(f"a method called {method.name!r} is there already: {registry()[method.name].title}")
    _registered.add(method)
    registry.cache_clear()
    return method


def _is_method(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, PruningMethod) and hasattr(thing, "name")


def method_class(name: str) -> type[PruningMethod]:
    """The class registered under `name`.

    Raises:
        PlanError: unknown name; the message offers the nearest one.
    """
    known = registry()
    if name not in known:
        raise PlanError(unknown_name("method", name, known))
    return known[name]


def create(method: str | PruningMethod, **params: Any) -> PruningMethod:
    """A method instance from its name and hyper-parameters; an instance passes through.

    Raises:
        PlanError: unknown name or hyper-parameter, one of another type, or parameters given beside an instance.
    """
    if isinstance(method, PruningMethod):
        if params:
            raise PlanError(f"{method!r} already carries its parameters; {sorted(params)} cannot be added")
        return method
    if not isinstance(method, str):
        raise PlanError(f"a method is a name or an instance of a PruningMethod, got {_what(method)}")
    cls = method_class(method)
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in params:
        if key not in known:
            raise PlanError(unknown_name(f"parameter of {method}", key, known))
    try:
        return cls(**params)
    except PlanError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:
        raise PlanError(f"{method} cannot be made with {params}: {error}") from error


def _what(thing: object) -> str:
    """What was passed instead; a class was meant to be called."""
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"
