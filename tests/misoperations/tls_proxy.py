"""TLS in front of a server that has none, so that certificates can be right or wrong for it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

from tests.support.certificates import Certificate
from tests.support.own_loop import OwnLoop
from tests.support.ports import free_port

_CHUNK = 2**16
# What a client of PostgreSQL says first: its length, and which encryption it would like.
_SSL, _GSS = bytes.fromhex("0000000804d2162f"), bytes.fromhex("0000000804d21630")


class TlsProxy(OwnLoop):
    """Shows a certificate on a port of its own, and passes on what is said to `port`.

    `asked`: clients ask for TLS in the words of PostgreSQL before they begin with it.
    """

    def __init__(self, port: int, certificate: Certificate, folder: Path, *, asked: bool) -> None:
        super().__init__()
        self.port = free_port()
        self._upstream = port
        self._asked = asked
        file = folder / f"proxy-{self.port}.pem"
        file.touch(mode=0o600)
        file.write_bytes(certificate.pem + certificate.key)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(file)

    async def _start(self) -> None:
        tls = None if self._asked else self._tls
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=tls)

    async def _stop(self) -> None:
        self._server.close()
        links = asyncio.all_tasks() - {asyncio.current_task()}
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            if self._asked and not await self._agree(reader, writer):
                writer.close()
                return
            there, to_there = await asyncio.open_connection("127.0.0.1", self._upstream)
            ways = (_pass_on(reader, to_there), _pass_on(there, writer))
            await asyncio.gather(*ways, return_exceptions=True)

    async def _agree(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        while (request := await reader.readexactly(8)) == _GSS:
            writer.write(b"N")
        if request != _SSL:
            return False
        writer.write(b"S")
        await writer.drain()
        await writer.start_tls(self._tls)
        return True


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while said := await reader.read(_CHUNK):
            writer.write(said)
            await writer.drain()
    finally:
        writer.close()
