"""The simulated robot and its world: layouts, limits, determinism, predicates on hand-placed scenes."""

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import household  # noqa: F401  (chooses the renderer before MuJoCo is imported)
from household import robot
from household.experts import make_expert
from household.furnishings import BIN_HEIGHT, BIN_RADIUS
from household.goals import Goal
from household.instances import make_instance
from household.movables import BUTTON_HEIGHT, CAN_HALF_HEIGHT, RADIO_HEIGHT
from household.proprioception import proprioception
from household.room import TABLE_HEIGHT
from household.simulation import Simulation
from household.tasks import TASKS

RADIO, TRASH = TASKS["turning_on_radio"], TASKS["picking_up_trash"]
CAN, BIN = "can__of__soda.n.01_1", "ashcan.n.01_1"


@pytest.fixture(scope="module")
def trash() -> Simulation:
    return Simulation(TRASH)


@pytest.fixture(scope="module")
def radio() -> Simulation:
    return Simulation(RADIO)


def hold(simulation: Simulation) -> np.ndarray:
    """The action that keeps the robot where it is."""
    action = robot.state_from_proprioception(simulation.proprioception())
    action[robot.BASE] = 0.0
    return action


def place(simulation: Simulation, name: str, position: np.ndarray) -> None:
    """Put an object upright somewhere, at rest."""
    start = simulation.model.jnt_qposadr[simulation.model.body(name).jntadr[0]]
    simulation.data.qpos[start : start + 7] = [*position, 1, 0, 0, 0]
    simulation.data.qvel[:] = 0
    mujoco.mj_forward(simulation.model, simulation.data)


@pytest.mark.parametrize(("edition", "values"), [("2025", 256), ("2026", 61)])
def test_the_slices_cover_the_values_once(edition: robot.Edition, values: int) -> None:
    covered = np.concatenate([np.arange(values)[s] for s in robot.LAYOUTS[edition].values()])
    assert sorted(covered) == list(range(values))
    assert robot.layout_length(edition) == values
    assert (robot.ACTION_LOW < robot.ACTION_HIGH).all()


def test_proprioception_is_what_physics_says(trash: Simulation) -> None:
    trash.reset(make_instance(TRASH, 7))
    action = hold(trash)
    action[:3] = (0.2, -0.1, 0.3)
    for _ in range(10):
        trash.step(action)
    values = proprioception(trash.data, trash.addresses, "2025")
    assert values.shape == (256,)
    of_2026 = trash.proprioception()
    assert of_2026.shape == (61,)
    for name, place in robot.PROPRIOCEPTION_2026.items():
        if name != "base_qvel":
            np.testing.assert_array_equal(of_2026[place], values[robot.PROPRIOCEPTION[name]], name)
    np.testing.assert_allclose(of_2026[:3], (0.2 * 0.75, -0.1 * 0.75, 0.3), atol=0.05)
    speed = trash.data.qvel[trash.addresses.base_v]
    np.testing.assert_allclose(values[253:], speed * robot.WORLD_VELOCITY)

    def part(name: str) -> np.ndarray:
        return values[robot.PROPRIOCEPTION[name]]

    joints = [trash.data.joint(n).qpos[0] for n in robot.ARM_JOINTS["right"]]
    np.testing.assert_allclose(part("arm_right_qpos"), joints)
    np.testing.assert_allclose(part("arm_right_qpos_sin"), np.sin(joints))
    np.testing.assert_allclose(part("joint_qpos")[10:24:2], part("arm_left_qpos"))
    np.testing.assert_allclose(part("joint_qpos")[11:24:2], joints)
    np.testing.assert_allclose(part("joint_qpos")[6:10], part("trunk_qpos"))
    np.testing.assert_allclose(part("joint_qpos")[[0, 1, 5]], part("base_qpos"))
    np.testing.assert_allclose(part("joint_qpos_cos"), np.cos(part("joint_qpos")))
    np.testing.assert_allclose(part("eef_right_pos"), trash.to_base(trash.hand_position("right")))
    assert np.linalg.norm(part("eef_left_quat")) == pytest.approx(1.0)
    assert trash.camera_poses().shape == (21,)


def test_base_velocity_is_in_the_robots_own_frame(trash: Simulation) -> None:
    trash.reset(make_instance(TRASH, 3))
    trash.data.qpos[trash.addresses.base_q] = (0.0, 0.0, np.pi / 2)
    action = hold(trash)
    action[0] = 0.4
    for _ in range(30):
        trash.step(action)
    x, y, _ = trash.data.qpos[trash.addresses.base_q]
    assert abs(x) < 0.02
    assert 0.2 < y < 0.35


