"""A ledger that somebody else wrote: refused or outlived, never believed at others' expense."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from scannerjob.model.ledger import format_time
from tests.cluster.jobs import JobWorkload, settled
from tests.cluster.operators import Operators
from tests.security.conftest import User, rule
from tests.support.api import Api, ApiError, Json
from tests.support.pods import Fate
from tests.support.waiting import eventually
from tests.unit.cases import ago

CAP = 2
MERGE = "application/merge-patch+json"
NO_TIME = "0000-01-01T00:00:00Z"
Forgery = Callable[[Json], Json]


def item(key: str = "[1]", **fields: Any) -> Json:
    since = format_time(ago(60).replace(year=2026))
    whole = {"key": key, "id": f"forged-{key.strip('[]')}", "phase": "Launched", "attempt": 1}
    return {**whole, "sends": 1, "since": since, **fields}


def with_items(*items: Json) -> Forgery:
    return lambda status: {**status, "items": list(items)}


def having(**fields: Any) -> Forgery:
    return lambda status: {**status, **fields}


def condition(kind: str) -> Json:
    said = {"type": kind, "status": "True", "reason": "Forged", "message": "x" * 1000}
    return {**said, "lastTransitionTime": "2026-01-01T00:00:00Z"}


def without(*names: str) -> Forgery:
    return lambda status: {name: value for name, value in status.items() if name not in names}


# What the schema does not take, whoever writes it.
AGAINST_THE_SCHEMA: Mapping[str, Forgery] = {
    "items-are-no-list": having(items={}),
    "an-item-is-a-text": having(items=["a"]),
    "an-item-without-since": having(items=[{**item(), "since": None}]),
    "an-unknown-phase": with_items(item(phase="Running")),
    "a-phase-that-is-a-number": with_items(item(phase=5)),
    "an-attempt-of-zero": with_items(item(attempt=0)),
    "an-attempt-that-is-a-text": with_items(item(attempt="1")),
    "sends-below-zero": with_items(item(sends=-1)),
    "sends-beyond-32-bits": with_items(item(sends=2**31)),
    "a-key-of-nothing": with_items(item("")),
    "a-key-too-long": with_items(item("x" * 201, id="a")),
    "an-id-of-nothing": with_items(item(id="")),
    "an-id-too-long": with_items(item(id="x" * 64)),
    "an-id-that-is-a-selector": with_items(item(id="a),!b")),
    "an-id-of-two-lines": with_items(item(id="a\nb")),
    "a-reason-too-long": with_items(item(reason="x" * 1025)),
    "a-time-that-is-none": with_items(item(since="yesterday")),
    "too-many-items": with_items(*(item(f"[{number}]") for number in range(2001))),
    "a-counter-below-zero": having(launched=-1),
    "a-counter-that-is-a-fraction": having(failed=0.5),
    "a-counter-that-is-a-text": having(lost="1"),
    "a-counter-beyond-64-bits": having(succeeded=2**63),
    "active-below-zero": having(active=-1),
    "a-version-of-zero": having(ledgerVersion=0),
    "endpoints-that-are-lists": having(endpoints={"kubernetes": ["jobs"]}),
    "endpoints-without-end": having(endpoints={str(number): "x" for number in range(17)}),
    "requests-without-end": having(handledRequests={str(n): "x" for n in range(65)}),
    "a-condition-without-a-type": having(conditions=[{**condition("Ready"), "type": None}]),
    "a-condition-of-no-status": having(conditions=[{**condition("Ready"), "status": "Maybe"}]),
    "conditions-without-end": having(conditions=[condition(f"C{n}") for n in range(17)]),
}
# What it takes, and nobody can go on from: the reason that Ready gives.
SAID: Mapping[str, tuple[Forgery, str]] = {
    "a-version-from-the-future": (having(ledgerVersion=2), "LedgerUnreadable"),
    "a-version-taken-away": (without("ledgerVersion"), "LedgerLost"),
    "the-same-row-twice": (with_items(item(), item(id="b")), "LedgerUnreadable"),
    "the-end-of-time": (with_items(item(since="9999-12-31T23:59:59Z")), "LedgerUnreadable"),
    "before-all-time": (with_items(item(since=NO_TIME)), "LedgerUnreadable"),
    "no-such-zone": (with_items(item(until="2026-01-01T00:00:00+99:99")), "LedgerUnreadable"),
    "a-counter-that-is-full": (having(launched=2**63 - 1), "LedgerUnreadable"),
    "sends-that-are-full": (with_items(item(sends=2**31 - 1)), "LedgerUnreadable"),
    "a-loss-at-no-time": (having(ledgerLostTime=NO_TIME), "LedgerUnreadable"),
    "launches-by-another-key": (
        lambda status: {**status, "items": [item(id="b")], "key": ["other"]},
        "KeyChanged",
    ),
}
NO_KEYS = ["x", "[[", "{}", "null", "[1,2,3]", '["\'; DROP TABLE pdf; --"]', "[1e999]", "\u202e"]
# What does no harm: it is put right with the next cycles.
OUTLIVED: Mapping[str, Forgery] = {
    "scanned-at-no-time": having(lastScanTime=NO_TIME),
    "scanned-in-the-future": having(lastScanTime="2099-01-01T00:00:00Z"),
    "conditions-of-others": having(conditions=[condition(f"C{n}") for n in range(16)]),
    "hashes-of-others": having(endpoints={"broker": "x"}, queryHash="x", key=["x"] * 8),
    "counts-that-are-wrong": having(active=2**31 - 1, parked=7, selector="x=y"),
    "keys-that-are-none": with_items(
        *(item(key, id=f"no-{n}", phase="Parked") for n, key in enumerate(NO_KEYS))
    ),
    "rows-that-are-not-there": with_items(
        *(item(f"[{n}]", phase=phase) for n, phase in enumerate(("Parked", "Cooling"), 10_000))
    ),
    "a-job-that-is-not-there": with_items(item("[10000]", id="nowhere")),
    "a-megabyte": with_items(
        *(item(f"[{n}]", phase="Parked", reason="x" * 1000) for n in range(10_000, 10_900))
    ),
    "requests-of-others": having(handledRequests={str(n): "x" for n in range(64)}),
}


class Victims:
    """ScannerJobs in one namespace, each with rows of its own and one slot."""

    def __init__(self, work: JobWorkload) -> None:
        self._work = work
        self._api = Api(work.plane.kubeconfig())
        self._path = f"/apis/scannerjob.dev/v1alpha1/namespaces/{work.namespace}/scannerjobs"

    def create(self, *names: str) -> None:
        for name in names:
            query = f"SELECT id AS pdf_id FROM pdf WHERE title = '{name}' AND NOT pages_created"
            spec = {"query": query, "concurrency": 1, "interval": "1s"}
            self._api.create(self._path, self._work.scannerjob(name, **spec))

    def add_rows(self, *names: str) -> None:
        for name in names:
            self._work.insert(1, name)

    def status(self, name: str) -> Json:
        return dict(self._api.get(f"{self._path}/{name}").get("status", {}))

    def ready(self, name: str) -> Json:
        conditions = self.status(name).get("conditions", ())
        return next((each for each in conditions if each["type"] == "Ready"), {})

    def forge(self, name: str, forgery: Forgery) -> None:
        """Write this status, as whoever has the right to; the operator writes too."""

        def written() -> bool:
            found = self._api.get(f"{self._path}/{name}")
            found["status"] = forgery(found["status"])
            try:
                self._api.request("PUT", f"{self._path}/{name}/status", found)
            except ApiError as error:
                if error.status != 409:
                    raise
                return False
            return True

        eventually(written)

    def wake(self, name: str) -> None:
        asked = {"metadata": {"annotations": {"poke": "once"}}}
        self._api.request("PATCH", f"{self._path}/{name}", asked, content=MERGE)

    def waiting(self, *names: str) -> set[str]:
        """Those with a row that is not done."""
        rows = self._work.execute("SELECT title FROM pdf WHERE NOT pages_created")
        return {title for (title,) in rows} & set(names)


@pytest.fixture
def victims(work: JobWorkload) -> Victims:
    work.plane.apply(work.secret())
    work.kubelet.fate = lambda pod: Fate(0)
    return Victims(work)


def test_nobody_who_edits_scannerjobs_writes_their_ledger(
    victims: Victims, work: JobWorkload, user: User
) -> None:
    """The rights of the chart's role `edit`: a status that comes with the object is left out."""
    victims.create("pages")
    edits = rule("scannerjob.dev", "scannerjobs", "get", "create", "update", "patch", "delete")
    scales = rule("scannerjob.dev", "scannerjobs/scale", "update", "patch")
    editor = user("editor", [edits, scales])
    path = f"/apis/scannerjob.dev/v1alpha1/namespaces/{work.namespace}/scannerjobs"
    forged = {"items": [item()], "ledgerVersion": 1, "active": 1}
    before = victims.status("pages")
    for method, body, content in [
        ("PUT", {**editor.get(f"{path}/pages"), "status": forged}, "application/json"),
        ("PATCH", {"status": forged}, MERGE),
    ]:
        editor.request(method, f"{path}/pages", body, content=content)
        with pytest.raises(ApiError, match="403"):
            editor.request(method, f"{path}/pages/status", body, content=content)
    replicas = {"spec": {"replicas": 3}, "status": {"replicas": 99}}
    editor.request("PATCH", f"{path}/pages/scale", replicas, content=MERGE)
    created = {**work.scannerjob("other"), "status": forged}
    editor.create(path, created)
    assert victims.status("pages") == victims.status("other") == before


