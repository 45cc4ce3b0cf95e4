"""Bugs in the cycle: in what order things are done, and what is believed of their outcome."""

from __future__ import annotations

from tests.planted.bug import bug

_LAUNCH = "        outcomes = await self._launch(connections, decision.sends, deadline)\n"
_WRITE = """\
            written = await self._store.write(snapshot, status)
        self._outbox.booked(decision.ledger)
"""

CYCLE_BUGS = (
    bug(
        "a claim is as old as its date",
        "The ledger says when it was claimed, and a restart loses what we have seen since.",
        "model/reading.py",
        (
            "    return facts.read_at < item.since + LATEST_SEND or known_for < LATEST_SEND\n",
            "    return facts.read_at < item.since + LATEST_SEND\n",
        ),
    ),
    bug(
        "claims after the launch",
        "So the write can say at once what became of the sends, and one write is saved.",
        "scan.py",
        (
            "        written = await self._claim(snapshot, status, decision)\n",
            _LAUNCH + "        written = await self._claim(snapshot, status, decision)\n",
        ),
        (_LAUNCH + "        tell_launched(", "        tell_launched("),
    ),
    bug(
        "observes after the query",
        "The query takes long, and what is decided should rest on the newest outcomes.",
        "observer.py",
        (
            "        facts = replace(facts, rows=rows)\n",
            "        seen = await connections.target.observe([i.id for i in ledger.outstanding])\n"
            "        facts = replace(facts, rows=rows, observations=seen.observations)\n",
        ),
    ),
    bug(
        "a look that fails shows no rows",
        "A database that is away has no work for us, and the rest of the cycle can go on.",
        "observer.py",
        (
            "            self._database_failed(error)\n            return facts\n",
            "            self._database_failed(error)\n"
            "            nothing = Rows(ledger.query_hash or '', complete=True, key=ledger.key)\n"
            "            return replace(facts, rows=nothing)\n",
        ),
    ),
    bug(
        "a conflict is a success",
        "Two operators decide the same from the same rows: the other one has written it.",
        "scan.py",
        (
            _WRITE,
            """\
            try:
                written = await self._store.write(snapshot, status)
            except ConflictError:
                written = snapshot
        self._outbox.booked(decision.ledger)
""",
        ),
    ),
    bug(
        "the leader overwrites",
        "The Lease says that nobody else launches, so a conflict is only a person's edit.",
        "scan.py",
        (
            _WRITE,
            """\
            try:
                written = await self._store.write(snapshot, status)
            except ConflictError:
                newest = await self._store.read(self.ref)
                written = await self._store.write(newest or snapshot, status)
        self._outbox.booked(decision.ledger)
""",
        ),
    ),
    bug(
        "a write without an answer was won",
        "Most requests that time out have arrived, and launching late helps nobody.",
        "scan.py",
        (
            "from scannerjob.ports import (\n    Clock,\n",
            "from scannerjob.ports import (\n    UnknownOutcomeError,\n    Clock,\n",
        ),
        (
            _WRITE,
            """\
            try:
                written = await self._store.write(snapshot, status)
            except UnknownOutcomeError:
                written = snapshot
        self._outbox.booked(decision.ledger)
""",
        ),
    ),
    bug(
        "the deadline begins with the launch",
        "How long the write took should not be taken from the time for sending.",
        "scan.py",
        (
            _LAUNCH,
            "        deadline = self._clock.boottime() + SEND_WITHIN.total_seconds()\n" + _LAUNCH,
        ),
    ),
    bug(
        "the mark comes with the second launch",
        "A ledger that has launched nothing yet has nothing to lose: it saves two writes.",
        "scan.py",
        (
            "        if decision.sends and not snapshot.marked:\n",
            "        begun = snapshot.status.get('launched')\n"
            "        if decision.sends and begun and not snapshot.marked:\n",
        ),
    ),
    bug(
        "unanswered sends are repeated at once",
        "Networks lose packets, and a second try within the deadline mostly helps.",
        "scan.py",
        (
            "        outcomes = self._outbox.answer("
            "sends, await connections.target.launch(sends, deadline))\n",
            """\
        seen = dict(await connections.target.launch(sends, deadline))
        lost = [send for send in sends if seen[send.item.id].fact is Fact.UNCERTAIN]
        seen |= await connections.target.launch(lost, deadline) if lost else {}
        outcomes = self._outbox.answer(sends, seen)
""",
        ),
    ),
    bug(
        "counters are kept beside the ledger",
        "A process that counts for itself need not trust what stands in the status.",
        "scan.py",
        (
            "from datetime import datetime\nfrom typing import Any\n",
            "from dataclasses import replace\n"
            "from datetime import datetime\n"
            "from typing import Any\n",
        ),
        (
            "        self._generation: tuple[str, int] | None = None\n",
            "        self._generation: tuple[str, int] | None = None\n"
            "        self._counted: dict[str, int] = {}\n",
        ),
        (
            "        self._observer.note_decision(facts, decision)\n",
            """\
        self._observer.note_decision(facts, decision)
        for name in ("launched", "succeeded", "failed", "lost"):
            before, after = getattr(ledger, name), getattr(decision.ledger, name)
            self._counted[name] = self._counted.get(name, before) + after - before
        decision = replace(decision, ledger=replace(decision.ledger, **self._counted))
""",
        ),
    ),
    bug(
        "a failed send is not sent, whatever it is",
        "It raised an error, so the message cannot have arrived.",
        "model/settle.py",
        (
            "    if told.fact is Fact.NOT_SENT and item.sends == 1:\n",
            "    failed = told.fact in (Fact.NOT_SENT, Fact.UNCERTAIN)\n"
            "    if failed and item.sends == 1:\n",
        ),
    ),
    bug(
        "the last send speaks for all of them",
        "The broker refused it, so the launch was not sent.",
        "model/settle.py",
        (
            "    if told.fact is Fact.NOT_SENT and item.sends == 1:\n",
            "    if told.fact is Fact.NOT_SENT:\n",
        ),
    ),
)
