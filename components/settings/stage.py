"""Check all values of a run before anything else runs, and record the configuration that they give.

The first task of every pipeline: runs that are started from the Kubeflow UI were not checked before.
"""

import dataclasses
import json

from components.runtime.stage import Result, Stage, Work
from components.runtime.values import mapping
from components.settings.checks import Arguments, resolve
from components.settings.config import DECLARATION, Config, Inputs
from components.settings.contradictions import Place
from components.store.files import write_atomic


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `settings.json`: the whole configuration of every stage."""
    given = Arguments(dict(mapping(config.inputs)), dict(mapping(config.settings)))
    profile = Arguments(settings=dict(mapping(config.profile)))
    place = Place(train_gpus=config.train_gpus, workspace=work.workspace)
    found = resolve(config.pipeline, profile, given, place)
    whole = {name: dataclasses.asdict(one) for name, one in found.items()}
    write_atomic(work.path / "settings.json", json.dumps(whole, indent=2) + "\n")
    return Result(metadata={"pipeline": config.pipeline})


STAGE = Stage(DECLARATION, run)
