"""The service's own server: uvicorn, with bounds that a stranger on the network cannot pass."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from segmentation import InputError
from segmentation.serving.service import build_app

MOST_CONNECTIONS = 500  # of more, one that waits for a request is closed for each new one
SWEEP = 100  # tenths of a second between two looks for connections on which nothing moves
# When the service is stopped: turns of the loop without a new connection or request, then the
# listener is closed, then as many again; seconds for each of the two; seconds to answer the rest.
QUIET, LINGER, GRACE = 5, 1.5, 6

log = logging.getLogger("segmentation.service")


def _waits(connection: Any) -> bool:
    """Whether a connection is between two requests, or in the midst of a request's head."""
    return connection.cycle is None or connection.cycle.response_complete


class Connection(HttpToolsProtocol):
    """A connection of uvicorn's, as long as there is room."""

    def connection_made(self, transport: Any) -> None:
        """Take a new one, at the cost of one that waits where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            others = (each for each in self.connections if each is not self and _waits(each))
            given_up = next(others, self)
            self.connections.discard(given_up)
            given_up.transport.abort()


class Server(uvicorn.Server):
    """uvicorn, which lets no connection stand still and resets none when it is stopped."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stood: dict[Any, Any] = {}

    async def on_tick(self, counter: int) -> bool:
        """Every ten seconds, close connections that sent no request and took no answer since."""
        if counter % SWEEP == 0:
            before, self._stood = self._stood, {}
            connections: Any = [*self.server_state.connections]
            for each in connections:
                unsent = each.transport.get_write_buffer_size()
                if unsent or _waits(each):
                    self._stood[each] = stands = each.cycle, unsent
                    if before.get(each) == stands:
                        each.transport.abort()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take the connections and then the requests that are on their way; then answer them."""
        self.server_state.default_headers.append((b"connection", b"close"))
        await self._linger()
        for server in self.servers:
            server.close()
        await self._linger()
        await super().shutdown(sockets)

    async def _linger(self) -> None:
        """Let the loop turn until nothing new has come for some turns; not for ever."""
        until, before, quiet = time.monotonic() + LINGER, set[Any](), 0
        while quiet < QUIET and time.monotonic() < until:
            await asyncio.sleep(0.02)
            connections: Any = self.server_state.connections
            now = {(each, each.cycle) for each in connections}
            quiet, before = (quiet + 1 if now <= before else 0), now


def serve(
    run: Path, *, host: str = "127.0.0.1", port: int = 8000, allowed: Iterable[str] = ()
) -> None:
    """Serve until a signal stops it; what is being answered is finished first.

    It answers to the names of this machine, to `host` and to the `allowed` ones.

    Raises
    ------
    InputError
        The address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        told = getattr(error, "strerror", "") or str(error)
        raise InputError(f"{host}:{port}: {told}; name another by --host or --port.") from None
    options: Any = {"log_config": None, "access_log": False, "server_header": False}
    options |= {"http": Connection, "ws": "none", "timeout_graceful_shutdown": GRACE}
    named = f"[{host}]" if ":" in host else host
    app = build_app(run, [named, socket.gethostname(), *allowed])
    with listener:
        log.info("http://%s:%d/", named, listener.getsockname()[1])
        Server(uvicorn.Config(app, **options)).run([listener])
