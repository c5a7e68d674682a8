"""Goals of the tasks, read, grounded and evaluated with the bddl package; q as the challenge defines it."""

from typing import Any, cast

from bddl.activity import (
    Conditions,
    evaluate_goal_conditions,
    get_goal_conditions,
    get_ground_goal_state_options,
)
from bddl.backend_abc import BDDLBackend
from bddl.condition_evaluation import create_scope
from bddl.logic_base import BinaryAtomicFormula, UnaryAtomicFormula

from household import predicates
from household.simulation import Simulation


def _unary(name: str, test: predicates.UnaryTest, simulation: Simulation) -> type[UnaryAtomicFormula]:
    class Predicate(UnaryAtomicFormula):
        STATE_NAME = name

        def _evaluate(self, obj: predicates.Object) -> bool:
            return test(simulation, obj)

        def _sample(self, obj: predicates.Object, binary_state: bool) -> bool:
            raise NotImplementedError("instances are drawn by household.instances, not sampled from BDDL")

    return Predicate


def _binary(name: str, test: predicates.BinaryTest, simulation: Simulation) -> type[BinaryAtomicFormula]:
    class Predicate(BinaryAtomicFormula):
        STATE_NAME = name

        def _evaluate(self, obj1: predicates.Object, obj2: predicates.Object) -> bool:
            return test(simulation, obj1, obj2)

        def _sample(self, obj1: predicates.Object, obj2: predicates.Object, binary_state: bool) -> bool:
            raise NotImplementedError("instances are drawn by household.instances, not sampled from BDDL")

    return Predicate


class _Backend(BDDLBackend):
    """Gives bddl the predicates of the simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self._classes: dict[str, type] = {
            name: _unary(name, test, simulation) for name, test in predicates.UNARY.items()
        }
        self._classes.update(
            {name: _binary(name, test, simulation) for name, test in predicates.BINARY.items()}
        )

    def get_predicate_class(self, predicate_name: str) -> type:
        return self._classes[predicate_name]


class Goal:
    """The goal of a simulation's task, for the objects that are present.

    Args:
        simulation: a simulation after `reset`; predicates that hold now earn nothing later.
    """

    def __init__(self, simulation: Simulation) -> None:
        task = simulation.task
        present = {*task.objects, *(zone.name for zone in task.zones)}
        conditions = Conditions(task.name, 0, "omnigibson")
        # Objects that the reduced scene leaves out are left out of the problem before it is grounded.
        objects: dict[str, list[str]] = {
            category: [name for name in names if name in present]
            for category, names in conditions.parsed_objects.items()
        }
        conditions.parsed_objects = {category: names for category, names in objects.items() if names}
        scope: dict[str, Any] = dict.fromkeys(create_scope(conditions.parsed_objects))
        # bddl takes a string in the scope for the name of another variable, so objects are wrapped.
        scope.update({name: predicates.Object(name) for name in scope})
        backend = _Backend(simulation)
        self._goal = get_goal_conditions(conditions, backend, scope)
        self.options: list[list[Any]] = get_ground_goal_state_options(conditions, backend, scope, self._goal)
        self._at_start = self._values()

    def satisfied(self) -> bool:
        """Whether the goal holds now.

        Returns:
            True on success.
        """
        return cast(bool, evaluate_goal_conditions(self._goal)[0])

    def q(self) -> float:
        """The episode's q: 1 on success, else the best option's share of newly satisfied predicates.

        Returns:
            Between 0 and 1.
        """
        if self.satisfied():
            return 1.0
        shares = [
            sum(now and not start for now, start in zip(values, starts, strict=True)) / len(values)
            for values, starts in zip(self._values(), self._at_start, strict=True)
        ]
        return float(max(shares))

    def holding(self) -> dict[str, bool]:
        """Which ground predicates of the goal hold now.

        Returns:
            By predicate, such as `inside can__of__soda.n.01_1 ashcan.n.01_1`.
        """
        return {
            " ".join(condition.terms): bool(condition.evaluate())
            for option in self.options
            for condition in option
        }

    def _values(self) -> list[list[bool]]:
        return [[bool(condition.evaluate()) for condition in option] for option in self.options]
