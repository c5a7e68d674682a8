"""What each idea of the report is worth on the household tasks: trains and evaluates variants.

Run as `python -m benchmarks.ablations`; it takes hours on two cores, may be stopped at any moment, and
continues where it was as long as the source stays the same. Every variant is the base with one thing changed,
trained for the same number of steps on the same demonstrations from the same seeds, and evaluated on the same
test instances with the same noise, so that differences are paired. Variants that change the evaluation alone
share the base's training. The tasks are reduced ones (one room, one or two objects): what helps here need not
help on BEHAVIOR, and the reverse.

Writes the table and the figure to docs/ablations.md and docs/ablations.svg after every finished variant.
"""

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from components.collect.config import Config as CollectConfig
from components.collect.stage import STAGE as COLLECT
from components.dataset.stage import STAGE as DATASET
from components.evaluate.config import Config as Worker
from components.evaluate.stage import STAGE as EVALUATE
from components.evaluation.intervals import Comparison, compare
from components.evaluation.plan import REPORTED
from components.evaluation.rollouts import ROLLOUTS, load
from components.plan.stage import STAGE as PLAN
from components.runtime.declaration import LOOP
from components.runtime.stage import Made, Stage
from components.settings.checks import Arguments, merge_sections, resolve
from components.statistics.stage import STAGE as STATISTICS
from components.store.files import write_atomic
from components.store.identity import git_commit
from components.train.stage import STAGE as TRAIN
from pipelines.definitions.profiles import load_profile
from pipelines.local.records import exclusive
from pipelines.tools import demo

PIPELINE = "train_and_evaluate"


@dataclass(frozen=True)
class Variant:
    """The base with something changed."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """By stage: fields of its configuration."""


@dataclass(frozen=True)
class Row:
    """One question."""

    title: str
    question: str
    """What is asked, with the report's section."""
    base: str
    """What the base does."""
    variants: tuple[Variant, ...]


BASE = Variant(
    "base",
    {
        "train": {"flow_samples": 15, "track": False},
        "plan": {"videos": 0, "untrained": False, "policy": {"inpainting": "soft"}},
    },
)
"""The laptop's profile, apart from these."""
ROWS = (
    Row(
        "noise",
        "Noise that is correlated as the actions are, or white? (5)",
        "correlated, beta 0.5",
        (Variant("white", {"train": {"model": {"noise_beta": 0}}}),),
    ),
    Row(
        "flow samples",
        "Several noise samples per observation in training? (6.2)",
        "15 samples",
        (Variant("1 sample", {"train": {"flow_samples": 1}}),),
    ),
    Row(
        "stage input",
        "Should the network be told the stage, and by whom? (4.2)",
        "on, the last prediction",
        (
            Variant("off", {"train": {"model": {"stage_conditioning": False}}}),
            Variant("vote of 3", {"plan": {"policy": {"voting": "published"}}}),
            Variant("oracle (true stage)", {"plan": {"policy": {"voting": "oracle"}}}),
        ),
    ),
    Row(
        "gripper rule",
        "Open a gripper that no demonstration has closed at this stage? (7.4)",
        "yes, table from data",
        (Variant("no rule", {"plan": {"policy": {"gripper": "off"}}}),),
    ),
    Row(
        "inpainting",
        "Start a chunk with what the last one left over? (7.1)",
        "soft",
        (
            Variant("hard", {"plan": {"policy": {"inpainting": "hard"}}}),
            Variant("none", {"plan": {"policy": {"inpainting": "off"}}}),
        ),
    ),
    Row(
        "compression",
        "Play more predicted steps in the same time? (7.2)",
        "10 steps as 10",
        (Variant("13 steps as 10", {"plan": {"policy": {"compress_from": 13}}}),),
    ),
    Row(
        "KV mix",
        "Which layers of the prefix should an expert layer read? (4.3)",
        "a learned mix of all",
        (
            Variant("its own", {"train": {"model": {"kv_mix": "layerwise"}}}),
            Variant("the last", {"train": {"model": {"kv_mix": "last"}}}),
        ),
    ),
    Row(
        "actions",
        "Joint targets relative to the present state? (4.5.1)",
        "relative",
        (Variant("absolute", {"statistics": {"absolute_actions": True}}),),
    ),
    Row(
        "normalisation",
        "Normalise each step of a chunk by itself? (4.5.2)",
        "per step; base and grippers as one",
        (
            Variant("all per step", {"statistics": {"normalisation": "per_step"}}),
            Variant("all as one", {"statistics": {"normalisation": "global"}}),
        ),
    ),
)


