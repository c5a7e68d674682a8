"""Ports that follow each other, for evaluators that want an endpoint per environment."""

from collections.abc import Awaitable, Callable

from websockets.asyncio.server import Server

_ATTEMPTS = 20


async def listen(serve: Callable[[int], Awaitable[Server]], port: int, ports: int) -> list[Server]:
    """Servers at `ports` ports from `port` on, all or none.

    Args:
        serve: starts a server at a port.
        port: the first port; 0 takes free ones.
        ports: how many.

    Raises:
        OSError: a port is taken, or may not be used.
    """
    problem = OSError()
    for _ in range(_ATTEMPTS):
        servers: list[Server] = []
        number = port
        try:
            for number in range(port, port + ports):
                first = servers[0].sockets[0].getsockname()[1] if servers else port
                servers.append(await serve(first + number - port))
            return servers
        except (OSError, OverflowError) as error:  # Python's own for a port above 65535
            problem = OSError(f"port {number}: {error}")
            problem.__cause__ = error
            for server in servers:
                server.close()
                await server.wait_closed()
            if port:
                break
            # the ports after a free one may be taken: try others
    raise problem
