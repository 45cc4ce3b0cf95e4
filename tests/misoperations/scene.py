"""A trial whose ScannerJob is changed by hand, beside a neighbour that nobody touches."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import inf
from typing import Any
from urllib.parse import urlsplit

from tests.harness.trial import NAME, Trial, port_of
from tests.misoperations.changes import named
from tests.misoperations.fields import DOWN, NEIGHBOURS_QUERY, good
from tests.misoperations.tls_proxy import TlsProxy
from tests.proof.history import Fault, History, Row
from tests.support.api import ApiError
from tests.support.certificates import Authority

NEIGHBOUR = "neighbour"
# There are always so many rows to do, which take between so many seconds.
_FEWEST_ROWS, _MORE_ROWS = 9, 6
# How long the operator takes to start, at most.
_START = 120.0
_LEAST_SECONDS, _MOST_SECONDS = 0.2, 2.0
_WRONG_KIND = {
    "database": "redis://127.0.0.1:1/0",
    "broker": "postgresql://app@127.0.0.1:1/app",
    "resultbackend": "amqp://127.0.0.1:1//",
    "guard": "amqp://127.0.0.1:1//",
}


class Scene(Trial):
    """See the module. Every third row is the neighbour's."""

    def _prepare_namespace(self) -> None:
        super()._prepare_namespace()
        self.rng = random.Random(self.name)
        self.uids: list[str] = []
        if self.setting.target == "celery":
            worker = self.stage.consuming(self.setting, self._broker_url, f"{self.name}-too")
            self._ends.enter_context(worker)
        for name, contents in {**self._more_secrets(), **_certificates(self._authority)}.items():
            self.put_secret(name, contents)

    def _urls(self) -> dict[str, str]:
        urls = super()._urls()
        return urls | {f"{NEIGHBOUR}-{name}": url for name, url in urls.items()}

    def put_secret(self, name: str, contents: Mapping[str, bytes]) -> None:
        """A Secret, in place of the one of this name if there is one."""
        encoded = {key: base64.b64encode(value).decode() for key, value in contents.items()}
        content = "application/apply-patch+yaml"
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}
        path = f"/api/v1/namespaces/{self.name}/secrets/{name}?fieldManager=a-person&force=true"
        self.stage.api.request("PATCH", path, body, content=content)

    def _more_secrets(self) -> dict[str, dict[str, bytes]]:
        self._authority = Authority()
        found: dict[str, dict[str, bytes]] = {}
        for role, url in self._roles().items():
            found |= {
                role: good_secret(url),
                f"{role}-again": {"url": url.encode()},
                f"{role}-down": {"url": _at(url, DOWN, 1)},
                f"{role}-kind": {"url": _WRONG_KIND[role].encode()},
                f"{role}-password": {"url": _with_wrong_password(url)},
                f"{role}-elsewhere": {"url": self._elsewhere(role, url).encode()},
                f"{role}-tls": {"url": self._encrypted(role, url)},
            }
        return found

    def _roles(self) -> dict[str, str]:
        roles = {"database": self.stage.database_url}
        if self.setting.target == "celery":
            redis = self.stage.redis
            results = redis.database_url(1)
            roles |= {"broker": redis.url, "resultbackend": results, "guard": redis.url}
        return roles

    def _elsewhere(self, role: str, url: str) -> str:
        if role == "database":
            return self.stage.postgres.create_database()
        return self.stage.redis.database_url(2 + list(_WRONG_KIND).index(role))

    def _encrypted(self, role: str, url: str) -> bytes:
        certificate, asked = self._authority.issue(), role == "database"
        proxy = TlsProxy(port_of(url), certificate, self.folder, asked=asked)
        self._ends.enter_context(proxy)
        return _at(url, "127.0.0.1", proxy.port).replace(b"redis://", b"rediss://")

    # The two ScannerJobs.

    @property
    def names(self) -> dict[str, str]:
        """What stands for this trial's own names."""
        return {"@trial": self.name, "@schema": self.rows.schema}

    @property
    def path(self) -> str:
        """Of the ScannerJob on the API server."""
        return f"{self.collection}/{NAME}"

    @property
    def collection(self) -> str:
        """Of all ScannerJobs of the trial."""
        return f"/apis/scannerjob.dev/v1alpha1/namespaces/{self.name}/scannerjobs"

    def document(self) -> dict[str, Any]:
        """The ScannerJob that is changed, as it should be."""
        spec: dict[str, Any] = named(good(self.setting.target), self.names)
        return {**super().document(), "spec": spec}

    def _neighbour(self) -> dict[str, Any]:
        spec = named(good(self.setting.target, NEIGHBOURS_QUERY), self.names)
        spec["concurrency"] = 2
        spec["database"]["urlSecretRef"]["name"] = f"{NEIGHBOUR}-database"
        # It may wait for workers which have much to do.
        del spec["deadline"]
        if celery := spec.get("celery"):
            del celery["expires"]
            for role in ("broker", "guard"):
                celery[role]["urlSecretRef"]["name"] = f"{NEIGHBOUR}-{role}"
        document = super().document()
        return {**document, "metadata": {**document["metadata"], "name": NEIGHBOUR}, "spec": spec}

    def start(self) -> None:
        """Start both, and wait until they work."""
        begin = time.time()
        super().start()
        self.uids.append(self.get()["metadata"]["uid"])
        created = self.stage.api.create(self.collection, self._neighbour())
        self.neighbours_uid: str = created["metadata"]["uid"]
        working = self.until(lambda: self._works(NAME) and self._works(NEIGHBOUR), _START)
        assert working, f"they do not begin: {self.ready()}\n{self.logs()}"
        self.faults.append(Fault("operator", begin, time.time()))

    def _works(self, name: str) -> bool:
        return bool(self.stage.api.get(f"{self.collection}/{name}")["status"].get("active"))

    def create(self) -> None:
        """Make the ScannerJob anew."""
        created = self.stage.api.create(self.collection, self.document())
        self.uids.append(created["metadata"]["uid"])

    def get(self) -> dict[str, Any]:
        """The ScannerJob as it is now."""
        return self.stage.api.get(self.path)

    def change(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Put a spec in place of the present one, as `kubectl replace` does; raises ApiError."""
        return self._replace({"op": "replace", "path": "/spec", "value": spec})

    def change_while_out(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """As `change`, at a moment at which launches are out."""
        while True:
            active = self.get()["status"].get("active", 0)
            same = {"op": "test", "path": "/status/active", "value": active}
            try:
                if active:
                    return self._replace(same, {"op": "replace", "path": "/spec", "value": spec})
            except ApiError as error:
                if "/status/active" not in str(error) or "test" not in str(error):
                    raise
            self.tend()
            time.sleep(0.1)

    def _replace(self, *patch: Mapping[str, Any]) -> dict[str, Any]:
        content, path = "application/json-patch+json", f"{self.path}?fieldValidation=Strict"
        body: Any = list(patch)
        return self.stage.api.request("PATCH", path, body, content=content)

    def annotate(self, metadata: Mapping[str, Any]) -> None:
        """Change its metadata by a merge patch; raises ApiError."""
        content = "application/merge-patch+json"
        self.stage.api.request("PATCH", self.path, {"metadata": metadata}, content=content)

    @property
    def status(self) -> Mapping[str, Any]:
        """That of the ScannerJob that is changed, as its witness saw it last."""
        mine = (each for each in reversed(self._witness.versions()) if each.uid == self.uids[-1])
        return next((each.status for each in mine), {})

    def ready(self) -> Mapping[str, Any]:
        """Its condition Ready, if it is about its present spec."""
        found = self.get()
        conditions = found["status"].get("conditions", ())
        generation = found["metadata"]["generation"]
        told = (each for each in conditions if each["type"] == "Ready")
        return next((each for each in told if each["observedGeneration"] == generation), {})

    # Work.

    def insert(self, rows: int) -> None:
        """Put so many more rows there; each takes its time."""
        for _ in range(rows):
            seconds = self.rng.uniform(_LEAST_SECONDS, _MOST_SECONDS)
            self.rows.insert(1, seconds=seconds)

    def tend(self) -> None:
        """See to it that there is work to do."""
        if self.rows.waiting() < _FEWEST_ROWS:
            self.insert(_MORE_ROWS)

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """As `wait`, with work to do meanwhile."""
        deadline = time.monotonic() + seconds
        while not (met := _answered(condition)) and time.monotonic() < deadline:
            self.tend()
            time.sleep(0.1)
        return met

    def _is_done(self) -> bool:
        return super()._is_done() and not any(
            self.neighbour_status.get(each) for each in ("active", "waiting")
        )

    @property
    def neighbour_status(self) -> Mapping[str, Any]:
        """The neighbour's, as its witness saw it last."""
        versions = reversed(self._witness.versions())
        mine = (each for each in versions if each.uid == self.neighbours_uid)
        return next((each.status for each in mine), {})

    def neighbours_done(self) -> int:
        """How many rows of the neighbour are done."""
        return sum(each.until < inf for each in self.rows.rows() if _is_neighbours(each))

    def history(self) -> History:
        """As it was observed; each row belongs to the ScannerJobs that look for it."""
        history = super().history()
        return replace(history, rows=[row for each in history.rows for row in self._shared(each)])

    def _shared(self, row: Row) -> Iterator[Row]:
        uids = [self.neighbours_uid] if _is_neighbours(row) else self.uids
        return (replace(row, uid=uid) for uid in uids)


def good_secret(url: str) -> dict[str, bytes]:
    """A Secret with this URL, and with entries of which nothing comes."""
    bad = {"garbage": b"not a URL at all", "empty": b"", "binary": b"\xff\xfe\x00"}
    return {"url": url.encode(), "also": url.encode(), **bad}


def _is_neighbours(row: Row) -> bool:
    return int(row.row.strip("[]")) % 3 == 0


def _answered(condition: Callable[[], bool]) -> bool:
    """Whether it is met; not if the API server did not answer, or has no such object."""
    try:
        return condition()
    except (ApiError, OSError):
        return False


def _certificates(authority: Authority) -> dict[str, dict[str, bytes]]:
    half = authority.issue("scanner")
    return {
        "certificates": {"ca.crt": authority.pem},
        "certificates-none": {"other": b"x"},
        "certificates-half": {"ca.crt": authority.pem, "tls.crt": half.pem},
        "certificates-garbage": {"ca.crt": b"garbage"},
        "certificates-foreign": {"ca.crt": Authority("another").pem},
    }


def _at(url: str, host: str, port: int) -> bytes:
    return url.replace(f"127.0.0.1:{port_of(url)}", f"{host}:{port}").encode()


def _with_wrong_password(url: str) -> bytes:
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username or 'nobody'}:wrong@{place}").geturl().encode()