def test_what_the_schema_does_not_take_is_refused(victims: Victims) -> None:
    victims.create("pages")
    before = victims.status("pages")
    for what, forgery in AGAINST_THE_SCHEMA.items():
        with pytest.raises(ApiError, match=r"4[02]\d: ") as refused:
            victims.forge("pages", forgery)
        assert refused.value.status in (400, 422), (what, refused.value)
    assert victims.status("pages") == before


@pytest.mark.timeout(300)
def test_what_it_takes_ends_no_operator_and_harms_no_other(
    victims: Victims, work: JobWorkload, operators: Operators
) -> None:
    forgeries = {**{name: forgery for name, (forgery, _) in SAID.items()}, **OUTLIVED}
    everybody = [*forgeries, "healthy"]
    victims.create(*everybody)
    victims.add_rows(*everybody)
    process = operators.start("--no-leader-election")
    eventually(lambda: not victims.waiting(*everybody), timeout=90)
    eventually(lambda: all(_rests(victims.status(name)) for name in everybody), timeout=60)
    good = {name: victims.status(name) for name in SAID}

    for name, forgery in forgeries.items():
        victims.forge(name, forgery)
    told = {name: reason for name, (_, reason) in SAID.items()}
    eventually(partial(_all_say, victims, told), timeout=60)
    victims.add_rows(*everybody)
    eventually(lambda: not victims.waiting("healthy", *OUTLIVED), timeout=90, message="done")
    eventually(lambda: all(_rests(victims.status(name)) for name in OUTLIVED), timeout=60)
    for name in (*OUTLIVED, "healthy"):
        assert victims.ready(name)["status"] == "True", (name, victims.ready(name))
    assert victims.waiting(*SAID) == set(SAID), "nothing is launched on top of what is not known"

    for name, status in good.items():
        victims.forge(name, partial(_restored, status))
        victims.wake(name)
    eventually(lambda: not victims.waiting(*everybody), timeout=90, message="all are done")
    assert set(work.executions().values()) == {1}
    assert process.running
    assert "Traceback" not in process.log()


