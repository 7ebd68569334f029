"""The paths of the server, its limits on size and time, and its log.

============================ ==================================================================
POST /recommend              one question or many, see `jmrec.serving.server.requests`
GET  /items?offset=0&limit=  ids and titles of the catalogue
GET  /health                 what is served, and how fast it answered lately
GET  /schema                 the JSON schema of what /recommend takes
============================ ==================================================================

Whatever goes wrong is a status and ``{"error": "one sentence"}``. The log has a line for each
request, with its milliseconds, and nothing of what was asked: no id and no user.
"""

import asyncio
import contextlib
import ipaddress
import json
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from jmrec import __version__
from jmrec.errors import UserError
from jmrec.serving.server import requests
from jmrec.serving.server.holder import Holder

BODY = 1_000_000
"""The most bytes of a question."""
DRAINED = 16 * BODY
"""So many bytes of a question that is too large are read, so that its sender can read why."""
BODY_SECONDS, ANSWER_SECONDS, RENEW_SECONDS = 10.0, 30.0, 1.0
"""How long a body may take to come, and an answer; how often the folder is looked at."""
LATELY = 1000
"""Of so many answers /health tells the latency."""
PAGE = 1000
"""The most items of one page of /items."""
SENTENCES = {
    404: "there is no such path; there are /recommend, /items, /health and /schema.",
    405: "this path is asked in another way: POST /recommend, and GET for the others.",
}

Log = Callable[[str], None]


