"""Is an argument of the kind that the function's own annotation says? Asked of every public
function, before it begins.

Numbers, texts, truth values, paths and choices; what stands for a table or a run is looked at where
it is opened. Only the standard library is imported.
"""

from __future__ import annotations

import functools
import inspect
import numbers
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

_SHOWN = 60
_INT64 = -(1 << 63), 1 << 63
"""What whole numbers of arrays can be."""


def mismatch(
    function: Callable[..., Any], arguments: tuple[Any, ...], options: Mapping[str, Any]
) -> str | None:
    """What is wrong with the first argument that is of another kind than is annotated; None where
    all are as they should.
    """
    kinds, signature = _kinds(function)
    try:
        given = signature.bind(*arguments, **options).arguments
    except TypeError:
        return None  # Python's own error tells of names and numbers of arguments

    for name, value in given.items():
        members = kinds.get(name, ())
        if members and not any(_is_one(value, member) for member in members):
            required = " or ".join(text for member in members if (text := _text(member)))
            return f"{name} must be {required}; it is {shown(value)}"

    return None


@functools.cache
def _kinds(function: Callable[..., Any]) -> tuple[dict[str, tuple[Any, ...]], inspect.Signature]:
    """What each parameter may be, as far as it can be told; a parameter that may be anything else
    too is left out.
    """
    plain: Any = inspect.unwrap(function)
    if not isinstance(plain, type):
        # What a verb returns may be of a module that only its body imports.
        given = {name: hint for name, hint in plain.__annotations__.items() if name != "return"}
        hints = typing.get_type_hints(
            types.SimpleNamespace(__annotations__=given), plain.__globals__
        )
    else:
        hints = typing.get_type_hints(plain)
    members = {name: _members(hint) for name, hint in hints.items()}
    return {
        name: kinds for name, kinds in members.items() if all(map(_is_checkable, kinds))
    }, inspect.signature(function)


def _members(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(inner for member in get_args(hint) for inner in _members(member))
    return (hint,)


def _is_checkable(kind: Any) -> bool:
    if get_origin(kind) is Mapping:
        return _is_checkable(get_args(kind)[1])
    return kind in (int, float, bool, str, type(None)) or get_origin(kind) in (Literal, os.PathLike)


def _is_one(value: Any, kind: Any) -> bool:
    is_truth = isinstance(value, bool) or type(value).__name__ == "bool_"
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if get_origin(kind) is Mapping:
        return isinstance(value, Mapping) and all(
            _is_one(inner, get_args(kind)[1]) for inner in value.values()
        )
    if kind is bool:
        return is_truth
    if kind is int:
        return (
            isinstance(value, numbers.Integral)
            and not is_truth
            and _INT64[0] <= int(value) < _INT64[1]
        )
    if kind is float:
        return isinstance(value, numbers.Real) and not is_truth and _is_double(value)
    return isinstance(value, get_origin(kind) or kind)


def _text(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    if get_origin(kind) is Mapping:
        return "a dict of them by table name"

    names = {
        int: "a whole number",
        float: "a number",
        bool: "True or False",
        str: "a text",
        type(None): "",
    }
    return names.get(kind, "a path")


def _is_double(value: numbers.Real) -> bool:
    """Whether it is a number that fits float64."""
    try:
        return float(value) == float(value)
    except OverflowError:
        return False


def shown(value: Any) -> str:
    """A value as messages show it: itself where that is short, else its kind."""
    try:
        text = repr(value) if isinstance(value, str | bytes | numbers.Number) else ""
    except ValueError:  # a number of more digits than Python prints
        text = ""
    return text if text and len(text) <= _SHOWN else f"a {type(value).__name__}"


def is_a(value: Any, module: str, name: str) -> bool:
    """Whether it is of a class of a library that nothing imports for this question: who holds one
    has imported it.
    """
    loaded = sys.modules.get(module)
    # By its type: a proxy of what is not there raises when it is asked for its class.
    return loaded is not None and issubclass(type(value), getattr(loaded, name, ()))


def offers(value: Any, name: str) -> bool:
    """Whether it has such an attribute; a proxy of what is not there raises whatever is asked of
    it.
    """
    try:
        return hasattr(value, name)
    except Exception:  # noqa: BLE001 (whatever a foreign type raises)
        return False
