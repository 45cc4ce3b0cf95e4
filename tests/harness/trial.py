"""One trial: rows, a ScannerJob, its operators, and all that was observed of them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import yaml

from tests.harness.operators import Operator, environment
from tests.harness.setting import Setting
from tests.harness.stage import Stage
from tests.harness.witnesses.amqp_messages import AmqpMessages
from tests.harness.witnesses.application import Application
from tests.harness.witnesses.cluster import ClusterWitness
from tests.harness.witnesses.ledger import LedgerWitness
from tests.harness.witnesses.redis_messages import RedisMessages
from tests.harness.witnesses.sql_messages import SqlMessages
from tests.proof.history import Excuse, Fault, History
from tests.proof.judge import judge
from tests.proof.violation import Violation
from tests.support.apiproxy import ApiProxy
from tests.support.kubelet import Kubelet
from tests.support.tcpproxy import TcpProxy

NAME = "rows"
# In the folder of a trial that is kept.
KEPT = "status.json"
_SCANNERJOBS = "/apis/scannerjob.dev/v1alpha1/namespaces/{}/scannerjobs"
# How much later one witness of a trial may be than another, and how long after the last fault all
# was asked again, in seconds; what is asked of a run's end follows from both.
SLACK, RECOVERY = 3.0, 15.0


@dataclass
class Verdict:
    """What the judge says of a trial, and what it was about.

    `complaints` are of what was not as it should be beside the promises that the judge knows of.
    """

    violations: list[Violation]
    history: History
    seconds: float
    done: int
    notes: dict[str, Any] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether no promise was broken, and nothing else was amiss."""
        return not self.violations and not self.complaints

    @property
    def launches(self) -> int:
        """How many were seen."""
        return len(self.history.messages) + len(self.history.jobs)

    def __str__(self) -> str:
        said = "\n\n".join(map(str, self.violations)) or "all promises were kept"
        return "\n".join([said, *self.complaints])


