"""Carries out a plan: one change after the other, and in the end the spec as it should be."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tests.harness.stage import Stage
from tests.harness.trial import Verdict
from tests.misoperations.changes import Change, Outcome, Step, named
from tests.misoperations.deeds import PATIENCE, Deeds, assert_refused
from tests.misoperations.plan import Plan
from tests.misoperations.scene import Scene
from tests.proof.history import Fault
from tests.support.api import ApiError

# After a change nothing is left alone any more, and no row rests for longer than two seconds.
_RECOVERY = 8.0


def run(plan: Plan, stage: Stage, *, keep: bool = False) -> Verdict:
    """The verdict on what happened; its `notes` tell the changes."""
    with Scene(stage, plan.setting) as scene:
        scene.start()
        hand = _Hand(scene)
        began = time.time()
        for step, seconds in plan.steps:
            hand.make(step, seconds)
        hand.put_right()
        scene.faults += [Fault("hand", began, time.time(), uid) for uid in scene.uids]
        done_meanwhile = scene.neighbours_done()
        verdict = scene.finish(within=PATIENCE + 60, recovery=_RECOVERY)
        hand.look_back(done_meanwhile)
        steps = [step.name for step, _ in plan.steps]
        verdict.complaints += hand.complaints
        verdict.notes.update(steps=steps, neighbour=done_meanwhile)
        if keep or not verdict.kept:
            verdict.notes["folder"] = str(scene.keep())
        return verdict


class _Hand:
    """The person who changes the ScannerJob, and complains where it does not answer as it should.

    Each spec takes the place of the one before, good or bad, as long as work is outstanding.
    """

    def __init__(self, scene: Scene) -> None:
        self.complaints: list[str] = []
        self._scene = scene
        self._good: Mapping[str, Any] = scene.document()["spec"]

    def make(self, step: Step, seconds: float) -> None:
        """Make a change, see what it leads to, and hold it for so long."""
        try:
            if isinstance(step, Change):
                self._change(step, seconds)
            else:
                self._have_work_out()
                method = getattr(Deeds(self._scene, seconds), step.method)
                method(**step.arguments)
        except AssertionError as error:
            self.complaints.append(f"{step.name}: {error}")

    def put_right(self) -> None:
        """The spec as it should be; everything works again by itself."""
        self._scene.change(self._good)
        try:
            self._await_ready()
        except AssertionError as error:
            self.complaints.append(f"all put right: {error}")

    def look_back(self, done_meanwhile: int) -> None:
        """What can be told of it all in the end."""
        scene = self._scene
        waiting = scene.rows.waiting()
        expected = {
            f"{waiting} rows are not done": waiting == 0,
            "the neighbour has done nothing meanwhile": done_meanwhile > 0,
            "the operator is gone": all(each.running for each in scene.operators),
            "a traceback is in the log": "Traceback" not in scene.logs(),
            f"in the end it is {scene.ready()}": scene.ready().get("status") == "True",
        }
        self.complaints += [complaint for complaint, right in expected.items() if not right]

    def _change(self, change: Change, seconds: float) -> None:
        if change.drained:
            self._drain()
        else:
            self._have_work_out()
        spec = named(change.spec(self._good), self._scene.names)
        if change.outcome is Outcome.REFUSED:
            self._be_refused(change, spec)
            return
        self._scene.change(spec)
        self._see(change)
        self._scene.until(lambda: False, seconds)
        if change.drained:
            self._drain(change)
            self._scene.change(self._good)

    def _be_refused(self, change: Change, spec: Mapping[str, Any]) -> None:
        make = self._scene.change_while_out if change.bound else self._scene.change
        refusal = None
        try:
            make(spec)
        except ApiError as error:
            refusal = error
        assert_refused(refusal, change.says)

    def _see(self, change: Change) -> None:
        match change.outcome:
            case Outcome.READY:
                self._await_ready()
            case Outcome.UNREADY:
                told = self._scene.until(lambda: self._says_so(change), PATIENCE)
                assert told, f"Ready does not name {change.says}: {self._scene.ready()}"
            case Outcome.HELD:
                told = self._scene.until(
                    lambda: self._says_so(change) or self._out() == 0, PATIENCE
                )
                assert told, f"Ready does not name {change.says}: {self._scene.ready()}"
            case _:
                seen = self._scene.until(lambda: bool(self._scene.ready()), PATIENCE)
                assert seen, f"it is not observed: {self._scene.get()['status']}"

    def _says_so(self, change: Change) -> bool:
        ready = self._scene.ready()
        unready = ready.get("status") in ("False", "Unknown") and bool(ready.get("reason"))
        return unready and change.is_named(str(ready["message"]))

    def _await_ready(self) -> None:
        ready = self._scene.until(lambda: self._scene.ready().get("status") == "True", PATIENCE)
        assert ready, f"it is not ready: {self._scene.ready()}"

    def _have_work_out(self) -> None:
        """Work is outstanding, at a mistake's expense if need be."""
        self._scene.tend()
        if self._out() == 0:
            self._scene.change(self._good)
            launches = self._scene.until(lambda: self._out() > 0, PATIENCE)
            assert launches, f"nothing is launched: {self._scene.ready()}"

    def _drain(self, change: Change | None = None) -> None:
        """Nothing is out, and nothing is launched."""
        spec = change.spec(self._good) if change else self._good
        self._scene.change({**named(spec, self._scene.names), "suspend": True})
        drained = self._scene.until(lambda: self._out() == 0, PATIENCE)
        assert drained, f"{self._out()} are still out: {self._scene.ready()}"

    def _out(self) -> int:
        """How many launches are out, under the spec as it is now."""
        status = self._scene.get()["status"]
        return int(status.get("active", 0)) if self._scene.ready() else -1
