"""A real RabbitMQ for tests, with a data folder and an epmd of its own.

with RabbitServer() as server:
    url = server.create_vhost()
"""

import base64
import itertools
import json
import shutil
import signal
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from tests.support.binaries import need
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.servers import Server

_PLUGINS = "[rabbitmq_management]."


class RabbitServer(Server):
    """RabbitMQ with its management API; `app` may do everything in its virtual hosts.

    What was published as persistent survives `kill()` and `start()` once it was confirmed.
    `settings` are lines of rabbitmq.conf.
    """

    user = "rabbitmq"
    stop_signal = signal.SIGTERM

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.management_port = free_port()
        self._settings = dict(settings or {})
        self._numbers = itertools.count(1)
        self._epmd_port, self._distribution_port = free_port(), free_port()
        self._epmd: Process | None = None

    @property
    def url(self) -> str:
        """The virtual host `app`, as the user of the same name."""
        return self._url("app")

    def create_vhost(self) -> str:
        """The URL of a new and empty virtual host."""
        name = f"test-{next(self._numbers)}"
        self.ask("PUT", f"vhosts/{name}")
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        self.ask("PUT", f"permissions/{name}/app", rights)
        return self._url(name)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the management API; gives the answer's JSON, None for an empty one."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.management_port}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {self._authorization}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def control(self, *command: str) -> None:
        """Run rabbitmqctl."""
        self._run(self._with_variables(need("rabbitmqctl"), *command))

    def start(self) -> Self:
        if self._epmd is None or not self._epmd.running:
            # Without one of its own, a node leaves one running behind it.
            command = (need("epmd"), "-port", str(self._epmd_port), "-address", "127.0.0.1")
            self._epmd = Process(command, log=self.folder / "epmd.log").start()
        return super().start()

    def close(self) -> None:
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
        super().close()

    def prepare(self) -> None:
        settings = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": str(self.management_port),
            "default_user": "app",
            "default_pass": self.password,
            "default_vhost": "app",
            "disk_free_limit.absolute": "10MB",
            "log.console": "true",
            "log.console.level": "warning",
            "log.file": "false",
            **self._settings,
        }
        self._write("rabbitmq.conf", "".join(f"{k} = {v}\n" for k, v in settings.items()))
        self._write("plugins", _PLUGINS)

    def command(self) -> list[str | Path]:
        return self._with_variables(need("rabbitmq-server"))

    def ping(self) -> None:
        self.ask("GET", "overview")

    def _url(self, vhost: str) -> str:
        return f"amqp://app:{self.password}@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    def _with_variables(self, *command: str | Path) -> list[str | Path]:
        return ["env", *(f"{name}={value}" for name, value in self._variables().items()), *command]

    def _variables(self) -> dict[str, str]:
        distribution = "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"
        return {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # Two schedulers: a machine of a test has few cores, and each one more spins.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 2:2 +sbwt none {distribution}",
            "RABBITMQ_NODENAME": f"test-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }

    @property
    def _authorization(self) -> str:
        return base64.b64encode(f"app:{self.password}".encode()).decode()

    def _write(self, name: str, content: str) -> None:
        file = self.folder / name
        file.write_text(content)
        if self._run_as:
            shutil.chown(file, self._run_as)
