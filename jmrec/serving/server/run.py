"""The process that serves: sockets, signals, and requests that never end."""

import asyncio
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from jmrec.errors import UserError
from jmrec.serving.server.app import App, is_loopback
from jmrec.serving.server.holder import Holder

HEADER_SECONDS, IDLE_SECONDS, STOP_SECONDS = 10.0, 30, 10
"""How long the headers of a request may take, a connection may wait for its next request, and
requests may take to end once the server is told to stop."""
HEADER_BYTES = 16_384
CONNECTIONS = 512
"""More at a time are answered with 503."""


class Protocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose headers do not come to an end.

    uvicorn waits for them for ever.
    """

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for headers."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read, and wait on where headers have begun and not ended."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._late is None and self.conn.trailing_data[0]:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong as the application says it, and end the connection."""
        if self.conn.our_state is h11.IDLE or self.conn.our_state is h11.SEND_RESPONSE:
            body = json.dumps({"error": f"{msg.rstrip('.')}; send HTTP/1.1."}).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            for event in (
                h11.Response(status_code=400, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(HEADER_SECONDS, self._end)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn, which ends well by SIGTERM and Ctrl-C: that is how a server is stopped."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop when what is asked is answered; by a second Ctrl-C at once."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
      UserError: The address is taken, or is none of this machine.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UserError(f"{host} is no address of this machine ({error}); name another.") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(CONNECTIONS)
    except OSError as error:
        found.close()
        raise UserError(
            f"port {port} of {host} can not be used ({error.strerror}); name another."
        ) from None
    return found


def make_server(app: App) -> Server:
    """Return a server of an application; ``run`` it with the sockets of `listen`."""
    return Server(
        uvicorn.Config(
            app.starlette(),
            http=Protocol,
            ws="none",
            loop="asyncio",
            log_config=None,
            log_level="critical",  # the application logs
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
            h11_max_incomplete_event_size=HEADER_BYTES,
        )
    )


def serve_http(
    folder: Path,
    host: str,
    port: int,
    policy: Path | None,
    verdicts: Path | None,
    log: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Serve an artefact until SIGTERM or Ctrl-C.

    Args:
      folder: What `jmrec export` wrote.
      host: The address to listen on.
      port: 0 is any that is free.
      policy: A policy file in place of the artefact's lists, or None.
      verdicts: The same of verdicts.
      log: Given a line for the start, for each request and for the end.
      warn: Told of what is wrong and ends nothing.

    Raises:
      UserError: The artefact or a file can not be served, or the address not be used.
    """
    taken = listen(host, port)  # a port that is taken is told before anything is loaded
    with taken:
        holder = Holder(folder, policy, verdicts, warn)
        app = App(holder, log, local=is_loopback(host))
        address, held = taken.getsockname(), holder.held
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        log(f"{held.version}, {len(held.served.ids)} items, at http://{shown}:{address[1]}")
        server = make_server(app)
        server.run(sockets=[taken])
        log(f"stopped after {app.answered} answers")
