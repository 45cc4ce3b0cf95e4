"""The part of a kubelet that the API server asks for the logs of pods, for a stand-in's Node."""

import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

from tests.support.api import Api
from tests.support.certificates import make_certificate

_ADDRESS = "127.0.0.1"


class PodLogs:
    """Answers with what `said` gives for a pod's name, as it stands; use it as a context manager.

    with PodLogs(plane.kubeconfig(), kubelet.node, tmp_path, lambda pod: "line\\n"):
        ...
    """

    def __init__(
        self, kubeconfig: Path, node: str, folder: Path, said: Callable[[str], str]
    ) -> None:
        self._api = Api(kubeconfig)
        self._node = node
        self._server = ThreadingHTTPServer((_ADDRESS, 0), _handler(said))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*make_certificate(folder))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        where = {
            "addresses": [{"type": "InternalIP", "address": _ADDRESS}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._server.server_port}},
        }
        self._api.patch(f"/api/v1/nodes/{self._node}/status", {"status": where})
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(said: Callable[[str], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            # /containerLogs/NAMESPACE/POD/CONTAINER
            lines = said(asked.path.split("/")[3]).splitlines(keepends=True)
            tail = parse_qs(asked.query).get("tailLines")
            body = "".join(lines[-int(tail[0]) :] if tail else lines).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
