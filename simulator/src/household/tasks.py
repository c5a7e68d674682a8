"""The tasks that the simulator has, as data."""

from collections.abc import Iterable

from household import furnishings as f
from household import room
from household.room import Zone
from household.task import HumanMeans, Placement, Task

_DEMO_BASE = (0.06, 0.06, 0.04)
_FURNITURE = (0.03, 0.03, 0.05)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="turning_on_radio",
            index=0,
            stages=5,
            instruction="Turn on the radio receiver that's on the table in the living room.",
            reduced="The radio stands before the robot; touching its button switches it on.",
            room="living_room",
            placements=(
                Placement("radio_receiver.n.01_1", (0.56, -0.03), (0.04, 0.08, 0.15), room.TABLE_HEIGHT),
            ),
            gripper=-1.0,
            base_centre=(-0.32, 0.0),
            base_range=_DEMO_BASE,
            variation=0.0,
            human=HumanMeans(63.0, 0.401, 0.426, 0.540),
        ),
        Task(
            name="picking_up_trash",
            index=1,
            stages=6,
            instruction="Put the three can of soda from the living room inside the tash can in the kitchen.",
            reduced="One can instead of three; it stands on the table, the ashcan beside it.",
            room="living_room",
            placements=(
                Placement("can__of__soda.n.01_1", (0.56, -0.05), (0.04, 0.07, 3.14), room.TABLE_HEIGHT),
                Placement("ashcan.n.01_1", (0.54, -0.43), (0.03, 0.03, 0.1)),
            ),
            base_centre=(-0.15, 0.0),
            base_range=_DEMO_BASE,
            variation=0.0,
            human=HumanMeans(109.3, 0.362, 0.422, 0.765),
        ),
        Task(
            name="setting_mousetraps",
            index=5,
            stages=12,
            instruction=(
                "Take the four mousetraps from the cabinet in the bathroom and place them on the bathroom "
                "floor. Make sure all four end up on the same floor surface, and ensure that at least two "
                "of them are either under or directly next to the same bathroom sink."
            ),
            reduced="Two mousetraps instead of four, one sink, one floor.",
            room="bathroom",
            placements=(
                Placement("cabinet.n.01_1", (0.70, 0.42), _FURNITURE),
                Placement("sink.n.01_1", (0.82, -0.40), _FURNITURE),
                Placement(
                    "mousetrap.n.01_1", (-0.09, -0.13), (0.03, 0.05, 0.4), f.CABINET_TOP, "cabinet.n.01_1"
                ),
                Placement(
                    "mousetrap.n.01_2", (-0.09, 0.10), (0.03, 0.05, 0.4), f.CABINET_TOP, "cabinet.n.01_1"
                ),
            ),
            zones=(Zone("floor.n.01_1"),),
            base_centre=(-0.05, 0.1),
            human=HumanMeans(307.4, 1.937, 3.651, 5.216),
        ),
        Task(
            name="hiding_Easter_eggs",
            index=6,
            stages=9,
            instruction=(
                "Take the three Easter eggs out of the wicker basket on the lawn in the garden, then place "
                "them on the lawn next to a single tree (choose any tree) so that all three eggs are next "
                "to the same tree and none are left in the basket."
            ),
            reduced="Two eggs instead of three, one tree; the basket stays where it is.",
            room="garden",
            placements=(
                Placement("wicker_basket.n.01_1", (0.60, 0.35), (0.03, 0.04, 0.3)),
                Placement("tree.n.01_1", (0.72, -0.40), (0.03, 0.04, 0.2)),
                Placement(
                    "easter_egg.n.01_1", (0.0, -0.055), (0.03, 0.015, 3.1), 0.012, "wicker_basket.n.01_1"
                ),
                Placement(
                    "easter_egg.n.01_2", (0.0, 0.055), (0.03, 0.015, 3.1), 0.012, "wicker_basket.n.01_1"
                ),
            ),
            zones=(Zone("lawn.n.01_1"),),
            base_centre=(-0.05, 0.1),
            human=HumanMeans(255.0, 1.774, 3.455, 5.089),
        ),
        Task(
            name="picking_up_toys",
            index=7,
            stages=15,
            instruction=(
                "Put all the toys in the child's room - the three board games (two on the bed and one on "
                "the table), the two jigsaw puzzles on the table, and the tennis ball on the table - inside"
                " the toy box on the table in the child's room."
            ),
            reduced="One board game, one jigsaw puzzle and the tennis ball; bed and table are side by side.",
            room="childs_room",
            placements=(
                Placement("table.n.02_1", (0.80, -0.30), (0.02, 0.03, 0.0)),
                Placement("bed.n.01_1", (0.92, 0.62), (0.02, 0.03, 0.0)),
                Placement("toy_box.n.01_1", (-0.08, -0.215), (0.02, 0.02, 0.08), f.TABLE_TOP, "table.n.02_1"),
                Placement(
                    "tennis_ball.n.01_1", (-0.15, 0.15), (0.03, 0.03, 0.0), f.TABLE_TOP, "table.n.02_1"
                ),
                Placement(
                    "jigsaw_puzzle.n.01_1", (-0.14, 0.31), (0.03, 0.03, 0.4), f.TABLE_TOP, "table.n.02_1"
                ),
                Placement("board_game.n.01_1", (-0.24, -0.12), (0.04, 0.08, 0.4), f.BED_TOP, "bed.n.01_1"),
            ),
            base_centre=(-0.05, 0.1),
            human=HumanMeans(368.6, 3.500, 3.751, 5.667),
        ),
        Task(
            name="bringing_in_wood",
            index=15,
            stages=15,
            instruction=(
                "Bring the three plywood sheets from the garden into the corridor and place them on the "
                "floor there."
            ),
            reduced=(
                "Two narrow boards instead of three sheets; garden and corridor are two mats in one room."
            ),
            room="corridor",
            placements=(
                Placement("plywood.n.01_1", (0.58, 0.42), (0.05, 0.05, 0.35)),
                Placement("plywood.n.01_2", (0.58, 0.72), (0.05, 0.05, 0.35)),
            ),
            zones=(
                Zone("floor.n.01_1", (0.70, 0.80), (0.70, 0.62), "green"),
                Zone("floor.n.01_2", (0.70, -0.70), (0.70, 0.62), "cream"),
            ),
            base_centre=(-0.05, 0.15),
            human=HumanMeans(279.1, 2.565, 4.106, 5.675),
        ),
        Task(
            name="moving_boxes_to_storage",
            index=16,
            stages=15,
            instruction=(
                "Move the two storage containers from the living room to the garage. In the garage, place "
                "one container on the floor and stack the other container on top of it (either order is "
                "fine)."
            ),
            reduced="Small containers for one hand; living room and garage are two mats in one room.",
            room="garage",
            placements=(
                Placement("storage_container.n.01_1", (0.58, 0.38), (0.04, 0.04, 0.3)),
                Placement("storage_container.n.01_2", (0.58, 0.75), (0.04, 0.04, 0.3)),
            ),
            zones=(
                Zone("floor.n.01_1", (0.70, 0.80), (0.70, 0.62), "wood"),
                Zone("floor.n.01_2", (0.70, -0.70), (0.70, 0.62), "dark"),
            ),
            base_centre=(-0.05, 0.15),
            human=HumanMeans(342.6, 2.685, 4.767, 6.313),
        ),
        Task(
            name="bringing_water",
            index=17,
            stages=11,
            instruction=(
                "Retrieve the two bottles from the refrigerator in the kitchen, bring them to the living "
                "room, and place both on the coffee table. Make sure the refrigerator is closed when you "
                "finish."
            ),
            reduced=(
                "The refrigerator's door is open at the start; the coffee table is beside it in the same "
                "room."
            ),
            room="kitchen",
            placements=(
                Placement(
                    "electric_refrigerator.n.01_1", (0.84, 0.42), (0.02, 0.03, 0.0), opening=(1.3, 1.6)
                ),
                Placement("coffee_table.n.01_1", (0.74, -0.45), (0.02, 0.03, 0.0)),
                Placement(
                    "bottle.n.01_1",
                    (-0.10, -0.07),
                    (0.015, 0.015, 3.1),
                    f.FRIDGE_SHELF,
                    "electric_refrigerator.n.01_1",
                ),
                Placement(
                    "bottle.n.01_2",
                    (-0.10, 0.07),
                    (0.015, 0.015, 3.1),
                    f.FRIDGE_SHELF,
                    "electric_refrigerator.n.01_1",
                ),
            ),
            base_centre=(-0.05, -0.05),
            human=HumanMeans(373.9, 4.853, 6.906, 4.872),
        ),
        Task(
            name="tidying_bedroom",
            index=18,
            stages=13,
            instruction=(
                "In the bedroom, move the book from the bed onto either nightstand, and place the two "
                "sandals side by side next to the bed."
            ),
            reduced="One low table as nightstand, beside the bed.",
            room="bedroom",
            placements=(
                Placement("bed.n.01_1", (0.96, 0.50), (0.02, 0.03, 0.0)),
                Placement("table.n.02_1", (0.82, -0.50), (0.02, 0.03, 0.0)),
                Placement("book.n.02_1", (-0.26, 0.0), (0.04, 0.08, 0.4), f.BED_TOP, "bed.n.01_1"),
                Placement("sandal.n.01_1", (0.38, -0.22), (0.03, 0.03, 0.3)),
                Placement("sandal.n.01_2", (0.38, -0.46), (0.03, 0.03, 0.3)),
            ),
            base_centre=(-0.15, 0.05),
            human=HumanMeans(432.5, 3.217, 5.543, 5.940),
        ),
        Task(
            name="putting_shoes_on_rack",
            index=22,
            stages=9,
            instruction=(
                "Pick up the two gym shoes and the two sandals from the corridor floor and place them onto "
                "the hallstand (shoe rack) in the corridor, making sure they are on the rack and not on the"
                " floor. Arrange them so the two gym shoes are next to each other and the two sandals are "
                "next to each other."
            ),
            reduced="All four shoes, on both sides of a rack of one low shelf.",
            room="corridor",
            placements=(
                Placement("hallstand.n.01_1", (0.78, 0.0), (0.02, 0.02, 0.0)),
                Placement("gym_shoe.n.01_1", (0.48, 0.46), (0.04, 0.03, 0.25)),
                Placement("gym_shoe.n.01_2", (0.48, 0.71), (0.04, 0.03, 0.25)),
                Placement("sandal.n.01_1", (0.48, -0.46), (0.04, 0.03, 0.25)),
                Placement("sandal.n.01_2", (0.48, -0.71), (0.04, 0.03, 0.25)),
            ),
            zones=(Zone("floor.n.01_1"),),
            base_centre=(-0.10, 0.0),
            human=HumanMeans(438.8, 2.899, 6.388, 6.325),
        ),
        Task(
            name="boxing_books_up_for_storage",
            index=23,
            stages=15,
            instruction=(
                "Put all six books from the bookcases in the living room into the box on the living room "
                "floor."
            ),
            reduced="Two books instead of six, on one low bookcase instead of four.",
            room="study",
            placements=(
                Placement("bookcase.n.01_1", (0.74, 0.40), (0.02, 0.03, 0.0)),
                Placement("box.n.01_1", (0.58, -0.42), (0.04, 0.04, 0.1)),
                Placement(
                    "book.n.02_1", (-0.03, -0.14), (0.01, 0.05, 0.3), f.SHELF_HEIGHT, "bookcase.n.01_1"
                ),
                Placement("book.n.02_2", (-0.03, 0.12), (0.01, 0.05, 0.3), f.SHELF_HEIGHT, "bookcase.n.01_1"),
            ),
            base_centre=(-0.05, 0.15),
            human=HumanMeans(268.5, 1.976, 3.231, 4.988),
        ),
        Task(
            name="hanging_pictures",
            index=34,
            stages=5,
            instruction=(
                "Pick up the poster from the kitchen countertop and hang it on one of the wall nails in the"
                " kitchen."
            ),
            reduced=(
                "A small framed poster that stands on the countertop; one nail, which holds it when it is "
                "near."
            ),
            room="kitchen",
            placements=(
                Placement("countertop.n.01_1", (0.80, 0.0), (0.02, 0.03, 0.0)),
                Placement(
                    "poster.n.01_1", (-0.03, 0.25), (0.02, 0.08, 0.1), f.COUNTER_TOP, "countertop.n.01_1"
                ),
                Placement("wall_nail.n.01_1", (0.82, -0.25), (0.01, 0.06, 0.0)),
            ),
            base_centre=(-0.05, 0.15),
            human=HumanMeans(108.0, 0.933, 0.983, 1.632),
        ),
        Task(
            name="attach_a_camera_to_a_tripod",
            index=35,
            stages=5,
            instruction="Attach the digital camera to the camera tripod in the bedroom.",
            reduced="The camera stands upright on the floor; the tripod holds it when it is near its plate.",
            room="bedroom",
            placements=(
                Placement("digital_camera.n.01_1", (0.48, 0.30), (0.05, 0.08, 0.3)),
                Placement("camera_tripod.n.01_1", (0.62, -0.42), (0.04, 0.06, 0.5)),
            ),
            base_centre=(-0.05, 0.1),
            human=HumanMeans(140.2, 0.821, 1.813, 2.614),
        ),
    )
}
"""Tasks by name, in the order of the challenge's indices."""


def task_named(name: str) -> Task:
    """Look a task up.

    Args:
        name: the challenge's task name.

    Returns:
        The task.

    Raises:
        ValueError: the simulator does not have it.
    """
    if name not in TASKS:
        raise ValueError(f"task {name!r} is not in the household simulator; it has {', '.join(TASKS)}")
    return TASKS[name]


def known_tasks(names: Iterable[str]) -> list[Task]:
    """Look tasks up by name.

    Args:
        names: task names.

    Returns:
        The tasks, in the order given, each once.

    Raises:
        ValueError: a name that the simulator does not have, or no name.
    """
    chosen = list(dict.fromkeys(names))
    unknown = [name for name in chosen if name not in TASKS]
    if unknown or not chosen:
        raise ValueError(f"tasks {unknown or chosen} are not in the simulator; it has {', '.join(TASKS)}")
    return [TASKS[name] for name in chosen]
