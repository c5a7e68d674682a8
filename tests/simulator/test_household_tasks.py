"""The household tasks: instances, predicates on hand-placed scenes, grasps, attachments, experts, goals."""

import functools

import mujoco
import numpy as np
import pytest

import household  # noqa: F401  (chooses the renderer before MuJoCo is imported)
from household import furnishings, predicates, robot
from household.episode import record
from household.expert import draw_variation
from household.experts import make_expert
from household.goals import Goal
from household.instances import TEST_INSTANCES, TRAIN_INSTANCES, generator, make_instance
from household.predicates import BINARY, Object, is_open
from household.room import KINDS, kind_of
from household.simulation import Simulation
from household.tasks import TASKS
from household.validity import problems

UPRIGHT = (1.0, 0.0, 0.0, 0.0)
GRASPABLE = [(task.name, name) for task in TASKS.values() for name in task.objects if kind_of(name).grasp]
INTO = 0.0005
"""How far a thing that rests is put into its support, so that they touch."""


@functools.cache
def simulation_of(task: str) -> Simulation:
    return Simulation(TASKS[task])


@pytest.fixture
def at(request: pytest.FixtureRequest) -> Simulation:
    """A fresh start of the task that the test names."""
    simulation = simulation_of(request.param)
    simulation.reset(make_instance(simulation.task, 1))
    return simulation


def place(
    simulation: Simulation, name: str, position: np.ndarray, quaternion: tuple[float, ...] = UPRIGHT
) -> None:
    """Put an object somewhere, at rest."""
    joint = simulation.data.joint(name)
    joint.qpos[:] = [*position, *quaternion]
    simulation.data.qvel[:] = 0
    mujoco.mj_forward(simulation.model, simulation.data)


def rest_on(simulation: Simulation, name: str, x: float, y: float, height: float) -> None:
    """Put an object upright so that it just touches what is below."""
    place(simulation, name, np.array([x, y, height - kind_of(name).low[2] - INTO]))


def holds(simulation: Simulation, predicate: str, *names: str) -> bool:
    return BINARY[predicate](simulation, *(Object(name) for name in names))


def hold_still(simulation: Simulation, steps: int, **grippers: float) -> None:
    action = robot.state_from_proprioception(simulation.proprioception())
    action[robot.BASE] = 0.0
    for side, command in grippers.items():
        action[robot.LEFT_GRIPPER if side == "left" else robot.RIGHT_GRIPPER] = command
    for _ in range(steps):
        simulation.step(action)


@pytest.mark.parametrize("name", list(TASKS))
def test_instances_are_valid_differ_and_stay_in_their_ranges(name: str) -> None:
    task = TASKS[name]
    for number in (*TRAIN_INSTANCES[::40], *TEST_INSTANCES[::10]):
        instance = make_instance(task, number)
        assert problems(simulation_of(name), instance) == []
        assert set(instance.poses) == set(task.objects)
    first, second = make_instance(task, 1), make_instance(task, 2)
    moved = [n for n in task.objects if not np.array_equal(first.poses[n], second.poses[n])]
    assert moved == list(task.objects)
    assert not np.array_equal(first.base, second.base)


@pytest.mark.parametrize("at", ["putting_shoes_on_rack"], indirect=True)
def test_overlapping_objects_are_found(at: Simulation) -> None:
    instance = make_instance(at.task, 1)
    instance.poses["sandal.n.01_2"] = instance.poses["sandal.n.01_1"].copy()
    assert any(problem.startswith("sandal") for problem in problems(at, instance))


def test_test_instances_are_drawn_from_wider_ranges() -> None:
    task = TASKS["bringing_in_wood"]
    spread = {
        ids: max(abs(make_instance(task, i).base[1] - task.base_centre[1]) for i in ids)
        for ids in (TRAIN_INSTANCES, TEST_INSTANCES)
    }
    assert spread[TRAIN_INSTANCES] <= task.base_range[1] < spread[TEST_INSTANCES]


