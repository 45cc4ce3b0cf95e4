"""A server some way off: a TCP proxy that hands on what it gets only after a while.

It delays and limits nothing: bytes wait for their time in a queue without bounds, while those
behind them are read. It is a process of its own, since in ours it would compete with what is
measured for Python's lock.
"""

import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from statistics import median

from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.waiting import eventually

PINGS = 200
_BYTES_AT_ONCE = 256 * 1024


@contextmanager
def away(port: int, round_trip: float) -> Iterator[int]:
    """A port of the loopback which leads to `port`, a round trip of so many seconds further off."""
    near = free_port()
    arguments = (str(near), str(port), str(round_trip / 2))
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "proxy.log"
        with Process([sys.executable, "-m", __name__, *arguments], log=log) as proxy:
            eventually(lambda: _listens(near), message=f"the proxy listens: {proxy.log()}")
            yield near


def ping(port: int) -> float:
    """The seconds in which the Redis at this port answers; the median of many."""
    samples = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(PINGS):
            started = time.perf_counter()
            connection.sendall(b"PING\r\n")
            assert connection.recv(100) == b"+PONG\r\n"
            samples.append(time.perf_counter() - started)
    return median(samples)


def own_round_trip(redis_port: int) -> float:
    """The seconds that the proxy itself adds where it is to add none: take them off."""
    with away(redis_port, 0.0) as near:
        return ping(near) - ping(redis_port)


def _listens(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def _serve(near: int, far: int, delay: float) -> None:
    with socket.create_server(("127.0.0.1", near)) as server:
        while True:
            client, _ = server.accept()
            upstream = socket.create_connection(("127.0.0.1", far))
            for each in (client, upstream):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _hand_on(client, upstream, delay)
            _hand_on(upstream, client, delay)


def _hand_on(source: socket.socket, sink: socket.socket, delay: float) -> None:
    """One direction of a connection, in two threads: none that writes keeps it from reading."""
    under_way: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
    for work in (_receive, _deliver):
        other = source if work is _receive else sink
        threading.Thread(target=work, args=(other, under_way, delay), daemon=True).start()


def _receive(
    source: socket.socket, under_way: SimpleQueue[tuple[float, bytes]], delay: float
) -> None:
    received = b"any"
    while received:
        try:
            received = source.recv(_BYTES_AT_ONCE)
        except OSError:
            received = b""
        under_way.put((time.perf_counter() + delay, received))


def _deliver(
    sink: socket.socket, under_way: SimpleQueue[tuple[float, bytes]], delay: float
) -> None:
    with suppress(OSError):
        while True:
            due, received = under_way.get()
            time.sleep(max(0.0, due - time.perf_counter()))
            if not received:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(received)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
