"""Exit codes and progress of both commands."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

USER_ERROR = 2
"""Exit code for a mistake of the user's; our own failures end with 1."""


class UserError(Exception):
    """A mistake of the user's: the message says what was given, what was expected, and what to do."""


def run(main: Callable[[], None]) -> None:
    """Run a command and turn its failures into one clear line and an exit code.

    Args:
        main: the command.

    Raises:
        SystemExit: code 2 for a `UserError`, 1 for a failed connection or file, 130 for Ctrl-C.
    """
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from None
    except (ConnectionError, TimeoutError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; start the same command again to continue", file=sys.stderr)
        raise SystemExit(130) from None


@contextmanager
def progress(label: str, total: int, done: int) -> Iterator[Callable[[str], None]]:
    """Show progress: a bar on a terminal, plain lines otherwise.

    Args:
        label: what is counted.
        total: how many there will be.
        done: how many there are already.

    Yields:
        A function to call with a short text whenever one more is done.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            job = bar.add_task(label, total=total, completed=done)
            yield lambda text: bar.update(job, advance=1, description=f"{label} ({text})")
        return
    count = done

    def plain(text: str) -> None:
        nonlocal count
        count += 1
        print(f"{label}: {count}/{total} ({text})", file=sys.stderr, flush=True)

    yield plain
