"""What the probes of Kubernetes are told: whether a restart would help, and whether it has begun.

Our own, because kopf's endpoint answers 200 whatever its probes find, and has one path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from aiohttp import web

from scannerjob.controller.operator import Operator
from scannerjob.ports import ConfigurationError

# For how many seconds the watch may keep something back: a look a minute tells.
_MAX_BEHIND = 90.0


@dataclass(frozen=True)
class Part:
    """How long something has been amiss, and for how long it may be; both in seconds."""

    seconds: float
    limit: float
    means: str

    @property
    def ok(self) -> bool:
        """Whether that is not too long."""
        return self.seconds <= self.limit


class Health:
    """How this process is. It has no operator until it has reached the API server."""

    def __init__(self) -> None:
        self.operator: Operator | None = None
        self._was_ready = False

    def parts(self) -> dict[str, Part]:
        """What a restart would mend. An API server that is down makes none of it fail."""
        operator = self.operator
        if operator is None:
            return {}
        parts = {
            "queue": Part(operator.engine.stuck, 60, "ScannerJobs are due, and none is begun"),
            "watch": Part(
                operator.resync.behind, _MAX_BEHIND, "the watch does not show what there is"
            ),
            # An attempt that fails is one: here and below, only a loop that has stopped fails.
            "resync": Part(operator.resync.silent(), 300, "no look at what there is has ended"),
        }
        if operator.elector:
            silent = operator.elector.silent()
            parts["lease"] = Part(silent, 30, "no attempt to hold the Lease has ended")
        return parts

    def ready(self) -> bool:
        """Whether it could work: connected, and the watch has shown all there is.

        Once and for all, since nobody is sent elsewhere when it is not. A replica that stands by is
        ready: else a rollout would wait for it for ever.
        """
        if self.operator and not self._was_ready:
            self._was_ready = self.operator.has_seen_all()
        return self._was_ready

    def leading(self) -> bool:
        """Whether this replica works."""
        elector = self.operator.elector if self.operator else None
        return self.operator is not None and (elector is None or elector.leading())


@asynccontextmanager
async def serving(health: Health, port: int | None) -> AsyncIterator[None]:
    """Serve GET /healthz and /readyz there, if there is a port, on all addresses.

    Raises ConfigurationError if the port cannot be had.
    """
    if port is None:
        yield
        return
    runner = web.AppRunner(_app(health), access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await _listen(runner, port)
        yield
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, port=port).start()
    except OSError as error:
        message = f"--health-port {port}: {error.strerror}: choose one that is free"
        raise ConfigurationError("PortInUse", message) from None


def _app(health: Health) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        parts = health.parts()
        well = all(part.ok for part in parts.values())
        told = {name: {"ok": part.ok, **asdict(part)} for name, part in parts.items()}
        return web.json_response(told, status=200 if well else 500)

    async def readyz(_: web.Request) -> web.Response:
        ready = health.ready()
        told = {"ready": ready, "leading": health.leading()}
        return web.json_response(told, status=200 if ready else 503)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return app