class Trial:
    """See the module; use it as a context manager.

    with Trial(stage, Setting(replicas=2)) as trial:
        trial.start()
        trial.operators[0].kill()
        ...
        verdict = trial.finish()
    """

    def __init__(self, stage: Stage, setting: Setting) -> None:
        self.stage = stage
        self.setting = setting
        self.name = f"trial-{secrets.token_hex(4)}"
        self.folder = stage.folder / self.name
        self.folder.mkdir()
        self.operators: list[Operator] = []
        self.faults: list[Fault] = []
        self.excuses: list[Excuse] = []
        # How many answers of servers were cut short; None if none was to be.
        self.cuts: int | None = None
        self._inserted = 0
        self._kubelet: Kubelet | None = None
        self._ends = ExitStack()
        self._began = time.time()

    # Setting it up.

    def __enter__(self) -> Self:
        try:
            self._prepare()
            return self
        except BaseException:
            self._ends.close()
            raise

    def __exit__(self, *_: object) -> None:
        for operator in self.operators:
            operator.kill()
        self._ends.close()

    def _prepare(self) -> None:
        self.rows = Application(self.stage.database_url, self.name.replace("-", "_"))
        if self.setting.target == "celery":
            self._broker_url = self.stage.new_broker(self.setting.broker)
            worker = self.stage.consuming(self.setting, self._broker_url, self.name)
            self._ends.enter_context(worker)
        if self.setting.way == "operator":
            self._prepare_namespace()
        else:
            self._prepare_folder()
        if self.setting.target == "celery":
            self._messages = self._message_witness()
            self._ends.enter_context(self._messages)

    def _prepare_namespace(self) -> None:
        kubeconfig = self.stage.create_namespace(self.name)
        self._ends.callback(self.stage.api.delete, f"/api/v1/namespaces/{self.name}")
        self._witness: Any = self._ends.enter_context(
            ClusterWitness(self.stage.plane.kubeconfig(), self.name)
        )
        if self.setting.target == "job":
            self._kubelet = self._ends.enter_context(
                Kubelet(
                    self.stage.plane.kubeconfig(),
                    [self.name],
                    work=self.rows.work,
                    fate=self.rows.fate,
                )
            )
        for name, url in self._urls().items():
            self.stage.api.create(
                f"/api/v1/namespaces/{self.name}/secrets",
                {"metadata": {"name": name}, "stringData": {"url": url}},
            )
        options = ["operator", "--namespace", self.name]
        options += [] if self.setting.election else ["--no-leader-election"]
        self._make_operators(options, environment(self._kubeconfig(kubeconfig)))

    def _prepare_folder(self) -> None:
        for name, url in self._urls().items():
            place = self.folder / "secrets" / name
            place.mkdir(parents=True)
            (place / "url").write_text(url)
        self.state = f"sqlite:///{self.folder / 'state.sqlite'}"
        document = self.folder / "scannerjob.yaml"
        document.write_text(yaml.safe_dump(self.document()))
        options = ["run", "-f", str(document), "--state", self.state]
        options += ["--secrets", str(self.folder / "secrets")]
        self._witness = self._ends.enter_context(LedgerWitness(self.state))
        self._make_operators(options, environment(None))

    def _make_operators(self, options: list[str], env: Mapping[str, str]) -> None:
        self.operators = [
            Operator(self.stage.nursery, options, self.folder, env, number)
            for number in range(self.setting.replicas)
        ]

    def _kubeconfig(self, original: Path) -> Path:
        if not self.setting.proxied:
            return original
        self.api = self._ends.enter_context(ApiProxy(self.stage.plane.kubeconfig(), self.folder))
        return self.api.kubeconfig(original)

    def _urls(self) -> dict[str, str]:
        """What the operators are told of databases and brokers."""
        stage, celery = self.stage, self.setting.target == "celery"
        urls = {"database": stage.database_url}
        if celery:
            urls["broker"] = self._broker_url
        if celery and self.setting.guard:
            urls["guard"] = stage.redis.url
        return self._proxied(urls) if self.setting.proxied else urls

    def _proxied(self, urls: Mapping[str, str]) -> dict[str, str]:
        """One proxy for each server: `guard` is that of the broker where both are one Redis."""
        ports = {name: port_of(url) for name, url in urls.items()}
        proxies = {port: TcpProxy("127.0.0.1", port) for port in set(ports.values())}
        for proxy in proxies.values():
            self._ends.enter_context(proxy)
        self.proxies = {name: proxies[port] for name, port in ports.items()}
        return {
            name: url.replace(f":{ports[name]}", f":{self.proxies[name].port}")
            for name, url in urls.items()
        }

    @property
    def database(self) -> TcpProxy:
        """Between the operators and the application's database."""
        return self.proxies["database"]

    @property
    def broker(self) -> TcpProxy:
        """Between the operators and the broker."""
        return self.proxies["broker"]

    @property
    def guard(self) -> TcpProxy:
        """Between the operators and the guard's store; the broker's own where that is one Redis."""
        return self.proxies["guard"]

    def _message_witness(self) -> RedisMessages | AmqpMessages | SqlMessages:
        match self.setting.broker:
            case "redis":
                return RedisMessages(self._broker_url)
            case "rabbitmq":
                return AmqpMessages(self.stage.rabbitmq, self._broker_url)
            case "sql":
                return SqlMessages(self._broker_url)

    def document(self) -> dict[str, Any]:
        """The ScannerJob."""
        spec: dict[str, Any] = {
            "database": {"urlSecretRef": {"name": "database", "key": "url"}},
            "query": self.rows.query,
            "interval": "500ms",
            "concurrency": self.setting.cap,
            "retry": {"attempts": 5, "backoff": "500ms", "maxBackoff": "2s"},
            self.setting.target: self._launching(),
        }
        spec = _merged(spec, self.setting.spec)
        metadata = {"name": NAME, "namespace": self.name}
        head = {"apiVersion": "scannerjob.dev/v1alpha1", "kind": "ScannerJob"}
        return {**head, "metadata": metadata, "spec": spec}

    def _launching(self) -> dict[str, Any]:
        if self.setting.target == "job":
            container = {"name": "work", "image": "none", "command": ["work", "$(ITEM)"]}
            pod = {"spec": {"containers": [container]}}
            return {"template": {"spec": {"template": pod}}}
        celery: dict[str, Any] = {
            "broker": {"urlSecretRef": {"name": "broker", "key": "url"}},
            "task": "trial.work",
            "queue": self.name,
        }
        if self.setting.guard:
            celery["guard"] = {"urlSecretRef": {"name": "guard", "key": "url"}}
        return celery

    # Running it.

    def apply(self) -> None:
        """Put its rows and its ScannerJob there."""
        self.insert(self.setting.rows)
        if self.setting.way == "operator":
            self.stage.api.create(_SCANNERJOBS.format(self.name), self.document())

    def start(self) -> None:
        """Put its rows and its ScannerJob there, and start its operators."""
        self.apply()
        for operator in self.operators:
            operator.start()

    def insert(self, rows: int) -> None:
        """Put so many more rows there; some are to fail once."""
        for _ in range(rows):
            self._inserted += 1
            every = self.setting.fails_every
            fails = int(every > 0 and self._inserted % every == 0)
            self.rows.insert(1, seconds=self.setting.seconds, fails=fails)

    @contextmanager
    def fault(self, kind: str) -> Iterator[None]:
        """Around a time in which something is wrong: begin it before, heal it after."""
        begin = time.time()
        try:
            yield
        finally:
            self.faults.append(Fault(kind, begin, time.time()))

    @property
    def status(self) -> Mapping[str, Any]:
        """As its witness saw it last."""
        versions = self._witness.versions()
        return versions[-1].status if versions else {}

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for something; whether it came."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.1)
        return condition()

    # Ending it.

    def finish(
        self, within: float = 120.0, *, recovery: float = RECOVERY, quiet: float = 1.0
    ) -> Verdict:
        """Wait until all is done, or `within` is over, and judge what was observed.

        Until so many seconds later, too: the status is to be right by then, and left alone.
        """
        self.wait(self._is_done, within)
        changed = max([time.time(), *(each.end + recovery for each in self.faults)])
        calm = changed + 2 * 0.5 + SLACK + quiet
        self.wait(lambda: time.time() > calm, within)
        self._witness.wait_caught_up()
        if self.setting.target == "celery":
            self._messages.wait_caught_up()
        history = self.history()
        promised = self.setting.promised(slack=SLACK, recovery=recovery)
        violations = judge(history, promised)
        done = sum(row.until < inf for row in history.rows)
        seconds = time.time() - self._began
        notes = {"hits": self._hits()}
        return Verdict(violations, history, seconds, done, notes, list(self._tracebacks()))

    def _hits(self) -> int | None:
        """How many calls and answers went wrong, where that can be counted."""
        of_api = (
            self.api.hits() if self.setting.proxied and self.setting.way == "operator" else None
        )
        counted = [each for each in (of_api, self.cuts) if each is not None]
        return sum(counted) if counted else None

    def _tracebacks(self) -> Iterator[str]:
        """Whatever goes wrong outside, a log tells of it in words."""
        for operator in self.operators:
            _, found, after = operator.log().partition("Traceback")
            if found:
                yield f"a traceback is in {operator.log_file}:\n{found}{after[:4000]}"

    def _is_done(self) -> bool:
        if self.rows.waiting():
            return False
        status = self.status
        return not any(status.get(each) for each in ("active", "waiting"))

    def history(self) -> History:
        """All that was observed until now."""
        in_cluster = self.setting.way == "operator"
        celery = self.setting.target == "celery"
        end = time.time()
        return History(
            end=end,
            versions=self._witness.versions(),
            jobs=self._witness.jobs() if in_cluster else (),
            pods=self._witness.pods() if in_cluster else (),
            messages=self._messages.messages() if celery else (),
            executions=self.rows.executions(self._kubelet),
            rows=self.rows.rows(),
            faults=self.faults,
            excuses=self.excuses,
            gaps=[
                *(self._witness.gaps() if in_cluster else ()),
                *(self._messages.gaps() if celery else ()),
            ],
        )

    def logs(self) -> str:
        """What all operators wrote."""
        return "".join(f"--- {each.log_file}\n{each.log()}" for each in self.operators)

    def keep(self) -> Path:
        """Write down the last status beside the logs; the folder of both, which then stays."""
        (self.folder / KEPT).write_text(json.dumps(dict(self.status), indent=1))
        return self.folder


def port_of(url: str) -> int:
    """The port in a URL."""
    port = urlsplit(url).port
    assert port, url
    return port


def _merged(spec: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """As a merge patch does it, but that None is a value."""
    merged = dict(spec)
    for name, value in changes.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = _merged(old, value)  # noqa: PLW2901
        merged[name] = value
    return merged
