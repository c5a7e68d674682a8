"""All values of a run, brought to their types and checked together: all mistakes are reported at once."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from difflib import get_close_matches
from typing import Any

from components.errors import UserError
from components.runtime.values import (
    Field,
    InvalidValuesError,
    Values,
    build,
    convert,
    flat,
    mapping,
    merge,
    nested,
)
from components.settings.contradictions import Place, contradictions
from components.settings.sections import (
    PIPELINES,
    SETTINGS,
    Section,
    input_names,
    inputs,
    is_set_by_pipeline,
)


@dataclass
class Arguments:
    """The values of a run that differ from its profile's."""

    inputs: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The arguments of the compiled pipeline."""
        return {**self.inputs, **({SETTINGS: self.settings} if self.settings else {})}


def parse(pipeline: str, words: Iterable[str]) -> tuple[Arguments, list[str]]:
    """Read words such as `steps=500`, `best=0.6`, `train.learning_rate.peak=3e-5`.

    A name is that of an input, or of a field: its last part is enough where one stage alone has it.

    Returns:
        The values, and what is wrong with other words: their form, names that do not exist or are ambiguous,
        values of a wrong type, different values for the same field.
    """
    found = Arguments()
    mistakes: list[str] = []
    seen: dict[str, Any] = {}
    for word in words:
        name, sign, text = word.partition("=")
        try:
            if not sign:
                raise UserError(f"--set got {word!r}; expected name=value")
            if name == SETTINGS:
                found.settings = merge_sections(pipeline, found.settings, mapping(text))
                continue
            target, field_ = _find(pipeline, name)
            value = text if is_dataclass(field_.kind) else convert(field_.kind, text)
            if seen.setdefault(target, value) != value:
                raise UserError(f"{target} is given twice: {seen[target]} and {value}; give it once")
            if "." in target:
                found.settings = merge_sections(pipeline, found.settings, nested(target, value))
            else:
                # lists are text in a pipeline's inputs
                found.inputs[target] = " ".join(value) if isinstance(value, tuple) else value
        except UserError as error:
            mistakes.append(str(error))
        except ValueError as error:
            mistakes.append(f"{name} is {text!r}; expected {error}")
    return found, mistakes


def merge_sections(pipeline: str, *layers: Values) -> dict[str, Any]:
    """Merge settings field by field; later layers replace earlier ones."""
    kinds = {section.name: section.declaration.config for section in PIPELINES[pipeline]}
    result: dict[str, Any] = {}
    for layer in layers:
        for name, values in layer.items():
            merged = name in kinds and isinstance(values, Mapping)
            result[name] = merge(kinds[name], result.get(name, {}), values) if merged else values
    return result


def _find(pipeline: str, name: str) -> tuple[str, Field]:
    """What a name means: an input, or a section and a field's path with dots; UserError if not one thing."""
    known, fed = inputs(pipeline), input_names(pipeline)
    if name in known:
        return name, known[name]
    found: dict[str, Field] = {}
    names = [*known]
    for section in PIPELINES[pipeline]:
        for one in section.fields:
            path = f"{section.name}.{one.path}"
            if is_set_by_pipeline(pipeline, section, one) and path not in fed:
                continue
            names += [path] if section.over else [path, one.name]
            if path == name or (path.endswith(f".{name}") and not section.over):
                found[fed.get(path, path)] = one
    if not found:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected an input ({', '.join(known)}) or a field"
        raise UserError(f"--set {name}: there is no such value of the pipeline {pipeline}; {hint}")
    if len(found) > 1:
        raise UserError(f"--set {name} may mean {' or '.join(found)}; give one of these names")
    return next(iter(found.items()))


def resolve(
    pipeline: str, profile: Arguments, given: Arguments, place: Place, mistakes: Iterable[str] = ()
) -> dict[str, Any]:
    """The configuration of every section of a pipeline, from the profile's values and those of the run.

    Raises:
        InvalidValuesError: everything that a stage would refuse, contradictions between stages, and the
            `mistakes` that are known already.
    """
    values, fed = {**profile.inputs, **given.inputs}, input_names(pipeline)
    mistakes = [*mistakes, *_unknown(pipeline, values, given.settings)]
    from_inputs = (nested(path, values[name]) for path, name in fed.items() if name in values)
    settings = merge_sections(pipeline, profile.settings, given.settings, *from_inputs)
    configs: dict[str, Any] = {}
    layers: dict[str, dict[str, Any]] = {}
    wrong: dict[str, set[str]] = {}
    for section in PIPELINES[pipeline]:
        kind, own = section.declaration.config, settings.get(section.name, {})
        layers[section.name] = merge(kind, layers.get(section.over, {}), own)
        try:
            configs[section.name] = build(kind, layers[section.name], f"{section.name}.")
        except InvalidValuesError as error:
            lines = [line.removeprefix(f"{section.name}.") for line in error.lines]
            wrong[section.name] = set(lines)
            new = [line for line in lines if line not in wrong.get(section.over, ())]
            mistakes += [_by_input(fed, section, line) for line in new]
    if len(configs) == len(PIPELINES[pipeline]):
        mistakes += contradictions(configs, place)
    if mistakes:
        raise InvalidValuesError(mistakes)
    return configs


def _by_input(fed: Mapping[str, str], section: Section, line: str) -> str:
    """A mistake in a section, under the name by which people gave the value."""
    path = re.split(r"[^\w.]", line, maxsplit=1)[0]
    own = f"{section.name}.{path}"
    return fed.get(own, fed.get(f"{section.over}.{path}", own)) + line.removeprefix(path)


def _unknown(pipeline: str, values: Values, settings: Values) -> Iterator[str]:
    """Sections, fields and inputs that do not exist or are not to be set, and fields that are given twice."""
    sections = {section.name: section for section in PIPELINES[pipeline]}
    known = inputs(pipeline)
    for name in values.keys() - known.keys():
        yield f"{name} is no input of the pipeline {pipeline}; expected {', '.join(known)}"
    for name, below in settings.items():
        if name not in sections or not isinstance(below, Mapping):
            yield f"settings.{name}: expected an object of fields below one of {', '.join(sections)}"
            continue
        section = sections[name]
        by_path = {one.path: one for one in section.fields}
        for path, value in flat(below):
            one = by_path.get(path)
            if one is None:  # `build` says what there is
                continue
            feeding = input_names(pipeline).get(f"{name}.{path}")
            if feeding is not None:
                other = values.get(feeding, one.default)
                if _typed(one, other) != _typed(one, value):
                    yield (
                        f"{feeding} is given twice: {other} as input, {value} in settings as {name}.{path}; "
                        "give the input alone"
                    )
            elif is_set_by_pipeline(pipeline, section, one):
                yield f"{name}.{path} is set by the pipeline, for each of its tasks; leave it out"


def _typed(one: Field, given: object) -> object:
    try:
        return given if one.choices else convert(one.kind, given)
    except ValueError:
        return given
