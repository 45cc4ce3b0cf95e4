"""No password is shown in a cluster, whatever fails: it stands in the Secrets, and nowhere else."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from tests.cluster.health import answer
from tests.cluster.operators import Operators
from tests.cluster.workload import scannerjob, secret
from tests.support.bad_urls import SecretUrl, malformed, misread, refused, wrong_servers
from tests.support.canary import assert_none, songs, songs_in_processes
from tests.support.controlplane import ControlPlane
from tests.support.impostors import Impostors
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.servers import PostgresServer, RedisServer
from tests.support.waiting import eventually


@pytest.mark.timeout(240)
def test_no_url_that_fails_is_shown(
    cluster: ControlPlane,
    namespace: str,
    operators: Operators,
    impostors: Impostors,
    postgres_server: PostgresServer,
    postgres_url: str,
    redis_url: str,
    locked_redis: RedisServer,
) -> None:
    postgres, redis = (f"127.0.0.1:{each.port}" for each in (postgres_server, locked_redis))
    known = f"app:{postgres_server.password}"
    urls = [
        *wrong_servers("database", "postgresql://", "/app", impostors),
        *wrong_servers("database", "mysql://", "/app", impostors),
        *wrong_servers("broker", "redis://", "/0", impostors),
        *wrong_servers("broker", "amqp://", "/app", impostors),
        *wrong_servers("results", "redis://", "/0", impostors),
        *malformed("database", "postgresql"),
        *malformed("database", "sqlite"),
        *malformed("broker", "redis"),
        *malformed("results", "db+mysql"),
        *misread("broker", "amqp"),
        *refused("database", "postgresql://", postgres, known, "/app"),
        *refused("broker", "redis://", redis, f":{locked_redis.password}", "/0"),
        *refused("results", "db+postgresql://", postgres, known, "/app"),
    ]
    cluster.apply(
        secret(namespace, "app-db", url=postgres_url), secret(namespace, "app-redis", url=redis_url)
    )
    cluster.apply(*(_secret(namespace, each) for each in urls))
    cluster.apply(*(_scannerjob(namespace, each) for each in urls))
    port = free_port()
    process = operators.start("--health-port", str(port))
    eventually(partial(_all_told, cluster, namespace, process, urls), timeout=150, interval=1)
    assert_none(songs(_all_but_secrets(cluster, namespace)))
    assert_none(songs(process.log()))
    assert "Traceback" not in process.log()
    assert_none(songs_in_processes(process.pid, given=""))
    for path in ("/healthz", "/readyz"):
        status, told = answer(port, path)
        assert status == 200
        assert_none(songs(json.dumps(told)))
    process.stop()
    assert_none(songs(process.log()))


def _secret(namespace: str, url: SecretUrl) -> dict[str, Any]:
    content = url.url.encode() if isinstance(url.url, str) else url.url
    return {
        **secret(namespace, url.name),
        "data": {"url": base64.b64encode(content).decode()},
    }


def _scannerjob(namespace: str, url: SecretUrl) -> dict[str, Any]:
    """The ScannerJob that has this URL, all else being right."""
    reference = {"urlSecretRef": {"name": url.name, "key": "url"}}
    document = scannerjob(namespace, url.name, query="SELECT 1 AS pdf_id", queryTimeout="3s")
    spec = document["spec"]
    match url.part:
        case "database":
            spec["database"] = reference
        case "broker":
            spec["celery"]["broker"] = reference
        case "results":
            spec["celery"]["resultBackend"] = reference
    return document


def _all_told(
    cluster: ControlPlane, namespace: str, process: Process, urls: Sequence[SecretUrl]
) -> bool:
    """Whether the status and an Event of each ScannerJob name the place."""
    assert process.running, process.log()
    found = cluster.get("-n", namespace, "scj")["items"]
    statuses = {each["metadata"]["name"]: _trouble(each) for each in found}
    untold = {u.name: statuses[u.name] for u in urls if not u.is_named(statuses[u.name])}
    assert not untold, f"{len(untold)} of {len(urls)} do not say what they should: {untold}"
    events = cluster.get("-n", namespace, "events.events.k8s.io")["items"]
    named = {each["regarding"]["name"] for each in events if each["type"] == "Warning"}
    assert named == {each.name for each in urls}
    return True


def _trouble(document: dict[str, Any]) -> str:
    """Why it is not ready."""
    conditions = document.get("status", {}).get("conditions", ())
    said = [each for each in conditions if each["type"] == "Ready" and each["status"] == "False"]
    return "".join(f"{each['reason']}: {each['message']}" for each in said)


def _all_but_secrets(cluster: ControlPlane, namespace: str) -> str:
    """All objects in the namespace, the fields that the API server manages among them."""
    listed = cluster.kubectl(
        "api-resources", "--verbs=list", "--namespaced", "--output=name"
    ).split()
    kinds = ",".join(kind for kind in listed if kind != "secrets")
    found = cluster.kubectl(
        *("get", "-n", namespace, kinds, "--output=json", "--show-managed-fields")
    )
    for kind in ("ScannerJob", "Event", "Lease"):
        assert f'"kind": "{kind}"' in found
    return found
