"""All acts, by the names that plans have for them."""

from __future__ import annotations

from collections.abc import Mapping

from tests.faults.acts import calls, processes, servers, watches
from tests.faults.acts.common import Act

ACTS: Mapping[str, Act] = {
    act.__name__.replace("_", "-"): act
    for act in (
        watches.watch_silent,
        watches.watch_late,
        watches.watch_ended,
        watches.watch_missed,
        watches.watch_refused,
        watches.watch_back_in_time,
        calls.api_reply_lost,
        calls.api_request_lost,
        calls.api_late,
        calls.api_slow,
        calls.api_conflicts,
        calls.api_refuses,
        calls.api_flaky,
        calls.api_down,
        calls.api_silent,
        calls.other_writer,
        servers.down,
        servers.silent,
        servers.slow,
        servers.cut,
        servers.reset,
        servers.replica,
        servers.restart,
        servers.flush,
        processes.clock,
        processes.clock_jumps,
        processes.freeze,
        processes.freezes,
        processes.kill,
        processes.disk_full,
        processes.state_locked,
        processes.state_flickers,
    )
}
