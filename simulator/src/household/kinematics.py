"""Inverse kinematics of one arm: damped least squares; direction of the hand and posture are soft goals."""

import mujoco
import numpy as np

from household import robot
from household.robot import FloatArray

_ITERATIONS = 12
_DAMPING = 1e-4
_DIRECTION_GAIN = 0.6
_POSTURE_GAIN = 0.12
_MAX_STEP = 0.35
"""Largest joint change of one iteration in rad, so that far targets do not make the solver jump."""
_SIDEWAYS: FloatArray = np.array([0.0, 1.0, 0.0])


class ArmKinematics:
    """Solves for the seven joints of an arm, always from the same posture.

    Starting from a fixed posture makes the solution a smooth function of the target alone: a demonstrator
    that uses it has no memory, which is what a policy that sees only the present can imitate.

    Args:
        model: compiled scene; only the robot's part is used.
        side: "left" or "right".
    """

    def __init__(self, model: mujoco.MjModel, side: str) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        self._trunk = [model.joint(n).qposadr[0] for n in robot.TRUNK_JOINTS]
        self._arm = [model.joint(n).qposadr[0] for n in robot.ARM_JOINTS[side]]
        self._dofs = [model.joint(n).dofadr[0] for n in robot.ARM_JOINTS[side]]
        self._site = model.site(f"{side}_eef").id
        self._hand = model.body(f"{side}_hand").id
        self._posture = robot.ARM_POSTURE[side]
        limits = robot.LEFT_ARM if side == "left" else robot.RIGHT_ARM
        margin = 0.02
        self._low, self._high = robot.ACTION_LOW[limits] + margin, robot.ACTION_HIGH[limits] - margin

    def forward(self, trunk: FloatArray, arm: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where the hand is.

        Args:
            trunk: [4] joint positions in rad.
            arm: [7] joint positions in rad.

        Returns:
            Position [3] of the grasp point and rotation matrix [3, 3] of the hand, in the base frame, metres.
        """
        self._place(trunk, arm)
        return self._data.site_xpos[self._site].copy(), self._data.xmat[self._hand].reshape(3, 3).copy()

    def solve(
        self, trunk: FloatArray, position: FloatArray, up: FloatArray, across: FloatArray = _SIDEWAYS
    ) -> FloatArray:
        """Joint positions that bring the grasp point to a position.

        Args:
            trunk: [4] measured trunk joints in rad.
            position: [3] target in the base frame, metres.
            up: [3] unit vector in the base frame that the hand's back should point to (a soft goal).
            across: [3] unit vector in the base frame along which the fingers open (a soft goal).

        Returns:
            [7] joint positions in rad, within the limits. A target out of reach gives the nearest found.
        """
        q = self._posture.copy()
        jac_p, jac_r = np.zeros((3, self._model.nv)), np.zeros((3, self._model.nv))
        identity_3, identity_7 = np.eye(3), np.eye(7)
        for _ in range(_ITERATIONS):
            self._place(trunk, q)
            mujoco.mj_comPos(self._model, self._data)
            mujoco.mj_jacSite(self._model, self._data, jac_p, jac_r, self._site)
            jp, jr = jac_p[:, self._dofs], jac_r[:, self._dofs]
            error = position - self._data.site_xpos[self._site]
            z_axis = self._data.xmat[self._hand].reshape(3, 3)[:, 2]
            y_axis = self._data.xmat[self._hand].reshape(3, 3)[:, 1]
            # The hand's back should point up and the fingers should open across.
            turn = _cross(z_axis, up) + 0.5 * _cross(y_axis, across)
            wish = _DIRECTION_GAIN * jr.T @ turn + _POSTURE_GAIN * (self._posture - q)
            inverse = jp.T @ np.linalg.inv(jp @ jp.T + _DAMPING * identity_3)
            step = inverse @ error + (identity_7 - inverse @ jp) @ wish
            q = np.clip(q + step * min(1.0, _MAX_STEP / max(np.abs(step).max(), 1e-9)), self._low, self._high)
        return q

    def _place(self, trunk: FloatArray, arm: FloatArray) -> None:
        self._data.qpos[self._trunk] = trunk
        self._data.qpos[self._arm] = arm
        mujoco.mj_kinematics(self._model, self._data)


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    """The cross product of two vectors, without NumPy's overhead for arrays of them."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