@dataclass(frozen=True)
class Options:
    """Train and evaluate variants of the policy on equal budgets (reduced tasks; hours)."""

    rows: tuple[str, ...] = ()
    """Titles of the rows to run; none means all."""
    seeds: int = 3
    """Trainings per variant."""
    steps: int = 1000
    """Gradient steps of every training."""
    episodes: int = 80
    """Demonstrations per task."""
    instances: int = 40
    """Test instances per task, one rollout each."""
    workspace: Path = Path("workspace/ablations")
    """Folder for demonstrations, trainings and rollouts; delete it to start over."""
    output: Path = Path("docs/ablations.md")
    """The table; the figure is written beside it, with the ending .svg."""


Scores = dict[str, dict[str, float]]
"""q by task, and by seed and instance."""


class Bench:
    """Runs variants; every stage's artifact is made once."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.workspace = options.workspace.resolve()
        self.profile = load_profile("laptop")
        self.tasks = tuple(str(self.profile.values.inputs["tasks"]).split())

    def demonstrations(self) -> dict[str, str]:
        """Collect the demonstrations and put them under DVC; returns where they are, as inputs of a run."""
        folder = str(self.workspace / demo.DEMONSTRATIONS)
        config = CollectConfig(folder, self.tasks, self.options.episodes)
        made = self._make(COLLECT, config)
        return {"repository": folder, "revision": made.result.parameters["commit"]}

    def scores(self, demonstrations: Mapping[str, str], variant: Variant, seed: int) -> Scores:
        """Train where needed, evaluate where needed, and read the scores."""
        options, profile = self.options, self.profile
        inputs = {"seed": seed, "steps": options.steps, "reported_instances": options.instances}
        settings = merge_sections(PIPELINE, BASE.settings, variant.settings)
        given = Arguments({**demonstrations, **inputs}, settings)
        config = resolve(PIPELINE, profile.of(PIPELINE), given, profile.place())
        dataset = self._make(DATASET, config["dataset"]).artifact
        found = self._make(STATISTICS, config["statistics"], dataset=dataset).artifact
        policy = self._make(TRAIN, config["train"], dataset=dataset, statistics=found).artifact
        plan = dataclasses.replace(config["plan"], splits=(REPORTED,))
        planned = self._make(PLAN, plan, common=policy)
        workers = [Worker(int(one["worker"])) for one in planned.result.parameters[LOOP]]
        with ThreadPoolExecutor(len(workers)) as pool:
            parts = list(pool.map(lambda w: self._make(EVALUATE, w, plan=planned.artifact), workers))
        result: Scores = {task: {} for task in self.tasks}
        for part in parts:
            for rollout in load(part.artifact.path / ROLLOUTS):
                result[rollout.key.task][f"{seed}/{rollout.key.index}"] = rollout.q
        return result

    def _make(self, stage: Stage[Any, Any], config: Any, **inputs: Any) -> Made[Any]:
        return stage.execute(config, stage.declaration.inputs(**inputs), self.workspace)


@dataclass(frozen=True)
class Result:
    """One variant over the seeds that are done."""

    row: str
    name: str
    q: dict[str, float]
    """Mean q by task."""
    per_seed: tuple[float, ...]
    """Mean q over tasks, by seed."""
    difference: Comparison | None
    """To the base; None for the base itself."""
    per_seed_difference: tuple[float, ...] = ()


def _mean(scores: Scores) -> float:
    return statistics.fmean(statistics.fmean(values.values()) for values in scores.values())


def _together(parts: Sequence[Scores]) -> Scores:
    return {task: {k: v for part in parts for k, v in part[task].items()} for task in parts[0]}


def summarise(row: str, name: str, scores: Sequence[Scores], base: Sequence[Scores]) -> Result:
    """Compare a variant with the base on the seeds that both have."""
    pairs = list(zip(scores, base, strict=False))
    together = _together(scores)
    return Result(
        row,
        name,
        {task: statistics.fmean(values.values()) for task, values in together.items()},
        tuple(_mean(part) for part in scores),
        None if scores is base else compare(together, _together(base[: len(scores)]), seed=0),
        tuple(_mean(a) - _mean(b) for a, b in pairs),
    )


def results(bench: Bench, rows: Sequence[Row]) -> Iterator[list[Result]]:
    """Run seed by seed, so that early tables compare everything; yields all results so far."""
    demonstrations = bench.demonstrations()
    done: dict[tuple[str, str], list[Scores]] = {}
    jobs = [("", BASE), *((row.title, variant) for row in rows for variant in row.variants)]
    for seed in range(bench.options.seeds):
        for title, variant in jobs:
            print(f"ablations: seed {seed}, {title} {variant.name}", flush=True)
            done.setdefault((title, variant.name), []).append(bench.scores(demonstrations, variant, seed))
            yield [summarise(*key, parts, done["", BASE.name]) for key, parts in done.items()]


_HEAD = """\
# Ablations on the household tasks

What each idea of the policy is worth: every variant is the base with one thing changed. Made by
`python -m benchmarks.ablations` at commit {commit}: {steps} gradient steps of the tiny model on {episodes}
demonstrations of each of {count} reduced tasks (one room, one or two objects; **not BEHAVIOR scores**), then
{instances} test instances per task and training.

