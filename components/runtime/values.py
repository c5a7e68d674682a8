"""From plain values to the typed configuration of a stage.

People write text (`--set`), the Kubeflow UI passes JSON, and kfp turns whole numbers in it into floating
point. Everything is brought to the types of a configuration's fields before it is checked, compared or
hashed.

Values are nested mappings by the names of fields. A configuration with `presets` may be given by the name of
one of them, alone or with changes to its fields.
"""

import ast
import dataclasses
import inspect
import json
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from components.errors import UserError

C = TypeVar("C")
Values = Mapping[str, Any]
PRESET = ""
"""Key under which values name the preset that they change."""
PER_TASK: Mapping[str, bool] = {"per_task": True}
"""Metadata of a field that a pipeline sets for each of its tasks, and that people cannot set for a run."""
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


class InvalidValuesError(UserError):
    """Values that are not what was expected; the message has a line for each."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(dict.fromkeys(lines))
        many = f"{len(self.lines)} mistakes:\n  " if len(self.lines) > 1 else ""
        super().__init__(many + "\n  ".join(self.lines))


@dataclass(frozen=True)
class Field:
    """A field of a configuration, or of one inside it."""

    path: str
    """Names from the outside in, with dots between."""
    kind: Any
    """Its type; a dataclass for a nested configuration."""
    default: Any
    documentation: str
    per_task: bool

    @property
    def name(self) -> str:
        """The last name of the path."""
        return self.path.rpartition(".")[2]

    @property
    def choices(self) -> tuple[str, ...]:
        """The possible values where they are few: those of a Literal, or names of presets."""
        if get_origin(self.kind) is Literal:
            return tuple(map(str, get_args(self.kind)))
        return tuple(getattr(self.kind, "presets", ()))


def fields(kind: type, default: object = None, before: str = "") -> Iterator[Field]:
    """All fields of a configuration, each nested configuration followed by its own fields.

    Args:
        kind: a dataclass whose fields all have defaults.
        default: the instance whose values are the defaults; `kind()` when None.
        before: path of the configuration itself, with a dot at its end.
    """
    default = kind() if default is None else default
    documentation, hints = _documentation(kind), get_type_hints(kind)
    for one in dataclasses.fields(kind):
        value, path = getattr(default, one.name), before + one.name
        per_task = bool(one.metadata.get("per_task"))
        yield Field(path, hints[one.name], value, documentation.get(one.name, ""), per_task)
        if dataclasses.is_dataclass(hints[one.name]):
            yield from fields(type(value), value, f"{path}.")


@cache
def _documentation(kind: type) -> dict[str, str]:
    """The strings under a dataclass's fields, in one line each, also of those that it inherits."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[name] = " ".join(words.split())
    return found


def merge(kind: type, *layers: Values) -> dict[str, Any]:
    """Merge values for a configuration field by field, at any depth; later layers replace earlier ones.

    Names that the configuration does not have are kept. A layer may be JSON text.
    """
    result: dict[str, Any] = {}
    hints = _all_hints(kind)
    for layer in layers:
        for name, value in mapping(layer).items():
            if dataclasses.is_dataclass(hints.get(name)) and isinstance(value, str | Mapping):
                below = {PRESET: value} if isinstance(value, str) else value
                known = result.get(name, {})
                of: type = hints[name]
                result[name] = merge(of, known if isinstance(known, Mapping) else {}, below)
            else:
                result[name] = value
    return result


def _all_hints(kind: type) -> dict[str, Any]:
    """Types by the names of fields, of a configuration and of its presets, which may be of subclasses."""
    kinds = {kind, *map(type, getattr(kind, "presets", {}).values())}
    return {name: hint for one in kinds for name, hint in get_type_hints(one).items()}


