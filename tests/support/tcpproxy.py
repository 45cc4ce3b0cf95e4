"""A proxy in front of a server that speaks over TCP: a database, a broker.

What happens to the connections through it is what networks and failing servers do to them: they are
refused, cut, slow or silent, and an answer is lost on its way. What is said is never changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass

from tests.support.own_loop import OwnLoop
from tests.support.ports import free_port

_CHUNK = 2**16


@dataclass(eq=False)
class Cut:
    """Connections that end in the midst of an answer; `hits` says how many have, until now.

    It is for the answer to what has a match of `pattern`, in one piece as it was sent: `skip` of
    them are left alone, `times` are cut off after `size` bytes. Where that is none, what was asked
    is done, and nobody is told.
    """

    pattern: bytes = b""
    size: int = 0
    skip: int = 0
    times: int | None = None
    hits: int = 0

    def takes(self, said: bytes) -> bool:
        """Whether the answer to what was said is to be cut off."""
        if self.hits == self.times or re.search(self.pattern, said, re.DOTALL) is None:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.hits += 1
        return True


class TcpProxy(OwnLoop):
    """A proxy to `host:port`, on a port of its own of the loopback.

        with TcpProxy("127.0.0.1", server.port) as proxy:
            client = redis.Redis(port=proxy.port)
            proxy.black_hole()
            ...
            proxy.restore()

    All that is set is in force on return, for the connections that are open too.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self.port = free_port()
        self._upstream = (host, port)
        self._links: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._weather = _Weather()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._links)

    def down(self) -> None:
        """Cut all connections and refuse new ones."""
        self._wait_for(self._down())

    def up(self) -> None:
        """Accept connections again."""
        self._wait_for(self._up())

    def black_hole(self) -> None:
        """Let nothing pass: connections are accepted and stay open, and neither side hears a word.

        What was said meanwhile arrives after `restore`, as it does after a network's partition,
        even if who said it has given up since.
        """
        self._wait_for(self._set(silent=True))

    def slow(self, seconds: float) -> None:
        """Let whatever is said take so long to arrive."""
        self._wait_for(self._set(delay=seconds))

    def cut(
        self, pattern: bytes = b"", *, after: int = 0, skip: int = 0, times: int | None = None
    ) -> Cut:
        """Cut connections off after so many bytes of the answer to what matches. See Cut."""
        cut = Cut(pattern, after, skip, times)
        self._wait_for(self._set(cut=cut))
        return cut

    def lose_reply(self, pattern: bytes, *, skip: int = 0, times: int | None = 1) -> Cut:
        """Pass on what matches, and cut the connection in place of its answer."""
        return self.cut(pattern, skip=skip, times=times)

    def cut_all(self) -> None:
        """End all open connections, as the restart of a load balancer does."""
        self._wait_for(self._cut_all())

    def switch(self, host: str, port: int) -> None:
        """Fail over to another server: open connections are cut, new ones lead there."""
        self._wait_for(self._switch(host, port))

    def restore(self) -> None:
        """End all faults; a `switch` is none."""
        self._wait_for(self._restore())

    # All that follows runs in the proxy's own loop.

    async def _start(self) -> None:
        await self._up()

    async def _up(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _down(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut_all()

    async def _cut_all(self) -> None:
        for task in list(self._links):
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _switch(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        await self._cut_all()

    async def _set(self, silent: bool = False, delay: float = 0.0, cut: Cut | None = None) -> None:
        self._weather.set(silent, delay, cut)

    async def _restore(self) -> None:
        self._weather.set()
        await self._up()

    async def _stop(self) -> None:
        await self._down()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.ensure_future(_Link(self._weather, reader, writer).run(*self._upstream))
        self._links.add(link)
        link.add_done_callback(self._links.discard)
        if self._server is None:  # it came in while the door was being shut
            link.cancel()
        await asyncio.wait([link])


class _Weather:
    """What happens now to what is said."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.cut: Cut | None = None
        self._open = asyncio.Event()
        self._open.set()

    def set(self, silent: bool = False, delay: float = 0.0, cut: Cut | None = None) -> None:
        self.delay, self.cut = delay, cut
        if silent:
            self._open.clear()
        else:
            self._open.set()

    async def pass_through(self) -> None:
        """Return once what was said before may arrive."""
        await asyncio.sleep(self.delay)
        await self._open.wait()


class _Link:
    """A client's connection, and the one to the server that is opened for it."""

    def __init__(
        self, weather: _Weather, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._weather = weather
        self._from_client, self._to_client = reader, writer
        self._left: int | None = None
        """How many bytes of the answer pass before the end; None while no end is in sight."""

    async def run(self, host: str, port: int) -> None:
        """Let them talk until one of them ends, or this is cancelled: then both end at once."""
        try:
            with contextlib.suppress(OSError):
                await self._weather.pass_through()
                await self._talk(*await asyncio.open_connection(host, port))
        finally:
            self._to_client.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pumps = [
            asyncio.ensure_future(self._ask(writer)),
            asyncio.ensure_future(self._tell(reader)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.transport.abort()

    async def _ask(self, writer: asyncio.StreamWriter) -> None:
        while chunk := await self._from_client.read(_CHUNK):
            await self._weather.pass_through()
            cut = self._weather.cut
            if cut is not None and self._left is None and cut.takes(chunk):
                self._left = cut.size
            writer.write(chunk)
            await writer.drain()
        # Its last words arrive as well, though nobody waits for an answer.
        await self._weather.pass_through()
        writer.close()
        await writer.wait_closed()

    async def _tell(self, reader: asyncio.StreamReader) -> None:
        while self._left != 0 and (chunk := await reader.read(_CHUNK)):
            await self._weather.pass_through()
            if self._left is not None:
                chunk = chunk[: self._left]
                self._left -= len(chunk)
            self._to_client.write(chunk)
            await self._to_client.drain()
        await self._weather.pass_through()
        self._to_client.close()
        await self._to_client.wait_closed()
