from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from urllib3.exceptions import HTTPError, NewConnectionError

from tests.support.api import Api, ApiError
from tests.support.apiproxy import ApiProxy
from tests.support.controlplane import ControlPlane, KubectlError
from tests.support.faults import Answer, Delay, EndWatch, Lag, LoseReply, LoseRequest, Stale, Stall
from tests.support.waiting import eventually


@pytest.fixture
def proxy(control_plane: ControlPlane, tmp_path: Path) -> Iterator[ApiProxy]:
    with ApiProxy(control_plane.kubeconfig(), tmp_path) as proxy:
        yield proxy


@pytest.fixture
def place(control_plane: ControlPlane) -> str:
    """Where the config maps of a namespace of this test's own are."""
    return f"/api/v1/namespaces/{control_plane.create_namespace()}/configmaps"


@pytest.fixture
def direct(control_plane: ControlPlane) -> Api:
    """The API server itself."""
    return Api(control_plane.kubeconfig())


@pytest.fixture
def client(control_plane: ControlPlane, proxy: ApiProxy) -> Api:
    """The API server by way of the proxy."""
    return Api(proxy.kubeconfig(control_plane.kubeconfig()))


@pytest.fixture
def hasty(control_plane: ControlPlane, proxy: ApiProxy) -> Api:
    """As `client`, but it gives up soon."""
    return Api(proxy.kubeconfig(control_plane.kubeconfig()), timeout=0.5)


