"""Names of our images as `images/docker-bake.hcl` builds them without a registry; profiles give their own."""

from importlib.metadata import version


def image(role: str) -> str:
    """The default reference of the image of a role: toolbox, trainer, evaluator or household."""
    return f"localhost/b1k/{role}:{version('b1k')}"
