"""Bugs in the decision: slots, attempts, and the evidence that frees them."""

from __future__ import annotations

from tests.planted.bug import bug

LEDGER_BUGS = (
    bug(
        "the cap counts what was launched",
        "A claim is not a launch yet, and must not keep a worker idle.",
        "model/book.py",
        (
            "        self._active = len(ledger.outstanding)\n",
            "        self._active = ledger.count(Phase.LAUNCHED)\n",
        ),
    ),
    bug(
        "retries do not wait for a slot",
        "They had a slot before, and should not queue behind new rows.",
        "model/decide.py",
        (
            "        if due and row and book.slot_is_free():\n",
            "        if due and row:\n",
        ),
    ),
    bug(
        "a resend has an id of its own",
        "Ids of messages are to be unique, or a broker may drop the second one.",
        "model/book.py",
        (
            "            item, sends=item.sends + 1, since=self.second,"
            " claimed=item.first_claimed, reason=None\n",
            "            item,\n"
            '            id=f"{item.id}-{item.sends + 1}",\n'
            "            sends=item.sends + 1,\n"
            "            since=self.second,\n"
            "            claimed=item.first_claimed,\n"
            "            reason=None,\n",
        ),
    ),
    bug(
        "claims are sent again on any broker",
        "After a crash a message is more likely lost than sent, and tasks are idempotent.",
        "model/book.py",
        (
            "        return within is not None and self.now - item.first_claimed < within\n",
            "        return within is None or self.now - item.first_claimed < within\n",
        ),
    ),
    bug(
        "as many rows are read as there are slots",
        "No more than these can be launched, so why fetch others?",
        "model/reading.py",
        (
            "    return len(ledger.items) + free_slots(spec, len(ledger.outstanding)) + 1\n",
            "    return free_slots(spec, len(ledger.outstanding)) + 1\n",
        ),
    ),
    bug(
        "a finished row that still matches is new",
        "It matches the query, so its author wants it done.",
        "model/settle.py",
        (
            '            book.spend_attempt(item, "StillMatches")\n',
            "            book.forget(item)\n",
        ),
    ),
    bug(
        "what succeeded is forgotten at once",
        "It is done, and the ledger should be small.",
        "model/book.py",
        (
            "        until = self.now + self.spec.cooldown if self.spec.cooldown else None\n"
            "        return self._rest(item, Phase.COOLING, until, None)\n",
            "        self.forget(item)\n        return item\n",
        ),
    ),
    bug(
        "a life that is over costs an attempt",
        "Its time is up without a result, which is what a failed attempt is.",
        "model/settle.py",
        (
            "    if others_ran:\n        book.lose(item",
            "    if others_ran or was_sent:\n        book.lose(item",
        ),
    ),
    bug(
        "absence is believed under a LIMIT",
        "The whole result was read, and the row is not in it.",
        "model/row.py",
        (
            "        if not self.absence_knowable:\n            return Presence.UNKNOWN\n",
            "",
        ),
    ),
    bug(
        "absence is believed of a part of the result",
        "What remembered rows need is among the rows that were read, since those come first.",
        "model/row.py",
        (
            "        return Presence.ABSENT if self.complete or key in self.absent"
            " else Presence.UNKNOWN\n",
            "        return Presence.ABSENT\n",
        ),
    ),
    bug(
        "absence is believed under another query",
        "The row does not match any more, whatever the query was when it was launched.",
        "model/settle.py",
        (
            "    return Presence.UNKNOWN if foreign and presence is Presence.ABSENT"
            " else presence\n",
            "    return presence\n",
        ),
    ),
    bug(
        "a claim whose row left is dropped",
        "There is nothing left to do for it, so it needs no slot.",
        "model/settle.py",
        (
            "    return not told and not late_send_possible\n",
            "    return not told\n",
        ),
    ),
    bug(
        "a row that left ends a launch whose end is told",
        "It left since its work is done, and results come late.",
        "model/settle.py",
        (
            "    return not told and not late_send_possible\n",
            "    return not late_send_possible\n",
        ),
    ),
    bug(
        "a changed broker is taken over at once",
        "The Secret says where messages are to go from now on.",
        "model/decide.py",
        (
            "    endpoints = ledger.endpoints if endpoint_changed(ledger, facts)"
            " else facts.endpoints\n",
            "    endpoints = facts.endpoints\n",
        ),
    ),
    bug(
        "a claim without a Job was never sent",
        "It was looked for live, and it is not there.",
        "model/settle.py",
        (
            "    return seen is not None and seen.fact is Fact.GONE"
            " and not may_be_on_its_way(item, facts)\n",
            "    return seen is not None and seen.fact is Fact.GONE\n",
        ),
    ),
)
