"""Free TCP ports on the loopback interface."""

import random
import socket
from pathlib import Path

_random = random.SystemRandom()


def free_port() -> int:
    """A port nobody listens on.

    It lies below the range that the kernel hands out to outgoing connections, so that a server
    which is down for a while finds its port still free when it comes back.
    """
    while True:
        port = _random.randrange(10_000, _first_ephemeral_port())
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _first_ephemeral_port() -> int:
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    except FileNotFoundError:
        return 32_768
    return max(int(text.split()[0]), 11_000)