- Tasks: q, from 0 to 1, averaged over instances and trainings; the base is in the first line.
- Difference: the variant's mean q less the base's, on the same seeds and instances; above 0 the variant is
  better. In brackets the 95 % interval (paired bootstrap); p is from a paired permutation test. Both are for
  these trainings and do not know how much another seed would change.
- By seed: the same difference, training by training. Where the signs differ, chance may explain it.

The numbers after the questions are the report's sections.

| question | base | variant | {tasks} | difference (95 %) | p | by seed |
| --- | --- | --- |{rule} --- | --- | --- |"""


def table(options: Options, tasks: Sequence[str], rows: Sequence[Row], found: Sequence[Result]) -> str:
    """The page."""
    by_title = {row.title: row for row in rows}
    head = _HEAD.format(
        commit=(git_commit() or "unknown")[:12],
        steps=options.steps,
        episodes=options.episodes,
        instances=options.instances,
        count=len(tasks),
        tasks=" | ".join(tasks),
        rule=" --- |" * len(tasks),
    )
    lines, last = [head], ""
    for result in found:
        q = " | ".join(f"{result.q[task]:.2f}" for task in tasks)
        if result.difference is None:
            seeds = " ".join(f"{x:.2f}" for x in result.per_seed)
            lines.append(f"| | | **the base** | {q} | | | q: {seeds} |")
            continue
        d, row = result.difference, by_title[result.row]
        asked = " | " if result.row == last else f"{row.title}: {row.question} | {row.base}"
        last = result.row
        p = "< 0.001" if d.p_value < 0.001 else f"{d.p_value:.3f}"
        seeds = " ".join(f"{x:+.2f}" for x in result.per_seed_difference)
        lines.append(
            f"| {asked} | {result.name} | {q} | {d.difference:+.2f} "
            f"({d.low:+.2f} to {d.high:+.2f}) | {p} | {seeds} |"
        )
    return "\n".join([*lines, "", f"![{_CAPTION}]({options.output.stem}.svg)", ""])


_CAPTION = "q less the base's, better to the right; bars: 95 % interval; rings: single trainings"


def figure(found: Sequence[Result]) -> str:
    """Differences with intervals, and the single seeds as rings."""
    shown = [r for r in found if r.difference is not None]
    left, width, line = 250, 420, 26
    ends = [abs(x) for r in shown if r.difference for x in (r.difference.low, r.difference.high)]
    ends += [abs(x) for r in shown for x in r.per_seed_difference]
    reach = max([0.1, *ends])

    def x(value: float) -> float:
        return left + width * (value / reach + 1) / 2

    height = line * len(shown) + 72
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 30} {height}" '
        'font-family="system-ui, sans-serif" font-size="13" fill="#777">',
        f"<title>{_CAPTION}</title>",
        f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="10" y2="{line * len(shown) + 16}" stroke="#999"/>',
    ]
    for index, result in enumerate(shown):
        assert result.difference is not None
        y = 26 + line * index
        low, high = x(result.difference.low), x(result.difference.high)
        parts.append(
            f'<text x="{left - 20}" y="{y + 4}" text-anchor="end">{result.row}: {result.name}</text>'
        )
        parts.append(
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="#2a6fb0" stroke-width="3"/>'
            f'<circle cx="{x(result.difference.difference):.1f}" cy="{y}" r="5" fill="#2a6fb0"/>'
        )
        parts += [
            f'<circle cx="{x(d):.1f}" cy="{y}" r="4" fill="none" stroke="#d9534f" stroke-width="1.5"/>'
            for d in result.per_seed_difference
        ]
    bottom = line * len(shown) + 36
    marks = ((-reach, f"{-reach:+.2f}"), (0.0, "0"), (reach, f"{reach:+.2f}"))
    parts += [f'<text x="{x(v):.1f}" y="{bottom}" text-anchor="middle">{mark}</text>' for v, mark in marks]
    parts.append(
        f'<text x="{(left + width + 30) / 2}" y="{bottom + 26}" text-anchor="middle">{_CAPTION}</text>'
    )
    return "\n".join([*parts, "</svg>", ""])


def main(options: Options) -> None:
    """Run, and write after every variant."""
    known = {row.title for row in ROWS}
    unknown = [title for title in options.rows if title not in known]
    if unknown:
        raise SystemExit(
            f"there is no row {', '.join(unknown)}; expected some of: {', '.join(sorted(known))}"
        )
    rows = [row for row in ROWS if not options.rows or row.title in options.rows]
    bench = Bench(options)
    with exclusive(bench.workspace):
        for found in results(bench, rows):
            write_atomic(options.output, table(options, bench.tasks, rows, found))
            write_atomic(options.output.with_suffix(".svg"), figure(found))
    print(options.output)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