def named(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


def names(api: Api, place: str) -> set[str]:
    found = {item["metadata"]["name"] for item in api.get(place)["items"]}
    return found - {"kube-root-ca.crt"}


class Watching:
    """What a watch tells of objects from now on, followed in a thread of its own."""

    def __init__(self, api: Api, place: str) -> None:
        self.events: list[Any] = []
        self.error: HTTPError | None = None
        since = api.get(place)["metadata"]["resourceVersion"]
        self._watch = api.watch(place, since)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    @property
    def names(self) -> set[str]:
        return {event["object"]["metadata"].get("name") for event in self.events}

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def _follow(self) -> None:
        try:
            self.events.extend(self._watch)
        except HTTPError as error:
            self.error = error


def test_requests_are_passed_on_and_recorded(
    proxy: ApiProxy, client: Api, direct: Api, place: str
) -> None:
    before = time.time()
    client.create(f"{place}?fieldManager=me", named("first", a="1"))
    (request,) = proxy.requests("POST", "/configmaps$")
    assert (request.path, request.forwarded, request.status) == (place, 201, 201)
    assert (request.json()["data"], request.query["fieldManager"]) == ({"a": "1"}, "me")
    assert request.user_agent == "tests"
    assert before <= request.time <= time.time()
    assert direct.get(f"{place}/first")["metadata"]["managedFields"][0]["manager"] == "me"


def test_who_asks_is_who_asked_the_proxy(control_plane: ControlPlane, proxy: ApiProxy) -> None:
    refused = control_plane.service_account("refused")
    with pytest.raises(KubectlError, match="system:serviceaccount:default:refused"):
        control_plane.kubectl("get", "configmaps", kubeconfig=proxy.kubeconfig(refused))
    assert {request.status for request in proxy.requests("GET", "/configmaps$")} == {403}


@pytest.mark.parametrize("status", [401, 403, 409, 410, 429, 500, 503])
def test_a_status_is_answered_in_place_of_the_api_server(
    proxy: ApiProxy, client: Api, place: str, status: int
) -> None:
    rule = proxy.add(Answer(status), method="POST", path="/configmaps$")
    with pytest.raises(ApiError) as refused:
        client.create(place, named("first"))
    assert refused.value.status == status
    assert [request.forwarded for request in rule.hits] == [None]
    proxy.remove(rule)
    client.create(place, named("second"))
    assert names(client, place) == {"second"}


def test_retry_after_and_the_number_of_times(
    control_plane: ControlPlane, proxy: ApiProxy, place: str
) -> None:
    proxy.add(Answer(429, retry_after=1), method="POST", path="/configmaps$", times=2)
    kubeconfig = proxy.kubeconfig(control_plane.kubeconfig())
    namespace = place.split("/")[4]
    control_plane.kubectl("-n", namespace, "create", "configmap", "first", kubeconfig=kubeconfig)
    answers = [request.status for request in proxy.requests("POST", "/configmaps$")]
    assert answers == [429, 429, 201]


def test_a_rule_may_look_at_what_is_sent(proxy: ApiProxy, client: Api, place: str) -> None:
    proxy.add(Answer(403), when=lambda request: b"forbidden" in request.body)
    with pytest.raises(ApiError):
        client.create(place, named("forbidden"))
    client.create(place, named("allowed"))
    assert names(client, place) == {"allowed"}


def test_a_lost_reply_is_to_a_request_that_was_done(
    proxy: ApiProxy, client: Api, place: str
) -> None:
    rule = proxy.add(LoseReply(), method="POST", times=1)
    with pytest.raises(HTTPError):
        client.create(place, named("first"))
    assert names(client, place) == {"first"}
    assert [(request.forwarded, request.status) for request in rule.hits] == [(201, None)]


def test_a_lost_request_was_not_done(proxy: ApiProxy, client: Api, place: str) -> None:
    rule = proxy.add(LoseRequest(), method="POST", times=1)
    with pytest.raises(HTTPError):
        client.create(place, named("first"))
    assert names(client, place) == set()
    assert [(request.forwarded, request.status) for request in rule.hits] == [(None, None)]


@pytest.mark.parametrize(
    ("fault", "done"), [(LoseReply(math.inf), {"first"}), (LoseRequest(math.inf), set())]
)
def test_a_connection_hangs_until_the_client_gives_up(
    proxy: ApiProxy, hasty: Api, client: Api, place: str, fault: Any, done: set[str]
) -> None:
    rule = proxy.add(fault, method="POST", times=1)
    with pytest.raises(HTTPError, match="timed out"):
        hasty.create(place, named("first"))
    if done:
        eventually(lambda: rule.hits[0].forwarded == 201)
    assert names(client, place) == done


def test_a_delayed_request_arrives_although_its_client_has_gone(
    proxy: ApiProxy, hasty: Api, client: Api, place: str
) -> None:
    rule = proxy.add(Delay(before=5), method="POST")
    with pytest.raises(HTTPError, match="timed out"):
        hasty.create(place, named("first"))
    assert names(client, place) == set()
    eventually(lambda: names(client, place) == {"first"})
    assert [(request.forwarded, request.status) for request in rule.hits] == [(201, None)]


def test_a_late_answer_comes(proxy: ApiProxy, client: Api, place: str) -> None:
    proxy.add(Delay(after=1), method="POST")
    begun = time.monotonic()
    assert client.create(place, named("first"))["metadata"]["name"] == "first"
    assert time.monotonic() - begun >= 1


def test_events_of_a_watch_come_one_by_one(client: Api, place: str) -> None:
    watching = Watching(client, place)
    large = "x" * 900_000
    for name, data in (("first", "small"), ("second", large), ("third", "small")):
        client.create(place, named(name, text=data))
        eventually(lambda name=name: name in watching.names)  # type: ignore[misc] # its default
    assert watching.events[1]["object"]["data"] == {"text": large}
    assert not watching.ended


def test_a_stalled_watch_says_nothing_more(
    proxy: ApiProxy, client: Api, direct: Api, place: str
) -> None:
    watching, witness = Watching(client, place), Watching(direct, place)
    client.create(place, named("before"))
    eventually(lambda: watching.names == {"before"})
    stall = proxy.add(Stall())
    later = Watching(client, place)
    assert [request.path for request in stall.hits] == [place, place]
    client.create(place, named("during"))
    eventually(lambda: "during" in witness.names)
    proxy.remove(stall)
    fresh = Watching(client, place)
    client.create(place, named("after"))
    eventually(lambda: fresh.names == {"after"})
    assert (watching.names, later.names) == ({"before"}, set())
    assert not watching.ended


def test_a_watch_that_lags_shows_the_past(
    proxy: ApiProxy, client: Api, direct: Api, place: str
) -> None:
    watching, witness = Watching(client, place), Watching(direct, place)
    proxy.add(Lag(2))
    for name in ("first", "second"):
        direct.create(place, named(name))
    eventually(lambda: witness.names == {"first", "second"})
    began = time.monotonic()
    assert watching.names == set()
    eventually(lambda: watching.names == {"first", "second"})
    assert time.monotonic() - began > 1
    assert [event["type"] for event in watching.events] == ["ADDED", "ADDED"]


def test_what_was_read_once_is_read_again_and_a_watch_goes_on_from_there(
    proxy: ApiProxy, client: Api, direct: Api, place: str
) -> None:
    stale = proxy.add(Stale(), path="/configmaps$")
    client.create(place, named("first"))
    assert names(client, place) == {"first"}
    direct.create(place, named("second"))
    assert names(client, place) == {"first"}
    assert [request.status for request in stale.hits] == [200, 200]
    watching = Watching(client, place)
    eventually(lambda: watching.names == {"second"})
    proxy.remove(stale)
    assert names(client, place) == {"first", "second"}


@pytest.mark.parametrize("code", [410, 500])
def test_a_watch_ends_with_an_error(proxy: ApiProxy, client: Api, place: str, code: int) -> None:
    watching = Watching(client, place)
    proxy.add(EndWatch(code), path="/configmaps$", times=1)
    eventually(lambda: watching.ended)
    (event,) = watching.events
    assert (event["type"], event["object"]["code"]) == ("ERROR", code)
    client.create(place, named("first"))


def test_a_watch_ends_as_if_its_time_were_over(proxy: ApiProxy, client: Api, place: str) -> None:
    watching = Watching(client, place)
    rule = proxy.add(EndWatch())
    eventually(lambda: watching.ended)
    at_once = Watching(client, place)
    eventually(lambda: at_once.ended)
    assert (watching.events, watching.error, at_once.events) == ([], None, [])
    assert len(rule.hits) == 2


def test_a_watch_is_refused_as_too_old(proxy: ApiProxy, client: Api, place: str) -> None:
    proxy.add(Answer(410), when=lambda request: request.watch)
    with pytest.raises(ApiError, match="Expired"):
        Watching(client, place)


def test_everything_is_down_and_up_again(proxy: ApiProxy, client: Api, place: str) -> None:
    watching = Watching(client, place)
    proxy.down()
    eventually(lambda: watching.ended)
    assert watching.error is not None
    with pytest.raises(NewConnectionError, match="refused"):
        client.get(place)
    proxy.up()
    client.create(place, named("first"))
    assert names(client, place) == {"first"}


def test_without_the_api_server_connections_are_cut(
    control_plane: ControlPlane, client: Api, place: str
) -> None:
    watching = Watching(client, place)
    control_plane.kill_apiserver()
    eventually(lambda: watching.ended)
    with pytest.raises(HTTPError):
        client.get(place)
    control_plane.start_apiserver()
    client.create(place, named("first"))