@pytest.mark.parametrize("dimension", [0, 1, 2])
def test_base_command_1_is_full_speed(trash: Simulation, dimension: int) -> None:
    trash.reset(make_instance(TRASH, 3))
    for sign in (-1.0, 1.0):
        trash.data.qpos[trash.addresses.base_q] = (-3.0, 0.0, 0.4)
        action = hold(trash)
        action[dimension] = 2.0 * sign  # commands are clipped to 1
        speeds = []
        for _ in range(20):
            trash.step(action)
            speeds.append(trash.proprioception()[dimension])
        assert np.mean(speeds[-5:]) == pytest.approx(sign * (0.75, 0.75, 1.0)[dimension], rel=0.05)


@settings(max_examples=10, deadline=None)
@given(left=st.floats(-1, 1), right=st.floats(-1, 1))
def test_a_gripper_command_comes_back_in_the_state(left: float, right: float) -> None:
    simulation = Simulation(RADIO)
    simulation.reset(make_instance(RADIO, 1))
    action = hold(simulation)
    action[robot.LEFT_GRIPPER], action[robot.RIGHT_GRIPPER] = left, right
    for _ in range(40):
        simulation.step(action)
    state = robot.state_from_proprioception(simulation.proprioception())
    assert state[robot.LEFT_GRIPPER] == pytest.approx(left, abs=0.02)
    assert state[robot.RIGHT_GRIPPER] == pytest.approx(right, abs=0.02)


def test_joint_commands_are_reached_and_clipped(radio: Simulation) -> None:
    radio.reset(make_instance(RADIO, 1))
    action = hold(radio)
    action[robot.LEFT_ARM] += 0.05
    action[3] += 0.1
    action[robot.RIGHT_ARM.start] = 99.0
    for _ in range(60):
        radio.step(action)
    state = robot.state_from_proprioception(radio.proprioception())
    np.testing.assert_allclose(state[robot.LEFT_ARM], action[robot.LEFT_ARM], atol=0.01)
    assert state[3] == pytest.approx(action[3], abs=0.02)
    assert state[robot.RIGHT_ARM.start] <= robot.ACTION_HIGH[robot.RIGHT_ARM.start] + 0.01


@pytest.mark.parametrize("bad", [np.zeros(22), np.full(23, np.nan), np.full(23, np.inf)])
def test_bad_actions_are_refused(radio: Simulation, bad: np.ndarray) -> None:
    radio.reset(make_instance(RADIO, 1))
    with pytest.raises(ValueError, match="action has"):
        radio.step(bad)


def test_same_instance_and_actions_give_the_same_states() -> None:
    def states(simulation: Simulation) -> list[bytes]:
        simulation.reset(make_instance(TRASH, 11))
        expert = make_expert(simulation)
        seen = []
        for _ in range(60):
            simulation.step(expert.act().action)
            seen.append(simulation.proprioception().tobytes())
        picture = simulation.render("right_wrist", 32).tobytes()
        simulation.close()
        return [*seen, picture]

    used = Simulation(TRASH)
    used.reset(make_instance(TRASH, 12))
    for _ in range(20):
        used.step(make_expert(used).act().action)
    assert states(used) == states(Simulation(TRASH))


@pytest.mark.parametrize(
    ("task", "before", "kept"),
    [
        ("turning_on_radio", 55, []),
        ("turning_on_radio", 66, ["switched_on"]),
        ("picking_up_trash", 60, ["held"]),
        ("attach_a_camera_to_a_tripod", 110, ["held"]),
        ("attach_a_camera_to_a_tripod", 134, ["attached"]),
    ],
)
def test_a_fork_goes_on_bit_for_bit_and_leaves_the_original_alone(
    task: str, before: int, kept: list[str]
) -> None:
    def beside_physics(simulation: Simulation) -> dict[str, object]:
        return {
            "held": simulation.grasp.held,
            "attached": simulation.mounts.attached,
            "switched_on": simulation.switched_on,
        }

    def state(simulation: Simulation) -> bytes:
        model, kind = simulation.model, mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.empty(mujoco.mj_stateSize(model, kind))
        mujoco.mj_getState(model, simulation.data, physics, kind)
        arrays = (physics, simulation.proprioception(), simulation.data.xpos, model.eq_data, model.geom_rgba)
        return b"".join(array.tobytes() for array in arrays) + repr(beside_physics(simulation)).encode()

    original = Simulation(TASKS[task])
    original.reset(make_instance(original.task, 1))
    expert = make_expert(original)
    for _ in range(before):
        original.step(expert.act().action)
    assert [name for name, value in beside_physics(original).items() if value] == kept
    fork, then = original.fork(), state(original)
    assert state(fork) == then
    actor, actions, states = make_expert(fork), [], []
    for _ in range(30):
        actions.append(actor.act().action)
        fork.step(actions[-1])
        states.append(state(fork))
    assert state(original) == then
    for action, expected in zip(actions, states, strict=True):
        original.step(action)
        assert state(original) == expected
    np.testing.assert_array_equal(original.render("head", 32), fork.render("head", 32))
    original.close()
    fork.close()


