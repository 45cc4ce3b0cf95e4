"""The sockets beneath drivers' connections: what came over one, and how to have it end."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

# Linux' struct tcp_info: tcpi_bytes_received, 64 bits.
_BYTES_RECEIVED = 128


def bytes_received(descriptor: int) -> int | None:
    """How much has come since it was connected; None where the system does not say."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return None
    try:
        with _copy(descriptor) as copy:
            told = copy.getsockopt(socket.IPPROTO_TCP, option, _BYTES_RECEIVED + 8)
        (received,) = struct.unpack_from("=Q", told, _BYTES_RECEIVED)
    except (OSError, struct.error):
        return None  # not TCP, or not Linux
    return int(received)


def shut_down(descriptor: int) -> None:
    """Have every call end that waits for it: a server gone without a word is waited for for ever.

    Raises OSError if it is closed already.
    """
    with _copy(descriptor) as copy:
        copy.shutdown(socket.SHUT_RDWR)


@contextmanager
def _copy(descriptor: int) -> Iterator[socket.socket]:
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        yield copy
