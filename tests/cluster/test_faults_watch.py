"""Watches that end, go wrong or fall silent, while rows are done by Jobs.

The operator's watches go by a proxy; the kubelet and the witnesses watch the API server itself.
"""

from __future__ import annotations

import pytest

from tests.cluster.jobs import JobWorkload
from tests.cluster.operators import IMPATIENT, Operators, wait_ready
from tests.support.apiproxy import ApiProxy
from tests.support.faults import Answer, Delay, EndWatch, Fault, Request, Stall
from tests.support.waiting import eventually

CAP = 3
WATCHED = "/(scannerjobs|jobs)$"


@pytest.mark.parametrize(
    "fault",
    [EndWatch(410), Answer(410), EndWatch(500), EndWatch()],
    ids=["too-old", "refused-as-too-old", "broken", "closed"],
)
def test_watches_that_end_are_begun_anew(
    work: JobWorkload, proxied: Operators, proxy: ApiProxy, fault: Fault
) -> None:
    work.insert(10)
    work.apply(concurrency=CAP)
    process = proxied.start()
    eventually(lambda: len(work.kubelet.started()) >= 2)
    of_scannerjobs, of_jobs = [
        proxy.add(fault, path=path, when=is_watch, times=3) for path in ("/scannerjobs$", "/jobs$")
    ]
    if isinstance(fault, Answer):
        proxy.add(EndWatch(), times=2)
    eventually(lambda: len(of_scannerjobs.hits) == len(of_jobs.hits) == 3, timeout=90)
    work.assert_all_done(10, CAP)
    assert process.running, process.log()
    # A change of the spec is known from the watch alone.
    work.patch({"suspend": True})
    work.wait_reason("Suspended")
    assert "Traceback" not in process.log()


def test_a_watch_that_breaks_while_another_is_opened_ends_both(
    work: JobWorkload, proxied: Operators, proxy: ApiProxy
) -> None:
    work.insert(4)
    work.apply(concurrency=CAP)
    slow = proxy.add(Delay(before=20), path="/scannerjobs$", when=is_watch, times=1)
    process = proxied.start()
    eventually(lambda: slow.hits and any(map(is_watch, proxy.requests("GET", "/jobs$"))))
    proxy.add(EndWatch(500), path="/jobs$", times=1)
    wait_ready(process, starts=2)
    work.assert_all_done(4, CAP)


def test_watches_that_fall_silent_hold_up_nobody_for_ever(
    work: JobWorkload, proxied: Operators, proxy: ApiProxy
) -> None:
    work.insert(7)
    work.apply("early", concurrency=CAP, query=rows("id <= 5"))
    work.apply("edited", query=rows("id = 0"))
    silent = proxy.add(Stall(), path=WATCHED)
    process = proxied.start(program=IMPATIENT)
    eventually(lambda: len(silent.hits) >= 2, message="both watches are open, and silent")
    eventually(lambda: work.ready("edited")["reason"] == "Scanning")
    work.apply("late", query=rows("id = 6"))
    work.patch({"query": rows("id = 7")}, "edited")
    work.wait_done(60)
    work.assert_each_row_ran_once()
    work.assert_cap_was_kept(CAP + 2)
    for path in ("/scannerjobs$", "/jobs$"):
        wait_watched_anew(proxy, path)
    assert process.running, process.log()


def is_watch(request: Request) -> bool:
    return request.watch


def wait_watched_anew(proxy: ApiProxy, path: str) -> None:
    def watched() -> bool:
        return sum(map(is_watch, proxy.requests("GET", path))) > 1

    eventually(watched, timeout=90, message=f"{path} is watched anew")


def rows(which: str) -> str:
    return f"SELECT id AS pdf_id, title FROM pdf WHERE NOT pages_created AND {which} ORDER BY id"
