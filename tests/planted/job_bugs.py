"""Bugs in the Job target."""

from __future__ import annotations

from tests.planted.bug import bug

JOB_BUGS = (
    bug(
        "a Job that is missing is gone",
        "Without its Job a pod is garbage, and will be collected.",
        "targets/job/target.py",
        (
            "        running = alive(await self._api.pods_of(self._owner.namespace, ids))\n",
            "        running: dict[str, str] = {}\n",
        ),
    ),
    bug(
        "a pod that has not started is not alive",
        "Nothing of it runs, and with its Job deleted it never will.",
        "targets/job/outcomes.py",
        (
            '        if pod["status"].get("phase") not in _PODS_ENDS\n',
            '        if pod["status"].get("phase") == "Running"\n',
        ),
    ),
    bug(
        "what the watch does not show is not there",
        "The watch tells of every Job, and lists are dear.",
        "targets/job/target.py",
        (
            "        return bool(ids - known or self._strays(ids) or (waited_for and too_old))\n",
            "        return bool(self._strays(ids) or (waited_for and too_old))\n",
        ),
    ),
    bug(
        "409 says that the Job is there",
        "The name is made from the launch's id: who else could have made it?",
        "targets/job/target.py",
        (
            '                return await self._existing(job["metadata"]["name"], item, error)\n',
            "                return Observation(Fact.ACCEPTED)\n",
        ),
    ),
    bug(
        "a create without an answer was not made",
        "It timed out, so the API server has dropped it.",
        "targets/job/target.py",
        (
            "            except PortError as error:\n"
            "                return Observation(Fact.UNCERTAIN, str(error))\n",
            "            except PortError as error:\n"
            "                return Observation(Fact.NOT_SENT, str(error))\n",
        ),
    ),
    bug(
        "a Job is created however late it is",
        "The API server refuses a second one by its name anyway.",
        "targets/job/target.py",
        (
            "                if boottime() >= deadline:\n"
            '                    return Observation(Fact.NOT_SENT, "it was too late to send it")\n',
            "",
        ),
    ),
    bug(
        "a Job is created beside a pod of its first",
        "Its Job is gone, so the name is free.",
        "targets/job/target.py",
        (
            "                if send.item.sends > 1 and await self._runs_on(send.item.id):\n"
            '                    return Observation(Fact.UNCERTAIN, "a pod of its deleted Job'
            ' runs")\n',
            "",
        ),
    ),
    bug(
        "the history removes whatever has ended",
        "Its limit is about Jobs that ended, and this one did.",
        "targets/job/history.py",
        (
            "    return [job for job in jobs if job.end and job.launch not in outstanding]\n",
            "    return [job for job in jobs if job.end]\n",
        ),
    ),
    bug(
        "a Job's name is free once it was counted",
        "Its end is in the ledger: nobody asks for it any more.",
        "targets/job/history.py",
        (
            "    return [job for job in jobs if seen.is_counted(job)"
            " or seen.ended_for(job) > _KEEP_NAME]\n",
            "    return list(jobs)\n",
        ),
    ),
    bug(
        "an end is as old as its date",
        "Its status says when it ended, and a restart loses what we have seen since.",
        "targets/job/history.py",
        (
            "seen.ended_for(job) > _KEEP_NAME",
            "datetime.now(UTC) - job.changed > _KEEP_NAME",
        ),
        ("from datetime import timedelta\n", "from datetime import UTC, datetime, timedelta\n"),
    ),
    bug(
        "a Job that will fail has failed",
        "FailureTarget is final, and waiting for the last pod only costs time.",
        "targets/job/view.py",
        (
            '_ENDS = ("Complete", "Failed")\n',
            '_ENDS = ("Complete", "Failed", "FailureTarget")\n',
        ),
        (
            '        end=end["type"] if end else None,\n',
            '        end=end["type"].replace("FailureTarget", "Failed") if end else None,\n',
        ),
    ),
)
