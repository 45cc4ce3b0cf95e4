"""The workers of the world, at whatever broker, and what they do and say; they judge what is live.

They commit their row before they report.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from scannerjob.model.facts import Fact
from scannerjob.model.limits import ORPHAN_AFTER

if TYPE_CHECKING:
    from tests.model.world import World


@dataclass
class Message:
    """A message on a broker, and the execution it became: queued, running or gone.

    `reports`: there was a result backend when it was sent. `landed` is when it arrived. `flipped`:
    its task took the row out of the query before its work was done. `result` is how it said to have
    ended. Of a Job it is the pod.
    """

    id: str
    row: str
    generation: int
    expires_at: datetime | None
    time_limit: timedelta | None
    reports: bool
    state: str = "queued"
    landed: datetime | None = None
    started: datetime | None = None
    flipped: bool = False
    result: Fact | None = None


class Workers:
    """All messages that arrived anywhere, and what became of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.messages: list[Message] = []
        self.landed: set[str] = set()
        self.executed: set[str] = set()
        self.results: dict[str, Fact] = {}
        # Launches of which a reply was lost, or whose sender was killed, or was slow to tell: where
        # that was asked for, they may be executed twice.
        self.doubtful: set[str] = set()

    # Messages.

    def get(self, message: Message) -> Message:
        """A message arrives; gives what stands for it from now on."""
        self._note_repetition(message)
        self.landed.add(message.id)
        message = replace(message, landed=self._world.now)
        self.messages.append(message)
        closed = self._world.store.is_closed(message.id)
        if closed and not self._expired(message) and not self._may_repeat(message.id):
            self._world.violated(f"a message of {message.id} arrives after its slot was freed")
        self._judge_live()
        return message

    def _note_repetition(self, message: Message) -> None:
        for each in self.messages:
            slow = each.landed is not None and each.landed + ORPHAN_AFTER < self._world.now
            if each.id == message.id and slow:
                self.doubtful.add(message.id)

    def _may_repeat(self, launch_id: str) -> bool:
        return self._world.setup.republish and launch_id in self.doubtful

    def is_repeated(self, row: str) -> bool:
        """Whether a launch of this row may have been executed twice, and by wish."""
        return any(each.row == row and self._may_repeat(each.id) for each in self.messages)

    def _expired(self, message: Message) -> bool:
        return message.expires_at is not None and message.expires_at <= self._world.now

    def at_work(self) -> list[Message]:
        return self.in_state("queued") + self.in_state("running")

    def in_state(self, state: str) -> list[Message]:
        return [message for message in self.messages if message.state == state]

    # What is live.

    def live(self) -> list[Message]:
        """The messages that may still do the work that they were sent for."""
        return [message for message in self.messages if self._is_live(message)]

    def _is_live(self, message: Message) -> bool:
        row = self._world.rows[message.row]
        wanted = row.pending or (message.flipped and message.state == "running")
        return wanted and row.generation == message.generation and self._is_alive(message)

    def _is_alive(self, message: Message) -> bool:
        waits = message.state == "queued" and not self._expired(message)
        return waits or message.state == "running"

    def _judge_live(self) -> None:
        live = [message for message in self.live() if not self._may_repeat(message.id)]
        rows = [message.row for message in live]
        if len(set(rows)) < len(rows):
            self._world.violated(f"two live launches of one row: {[m.id for m in live]}")
        if len(live) > max(self._world.caps):
            self._world.violated(f"cap: {len(live)} launches are live")

    def judge_end(self, launch_id: str) -> None:
        """A slot is freed: where its end would be told, it must have ended."""
        ends_are_told = self._world.setup.flips or self._world.setup.jobs
        if not ends_are_told or self._may_repeat(launch_id):
            return
        if any(each.id == launch_id and self._is_alive(each) for each in self.messages):
            self._world.violated(f"the slot of {launch_id} is freed, but it is alive")

    # Work.

    def start(self, message: Message) -> None:
        """A worker takes a message."""
        self._world.note(f"a worker takes {message.id}")
        if self._expired(message):
            self._end(message, Fact.NOT_STARTED)
            return
        row = self._world.rows[message.row]
        repeats = self._may_repeat(message.id)
        if message.id in self.executed and not repeats and self._is_sent_once():
            self._world.violated(f"{message.id} is executed twice")
        repeats |= message.id in self._world.cluster.by_hand
        if row.done_by_worker and row.generation == message.generation and not repeats:
            self._world.violated(f"{message.id} does a finished row again")
        self.executed.add(message.id)
        message.state, message.started = "running", self._world.now
        self._say(message, Fact.STARTED)

    def _is_sent_once(self) -> bool:
        # How often a Job may be created is judged where it is.
        setup = self._world.setup
        return (setup.idempotent or setup.republish) and not setup.jobs

    def flip(self, message: Message) -> None:
        """Its task takes the row out of the query, and works on."""
        row = self._world.rows[message.row]
        if row.pending and row.generation == message.generation:
            self._world.note(f"{message.id} flips its row")
            self._world.table.leave(message.row)
            message.flipped = True

    def commit(self, message: Message) -> None:
        """Its work is done and committed; nothing is reported yet."""
        row = self._world.rows[message.row]
        self._world.note(f"{message.id} commits")
        if row.generation == message.generation:
            self._world.table.leave(message.row)
            row.done_by_worker = True

    def report(self, message: Message, fact: Fact) -> None:
        """It says how it ended, if there is anybody to tell."""
        self._world.note(f"{message.id} ends: {fact}")
        self._end(message, fact)

    def die(self, message: Message) -> None:
        """Its worker is killed, and says nothing."""
        self._world.note(f"{message.id} dies")
        message.state = "gone"

    def time_passed(self) -> None:
        """Messages past their time limit are killed."""
        for message in self.messages:
            started, limit = message.started, message.time_limit
            overdue = started and limit and started + limit <= self._world.now
            if message.state == "running" and overdue:
                self.report(message, Fact.FAILED)

    def work_off(self) -> None:
        """Healthy workers do all there is."""
        for message in self.in_state("queued"):
            self.start(message)
        for message in self.in_state("running"):
            self.commit(message)
            self.report(message, Fact.SUCCEEDED)

    def _end(self, message: Message, fact: Fact) -> None:
        message.state, message.result = "gone", fact
        self._say(message, fact)

    def _say(self, message: Message, fact: Fact) -> None:
        if message.reports:
            self.results[message.id] = fact