@pytest.mark.parametrize("at", ["picking_up_toys"], indirect=True)
@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        ((0.0, 0.0, 0.05), True),
        ((furnishings.TOY_BOX[0] - 0.01, 0.0, 0.05), True),
        ((furnishings.TOY_BOX[0] + 0.01, 0.0, 0.05), False),
        ((0.0, furnishings.TOY_BOX[1] + 0.01, 0.05), False),
        ((0.0, 0.0, furnishings.TOY_BOX[2] + 0.01), False),
    ],
)
def test_inside_a_box_turns_with_it(at: Simulation, offset: tuple[float, ...], expected: bool) -> None:
    place(at, "tennis_ball.n.01_1", at.to_world("toy_box.n.01_1", offset))
    assert holds(at, "inside", "tennis_ball.n.01_1", "toy_box.n.01_1") is expected
    assert not holds(at, "inside", "tennis_ball.n.01_1", "table.n.02_1")


@pytest.mark.parametrize("at", ["tidying_bedroom"], indirect=True)
def test_ontop_needs_contact_from_above(at: Simulation) -> None:
    book, table = "book.n.02_1", "table.n.02_1"
    x, y, _ = at.object_pose(table)[:3]
    rest_on(at, book, x, y, furnishings.TABLE_TOP)
    assert holds(at, "ontop", book, table)
    rest_on(at, book, x, y, furnishings.TABLE_TOP + 0.03)
    assert not holds(at, "ontop", book, table)
    rest_on(at, book, x, y, 0.0)
    assert not holds(at, "ontop", book, table)
    # Against the table's edge: in contact, but not above it.
    place(at, book, np.array([x - 0.26 - 0.08 + INTO, y, furnishings.TABLE_TOP - 0.02]))
    assert holds(at, "touching", book, table)
    assert not holds(at, "ontop", book, table)


@pytest.mark.parametrize("at", ["moving_boxes_to_storage"], indirect=True)
def test_containers_stack_and_floors_are_zones(at: Simulation) -> None:
    first, second = "storage_container.n.01_1", "storage_container.n.01_2"
    assert holds(at, "ontop", first, "floor.n.01_1")
    assert not holds(at, "ontop", first, "floor.n.01_2")
    goal = Goal(at)
    rest_on(at, first, 0.6, -0.5, 0.0)
    rest_on(at, second, 0.62, -0.5, 0.16)
    assert holds(at, "ontop", first, "floor.n.01_2")
    assert holds(at, "touching", first, "floor.n.01_2")
    assert not holds(at, "ontop", first, "floor.n.01_1")
    assert holds(at, "ontop", second, first)
    assert not holds(at, "ontop", first, second)
    assert not holds(at, "ontop", second, "floor.n.01_2")
    assert goal.satisfied()
    rest_on(at, second, 0.6, -0.9, 0.0)
    assert not holds(at, "ontop", second, first)
    assert not goal.satisfied()
    assert goal.q() == 0.5


@pytest.mark.parametrize("at", ["putting_shoes_on_rack"], indirect=True)
def test_touching_is_contact(at: Simulation) -> None:
    shoe, rack = "gym_shoe.n.01_1", "hallstand.n.01_1"
    x, y, _ = at.object_pose(rack)[:3]
    assert holds(at, "touching", shoe, "floor.n.01_1")
    assert not holds(at, "touching", shoe, rack)
    rest_on(at, shoe, x, y, furnishings.RACK_HEIGHT)
    assert holds(at, "touching", shoe, rack)
    assert holds(at, "touching", rack, shoe)
    assert not holds(at, "touching", shoe, "floor.n.01_1")
    rest_on(at, shoe, x, y, furnishings.RACK_HEIGHT + 0.01)
    assert not holds(at, "touching", shoe, rack)


