"""Furniture and containers that stand where an instance puts them; frames on the floor, metres."""

from household.objects import Cavity, Kind
from household.shapes import box, cylinder, ellipsoid, rod, tray

BIN_RADIUS = 0.17
"""Inner radius of the ashcan."""
BIN_HEIGHT = 0.34
TABLE_TOP = 0.45
"""Height of a table.n.02."""
BED_TOP = 0.42
TOY_BOX = (0.17, 0.15, 0.14)
"""Inner half-sizes and height of the rim."""
BOX = (0.17, 0.15, 0.24)
BASKET = (0.17, 0.17, 0.08)
SHELF_HEIGHT = 0.38
"""Height of the bookcase's board that the books stand on."""
CABINET_TOP = 0.45
RACK_HEIGHT = 0.20
COFFEE_TABLE_TOP = 0.42
FRIDGE_SHELF = 0.45
FRIDGE_DOOR = 0.42
"""Length of the refrigerator's door."""
FRIDGE_HINGE = (-0.21, 0.21)
"""Where the door's hinge is in the refrigerator's frame."""
TRIPOD_TOP = 0.55
COUNTER_TOP = 0.42
NAIL_HEIGHT = 0.70


def _legs(x: float, y: float, height: float, tint: str) -> str:
    return "".join(
        cylinder(0.02, height / 2, (sx * x, sy * y, height / 2), tint) for sx in (1, -1) for sy in (1, -1)
    )


def _bin(name: str) -> str:
    del name
    count, thickness = 16, 0.006
    half_width = (BIN_RADIUS + thickness) * 3.1416 / count * 1.05
    staves = "".join(
        f'<geom type="box" size="{thickness} {half_width:.4f} {BIN_HEIGHT / 2}"'
        f' pos="{BIN_RADIUS + thickness} 0 {BIN_HEIGHT / 2}" rgba="0.10 0.25 0.80 1" class="solid"/>'.join(
            (f'<body euler="0 0 {6.28319 * i / count:.5f}">', "</body>")
        )
        for i in range(count)
    )
    return f"""
    <geom type="cylinder" size="{BIN_RADIUS} 0.008" pos="0 0 0.012" rgba="0.05 0.10 0.35 1" class="solid"/>
    {staves}"""


def _table(name: str) -> str:
    del name
    top = box((0.26, 0.40, 0.02), (0, 0, TABLE_TOP - 0.02), "pine", "solid")
    return top + _legs(0.23, 0.37, TABLE_TOP - 0.04, "wood")


def _bed(name: str) -> str:
    del name
    frame = box((0.42, 0.40, 0.08), (0, 0, 0.22), "walnut")
    mattress = box((0.40, 0.38, 0.06), (0, 0, BED_TOP - 0.06), "white", "solid")
    blanket = box((0.30, 0.387, 0.065), (-0.11, 0, BED_TOP - 0.061), "sky")
    pillow = ellipsoid((0.09, 0.22, 0.05), (0.30, 0, BED_TOP + 0.02), "white")
    headboard = box((0.02, 0.42, 0.35), (0.43, 0, 0.40), "walnut")
    return frame + mattress + blanket + pillow + headboard + _legs(0.38, 0.36, 0.15, "walnut")


def _toy_box(name: str) -> str:
    del name
    x, y, height = TOY_BOX
    stars = (box((0.001, 0.025, 0.025), (-x - 0.021, at, height / 2), "yellow") for at in (-0.08, 0.0, 0.08))
    return tray((x, y), height, 0.01, "red") + "".join(stars)


def _box(name: str) -> str:
    del name
    x, y, height = BOX
    flaps = "".join(
        box((0.06, y, 0.003), (s * (x + 0.06), 0, height - 0.03), "straw", extra=f'euler="0 {s * 0.5} 0"')
        for s in (1, -1)
    )
    return tray((x, y), height, 0.008, "cardboard") + flaps


def _basket(name: str) -> str:
    del name
    x, y, height = BASKET
    band = box((x + 0.018, y + 0.018, 0.006), (0, 0, 0.02), "wood")
    handle = "".join(
        rod((0.15, a, za), (0.15, b, zb), 0.008, "wood")
        for a, za, b, zb in (
            (-y, height, -y * 0.6, 0.2),
            (-y * 0.6, 0.2, y * 0.6, 0.2),
            (y * 0.6, 0.2, y, height),
        )
    )
    return tray((x, y), height, 0.008, "straw") + band + handle