def mapping(values: Values | str) -> Values:
    """Values as they are, or from their JSON text; UserError if that is no object."""
    try:
        found = json.loads(values) if isinstance(values, str) else values
    except ValueError as error:
        raise UserError(f"settings are not JSON: {error}") from error
    if not isinstance(found, Mapping):
        raise UserError(f"settings are {found!r}; expected an object of stages and their fields")
    return found


def spread(kind: type, given: Values) -> dict[str, Any]:
    """Values for all fields, at any depth, that have the name of a given one."""
    result: dict[str, Any] = {}
    for one in fields(kind):
        if one.name in given:
            result = merge(kind, result, nested(one.path, given[one.name]))
    return result


def nested(path: str, value: object) -> dict[str, Any]:
    """The mapping in which a value has a dotted path."""
    for name in reversed(path.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def flat(values: Values, before: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted paths of all values that are no mappings; a preset has the path of its configuration."""
    for name, value in values.items():
        path = f"{before}{name}".removesuffix(".")
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}.")
        else:
            yield path, value


def build(kind: type[C], values: Values, where: str = "") -> C:
    """Make a configuration from values as `merge` returns them.

    Args:
        kind: a frozen dataclass whose fields all have defaults and whose own checks raise ValueError.
        values: what differs from the defaults.
        where: what to write before the names of fields in messages, such as `train.`.

    Raises:
        InvalidValuesError: names that do not exist, values of a wrong type or outside of their range.
    """
    mistakes: list[str] = []
    made = _build(kind, kind(), values, where, mistakes)
    if mistakes:
        raise InvalidValuesError(mistakes)
    return made


def _build(kind: type[C], base: C, values: Values, where: str, mistakes: list[str]) -> C:
    before, presets = len(mistakes), cast(Mapping[str, C], getattr(kind, "presets", {}))
    preset = values.get(PRESET)
    base = presets.get(preset, base) if isinstance(preset, str) else base
    # a preset may be of a subclass
    hints = get_type_hints(type(base))
    names = [one.name for one in dataclasses.fields(base)]  # type: ignore[arg-type]
    if PRESET in values and preset not in presets:
        mistakes.append(f"{where[:-1]} is {preset!r}; expected {_one_of(presets or names, preset)}")
    changes: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{where}{name}"
        if name == PRESET:
            continue
        if name not in names:
            mistakes.append(f"{path} does not exist; expected {_one_of(names, name)}")
        elif not dataclasses.is_dataclass(hints[name]):
            try:
                changes[name] = convert(hints[name], value)
            except ValueError as error:
                mistakes.append(f"{path} is {value!r}; expected {error}")
        elif isinstance(value, Mapping):
            inner: Any = hints[name]
            changes[name] = _build(inner, getattr(base, name), value, f"{path}.", mistakes)
        else:
            mistakes.append(f"{path} is {value!r}; expected an object of its fields")
    if len(mistakes) > before:
        return base
    try:
        return dataclasses.replace(base, **changes)  # type: ignore[type-var]
    except ValueError as error:
        mistakes += [where + line for line in str(error).splitlines()]
        return base


def _one_of(names: Iterable[str], given: object) -> str:
    near = get_close_matches(str(given), names, n=1)
    return f"one of {', '.join(names)}" + (f"; did you mean {near[0]}?" if near else "")


def convert(kind: Any, value: Any) -> Any:
    """Bring a value to the type of a plain field; else ValueError, whose message is what was expected."""
    if get_origin(kind) is tuple and isinstance(value, str):
        value = value.split()  # names with spaces between: items of loops and inputs of the UI are text
    if kind is bool and isinstance(value, str):
        value = value.lower()
    try:
        found = msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        raise ValueError(_expected(kind)) from None
    if isinstance(found, float) and not math.isfinite(found):
        raise ValueError(_expected(kind))
    return found


def _expected(kind: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a list, each {_expected(arguments[0])}"
    if origin in (Union, UnionType):
        return " or ".join(_expected(one) for one in arguments if one is not NoneType)
    return _NAMES.get(kind, str(kind))