@pytest.mark.parametrize("at", ["putting_shoes_on_rack"], indirect=True)
def test_nextto_is_a_small_gap_at_the_same_height(at: Simulation) -> None:
    first, second = "sandal.n.01_1", "sandal.n.01_2"
    rest_on(at, first, 0.4, 0.0, 0.0)
    for y, height, expected in (
        (0.10, 0.0, True),
        (0.14, 0.0, False),
        (0.10, 0.10, False),
        (0.0, 0.051, False),
    ):
        rest_on(at, second, 0.4, y, height)
        assert holds(at, "nextto", first, second) is expected, (y, height)
        assert holds(at, "nextto", second, first) is expected


@pytest.mark.parametrize("at", ["hiding_Easter_eggs"], indirect=True)
def test_an_egg_in_the_basket_is_not_next_to_it(at: Simulation) -> None:
    egg, basket, tree = "easter_egg.n.01_1", "wicker_basket.n.01_1", "tree.n.01_1"
    assert not holds(at, "nextto", egg, basket)
    x, y, _ = at.object_pose(tree)[:3]
    for gap, expected in ((0.03, True), (0.15, False)):
        rest_on(at, egg, x - 0.07 - 0.026 - gap, y, 0.0)
        assert holds(at, "nextto", egg, tree) is expected
        assert holds(at, "ontop", egg, "lawn.n.01_1")


@pytest.mark.parametrize("at", ["setting_mousetraps"], indirect=True)
def test_under_is_below_the_basin(at: Simulation) -> None:
    trap, sink = "mousetrap.n.01_1", "sink.n.01_1"
    x, y, _ = at.object_pose(sink)[:3]
    for dx, height, expected in ((-0.1, 0.0, True), (-0.3, 0.0, False), (-0.1, 0.80, False)):
        rest_on(at, trap, x + dx, y, height)
        assert holds(at, "under", trap, sink) is expected, (dx, height)
    assert not holds(at, "under", trap, "cabinet.n.01_1")


@pytest.mark.parametrize("at", ["bringing_water"], indirect=True)
def test_open_follows_the_doors_angle(at: Simulation) -> None:
    fridge = "electric_refrigerator.n.01_1"
    for angle, expected in ((0.0, False), (0.1, False), (0.12, True), (1.5, True)):
        at.data.joint(f"{fridge}_door").qpos[0] = angle
        assert is_open(at, Object(fridge)) is expected
    assert not is_open(at, Object("coffee_table.n.01_1"))


@pytest.mark.parametrize("at", ["attach_a_camera_to_a_tripod"], indirect=True)
def test_an_aligned_camera_is_attached_and_stays(at: Simulation) -> None:
    camera, tripod = "digital_camera.n.01_1", "camera_tripod.n.01_1"
    goal = Goal(at)
    socket = at.to_world(tripod, (0.0, 0.0, furnishings.TRIPOD_TOP + 0.035))
    tilted = (np.cos(0.4), np.sin(0.4), 0.0, 0.0)
    for position, quaternion in ((socket + np.array([0.0, 0.0, 0.06]), UPRIGHT), (socket, tilted)):
        place(at, camera, position, quaternion)
        at.mounts.update()
        assert not holds(at, "attached", camera, tripod)
    place(at, camera, socket + np.array([0.01, 0.0, 0.01]))
    hold_still(at, 30)
    assert holds(at, "attached", camera, tripod)
    assert not holds(at, "attached", tripod, camera)
    assert goal.satisfied()
    np.testing.assert_allclose(at.object_pose(camera)[:3], socket, atol=0.02)
    at.reset(make_instance(at.task, 1))
    assert not holds(at, "attached", camera, tripod)