def _restored(good: Json, _: Json) -> Json:
    return good


def _all_say(victims: Victims, told: Mapping[str, str]) -> bool:
    assert {name: victims.ready(name).get("reason") for name in told} == told
    return True


def _rests(status: Json) -> bool:
    return status.get("items") == [] and status.get("active") == 0


def test_jobs_that_run_get_their_slots_back_whatever_is_written(
    victims: Victims, work: JobWorkload, operators: Operators
) -> None:
    work.kubelet.fate = lambda pod: Fate(math.inf)
    work.insert(4)
    work.apply(concurrency=CAP)
    operators.start()
    out = settled(work, active=CAP, launched=CAP)["items"]
    ids = {each["id"] for each in out}
    for fields in (
        None,
        {"phase": "Waiting", "until": "2026-01-01T00:00:00Z"},
        {"phase": "Cooling"},
        {"phase": "Parked", "attempt": 99},
        {"id": "forged", "phase": "Waiting"},
    ):
        forged = [] if fields is None else [{**each, **fields} for each in out]
        victims.forge("pdf-pages", having(items=forged, active=0))
        victims.wake("pdf-pages")

        eventually(partial(_hold_their_slots, work, ids), timeout=60, message=f"after {fields}")
        work.kubectl("annotate", "scj", "pdf-pages", "poke-")
    assert len(work.kubelet.started()) == CAP
    work.kubelet.fate = lambda pod: Fate(0)
    for pod in work.kubelet.running():
        work.kubelet.end(pod.name)
    work.wait_done()
    work.assert_each_row_ran_once()
    work.assert_cap_was_kept(CAP)


def _hold_their_slots(work: JobWorkload, ids: set[str]) -> bool:
    items = work.status()["items"]
    assert {each["id"] for each in items} == ids, items
    return {each["phase"] for each in items} == {"Launched"}
