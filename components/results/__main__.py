"""`python -m components.results`: as `b1k results serve`, in images that have no `b1k`."""

import sys

import tyro

from components.errors import UserError
from components.results.serving import Options, run

if __name__ == "__main__":
    try:
        sys.exit(run(tyro.cli(Options)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
