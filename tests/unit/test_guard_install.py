"""What `install` makes of what it is told; what it does to workers is in tests/services."""

import pytest
from celery import Celery, Task

from scannerjob.worker import StoreError, fenced, install

_URL = "redis://127.0.0.1/0"


class _Counting(Task):  # type: ignore[misc]  # Celery has no types
    def before_start(self, task_id, args, kwargs):  # type: ignore[no-untyped-def]
        self.app.begun.append(self.name)


def _nothing() -> None:
    pass


@pytest.fixture
def app() -> Celery:
    """An app that sends nothing."""
    app = Celery("app", broker="memory://", set_as_current=False)
    app.begun = []
    return app


def test_tasks_that_come_before_and_after_are_wrapped_once(app: Celery) -> None:
    before = app.task(name="before", base=_Counting)(_nothing)
    install(app, _URL)
    install(app, _URL)
    after = app.task(name="after", base=_Counting)(_nothing)
    for task in (before, after):
        assert task.apply().successful()
    assert app.begun == ["before", "after"]


def test_an_app_has_one_guard(app: Celery) -> None:
    install(app, _URL)
    with pytest.raises(ValueError, match="other settings"):
        install(app, _URL, on_error="run")


def test_what_to_do_without_a_store_is_one_of_two(app: Celery) -> None:
    with pytest.raises(ValueError, match="not 'ignore'"):
        install(app, _URL, on_error="ignore")  # type: ignore[arg-type]


def test_a_url_that_cannot_be_used_is_told_at_once_and_without_its_password(app: Celery) -> None:
    with pytest.raises(StoreError) as error:
        install(app, "memcached://:secret@host")
    assert "secret" not in str(error.value)


def test_outside_of_a_task_there_is_no_fence() -> None:
    with fenced():
        pass
