"""What the probes are told."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, cast

import pytest

from scannerjob.controller.health import Health, serving
from scannerjob.controller.operator import Operator
from scannerjob.ports import ConfigurationError
from tests.support.ports import free_port


@dataclass
class StandIn:
    """An operator's parts, each with what it would tell."""

    stuck: float = 0.0
    behind: float = 0.0
    silence: float = 0.0
    unlooked: float = 0.0
    leads: bool = True
    complete: bool = True
    elects: bool = True

    @property
    def engine(self) -> StandIn:
        return self

    @property
    def resync(self) -> StandIn:
        return StandIn(behind=self.behind, silence=self.unlooked)

    @property
    def elector(self) -> StandIn | None:
        return self if self.elects else None

    def silent(self) -> float:
        return self.silence

    def leading(self) -> bool:
        return self.leads

    def has_seen_all(self) -> bool:
        return self.complete


def ask(health: Health, path: str) -> tuple[int, dict[str, Any]]:
    async def main() -> tuple[int, dict[str, Any]]:
        port = free_port()
        async with serving(health, port):
            return await asyncio.to_thread(get, f"http://127.0.0.1:{port}{path}")

    return asyncio.run(main())


def get(url: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def health_of(**parts: Any) -> Health:
    health = Health()
    health.operator = cast(Operator, StandIn(**parts))
    return health


def test_before_the_api_server_was_reached_it_is_alive_and_not_ready() -> None:
    assert ask(Health(), "/healthz") == (200, {})
    assert ask(Health(), "/readyz") == (503, {"ready": False, "leading": False})


def test_all_is_well() -> None:
    status, told = ask(health_of(), "/healthz")
    assert status == 200
    assert {name: part["ok"] for name, part in told.items()} == {
        "queue": True,
        "watch": True,
        "resync": True,
        "lease": True,
    }


@pytest.mark.parametrize(
    ("part", "amiss"),
    [
        ("queue", {"stuck": 61}),
        ("watch", {"behind": 91}),
        ("lease", {"silence": 31}),
        ("resync", {"unlooked": 301}),
    ],
)
def test_what_a_restart_would_mend_fails(part: str, amiss: dict[str, float]) -> None:
    status, told = ask(health_of(**amiss), "/healthz")
    assert status == 500
    assert [name for name, each in told.items() if not each["ok"]] == [part]
    assert told[part]["seconds"] == next(iter(amiss.values()))


@pytest.mark.parametrize("almost", [{"stuck": 59}, {"behind": 89}, {"silence": 29}])
def test_what_may_still_end_by_itself_does_not(almost: dict[str, float]) -> None:
    assert ask(health_of(**almost), "/healthz")[0] == 200


def test_a_standby_is_ready() -> None:
    told = {"ready": True, "leading": False}
    assert ask(health_of(leads=False), "/readyz") == (200, told)


def test_without_election_it_leads_and_there_is_no_lease_to_fail() -> None:
    assert ask(health_of(elects=False), "/readyz")[1] == {"ready": True, "leading": True}
    assert "lease" not in ask(health_of(elects=False, silence=1000), "/healthz")[1]


def test_it_is_ready_when_the_watch_has_shown_all_and_stays_so() -> None:
    health = health_of(complete=False)
    assert ask(health, "/readyz")[0] == 503
    health.operator = cast(Operator, StandIn())
    assert ask(health, "/readyz")[0] == 200
    health.operator = cast(Operator, StandIn(complete=False))
    assert ask(health, "/readyz")[0] == 200


def test_a_port_that_is_taken_is_named() -> None:
    async def main() -> None:
        port = free_port()
        async with serving(Health(), port):
            with pytest.raises(ConfigurationError, match=f"--health-port {port}: .*in use"):
                async with serving(Health(), port):
                    pass

    asyncio.run(main())
