"""Tasks that do nothing, in a worker with the guard or without, and one that tells it came last."""

import os

import redis
from celery import Celery

app = Celery("guarded", broker=os.environ["BROKER"])
app.conf.task_ignore_result = True

if os.environ["GUARD"]:
    from scannerjob.worker import install

    install(app, os.environ["GUARD"])


def nothing() -> None:
    """What is left is what Celery and the guard take."""


def last() -> None:
    """Tell whoever waits that all before it are done."""
    with redis.Redis.from_url(os.environ["BROKER"]) as client:
        client.lpush("last", 1)


app.task(name="nothing")(nothing)
app.task(name="last")(last)
