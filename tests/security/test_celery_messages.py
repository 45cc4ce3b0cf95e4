"""What an author may write into messages: nothing that gives a launch another identity or form."""

import base64
import json
from typing import Any

import pytest
import redis

from scannerjob.ports import ConfigurationError
from scannerjob.targets.celery import Brokers
from scannerjob.worker.records import HEADER
from tests.support.celery_target import celery_spec, launch, make_send, opened
from tests.support.waiting import eventually

# What a worker believes of who a message is, what it runs and whom it answers.
IDENTITY = ["id", "task", "root_id", "parent_id", "group", "argsrepr", "kwargsrepr", "shadow"]
BEHAVIOUR = ["expires", "eta", "timelimit", "retries", "ignore_result", "origin", "lang"]


@pytest.mark.parametrize("header", [*IDENTITY, *BEHAVIOUR, "compression", HEADER])
def test_a_header_of_celerys_or_ours_is_refused(header: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"spec\.celery\.headers\.{header}"):
        Brokers().open("redis://redis/0", None, celery_spec(headers={header: "forged"}))


def sent(redis_url: str, **celery: Any) -> dict[str, Any]:
    """The message that a launch becomes, as it lies in the queue."""
    send = make_send({"pdf_id": 1}, id="the-launch")
    launch(opened(redis_url, spec=celery_spec(**celery)), [send])
    with redis.Redis.from_url(redis_url) as client:
        queue = celery.get("queue", "celery")
        raw = eventually(lambda: client.lindex(queue, 0), message="the message is there")
    message: dict[str, Any] = json.loads(raw)
    return message


def test_other_headers_change_nothing_of_what_a_worker_believes(redis_url: str) -> None:
    names = ("reply_to", "correlation_id", "ID", "Task", "callbacks", "chain", "x-death")
    others = dict.fromkeys(names, "forged")
    plain = sent(redis_url)
    redis.Redis.from_url(redis_url).flushdb()

    forged = sent(redis_url, headers=others)

    assert {**plain["headers"], **others} == {
        **forged["headers"],
        "origin": plain["headers"]["origin"],
    }
    assert forged["headers"]["id"] == forged["headers"][HEADER] == "the-launch"
    assert forged["properties"]["correlation_id"] == "the-launch"
    assert forged["properties"]["reply_to"] != "forged"
    assert forged["body"] == plain["body"]


@pytest.mark.parametrize(
    "task", ["a task", "os.system", "../../etc", "$(touch x)", "tä.sk", '"}, {"x": "', "x" * 200]
)
def test_a_tasks_name_is_no_more_than_a_name(redis_url: str, task: str) -> None:
    message = sent(redis_url, task=task)

    assert message["headers"]["task"] == task
    assert message["headers"]["id"] == "the-launch"
    assert message["content-type"] == "application/json"
    args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    assert (args, kwargs) == ([], {"pdf_id": 1})


def test_messages_are_json_whatever_a_worker_beside_us_is_told(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Celery reads these where it is not told otherwise.
    monkeypatch.setenv("CELERY_TASK_SERIALIZER", "pickle")
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "evil")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "evil.module:Backend://x")

    message = sent(redis_url)

    assert message["content-type"] == "application/json"
    assert "pickle" not in json.dumps(message)
