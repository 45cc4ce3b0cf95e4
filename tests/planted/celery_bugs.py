"""Bugs in the Celery target, the guard and the lock."""

from __future__ import annotations

from tests.planted.bug import bug

_HELD = "  return own(record, owner) or (begun and record.retries < tonumber(retries))\n"

CELERY_BUGS = (
    bug(
        "a publish that failed sent nothing",
        "The client raised an error while it was publishing.",
        "targets/celery/delivery.py",
        (
            "            return Observation(Fact.UNCERTAIN, self._failure or"
            ' "no answer before the deadline")\n',
            "            fact = Fact.NOT_SENT if self._failure else Fact.UNCERTAIN\n"
            '            return Observation(fact, self._failure or "no answer before the'
            ' deadline")\n',
        ),
    ),
    bug(
        "a message is published however late it is",
        "The call has a deadline already, which its caller keeps.",
        "targets/celery/delivery.py",
        (
            "            if self._closed or boottime() >= self._deadline:\n",
            "            if self._closed:\n",
        ),
    ),
    bug(
        "what nobody has begun is put again",
        "It is still queued, so one message more does no harm.",
        "targets/celery/redis_broker.py",
        (
            "if state and (state ~= 'queued' or (put and again ~= '1')) then\n",
            "if state and state ~= 'queued' then\n",
        ),
    ),
    bug(
        "a nack says that nothing was taken",
        "The broker has refused the message.",
        "targets/celery/amqp_broker.py",
        (
            "            delivery.answer(launch_id, Fact.UNCERTAIN, _NACKED)\n",
            "            delivery.answer(launch_id, Fact.NOT_SENT, _NACKED)\n",
        ),
    ),
    bug(
        "a lapsed lease is believed when it is seen",
        "The lease has its own margin: whoever lives renews it three times in it.",
        "targets/celery/lapses.py",
        (
            "        if sight and series.is_steady and seen_for >= SEEN_AGAIN:\n",
            "        if sight:\n",
        ),
    ),
    bug(
        "a lapsed lease needs no superseding",
        "Its worker is dead, so nothing of it can come any more.",
        "targets/celery/lapses.py",
        (
            '_SILENT = Observation(Fact.SILENT, "its worker\'s lease has lapsed")\n',
            '_SILENT = Observation(Fact.LAPSED, "its worker\'s lease has lapsed")\n',
        ),
    ),
    bug(
        "a row that left ends a launch that runs",
        "The task has taken it out of the query: it is done.",
        "model/settle.py",
        (
            "        case Fact.FAILED | Fact.LAPSED if left:\n",
            "        case Fact.FAILED | Fact.LAPSED | Fact.RUNNING | Fact.STARTED if left:\n",
        ),
    ),
    bug(
        "a claim takes any other count of retries",
        "Another count is another execution, and the one before must have ended.",
        "worker/redis_scripts.py",
        (_HELD, _HELD.replace("<", "~=")),
    ),
    bug(
        "a claim takes the same count of retries",
        "The same delivery comes again when its worker has died.",
        "worker/sql_store.py",
        (
            "and_(begun, _is.retries < execution.retries)",
            "and_(begun, _is.retries <= execution.retries)",
        ),
    ),
    bug(
        "a lapsed lease is taken over by a worker",
        "Its holder is dead, and the work can go on at once.",
        "worker/redis_scripts.py",
        (_HELD, _HELD.rstrip() + " or record.lapsed\n"),
    ),
    bug(
        "whoever ends may write it",
        "The work is done, whosever lease it is by now.",
        "worker/redis_scripts.py",
        (
            "if own(record, owner) or (state ~= 'queued' and held(record, retries, owner)) then\n",
            "if record.running or own(record, owner) then\n",
        ),
    ),
    bug(
        "what runs is superseded too",
        "Its row has left, so that it runs for nothing.",
        "worker/redis_scripts.py",
        (
            "  if record.waiting or record.state == 'retrying' or record.lapsed then\n",
            "  if record.waiting or record.state == 'retrying' or record.running then\n",
        ),
    ),
    bug(
        "a duplicate runs with a warning",
        "The one that holds it may be about to die, and twice is better than never.",
        "worker/guard.py",
        (
            '            _logger.info("launch %s was begun elsewhere, or given up: ignored here",'
            " request.id)\n"
            '            raise Ignore(f"launch {request.id} was begun elsewhere, or given up")\n',
            '            _logger.warning("launch %s was begun elsewhere too", request.id)\n',
        ),
        ("            from celery.exceptions import Ignore\n\n", ""),
    ),
    bug(
        "a lock is released by its name",
        "Only who has taken it comes to its release.",
        "worker/single_flight_lock.py",
        (
            "if redis.call('GET', KEYS[1]) ~= ARGV[1] then\n  return 0\nend\n"
            "redis.call('DEL', KEYS[1], KEYS[2])\n",
            "redis.call('DEL', KEYS[1], KEYS[2])\n",
        ),
    ),
)
