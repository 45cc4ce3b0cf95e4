"""The tiers of tests that must notice a planted bug, the cheapest first.

They are those that check the promises, on a model or on real parts. Tests of single functions are
none of them, since whoever writes the bug would change these too; nor are the tests by which the
models prove that they find mistakes of their own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tier:
    """Some tests: what pytest is given, and in how many seconds they end, a slow machine's too.

    `sees` is the code that they run: a bug elsewhere is not tried on them. `steps` is how far
    models are explored, where it is not as far as their tests do by themselves.
    """

    name: str
    arguments: tuple[str, ...]
    within: float
    sees: tuple[str, ...] = ("",)
    steps: int | None = None

    def runs(self, file: str) -> bool:
        """Whether these tests run the code of this file."""
        return file.startswith(self.sees)


_PROMISES = ("-k", "not finds")
_WALKS = (
    "tests/model/test_unseen_rows.py",
    "tests/model/test_job_cycle.py",
    "tests/model/test_cycle.py",
    "tests/model/test_every_point.py",
    *_PROMISES,
)
_SMALL = ("tests/model/test_small_model.py", *_PROMISES)

_CYCLE = ("scan.py", "observer.py", "outbox.py", "model/", "targets/job/")
_GUARD = ("model/", "targets/celery/lapses.py")

TIERS = (
    Tier("short walks", _WALKS, 900, _CYCLE, steps=4000),
    Tier("small model", _SMALL, 900, ("model/",), steps=3000),
    Tier("guard model", ("tests/model/test_guard_model.py", *_PROMISES), 900, _GUARD),
    Tier(
        "stores",
        (
            "tests/cluster/test_ledger_store.py",
            "tests/conformance/test_ledger_store.py",
            "tests/conformance/test_guard_store.py",
        ),
        900,
        ("stores/", "worker/"),
    ),
    Tier(
        "services",
        (
            "tests/services/test_celery_resend.py",
            "tests/services/test_celery_weather.py::test_a_process_whose_loop_is_held_up_sends_nothing_late",
            "tests/services/test_celery_amqp.py::test_lost_confirms_leave_what_was_sent_uncertain",
            "tests/services/test_celery_amqp.py::test_a_full_queue_that_refuses_leaves_it_uncertain",
            "tests/services/test_guard.py::test_a_message_that_is_delivered_twice_is_executed_once",
            "tests/services/test_run.py::test_rows_without_a_usable_key_are_named_and_hold_back_nobody",
            "tests/cluster/test_jobs.py::test_a_pod_on_a_lost_node_holds_its_slot_and_the_condition_says_why",
            "tests/services/test_single_flight.py",
            "tests/services/test_celery_guard.py",
        ),
        1200,
    ),
    Tier("crash", ("tests/crash/test_crash.py",), 900),
    Tier("faults", ("tests/faults/test_faults.py",), 900),
    Tier("all of the models", ("tests/model", *_PROMISES), 3600, _CYCLE),
)
