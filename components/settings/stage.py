"""Check all values of a run before anything else runs, and record the configuration that they give.

The first task of every pipeline: runs that are started from the Kubeflow UI were not checked before.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from components.runtime.page import page, table
from components.runtime.stage import Result, Stage, Work
from components.runtime.values import flat, mapping
from components.settings.checks import Arguments, resolve
from components.settings.config import DECLARATION, Config, Inputs
from components.settings.contradictions import Place
from components.store.files import write_atomic


def check(config: Config, inputs: Inputs, workspace: Path) -> Config:
    """Refuse wrong values, also where the same ones were right before: they name files, and a champion."""
    _found(config, workspace)
    return config


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `settings.json`: the whole configuration of every stage."""
    whole = {name: dataclasses.asdict(one) for name, one in _found(config, work.workspace).items()}
    write_atomic(work.path / "settings.json", json.dumps(whole, indent=2) + "\n")
    rows = [
        (f"{name}.{path}", json.dumps(value))
        for name, values in whole.items()
        for path, value in flat(values)
    ]
    html = page(f"Configuration of {config.pipeline}", table(("field", "value"), rows))
    return Result(metadata={"pipeline": config.pipeline}, html=html)


def _found(config: Config, workspace: Path) -> dict[str, Any]:
    given = Arguments(dict(mapping(config.inputs)), dict(mapping(config.settings)))
    profile = Arguments(settings=dict(mapping(config.profile)))
    return resolve(config.pipeline, profile, given, Place(config.train_gpus, workspace))


STAGE = Stage(DECLARATION, run, check)