def _bookcase(name: str) -> str:
    del name
    boards = box((0.12, 0.36, 0.012), (0, 0, SHELF_HEIGHT - 0.012), "wood", "solid")
    boards += box((0.12, 0.36, 0.012), (0, 0, 0.06), "wood")
    back = box((0.008, 0.36, 0.30), (0.125, 0, 0.30), "walnut", "solid")
    ends = "".join(box((0.13, 0.012, 0.23), (0, s * 0.37, 0.23), "wood", "solid") for s in (1, -1))
    tints = ("red", "green", "yellow", "purple", "blue", "orange", "grey")
    rest = "".join(
        box(
            (0.08, 0.025, 0.09 + 0.01 * (i % 3)), (0.02, -0.3 + 0.06 * i, 0.16 + 0.01 * (i % 3)), tints[i % 7]
        )
        for i in range(9)
    )
    return boards + back + ends + rest


def _tree(name: str) -> str:
    del name
    trunk = cylinder(0.07, 0.75, (0, 0, 0.75), "walnut", "solid")
    roots = cylinder(0.09, 0.02, (0, 0, 0.02), "walnut")
    crowns = (((0.36, 0.36, 0.30), (0, 0, 1.75)), ((0.25, 0.25, 0.22), (0.05, 0.1, 2.05)))
    return trunk + roots + "".join(ellipsoid(half, at, "leaf") for half, at in crowns)


def _sink(name: str) -> str:
    del name
    pedestal = cylinder(0.07, 0.34, (0.05, 0, 0.34), "white", "solid")
    basin = box((0.18, 0.25, 0.06), (0, 0, 0.74), "white", "solid")
    bowl = ellipsoid((0.12, 0.18, 0.01), (-0.02, 0, 0.798), "sky")
    tap = rod((0.14, 0, 0.78), (0.14, 0, 0.94), 0.012, "steel")
    spout = rod((0.14, 0, 0.94), (0.02, 0, 0.92), 0.01, "steel")
    return pedestal + basin + bowl + tap + spout


def _cabinet(name: str) -> str:
    del name
    half = CABINET_TOP / 2
    body = box((0.18, 0.30, half), (0, 0, half), "cream", "solid")
    doors = "".join(box((0.004, 0.135, half - 0.05), (-0.182, s * 0.145, half), "white") for s in (1, -1))
    knobs = "".join(ellipsoid((0.012,) * 3, (-0.192, s * 0.03, half + 0.05), "steel") for s in (1, -1))
    return body + doors + knobs


def _hallstand(name: str) -> str:
    del name
    shelf = box((0.14, 0.36, 0.012), (0, 0, RACK_HEIGHT - 0.012), "pine", "solid")
    ends = "".join(box((0.14, 0.012, 0.10), (0, s * 0.36, 0.10), "wood") for s in (1, -1))
    back = box((0.01, 0.36, 0.65), (0.20, 0, 0.65), "wood")
    hooks = (rod((0.19, y, 1.1), (0.13, y, 1.14), 0.012, "steel") for y in (-0.24, -0.08, 0.08, 0.24))
    return shelf + ends + back + "".join(hooks)


def _coffee_table(name: str) -> str:
    del name
    top = box((0.24, 0.28, 0.02), (0, 0, COFFEE_TABLE_TOP - 0.02), "walnut", "solid")
    return top + _legs(0.21, 0.25, COFFEE_TABLE_TOP - 0.04, "dark")


def _refrigerator(name: str) -> str:
    walls = box((0.01, 0.22, 0.55), (0.19, 0, 0.55), "steel", "solid")
    walls += "".join(box((0.20, 0.01, 0.55), (0, s * 0.21, 0.55), "steel", "solid") for s in (1, -1))
    walls += box((0.20, 0.22, 0.01), (0, 0, 1.09), "steel") + box((0.19, 0.20, 0.2), (0, 0, 0.21), "grey")
    walls += box((0.002, 0.20, 0.33), (0.178, 0, 0.75), "white")
    shelf = box((0.17, 0.20, 0.008), (0.0, 0, FRIDGE_SHELF - 0.008), "white", "solid")
    length = FRIDGE_DOOR
    x, y = FRIDGE_HINGE
    door = f"""
    <body name="{name}_door" pos="{x} {y} 0">
      <joint name="{name}_door" type="hinge" axis="0 0 -1" range="0 2.2" damping="1.5" frictionloss="0.3"
        armature="0.05"/>
      {box((0.015, length / 2, 0.54), (-0.015, -length / 2, 0.55), "steel", "solid", mass=4)}
      {box((0.004, length / 2 - 0.02, 0.5), (0.003, -length / 2, 0.55), "white")}
      {rod((-0.05, 0.04 - length, 0.45), (-0.05, 0.04 - length, 0.85), 0.01, "dark")}
    </body>"""
    return walls + shelf + door


def _tripod(name: str) -> str:
    del name
    hub = TRIPOD_TOP - 0.06
    feet = ((0.17, 0.0), (-0.09, 0.15), (-0.09, -0.15))
    legs = "".join(rod((0, 0, hub), (x, y, 0.01), 0.012, "dark") for x, y in feet)
    column = cylinder(0.015, 0.03, (0, 0, TRIPOD_TOP - 0.035), "grey")
    return legs + column + cylinder(0.04, 0.005, (0, 0, TRIPOD_TOP - 0.005), "orange", "solid")


