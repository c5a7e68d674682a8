"""Serve the results of a workspace in the browser: leaderboards, runs, comparisons, labels.

Without --user-header only this machine is served. A proxy that asks for a login names the user in a header;
whoever can reach the server past the proxy could name anybody, so let nobody else reach it.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import UserError
from components.results.labels import FOLDER
from components.store.s3 import SCHEME

if TYPE_CHECKING:
    from components.results.bucket import Bucket

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Options:
    """Serve the results of a workspace in the browser: leaderboards, runs, comparisons, labels."""

    workspace: str = "workspace"
    """A workspace, another folder with leaderboards, or s3://BUCKET/PREFIX. Nothing in it is changed but
    labels."""
    host: str = "127.0.0.1"
    """Address to listen at; others than this machine's need --user-header."""
    port: int = 8080
    """Port to listen at; 0 takes a free one."""
    user_header: str = ""
    """Header in which a proxy names the user who has logged in, such as X-Forwarded-User."""
    labels: Path | None = None
    """Folder of the labels; by default `labels` in the workspace, for S3 in the current folder."""

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        if not self.workspace.startswith(SCHEME) and not Path(self.workspace).is_dir():
            raise UserError(
                f"{self.workspace} is not a folder; expected a workspace, one with leaderboards, or "
                "s3://BUCKET/PREFIX"
            )
        if self.host not in _LOOPBACK and not self.user_header:
            raise UserError(
                f"--host {self.host} is reached from other machines; name the header of a proxy that asks "
                "for a login (--user-header), or leave the host at 127.0.0.1 and use a tunnel"
            )
        if not 0 <= self.port < 2**16:
            raise UserError(f"--port {self.port}: expected 0 to 65535")


def run(options: Options) -> int:
    """Serve until interrupted; returns exit code 0."""
    if not options.workspace.startswith(SCHEME):
        root = Path(options.workspace).resolve()
        return _serve(options, root, options.labels or root / FOLDER)
    from components.results.bucket import Bucket

    with tempfile.TemporaryDirectory(prefix="b1k-results-") as folder:
        root = Path(folder).resolve() / (options.workspace.rstrip("/").rpartition("/")[2])
        root.mkdir()
        return _serve(options, root, options.labels or Path(FOLDER), Bucket(options.workspace, root))


def _serve(options: Options, root: Path, labels: Path, bucket: "Bucket | None" = None) -> int:
    import socket

    import uvicorn

    from components.results.app import Place, make_app

    place = Place(root, labels.resolve(), options.user_header, bucket)
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
    except OSError as error:
        raise UserError(
            f"cannot listen at {options.host}:{options.port}: {error.strerror}; give another --port"
        ) from error
    shown = f"[{options.host}]" if ":" in options.host else options.host
    print(
        f"results of {options.workspace if bucket else root} at http://{shown}:{listener.getsockname()[1]}/",
        flush=True,
    )
    config = uvicorn.Config(
        make_app(place),
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=1000,
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0
