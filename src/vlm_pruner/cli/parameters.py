"""`--set name=value`: text to a method's parameter, by the types that its class declares."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from vlm_pruner.errors import PlanError, unknown_name

if TYPE_CHECKING:
    from vlm_pruner.methods import PruningMethod

__all__ = ["parse_parameters"]


def parse_parameters(words: Iterable[str], methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parameters by method: "pivots=8" where one method is asked for, "vlm-pruner.pivots=8" anywhere.

    Raises:
        PlanError: no name=value, a method that is not asked for, an unknown name, or a value of another type; the
            message has what is allowed.
    """
    from vlm_pruner.methods import method_class

    found: dict[str, dict[str, Any]] = {}
    for word in words:
        name, sign, text = word.partition("=")
        method, dot, parameter = name.strip().rpartition(".")
        if not sign or not parameter:
            raise PlanError(f"--set {word!r} is not name=value")
        if not dot and len(methods) != 1:
            raise PlanError(f"--set {word!r} must name its method: METHOD.{word}, METHOD one of {', '.join(methods)}")
        method = method or methods[0]
        if method not in methods:
            raise PlanError(unknown_name("method in --set", method, methods))
        found.setdefault(method, {})[parameter] = _value(method_class(method), parameter, text.strip())
    return found


def _value(method: type[PruningMethod], name: str, text: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(method)}  # type: ignore[arg-type]
    if not known:
        raise PlanError(f"{method.name} has no parameters: {name!r} cannot be set")
    if name not in known:
        raise PlanError(unknown_name(f"parameter of {method.name}", name, known))
    kinds = _kinds(get_type_hints(method)[name])
    for kind in kinds:
        try:
            return _READ[get_origin(kind) or kind](text, kind)
        except (ValueError, KeyError):
            continue
    allowed = " or ".join(_named(kind) for kind in kinds)
    default = known[name].default
    said = "" if default is dataclasses.MISSING else f" ({default!r} unless set)"
    raise PlanError(f"{name} of {method.name} is {allowed}{said}, not {text!r}")


def _kinds(hint: Any) -> list[Any]:
    """The members of a union, text last: everything can be read as text."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return sorted(parts, key=lambda kind: kind is str)


def _named(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(repr(value) for value in get_args(kind))
    if get_origin(kind) is tuple:
        return "numbers, separated by commas"
    known = {int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "none", str: "a text"}
    return known.get(kind, getattr(kind, "__name__", str(kind)))


def _bool(text: str, kind: Any) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _none(text: str, kind: Any) -> None:
    return {"none": None}[text.lower()]


def _float(text: str, kind: Any) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError
    return value


def _tuple(text: str, kind: Any) -> tuple[Any, ...]:
    inner = get_args(kind)[0]
    return tuple(_READ[inner](part.strip(), inner) for part in text.split(","))


def _literal(text: str, kind: Any) -> Any:
    return {str(value): value for value in get_args(kind)}[text]


_READ: dict[Any, Callable[[str, Any], Any]] = {
    int: lambda text, kind: int(text),
    float: _float,
    bool: _bool,
    types.NoneType: _none,
    str: lambda text, kind: text,
    tuple: _tuple,
    Literal: _literal,
}
