"""Names of our images, as `images/docker-bake.hcl` builds them."""

from importlib.metadata import version


def image(role: str, registry: str = "") -> str:
    """The reference of the image of a role: toolbox, trainer, evaluator or household.

    `registry` is what comes before its name; `localhost/b1k` where it is empty.
    """
    return f"{registry.rstrip('/') or 'localhost/b1k'}/{role}:{version('b1k')}"
