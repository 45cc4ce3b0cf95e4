"""Every field of a ScannerJob's spec, and how people change it: well, and badly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.harness.setting import Target
from tests.misoperations.changes import REMOVED, Change, Deed, Json, Outcome, Step, at

READY, REFUSED, UNREADY = Outcome.READY, Outcome.REFUSED, Outcome.UNREADY
HELD, SILENT = Outcome.HELD, Outcome.SILENT
_TOO_LONG = "x" * 256
_HERE = "127.0.0.1"
# Where nobody listens.
DOWN = "127.0.0.9"

_QUERY = "SELECT id AS item, '@schema' AS trial FROM @schema.item WHERE done_at IS NULL"
GOOD_QUERY = f"{_QUERY} AND id % 3 <> 0 ORDER BY id"
NEIGHBOURS_QUERY = f"{_QUERY} AND id % 3 = 0 ORDER BY id"
_SLOW_QUERY = f"{_QUERY} AND pg_sleep(20) IS NOT NULL AND id % 3 <> 0"


def steps(target: Target) -> list[Step]:
    """All that is done to a ScannerJob with this target."""
    own = _celery() if target == "celery" else _job()
    return [*_common(target), *own, *_deeds(target)]


def _common(target: Target) -> Iterator[Change]:
    yield from _ready("spec.suspend", True)
    yield from _refused("spec.suspend", "yes", 1, ["true"])
    yield from _connection("spec.database")
    yield from _queries()
    yield from _keys()
    yield from _durations("spec.interval", ready=("1s", "700ms"), too_short="499ms")
    yield _taken("spec.interval", "1h", "longer than anybody waits")
    yield from _durations("spec.queryTimeout", ready=("5s",), too_short="0s")
    slow = {"query": _SLOW_QUERY, "queryTimeout": "500ms"}
    yield Change("spec.queryTimeout", "shorter than the query", slow, UNREADY, _HERE)
    yield from _ready("spec.concurrency", 2, 8, 0)
    yield from _refused("spec.concurrency", -1, 1001, 2.5, "four")
    yield from _durations("spec.deadline", ready=("15s",), too_short="999ms")
    yield _taken("spec.deadline", "1s", "shorter than the work")
    yield from _durations("spec.cooldown", ready=("2s",))
    yield _taken("spec.cooldown", "1h", "of an hour")
    yield from _ready("spec.retry.attempts", 50)
    yield from _refused("spec.retry.attempts", 0, 101, "3")
    yield from _durations("spec.retry.backoff", ready=("1s",))
    yield from _durations("spec.retry.maxBackoff", ready=("1s",))
    both = {"job": {"template": {}}} if target == "celery" else {"celery": _other_celery()}
    yield Change("spec", "two targets", both, REFUSED, "exactly one of celery or job")
    other = {**both, target: REMOVED}
    yield Change("spec", "the other target", other, REFUSED, "the kind of target", bound=True)
    yield Change("spec", "no target", {target: REMOVED}, REFUSED, "exactly one of celery or job")
    yield Change("spec", "a field misspelt", {"intervall": "1s"}, REFUSED, "intervall")


def _other_celery() -> dict[str, Any]:
    return {"broker": {"urlSecretRef": {"name": "database", "key": "url"}}, "task": "any"}


def _queries() -> Iterator[Change]:
    field = "spec.query"
    yield from _refused(field, "", 7, "x" * 32769, REMOVED)
    last_first = GOOD_QUERY.replace("ORDER BY id", "ORDER BY id DESC")
    yield Change(field, "the last ones first", {"query": last_first}, READY)
    columns = "SELECT '@schema' AS trial, id AS item FROM @schema.item WHERE done_at IS NULL"
    other_columns = f"{columns} AND id % 3 <> 0 ORDER BY id"
    yield Change(field, "columns in another order", {"query": other_columns}, READY)
    mistakes = {
        "a typo": ("SELEC id AS item FROM @schema.item", "spec.query"),
        "two statements": (f"{GOOD_QUERY}; {GOOD_QUERY}", "spec.query"),
        "DML": ("DELETE FROM @schema.item", "spec.query"),
        "DML in a SELECT": (
            "WITH gone AS (DELETE FROM @schema.item RETURNING id) SELECT id AS item FROM gone",
            "spec.query",
        ),
        "DDL": ("DROP TABLE @schema.item", "spec.query"),
        "a table that is not there": ("SELECT id AS item FROM @schema.items", "items"),
        "a column that is not there": ("SELECT number AS item FROM @schema.item", "number"),
        "without the key": ("SELECT id, '@schema' AS trial FROM @schema.item", "spec.key"),
        "a column without a name": ("SELECT id AS item, 1 + 1 FROM @schema.item", "spec.query"),
        "an error in each row": ("SELECT 1 / (id - id) AS item FROM @schema.item", "division"),
        "slow": (_SLOW_QUERY, _HERE),
    }
    for what, (query, says) in mistakes.items():
        timeout = {"queryTimeout": "500ms"} if what == "slow" else {}
        yield Change(field, what, {"query": query, **timeout}, UNREADY, says)
    nothing = f"{_QUERY} AND false"
    yield Change(field, "an empty result", {"query": nothing}, SILENT)
    keyless = "SELECT NULLIF(id, id) AS item, '@schema' AS trial FROM @schema.item AS i"
    yield Change(field, "keys that are NULL", {"query": keyless}, SILENT)


def _keys() -> Iterator[Change]:
    field = "spec.key"
    yield from _refused(field, [], "item", [7], [""], list("abcdefghi"))
    yield Change(field, "another one", {"key": ["trial"]}, REFUSED, field, bound=True)
    yield Change(field, "none", {"key": REMOVED}, REFUSED, field, bound=True)
    yield Change(field, "none, once nothing is out", {"key": REMOVED}, READY, drained=True)
    absent = {"key": ["number"]}
    yield Change(field, "a column that is not there", absent, UNREADY, field, drained=True)


def _celery() -> Iterator[Change]:
    yield from _connection("spec.celery.broker")
    yield from _connection("spec.celery.resultBackend")
    yield from _connection("spec.celery.guard")
    yield Change("spec.celery", "no guard", at("spec.celery.guard", REMOVED), HELD, "guard")
    yield from _texts("spec.celery.task", "trial.work_again")
    yield _taken("spec.celery.task", "trial.nobody_knows", "that nobody knows")
    yield from _texts("spec.celery.queue", "@trial-too")
    yield _taken("spec.celery.queue", "@trial-nobody", "that nobody consumes")
    yield from _durations("spec.celery.expires", ready=("10s",), too_short="999ms")
    yield _taken("spec.celery.expires", "1s", "shorter than the wait")
    yield from _ready("spec.celery.priority", 3)
    yield from _refused("spec.celery.priority", -1, 256, "high")
    exchange, key = "spec.celery.exchange", "spec.celery.routingKey"
    # Celery binds a queue that a worker is told of to an exchange of the same name.
    both = {"celery": {"exchange": "@trial-too", "routingKey": "@trial-too"}}
    nowhere = {"celery": {"exchange": "@trial-nowhere", "routingKey": "any"}}
    yield Change(exchange, "one that is bound", both, READY)
    yield Change(exchange, "without a key", at(exchange, "x"), UNREADY, "spec.celery")
    yield Change(exchange, "bound to nothing", nowhere, UNREADY, "-nowhere")
    yield from _refused(exchange, "", 7, _TOO_LONG)
    yield Change(key, "one that is bound", both, READY)
    yield Change(key, "without an exchange", at(key, "x"), UNREADY, "spec.celery")
    unbound = {"celery": {"exchange": "@trial-too", "routingKey": "nowhere"}}
    yield Change(key, "bound to nothing", unbound, UNREADY, "nowhere")
    yield from _refused(key, "", 7, _TOO_LONG)
    headers = "spec.celery.headers"
    yield from _ready(headers, {"tenant": "acme"})
    yield from _refused(headers, {"n": 7}, ["a"], {"": "x"}, {"long": "x" * 1025})
    for name in ("id", "task", "scannerjob"):
        forged = at(headers, {name: "forged"})
        yield Change(headers, f"one of Celery's own, {name}", forged, UNREADY, headers)
    uncertain = "spec.celery.onUncertainPublish"
    yield from _ready(uncertain, "Republish")
    yield from _refused(uncertain, "republish", "", 7)


def _connection(field: str) -> Iterator[Change]:
    """Where a database, broker, backend or store is: a URL in a Secret, and certificates."""
    role = field.rpartition(".")[2].lower()
    name, key = f"{field}.urlSecretRef.name", f"{field}.urlSecretRef.key"
    tls = f"{field}.tlsSecretRef.name"

    def url(secret: Json = role, entry: Json = "url", **more: Json) -> dict[str, Any]:
        return at(field, {"urlSecretRef": {"name": secret, "key": entry}, **more})

    yield Change(name, "another Secret that holds the same", url(f"{role}-again"), READY)
    for value in ("", "Not_A_Name", 7):
        yield Change(name, f"{value!r}", url(value), REFUSED, name)
    yield Change(name, "not there", url("nowhere"), UNREADY, "nowhere")
    yield Change(name, "of a server that is down", url(f"{role}-down"), UNREADY, DOWN)
    yield Change(name, "of another server's kind", url(f"{role}-kind"), UNREADY, f"{field}")
    yield Change(name, "with a wrong password", url(f"{role}-password"), UNREADY, _HERE)
    yield _elsewhere(name, role, url(f"{role}-elsewhere"))
    yield Change(key, "another one that holds the same", url(entry="also"), READY)
    for value in ("", "a/b", 7):
        yield Change(key, f"{value!r}", url(entry=value), REFUSED, key)
    yield Change(key, "not in it", url(entry="nokey"), UNREADY, "nokey")
    for entry in ("garbage", "empty", "binary"):
        yield Change(key, f"with {entry} in it", url(entry=entry), UNREADY, field)
    encrypted = url(f"{role}-tls", tlsSecretRef={"name": "certificates"})
    yield Change(tls, "of the server's authority", encrypted, READY)
    for value in ("", "Not_A_Name", 7):
        wrong = url(f"{role}-tls", tlsSecretRef={"name": value})
        yield Change(tls, f"{value!r}", wrong, REFUSED, tls)
    for secret in ("nowhere", "certificates-none", "certificates-half", "certificates-garbage"):
        wrong = url(f"{role}-tls", tlsSecretRef={"name": secret})
        yield Change(tls, secret, wrong, UNREADY, secret)
    foreign = url(f"{role}-tls", tlsSecretRef={"name": "certificates-foreign"})
    yield Change(tls, "of another authority", foreign, UNREADY, _HERE)
    plain = url(tlsSecretRef={"name": "certificates"})
    yield Change(tls, "for a server without TLS", plain, UNREADY, f"{_HERE}|{field}")


def _elsewhere(field: str, role: str, patch: Mapping[str, Any]) -> Change:
    """Another database of the same server, which has none of what is looked for."""
    what = "of another database"
    if role == "database":
        return Change(field, what, patch, UNREADY, _HERE)
    return Change(field, what, patch, HELD, role.replace("resultb", "resultB"))


_CONTAINER = {"name": "work", "image": "none", "command": ["work", "$(ITEM)"]}
GOOD_TEMPLATE = {"spec": {"template": {"spec": {"containers": [_CONTAINER]}}}}


def _job() -> Iterator[Change]:
    field = "spec.job.template"

    def template(**pod: Json) -> dict[str, Any]:
        spec = {"containers": [_CONTAINER], **pod}
        return at(field, {"spec": {"template": {"spec": spec}}})

    def container(**more: Json) -> dict[str, Any]:
        return template(containers=[{**_CONTAINER, **more}])

    yield Change(field, "another command", container(command=["do", "$(ITEM)"]), READY)
    yield Change(field, "resources", container(resources={"limits": {"cpu": "1"}}), READY)
    yield from _refused(field, "a text", ["a list"], 7)
    yield Change(field, "removed", at(field, REMOVED), REFUSED, field)
    mistakes = {
        "without containers": (template(containers=[]), "containers"),
        "a pod that always restarts": (template(restartPolicy="Always"), "restartPolicy"),
        "a field misspelt": (template(serviceAcountName="x"), "serviceAcountName"),
        "a bad name of a container": (container(name="Not_A_Name"), "name"),
        "a bad quantity": (container(resources={"limits": {"cpu": "much"}}), "quantities"),
        "no image": (container(image=""), "image"),
        "a volume that is not there": (
            container(volumeMounts=[{"name": "data", "mountPath": "/data"}]),
            "volumeMounts",
        ),
        "metadata that is a text": (at(field, {"metadata": "x"}), "metadata"),
        "empty": (at(field, {}), "containers"),
    }
    for what, (patch, says) in mistakes.items():
        yield Change(field, what, patch, UNREADY, says)
    account = template(serviceAccountName="nobody")
    yield Change(field, "a service account that is not there", account, SILENT)
    claimed = template(priorityClassName="nothing")
    yield Change(field, "a priority class that is not there", claimed, SILENT)
    for limit in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        yield from _ready(f"spec.job.{limit}", 0, 20)
        yield from _refused(f"spec.job.{limit}", -1, 1001, "three", 1.5)


def _deeds(target: Target) -> Iterator[Deed]:
    yield Deed("spec.concurrency", "raised by kubectl scale", "scale", True, {"cap": 9})
    yield Deed("spec.concurrency", "lowered by kubectl scale", "scale", True, {"cap": 1})
    yield Deed("spec.concurrency", "beyond all by kubectl scale", "scale_beyond")
    yield Deed("metadata.labels", "some", "label", True)
    yield Deed("metadata.labels", "garbage", "label_badly")
    yield Deed("metadata.annotations", "garbage under our names", "annotate")
    yield Deed("metadata.annotations", "the ledger's mark taken away", "take_mark_away")
    yield Deed("metadata.annotations", "a hundred requests", "annotate_much")
    yield Deed("metadata.finalizers", "a foreign one, and deleted", "delete_held")
    yield Deed("metadata.name", "deleted and made again", "make_again")
    yield Deed("spec.database.urlSecretRef.name", "the Secret deleted for a while", "lose_secret")
    yield Deed("spec.database.urlSecretRef.key", "the Secret overwritten", "spoil_secret")
    if target == "job":
        yield Deed("spec.job.template", "a quota without Jobs", "allow_no_jobs")


def _ready(field: str, *values: Json) -> Iterator[Change]:
    for value in values:
        yield Change(field, f"{value}", at(field, value), READY)


def _refused(field: str, *values: Json) -> Iterator[Change]:
    for value in values:
        said = repr(value) if len(repr(value)) < 40 else f"{repr(value)[:20]}... (too long)"
        yield Change(field, said, at(field, value), REFUSED, field)


def _taken(field: str, value: Json, what: str) -> Change:
    return Change(field, f"{value}, {what}", at(field, value), SILENT)


def _texts(field: str, *ready: str) -> Iterator[Change]:
    yield from _ready(field, *ready)
    yield from _refused(field, "", 7, _TOO_LONG)


def _durations(field: str, ready: Iterable[str], too_short: str | None = None) -> Iterator[Change]:
    yield from _ready(field, *ready)
    yield from _refused(field, "30", "-5s", "1d", 5, *([too_short] if too_short else []))


def good(target: Target, query: str = GOOD_QUERY) -> dict[str, Any]:
    """A spec without a mistake.

    Whatever is launched is over after 20 seconds at the latest, so that no mistake holds a slot for
    longer than that; a row may be tried as often as there is time.
    """
    spec: dict[str, Any] = {
        "database": {"urlSecretRef": {"name": "database", "key": "url"}},
        "query": query,
        "key": ["item"],
        "interval": "500ms",
        "concurrency": 4,
        "deadline": "8s" if target == "celery" else "20s",
        "retry": {"attempts": 100, "backoff": "500ms", "maxBackoff": "2s"},
    }
    if target == "job":
        return {**spec, "job": {"template": GOOD_TEMPLATE}}
    return {
        **spec,
        "celery": {
            "broker": {"urlSecretRef": {"name": "broker", "key": "url"}},
            "guard": {"urlSecretRef": {"name": "guard", "key": "url"}},
            "task": "trial.work",
            "queue": "@trial",
            "expires": "8s",
        },
    }