def test_instances_are_fixed_differ_and_exist() -> None:
    first, second = make_instance(TRASH, 1), make_instance(TRASH, 2)
    np.testing.assert_array_equal(first.base, make_instance(TRASH, 1).base)
    assert not np.array_equal(first.poses[CAN], second.poses[CAN])
    for number in (0, 201, 300, 341):
        with pytest.raises(ValueError, match="does not exist"):
            make_instance(TRASH, number)
    with pytest.raises(ValueError, match="given to a simulation of"):
        Simulation(RADIO).reset(first)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        ((0.0, 0.0, 0.1), True),
        ((BIN_RADIUS - 0.03, 0.0, 0.2), True),
        ((BIN_RADIUS + 0.03, 0.0, 0.2), False),
        ((0.0, 0.0, BIN_HEIGHT + 0.05), False),
    ],
)
def test_inside(trash: Simulation, offset: tuple[float, ...], expected: bool) -> None:
    trash.reset(make_instance(TRASH, 5))
    goal = Goal(trash)
    assert not goal.satisfied()
    assert goal.q() == 0.0
    place(trash, CAN, trash.object_pose(BIN)[:3] + np.array(offset))
    assert goal.satisfied() is expected
    assert goal.q() == float(expected)


def test_what_held_at_the_start_earns_nothing(trash: Simulation) -> None:
    trash.reset(make_instance(TRASH, 5))
    place(trash, CAN, trash.object_pose(BIN)[:3] + np.array([0.0, 0.0, 0.1]))
    goal = Goal(trash)
    place(trash, CAN, np.array([0.6, 0.0, 0.6]))
    assert goal.q() == 0.0


def test_only_a_finger_turns_the_radio_on_and_it_stays_on(radio: Simulation) -> None:
    radio.reset(make_instance(RADIO, 5))
    goal = Goal(radio)
    for _ in range(10):
        radio.step(hold(radio))
    assert not radio.switched_on
    button = RADIO_HEIGHT / 2 + BUTTON_HEIGHT
    place(radio, "radio_receiver.n.01_1", radio.hand_position("right") - np.array([0, 0, button]))
    radio.step(hold(radio))
    assert radio.switched_on == {"radio_receiver.n.01_1"}
    assert goal.q() == 1.0
    place(radio, "radio_receiver.n.01_1", np.array([0.6, 0.5, 0.5]))
    radio.step(hold(radio))
    assert goal.satisfied()
    radio.reset(make_instance(RADIO, 5))
    assert not radio.switched_on


def test_goals_come_from_bddl_grounded_for_the_objects_present(trash: Simulation, radio: Simulation) -> None:
    trash.reset(make_instance(TRASH, 1))
    radio.reset(make_instance(RADIO, 1))
    assert [[c.terms for c in option] for option in Goal(trash).options] == [[["inside", CAN, BIN]]]
    terms = [[c.terms for c in option] for option in Goal(radio).options]
    assert terms == [[["toggled_on", "radio_receiver.n.01_1"]]]


def test_a_closed_gripper_carries_the_can_and_an_open_one_drops_it(trash: Simulation) -> None:
    trash.reset(make_instance(TRASH, 9))
    expert = make_expert(trash)
    for _ in range(100):
        trash.step(expert.act().action)
        if trash.grasp.held:
            break
    assert trash.grasp.held == {"right": CAN}
    before = trash.object_pose(CAN)[:3] - trash.hand_position("right")
    action = hold(trash)
    action[robot.RIGHT_GRIPPER] = -1.0
    action[3] -= 0.15
    for _ in range(30):
        trash.step(action)
    after = trash.object_pose(CAN)[:3] - trash.hand_position("right")
    assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), abs=0.02)
    assert trash.object_pose(CAN)[2] > TABLE_HEIGHT + CAN_HALF_HEIGHT + 0.02
    state = robot.state_from_proprioception(trash.proprioception())
    assert -0.3 < state[robot.RIGHT_GRIPPER] < 0.1  # the fingers stop at the can
    action[robot.RIGHT_GRIPPER] = 1.0
    for _ in range(30):
        trash.step(action)
    assert not trash.grasp.held
    assert trash.object_pose(CAN)[2] < TABLE_HEIGHT + CAN_HALF_HEIGHT + 0.02
