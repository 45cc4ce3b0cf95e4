"""Servers that are not what a client takes them for, on the loopback.

with Impostors() as impostors:
    url = f"redis://{impostors.http}/0"
"""

import contextlib
import random
import socket
import threading
from collections.abc import Callable
from typing import Self

from tests.support.ports import free_port

_ERROR = b"-ERR unknown command, with args: "
_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104


class Impostors:
    """One server of each kind, at `127.0.0.1:PORT`; they end with the block.

    `refused`: nobody listens. `hole`: accepts, and never says a word. `closes`: at once. `http`: a
    web server. `noise`: bytes without a meaning. `echo`: says again what it was told, in a line.
    `tattler` and `pg_tattler` refuse, and quote all that they were told, the password too, as Redis
    and as PostgreSQL; `gossip` quotes the first bytes only.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._closed = False
        self.refused = f"127.0.0.1:{free_port()}"
        self.hole = self._serve(_say_nothing)
        self.closes = self._serve(lambda connection: None)
        self.http = self._serve(_speak_http)
        self.noise = self._serve(_make_noise)
        self.echo = self._serve(lambda connection: _quote(connection, b"You said: ", 4096))
        self.tattler = self._serve(lambda connection: _quote(connection, _ERROR, 4096))
        self.gossip = self._serve(lambda connection: _quote(connection, _ERROR, 100))
        self.pg_tattler = self._serve(_quote_as_postgresql)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            sockets = list(self._sockets)
        for each in sockets:
            # Whoever waits for it is told; who has ended does not mind.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve(self, talk: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self._sockets.append(listener)
        threading.Thread(target=self._accept, args=(listener, talk), daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    def _accept(self, listener: socket.socket, talk: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection, talk), daemon=True).start()

    def _talk(self, connection: socket.socket, talk: Callable[[socket.socket], None]) -> None:
        with self._lock:
            if self._closed:
                connection.close()
                return
            self._sockets.append(connection)
        with connection, contextlib.suppress(OSError):
            talk(connection)


def _say_nothing(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def _speak_http(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nBad\r\n")
    _say_nothing(connection)


def _make_noise(connection: socket.socket) -> None:
    connection.sendall(random.Random(7).randbytes(2000))
    _say_nothing(connection)


def _quote(connection: socket.socket, begin: bytes, length: int) -> None:
    while told := connection.recv(4096):
        words = b" ".join(told.split(b"\r\n"))
        connection.sendall(begin + words[:length] + b"\r\n")


def _quote_as_postgresql(connection: socket.socket) -> None:
    """Ask for the password in plain text, and say in the error what it was."""
    with connection.makefile("rb") as told:
        if not (greeting := _greeting(connection, told.read)):
            return
        connection.sendall(b"R" + (8).to_bytes(4) + (3).to_bytes(4))
        told.read(1)
        password = told.read(int.from_bytes(told.read(4)) - 4).rstrip(b"\0")
    said = greeting.replace(b"\0", b" ") + b" gave " + password
    fields = b"SFATAL\0VFATAL\0CXX000\0M" + said + b"\0\0"
    connection.sendall(b"E" + (len(fields) + 4).to_bytes(4) + fields)


def _greeting(connection: socket.socket, read: Callable[[int], bytes]) -> bytes:
    """What a client says of itself, once it has been told that there is no encryption."""
    while length := int.from_bytes(read(4)):
        said = read(length - 4)
        if int.from_bytes(said[:4]) not in (_SSL_REQUEST, _GSS_REQUEST):
            return said[4:]
        connection.sendall(b"N")
    return b""