def _countertop(name: str) -> str:
    del name
    top = box((0.15, 0.55, 0.02), (0, 0, COUNTER_TOP - 0.02), "grey", "solid")
    base = box((0.14, 0.54, (COUNTER_TOP - 0.04) / 2), (0.01, 0, (COUNTER_TOP - 0.04) / 2), "white")
    lines = "".join(box((0.002, 0.003, 0.17), (-0.131, y, 0.2), "grey") for y in (-0.27, 0.0, 0.27))
    return top + base + lines


def _nail(name: str) -> str:
    del name
    wall = box((0.01, 0.30, 0.45), (0.03, 0, NAIL_HEIGHT + 0.02), "white")
    shaft = rod((0.02, 0, NAIL_HEIGHT), (-0.012, 0, NAIL_HEIGHT + 0.006), 0.006, "dark")
    return wall + shaft + ellipsoid((0.004, 0.014, 0.014), (-0.014, 0, NAIL_HEIGHT + 0.006), "red")


FURNISHINGS: dict[str, Kind] = {
    "ashcan.n.01": Kind(
        _bin,
        (-0.182, -0.182, 0.0),
        (0.182, 0.182, BIN_HEIGHT),
        cavity=Cavity((0, 0, 0), (0, 0, BIN_HEIGHT), BIN_RADIUS),
    ),
    "table.n.02": Kind(_table, (-0.26, -0.40, 0), (0.26, 0.40, TABLE_TOP), top=TABLE_TOP, clearance=0.41),
    "bed.n.01": Kind(_bed, (-0.42, -0.40, 0), (0.45, 0.40, 0.75), top=BED_TOP, clearance=0.14),
    "toy_box.n.01": Kind(
        _toy_box,
        (-0.19, -0.17, 0),
        (0.19, 0.17, TOY_BOX[2]),
        cavity=Cavity((-0.17, -0.15, 0.0), (0.17, 0.15, TOY_BOX[2])),
    ),
    "box.n.01": Kind(
        _box,
        (-0.186, -0.166, 0),
        (0.186, 0.166, BOX[2]),
        cavity=Cavity((-0.17, -0.15, 0.0), (0.17, 0.15, BOX[2])),
    ),
    "wicker_basket.n.01": Kind(
        _basket,
        (-0.186, -0.186, 0),
        (0.186, 0.186, BASKET[2]),
        cavity=Cavity((-0.17, -0.17, 0.0), (0.17, 0.17, BASKET[2])),
    ),
    "bookcase.n.01": Kind(
        _bookcase,
        (-0.12, -0.382, 0),
        (0.133, 0.382, 0.6),
        cavity=Cavity((-0.12, -0.36, SHELF_HEIGHT), (0.12, 0.36, 0.6)),
        top=SHELF_HEIGHT,
    ),
    # A tree's box is its trunk: an object under the crown is not in the tree.
    "tree.n.01": Kind(_tree, (-0.07, -0.07, 0), (0.07, 0.07, 1.5)),
    "sink.n.01": Kind(_sink, (-0.18, -0.25, 0), (0.18, 0.25, 0.80), clearance=0.68),
    "cabinet.n.01": Kind(_cabinet, (-0.18, -0.30, 0), (0.18, 0.30, CABINET_TOP), top=CABINET_TOP),
    "hallstand.n.01": Kind(_hallstand, (-0.14, -0.372, 0), (0.21, 0.372, 1.3), top=RACK_HEIGHT),
    "coffee_table.n.01": Kind(
        _coffee_table, (-0.24, -0.28, 0), (0.24, 0.28, COFFEE_TABLE_TOP), top=COFFEE_TABLE_TOP, clearance=0.38
    ),
    "electric_refrigerator.n.01": Kind(
        _refrigerator,
        (-0.20, -0.22, 0),
        (0.20, 0.22, 1.1),
        cavity=Cavity((-0.20, -0.20, FRIDGE_SHELF), (0.18, 0.20, 1.08)),
        door="door",
    ),
    "camera_tripod.n.01": Kind(
        _tripod, (-0.10, -0.16, 0), (0.18, 0.16, TRIPOD_TOP), socket=(0, 0, TRIPOD_TOP)
    ),
    "countertop.n.01": Kind(_countertop, (-0.15, -0.55, 0), (0.15, 0.55, COUNTER_TOP), top=COUNTER_TOP),
    "wall_nail.n.01": Kind(
        _nail,
        (-0.02, -0.02, NAIL_HEIGHT - 0.01),
        (0.02, 0.02, NAIL_HEIGHT + 0.02),
        socket=(0, 0, NAIL_HEIGHT),
    ),
}
"""Kinds by category."""
