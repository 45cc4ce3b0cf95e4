"""A proxy in front of the API server that loses, delays, refuses and stalls what a test says.

HTTPS on both sides, HTTP/1.1; who asks is the client's bearer token, passed on. What arrived is
recorded, so that a test can tell what was asked of the API server, and when. Watches are to be in
JSON, one event to a line, as all clients but those written in Go ask for.
"""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from tests.support.certificates import make_certificate
from tests.support.faults import (
    Answer,
    Delay,
    Fault,
    Lag,
    LoseReply,
    LoseRequest,
    Request,
    Rule,
    Stale,
    Stall,
    WatchFault,
    problem,
)
from tests.support.own_loop import OwnLoop
from tests.support.ports import free_port

# What belongs to one connection, or is made anew for the next.
_NOT_PASSED_ON = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_LONGEST_EVENT = 2**24


class ApiProxy(OwnLoop):
    """A proxy to the API server of a kubeconfig.

        with ApiProxy(plane.kubeconfig(), tmp_path) as proxy:
            operator = start_operator(proxy.kubeconfig(plane.kubeconfig_for("operator")))
            lost = proxy.add(LoseReply(), method="POST", path="/jobs$", times=1)
            ...
            assert len(proxy.requests("POST", "/jobs$")) == 2

    The first rule that takes a request decides. All that is set is in force on return.
    """

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        super().__init__()
        self.port = free_port()
        self._folder = folder
        cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
        self._server = cluster["server"]
        self._upstream_tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self._certificate, key = make_certificate(folder)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(self._certificate, key)
        self._seen: list[Request] = []
        self._rules: list[Rule] = []
        self._ever: list[Rule] = []
        self._stale: dict[tuple[Rule, str], bytes] = {}
        self._watches: set[_Watch] = set()
        self._forwarding: set[asyncio.Task[web.Response]] = set()

    def kubeconfig(self, original: Path) -> Path:
        """The same user's kubeconfig, but for this proxy."""
        document = yaml.safe_load(original.read_text())
        document["clusters"][0]["cluster"] = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self._certificate),
        }
        path = self._folder / f"{original.stem}-by-proxy.kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return path

    def add(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        path: str = "",
        when: Callable[[Request], bool] = lambda request: True,
        times: int | None = None,
    ) -> Rule:
        """Let this happen to requests of this method whose path has a match of this pattern."""
        rule = Rule(fault, method, path, when, times)
        self._ever.append(rule)
        self._wait_for(self._add(rule))
        return rule

    def remove(self, *rules: Rule) -> None:
        """Let these happen no more; without any, none at all."""
        kept = [rule for rule in self._rules if rules and rule not in rules]
        self._wait_for(self._set(kept))

    def hits(self) -> int | None:
        """How many requests went wrong in all; None if nothing was ever to."""
        return sum(len(rule.hits) for rule in self._ever) if self._ever else None

    def requests(self, method: str | None = None, path: str = "") -> list[Request]:
        """What was asked until now, in the order in which it arrived."""
        return [request for request in self._seen if request.matches(method, path)]

    def down(self) -> None:
        """Cut all connections and refuse new ones."""
        self._wait_for(self._down())

    def up(self) -> None:
        """Accept connections again."""
        self._wait_for(self._up())

    # All that follows runs in the proxy's own loop.

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._upstream_tls),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=_NOT_ADDED,
            read_bufsize=_LONGEST_EVENT,
        )
        app = web.Application(client_max_size=_LONGEST_EVENT)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A handler ends with its client; what must outlive it is shielded.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        await self._up()

    async def _stop(self) -> None:
        await self._down()
        for task in self._forwarding:
            task.cancel()
        await self._runner.cleanup()
        await self._session.close()

    async def _up(self) -> None:
        if not self._runner.sites:
            await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls).start()

    async def _down(self) -> None:
        for site in list(self._runner.sites):
            await site.stop()
        for connection in self._runner.server.connections if self._runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()

    async def _set(self, rules: list[Rule]) -> None:
        self._rules = rules

    async def _add(self, rule: Rule) -> None:
        self._rules.append(rule)
        for watch in self._watches:
            if isinstance(rule.fault, WatchFault) and rule.takes(watch.request):
                watch.suffer(rule.fault)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        seen = Request(
            method=request.method,
            path=request.path,
            query=request.query,
            body=await request.read(),
            user_agent=request.headers.get("User-Agent", ""),
            time=time.time(),
            port=request.transport.get_extra_info("peername")[1] if request.transport else 0,
        )
        self._seen.append(seen)
        rule = next((rule for rule in self._rules if rule.takes(seen)), None)
        try:
            if rule is not None and isinstance(rule.fault, Stale):
                return await self._answer_as_before(request, seen, rule)
            return await self._answer(request, seen, rule.fault if rule else None)
        except aiohttp.ClientError:
            # The API server is away, and so must this be.
            return await _hang_up(request)

    async def _answer(
        self, request: web.Request, seen: Request, fault: Fault | None
    ) -> web.StreamResponse:
        if isinstance(fault, Answer):
            seen.status = fault.status
            return _refusal(fault)
        if isinstance(fault, LoseRequest):
            return await _hang_up(request, fault.seconds)
        delay = fault if isinstance(fault, Delay) else Delay()
        if seen.watch:
            await asyncio.sleep(delay.before)
            return await self._relay(request, seen, fault)
        answer = await self._forward(request, seen, delay)
        if isinstance(fault, LoseReply):
            return await _hang_up(request, fault.seconds)
        seen.status = answer.status
        return answer

    async def _answer_as_before(
        self, request: web.Request, seen: Request, rule: Rule
    ) -> web.StreamResponse:
        key = (rule, request.raw_path)
        if (body := self._stale.get(key)) is not None:
            seen.status = 200
            return web.Response(body=body, content_type="application/json")
        answer = await self._forward(request, seen, Delay())
        seen.status = answer.status
        if answer.status == 200 and isinstance(answer.body, bytes):
            self._stale[key] = answer.body
        return answer

    async def _forward(self, request: web.Request, seen: Request, delay: Delay) -> web.Response:
        task = asyncio.ensure_future(self._ask(request, seen, delay.before))
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)
        answer = await asyncio.shield(task)
        await asyncio.sleep(delay.after)
        return answer

    async def _ask(self, request: web.Request, seen: Request, before: float) -> web.Response:
        await asyncio.sleep(before)
        async with self._upstream(request, seen) as answer:
            body = await answer.read()
            seen.forwarded = answer.status
            return web.Response(status=answer.status, headers=_passed_on(answer.headers), body=body)

    async def _relay(
        self, request: web.Request, seen: Request, fault: Fault | None
    ) -> web.StreamResponse:
        async with self._upstream(request, seen) as answer:
            seen.forwarded = seen.status = answer.status
            response = web.StreamResponse(status=answer.status, headers=_passed_on(answer.headers))
            await response.prepare(request)
            watch = _Watch(seen, answer.content, response)
            if isinstance(fault, WatchFault):
                watch.suffer(fault)
            self._watches.add(watch)
            try:
                await watch.relay()
            finally:
                self._watches.discard(watch)
        return response

    def _upstream(
        self, request: web.Request, seen: Request
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._session.request(
            request.method,
            URL(self._server + request.raw_path, encoded=True),
            headers=_passed_on(request.headers),
            data=seen.body or None,
            allow_redirects=False,
        )


class _Watch:
    """An open watch: events are passed on one by one, at once, until a fault says otherwise."""

    def __init__(
        self, request: Request, events: aiohttp.StreamReader, response: web.StreamResponse
    ) -> None:
        self.request = request
        self._events = events
        self._response = response
        self._stalled = False
        self._lag = 0.0
        self._coming: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._now = asyncio.get_running_loop().time
        self._end: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def suffer(self, fault: WatchFault) -> None:
        if isinstance(fault, Stall):
            self._stalled = True
        elif isinstance(fault, Lag):
            self._lag = fault.seconds
        elif not self._end.done():
            self._end.set_result(fault.code)

    async def relay(self) -> None:
        pumps = [asyncio.ensure_future(self._receive()), asyncio.ensure_future(self._pass_on())]
        either: list[asyncio.Future[Any]] = [*pumps, self._end]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
        code = self._end.result() if self._end.done() else None
        if code is not None:
            event = {"type": "ERROR", "object": problem(code)}
            await self._response.write(json.dumps(event).encode() + b"\n")

    async def _receive(self) -> None:
        line: bytes | None = None
        while line != b"":  # an empty one is the end
            try:
                line = await self._events.readline()
            except (aiohttp.ClientError, ConnectionError):
                line = b""
            self._coming.put_nowait((self._now() + self._lag, line))
        await asyncio.Event().wait()

    async def _pass_on(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                due, line = await self._coming.get()
                await asyncio.sleep(due - self._now())
                if self._stalled:  # not even its end is heard
                    await asyncio.Event().wait()
                if not line:
                    return
                await self._response.write(line)


async def _hang_up(request: web.Request, seconds: float = 0.0) -> web.Response:
    await asyncio.sleep(seconds)
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _refusal(fault: Answer) -> web.Response:
    body = problem(fault.status, fault.reason)
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return web.json_response(body, status=fault.status, headers=headers)


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _NOT_PASSED_ON}
