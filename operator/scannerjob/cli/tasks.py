"""What a task said as it failed, where a result backend keeps it."""

from __future__ import annotations

from scannerjob.access import access_to
from scannerjob.logs import hide
from scannerjob.model.spec import Connection
from scannerjob.ports import Ref
from scannerjob.secrets import Secrets
from scannerjob.targets.celery import Brokers


async def last_words(
    task_id: str, result_backend: Connection, ref: Ref, secrets: Secrets
) -> list[str]:
    """The end of its traceback; nothing of a task that has not failed.

    Raises ConfigurationError, and PortError where a Secret or the backend cannot be read.
    """
    access = await access_to(result_backend, "spec.celery.resultBackend", ref, secrets)
    hide(ref, access.url)
    brokers = Brokers()
    try:
        return await brokers.results(access.url, access.files).last_words(task_id)
    finally:
        brokers.close()
