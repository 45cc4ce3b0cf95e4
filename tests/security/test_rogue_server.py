"""A server of MySQL's that asks its client for files, as the protocol lets it: it gets none."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sources import failure

# Protocol 4.1, with a database, passwords by plugin, and LOAD DATA LOCAL.
_CAPABILITIES = 0x0000_0200 | 0x0000_0008 | 0x0000_8000 | 0x0008_0000 | 0x0000_0080
_OK = b"\0\0\0\2\0\0\0"


class Rogue:
    """Lets everybody in, and answers each question by asking for `file`; keeps what it is told."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.told = b""
        self.asked = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.sendall(_packet(0, _greeting()))
            client.recv(65536)
            client.sendall(_packet(2, _OK))
            while data := client.recv(65536):
                self.told += data
                self.asked += 1
                client.sendall(_packet(1, b"\xfb" + str(self._file).encode()))


def _packet(number: int, payload: bytes) -> bytes:
    return struct.pack("<I", len(payload))[:3] + bytes([number]) + payload


def _greeting() -> bytes:
    low, high = _CAPABILITIES & 0xFFFF, _CAPABILITIES >> 16
    middle = struct.pack("<HBHHB10x", low, 45, 2, high, 21)
    salt = b"12345678\0", b"123456789012\0"
    return b"\x0a8.0.40\0\1\0\0\0" + salt[0] + middle + salt[1] + b"mysql_native_password\0"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("the-operators-own-token")
    return file


@pytest.fixture
def rogue(secret: Path) -> Iterator[Rogue]:
    rogue = Rogue(secret)
    yield rogue
    rogue.close()


def test_a_server_that_asks_for_a_file_gets_none(rogue: Rogue) -> None:
    error = failure(f"mysql://app:x@127.0.0.1:{rogue.port}/app", "SELECT 1 AS id")

    assert rogue.asked, "it was connected to, and asked for the file"
    assert b"the-operators-own-token" not in rogue.told
    assert error.reason in ("DatabaseUnreachable", "QueryFailed")
    assert f"127.0.0.1:{rogue.port}" in str(error)