@pytest.mark.parametrize(("task", "name"), GRASPABLE)
@pytest.mark.parametrize("side", robot.SIDES)
def test_every_object_is_held_by_a_closing_hand_and_dropped_by_an_opening_one(
    task: str, name: str, side: str
) -> None:
    simulation = simulation_of(task)
    simulation.reset(make_instance(simulation.task, 1))
    hold_still(simulation, 20, left=1.0, right=1.0)
    grasp = kind_of(name).grasp
    assert grasp is not None
    assert grasp.half_gap < robot.FINGER_TRAVEL
    # Beside the hand it is not taken, between the fingertips it is.
    for aside, expected in ((0.15, {}), (0.0, {side: name})):
        place(simulation, name, simulation.hand_position(side) - np.array(grasp.point) + [aside, 0.0, 0.0])
        gripper = robot.LEFT_GRIPPER if side == "left" else robot.RIGHT_GRIPPER
        action = robot.state_from_proprioception(simulation.proprioception())
        action[robot.BASE] = 0.0
        action[gripper] = -1.0
        simulation.data.qpos[simulation.addresses.finger_q[side]] = grasp.half_gap
        simulation.grasp.update(action)
        assert simulation.grasp.held == expected
    hold_still(simulation, 15, **{side: -1.0})
    assert simulation.grasp.held == {side: name}
    held = simulation.to_world(name, grasp.point)
    assert np.linalg.norm(held - simulation.hand_position(side)) < 0.06
    hold_still(simulation, 15, **{side: 1.0})
    assert simulation.grasp.held == {}
    assert simulation.to_world(name, grasp.point)[2] < held[2] - 0.04


@pytest.mark.parametrize("name", list(TASKS))
def test_goals_are_bddls_for_the_objects_present(name: str) -> None:
    simulation = simulation_of(name)
    simulation.reset(make_instance(simulation.task, 1))
    goal = Goal(simulation)
    known = {*simulation.task.objects, *(zone.name for zone in simulation.task.zones)}
    terms = [term for option in goal.options for condition in option for term in condition.terms]
    words = {"not", *predicates.UNARY, *predicates.BINARY}
    assert {term for term in terms if term not in words} <= known
    assert not goal.satisfied()
    assert goal.q() == 0.0


@pytest.mark.parametrize("name", list(TASKS))
def test_the_expert_solves_train_and_test_instances(name: str) -> None:
    simulation = simulation_of(name)
    for number in (1, 301, 302):
        simulation.reset(make_instance(simulation.task, number))
        goal, expert = Goal(simulation), make_expert(simulation)
        for _ in range(simulation.task.time_limit):
            simulation.step(expert.act().action)
            if goal.satisfied():
                break
        assert goal.q() == 1.0, number


@pytest.mark.parametrize("name", ["hiding_Easter_eggs", "bringing_water"])
def test_a_demonstration_is_the_same_again_bit_for_bit(name: str) -> None:
    def actions(simulation: Simulation) -> bytes:
        result = record(simulation, 3, image_size=None, style="corrected", seed=5)
        assert result.success
        return np.stack(result.actions).tobytes() + np.stack(result.task_info).tobytes()

    assert actions(simulation_of(name)) == actions(Simulation(TASKS[name]))


def test_speed_and_path_vary_between_episodes_but_not_in_the_demos_tasks() -> None:
    drawn = [draw_variation(generator("test", i), 1.0) for i in range(20)]
    speeds = [variation.speed for variation in drawn]
    assert 0.8 <= min(speeds) < 0.9 < 1.1 < max(speeds) <= 1.2
    assert len({variation.travel for variation in drawn}) == 20
    still = draw_variation(generator("test", 1), TASKS["picking_up_trash"].variation)
    assert (still.speed, still.travel, still.stand) == (1.0, 0.0, (0.0, 0.0))


def test_every_kind_says_what_its_use_needs() -> None:
    used = {name for task in TASKS.values() for name in task.objects}
    assert {name.rsplit("_", 1)[0] for name in used} == set(KINDS)
    for kind in KINDS.values():
        assert (np.array(kind.low) < np.array(kind.high)).all()
        assert kind.grasp is None or kind.free
        assert (kind.mount is None) == (kind.fits is None)
        assert kind.fits is None or KINDS[kind.fits].socket is not None
