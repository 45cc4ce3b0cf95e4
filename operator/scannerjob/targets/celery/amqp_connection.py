"""Connections to RabbitMQ: how they are made, and taken leave of."""

# kombu and py-amqp are typed in part only.
# mypy: allow-untyped-calls

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kombu.connection import Connection
from kombu.transport import pyamqp

from scannerjob.targets.celery.endpoint import Endpoint

_LEAVE_WITHIN = 1.0


def open_amqp(
    endpoint: Endpoint,
    *,
    patience: float,
    heartbeat: float,
    transport: Any = pyamqp.Transport,
    **options: Any,
) -> Any:
    """A connection of py-amqp's, each call to which takes so many seconds at most.

    `options` are py-amqp's own. Raises what py-amqp raises.
    """
    client = Connection(
        endpoint.url,
        transport=transport,
        ssl=dict(endpoint.tls),
        connect_timeout=patience,
        heartbeat=heartbeat,
        transport_options=options,
    )
    connection = client.transport.establish_connection()
    # py-amqp waits for most answers for ever, unless the socket does not.
    connection.transport.sock.settimeout(patience)
    return connection


def leave(connection: Any) -> None:
    """Drop a connection, and take leave of the broker if it answers. Never raises."""
    with suppress(Exception):
        if connection.connected:
            connection.transport.sock.settimeout(_LEAVE_WITHIN)
            connection.close()
    with suppress(Exception):
        connection.collect()