class App:
    """The server's paths over a holder of an artefact.

    Args:
      holder: What answers.
      log: Given a line for each request.
      local: Whether only this machine is to be answered: then a request that came by another
        name than its own is refused, so that no page in a browser can pass for it.
      answer_seconds: How long an answer may take.
      body_seconds: How long a body may take to come.
    """

    def __init__(
        self,
        holder: Holder,
        log: Log,
        local: bool = True,
        answer_seconds: float = ANSWER_SECONDS,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self.holder, self.log, self.local = holder, log, local
        self.answer_seconds, self.body_seconds = answer_seconds, body_seconds
        self.taken: deque[float] = deque(maxlen=LATELY)
        self.answered = 0
        # One thread: a model uses all cores for one answer, and ids are looked up under one lock.
        self.worker = ThreadPoolExecutor(1, "answers")

    def starlette(self) -> Starlette:
        """Return the ASGI application."""
        paths = {"/health": self.health, "/items": self.items, "/schema": self.schema}
        routes = [Route(path, self._told(what), methods=["GET"]) for path, what in paths.items()]
        routes.append(Route("/recommend", self._told(self.recommend), methods=["POST"]))
        made = Starlette(
            routes=routes,
            exception_handlers={HTTPException: self._told(self._no_path)},
            lifespan=self._lifespan,
        )
        made.router.redirect_slashes = False
        return made

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Any) -> AsyncIterator[None]:
        watch = asyncio.create_task(self._watch())
        yield
        watch.cancel()
        self.worker.shutdown(wait=False, cancel_futures=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                if await asyncio.to_thread(self.holder.renew):
                    held = self.holder.held
                    self.log(f"renewed: {held.version}, {len(held.served.ids)} items")
            except Exception:  # whatever it is, what is held goes on answering
                self.log(f"the artefact could not be renewed:\n{traceback.format_exc()}")

    # ---- paths ----------------------------------------------------------------------------------

    async def recommend(self, request: Request) -> Response:
        """Answer a question; see `jmrec.serving.server.requests`."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise HTTPException(415, "send JSON, with the header Content-Type: application/json.")
        body = await self._body(request)
        held = self.holder.held
        asked = asyncio.get_running_loop().run_in_executor(
            self.worker, partial(requests.answer, held.served, body)
        )
        try:
            found, count = await asyncio.wait_for(asked, self.answer_seconds)
        except TimeoutError:
            raise HTTPException(503, "too much is asked at once; ask again later.") from None
        request.state.count = count
        return Response(found, 200, {"x-artefact": held.version}, "application/json")

    async def health(self, _: Request) -> Response:
        """Say what is served, and how fast it answered lately."""
        held = self.holder.held
        lately = np.array(self.taken) if self.taken else np.full(1, np.nan)
        median, late = (float(np.quantile(lately, part)) for part in (0.5, 0.99))
        return _json(
            {
                "status": "ok",
                "jmrec": __version__,
                "artefact": held.version,
                "answers": requests.kinds(held.served)[1],
                "items": len(held.served.ids),
                "answered": self.answered,
                "median_ms": round(median, 3) if self.taken else None,
                "p99_ms": round(late, 3) if self.taken else None,
            }
        )

    async def items(self, request: Request) -> Response:
        """List ids and titles, a page at a time."""
        served = self.holder.held.served
        titles = served.titles
        offset = _number(request, "offset", 0, 0, 2**53)
        limit = _number(request, "limit", 100, 1, PAGE)
        return _json(
            {
                "total": len(served.ids),
                "offset": offset,
                "items": [
                    {"item_id": item, "title": title}
                    for item, title in zip(
                        served.ids[offset : offset + limit], titles[offset : offset + limit]
                    )
                ],
            }
        )

    async def schema(self, _: Request) -> Response:
        """Return the JSON schema of what may be asked."""
        return _json(requests.schema(self.holder.held.served))

    # ---- around every path ----------------------------------------------------------------------

    def _told(self, path: Callable[..., Any]) -> Callable[..., Any]:
        """Return a path that logs, and that turns whatever is wrong into one sentence."""

        async def told(request: Request, *more: Any) -> Response:
            begin = time.perf_counter()
            try:
                if self.local:
                    _check_host(request.headers.get("host", ""))
                if not more and request.scope["path"] not in PATHS:  # "/items" and a line feed
                    raise HTTPException(404, SENTENCES[404])
                response: Response = await path(request, *more)
            except HTTPException as error:
                response = _error(error.status_code, error.detail)
            except requests.Unreadable as error:
                response = _error(400, str(error))
            except UserError as error:
                response = _error(422, str(error))
            except ClientDisconnect:
                response = _error(400, "the request ended before its body did.")
            except Exception:
                self.log(traceback.format_exc())
                response = _error(500, "the server has a fault, which its log describes.")
            taken = 1e3 * (time.perf_counter() - begin)
            count = getattr(request.state, "count", 0)
            if count:
                self.taken.append(taken)
                self.answered += count
            known = asked if (asked := request.scope["path"]) in PATHS else "another path"
            of = f" for {count}" if count else ""
            self.log(f"{request.method[:8]} {known} {response.status_code} {taken:.2f} ms{of}")
            return response

        return told

    async def _no_path(self, _: Request, error: HTTPException) -> Response:
        return _error(error.status_code, SENTENCES.get(error.status_code, str(error.detail)))

    async def _body(self, request: Request) -> bytes:
        """Return the body.

        Raises:
          HTTPException: It is too large, or does not come.
        """
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size <= BODY:
                        parts.append(part)
                    elif size > DRAINED:
                        break
        except TimeoutError:
            raise HTTPException(408, "the body did not come in time; send it at once.") from None
        if size > BODY:
            raise HTTPException(413, f"a question has at most {BODY:,} bytes; ask for fewer.")
        return b"".join(parts)


PATHS = ("/recommend", "/items", "/health", "/schema")


def _json(value: Any) -> Response:
    return Response(json.dumps(value, allow_nan=False), 200, media_type="application/json")


def _error(status: int, sentence: str) -> Response:
    # Of a body that was not read to its end nothing more is read.
    headers = {"connection": "close"} if status not in (400, 422) else {}
    return Response(json.dumps({"error": sentence}), status, headers, "application/json")


def _number(request: Request, name: str, usual: int, least: int, most: int) -> int:
    word = request.query_params.get(name)
    if word is None:
        return usual
    if not (word.isascii() and word.isdigit() and len(word) < 17 and least <= int(word) <= most):
        raise UserError(f"{name} is {word[:40]!r}; give a whole number from {least} to {most}.")
    return int(word)


def _check_host(host: str) -> None:
    """Raise where a request came by a name that is not this machine's own.

    Raises:
      HTTPException: Always there.
    """
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if is_loopback(name.strip("[]")):
        return
    raise HTTPException(421, "this server answers for its own machine only: ask for localhost.")


def is_loopback(name: str) -> bool:
    """Return whether a name or an address is the machine's own.

    Example:
      >>> [is_loopback(name) for name in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "shop.com")]
      [True, True, True, False, False]
    """
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
