"""Plain requests to an API server, for parts of the tests that make many of them."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import urllib3
import yaml

Json = dict[str, Any]


class ApiError(RuntimeError):
    """The API server refused; `status` is HTTP's."""

    def __init__(self, method: str, path: str, status: int, answer: str) -> None:
        super().__init__(f"{method} {path}: {status}: {answer}")
        self.status = status

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status == 429 or self.status >= 500


class Api:
    """The API server of a kubeconfig with a token. It may be used by several threads."""

    def __init__(self, kubeconfig: Path, *, connections: int = 16, timeout: float = 10.0) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        cluster = document["clusters"][0]["cluster"]
        self._server = cluster["server"]
        self._headers = {
            "Authorization": f"Bearer {document['users'][0]['user']['token']}",
            "User-Agent": "tests",
        }
        self._pool = urllib3.PoolManager(
            maxsize=connections, ca_certs=cluster["certificate-authority"], retries=False
        )
        self._timeout = timeout

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        content: str = "application/json",
    ) -> Json:
        """The answer's document.

        Raises ApiError if it is none of success, urllib3.exceptions.HTTPError if there is none.
        """
        answer = self._pool.request(
            method,
            self._server + path,
            body=None if body is None else json.dumps(body),
            headers={**self._headers, "Content-Type": content},
            timeout=self._timeout,
        )
        if answer.status >= 300:
            raise ApiError(method, path, answer.status, answer.data.decode(errors="replace"))
        document: Json = json.loads(answer.data)
        return document

    def get(self, path: str) -> Json:
        return self.request("GET", path)

    def create(self, path: str, body: Mapping[str, Any]) -> Json:
        return self.request("POST", path, body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Json:
        """A strategic merge patch: lists such as conditions are merged by their keys."""
        content = "application/strategic-merge-patch+json"
        return self.request("PATCH", path, body, content=content)

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> Json:
        return self.request("DELETE", path, body)

    def watch(self, path: str, since: str, *, bookmarks: bool = False) -> "Watch":
        """What happens to a collection after that resourceVersion.

        It ends, as all requests do, when nothing was heard for so many seconds. `bookmarks`: about
        once a minute it tells up to which resourceVersion nothing has happened.
        """
        query = f"watch=true&resourceVersion={since}&allowWatchBookmarks={str(bookmarks).lower()}"
        answer = self._pool.request(
            "GET",
            f"{self._server}{path}?{query}",
            headers=self._headers,
            timeout=self._timeout,
            preload_content=False,
        )
        if answer.status != 200:
            raise ApiError("WATCH", path, answer.status, answer.data.decode(errors="replace"))
        return Watch(answer)


class Watch:
    """A stream of events; `close` ends it from another thread, perhaps amid one."""

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[Json]:
        rest = b""
        for chunk in self._answer.stream():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                try:
                    event = json.loads(line)
                except ValueError:
                    return  # cut off: what comes after it is garbage
                yield event

    def close(self) -> None:
        # An error means that it has ended by itself.
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            self._answer.shutdown()
