"""The scripts of the scripted experts, task by task."""

from household import furnishings as f
from household.relocation import CloseDoor, Relocate, Spot, Step

SCRIPTS: dict[str, tuple[Step, ...]] = {
    "picking_up_toys": tuple(
        Relocate(
            thing,
            "inside",
            "toy_box.n.01_1",
            Spot("toy_box.n.01_1", (x, y, f.TOY_BOX[2] + 0.02), 0.04),
            travel=0.68,
        )
        for thing, x, y in (
            ("tennis_ball.n.01_1", 0.06, -0.06),
            ("jigsaw_puzzle.n.01_1", 0.04, 0.06),
            ("board_game.n.01_1", -0.04, -0.02),
        )
    ),
    "boxing_books_up_for_storage": tuple(
        Relocate(
            f"book.n.02_{i}",
            "inside",
            "box.n.01_1",
            Spot("box.n.01_1", (0.0, y, f.BOX[2] - 0.02), 0.04),
            travel=0.58,
            headings=(0.3, -0.3),
        )
        for i, y in ((1, 0.06), (2, -0.06))
    ),
    "bringing_in_wood": tuple(
        Relocate(
            f"plywood.n.01_{i}",
            "ontop",
            "floor.n.01_2",
            Spot(None, (0.60, y, 0.01), 0.03),
            travel=0.24,
            headings=(0.3, -0.3),
        )
        for i, y in ((1, -0.35), (2, -0.50))
    ),
    "hiding_Easter_eggs": tuple(
        Relocate(
            f"easter_egg.n.01_{i}",
            "nextto",
            "tree.n.01_1",
            Spot("tree.n.01_1", (-0.13, y, 0.01), 0.02),
            travel=0.28,
            headings=(0.3, -0.3),
        )
        for i, y in ((1, 0.05), (2, -0.05))
    ),
    "setting_mousetraps": tuple(
        Relocate(
            f"mousetrap.n.01_{i}",
            "nextto",
            "sink.n.01_1",
            Spot("sink.n.01_1", (-0.28, y, 0.01), 0.02),
            travel=0.55,
            headings=(0.3, -0.3),
        )
        for i, y in ((1, 0.10), (2, -0.06))
    ),
    "putting_shoes_on_rack": tuple(
        Relocate(
            f"{kind}_{i}",
            "touching" if i == 1 else "nextto",
            "hallstand.n.01_1" if i == 1 else f"{kind}_1",
            spot,
            travel=0.34,
            side=side,
            headings=(0.3 * sign, 0.0),
        )
        for kind, side, sign in (("gym_shoe.n.01", "left", 1), ("sandal.n.01", "right", -1))
        for i, spot in (
            (1, Spot("hallstand.n.01_1", (-0.03, 0.12 * sign, f.RACK_HEIGHT + 0.01), 0.02)),
            (2, Spot(f"{kind}_1", (0.0, 0.10 * sign, -0.015 if side == "right" else -0.03), 0.015)),
        )
    ),
    "moving_boxes_to_storage": (
        Relocate(
            "storage_container.n.01_1",
            "ontop",
            "floor.n.01_2",
            Spot(None, (0.60, -0.40, 0.01), 0.03),
            travel=0.36,
            headings=(0.3, -0.3),
        ),
        Relocate(
            "storage_container.n.01_2",
            "ontop",
            "storage_container.n.01_1",
            Spot("storage_container.n.01_1", (0.0, 0.0, 0.09), 0.015),
            travel=0.48,
            headings=(0.3, -0.3),
        ),
    ),
    "bringing_water": (
        *(
            Relocate(
                f"bottle.n.01_{i}",
                "ontop",
                "coffee_table.n.01_1",
                Spot("coffee_table.n.01_1", (-0.10, y, f.COFFEE_TABLE_TOP + 0.01), 0.03),
                travel=0.62,
                side="left",
                up=(-0.6, 0.0, 0.8),
                out_of="electric_refrigerator.n.01_1",
            )
            for i, y in ((1, -0.06), (2, 0.10))
        ),
        CloseDoor("electric_refrigerator.n.01_1", f.FRIDGE_HINGE, f.FRIDGE_DOOR, 0.62),
    ),
    "tidying_bedroom": (
        Relocate(
            "sandal.n.01_1",
            "nextto",
            "bed.n.01_1",
            Spot("bed.n.01_1", (-0.56, -0.20, 0.01), 0.02),
            travel=0.24,
        ),
        Relocate(
            "sandal.n.01_2",
            "nextto",
            "sandal.n.01_1",
            Spot("sandal.n.01_1", (0.0, -0.095, 0.005), 0.008),
            travel=0.24,
        ),
        Relocate(
            "book.n.02_1",
            "ontop",
            "table.n.02_1",
            Spot("table.n.02_1", (-0.13, 0.20, f.TABLE_TOP + 0.01), 0.03),
            travel=0.60,
            side="left",
            headings=(0.2, -0.3),
        ),
    ),
    "hanging_pictures": (
        Relocate(
            "poster.n.01_1",
            "attached",
            "wall_nail.n.01_1",
            Spot("wall_nail.n.01_1", (-0.02, 0.0, f.NAIL_HEIGHT - 0.22), 0.02),
            travel=0.78,
        ),
    ),
    "attach_a_camera_to_a_tripod": (
        Relocate(
            "digital_camera.n.01_1",
            "attached",
            "camera_tripod.n.01_1",
            Spot("camera_tripod.n.01_1", (0.0, 0.0, f.TRIPOD_TOP), 0.02),
            travel=0.68,
            headings=(0.3, -0.2),
        ),
    ),
}
"""Steps by task name."""
