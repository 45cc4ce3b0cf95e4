"""The Job target, as a real API server and the real Job controller answer it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scannerjob.model.facts import Fact, Observation
from scannerjob.ports import TargetError
from scannerjob.targets.job.names import ATTEMPT, KEY, LAUNCH, NAME, UID, label_value
from scannerjob.targets.job.view import view
from tests.cluster.conftest import Open
from tests.cluster.job_target import Site, send
from tests.support.controlplane import ControlPlane
from tests.support.kubelet import Kubelet
from tests.support.pods import EVICTED, FAILED, OOM_KILLED, SUCCEEDED, VANISHED, Fate, expanded
from tests.support.waiting import eventually
from tests.unit.job_cases import CONTAINER, template

ACCEPTED = Observation(Fact.ACCEPTED)


@pytest.fixture
def site(opened: Open) -> Site:
    return opened()


@pytest.fixture
def kubelet(cluster: ControlPlane, namespace: str) -> Iterator[Kubelet]:
    """Runs all pods until it is told otherwise."""
    with Kubelet(cluster.kubeconfig(), [namespace]) as kubelet:
        kubelet.fate = lambda pod: Fate(math.inf)
        yield kubelet


def wait_for(site: Site, key: str, fact: Fact) -> Observation:
    def has() -> Observation:
        seen = site.observed(key)
        assert seen.fact is fact, seen
        return seen

    return eventually(has, message=f"{key} is {fact}")


def wait_for_no_hold(site: Site) -> None:
    def free() -> bool:
        site.tell()
        return site.observe().hold is None

    eventually(free, message="nothing holds launches")


def done(site: Site, kubelet: Kubelet, *keys: str) -> None:
    """Launch these, and let them end well."""
    kubelet.fate = lambda pod: Fate(0)
    site.launch(*map(send, keys))
    for key in keys:
        wait_for(site, key, Fact.SUCCEEDED)


class TestTheTemplate:
    def test_that_is_fine_leaves_no_job_behind(self, site: Site) -> None:
        site.check()

        assert site.jobs() == {}

    @pytest.mark.parametrize(
        ("written", "told"),
        [
            (
                template({"name": "pages", "imgae": "none"}),
                r'spec\.job\.template: .*unknown field "spec.template.spec.containers\[0\].imgae"',
            ),
            (
                template({"name": "pages"}),
                r"spec\.job\.template\.spec\.template\.spec\.containers\[0\]\.image: Required",
            ),
            (template(completions="many"), r"spec\.job\.template: .*completions"),
            (template(ttlSecondsAfterFinished=-1), r"\.spec\.ttlSecondsAfterFinished: Invalid"),
            (template({**CONTAINER, "env": {"A": "b"}}), r"spec\.job\.template: .*env"),
            (template({**CONTAINER, "env": 5}), r"spec\.job\.template: .*env"),
            ({"metadata": {"labels": 5}, **template()}, r"spec\.job\.template: .*labels"),
            ({"metadata": "a", **template()}, r"spec\.job\.template\.metadata"),
            ({"spec": "a"}, r"spec\.job\.template: .*spec"),
            ({"kind": "CronJob", **template()}, r"spec\.job\.template: .*CronJob"),
            ({}, r"spec\.job\.template\.spec\.template\.spec\.containers: Required"),
            (
                {"spec": {"template": {"spec": {"containers": None}}}},
                r"spec\.job\.template\.spec\.template\.spec\.containers: Required",
            ),
        ],
    )
    def test_that_is_not_taken_is_named_by_its_field(
        self, opened: Open, written: Any, told: str
    ) -> None:
        site = opened(written)

        with pytest.raises(TargetError, match=told) as error:
            site.check()

        assert error.value.reason == "InvalidTemplate"
        assert site.jobs() == {}
        # No row is to blame, whatever the API server makes of it.
        assert site.launch_one("1").fact is not Fact.REFUSED

    def test_whose_jobs_may_not_be_created_is_named_with_the_right(
        self, cluster: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(
            "KUBECONFIG", str(cluster.service_account("nobody", namespace=namespace))
        )
        with Site(cluster, namespace) as site:
            with pytest.raises(TargetError, match='cannot create resource "jobs"') as error:
                site.check()
            assert error.value.reason == "LaunchRefused"
            assert site.launch_one("1").fact is Fact.NOT_SENT
            with pytest.raises(TargetError, match="list the Jobs"):
                site.observe()

    def test_of_a_name_of_253_characters_with_dots_makes_jobs_that_are_found(
        self, opened: Open
    ) -> None:
        name = "pages.of." * 28 + "a"
        site = opened(name=name)

        site.check()
        assert site.launch_one("1") == ACCEPTED

        (job,) = site.jobs().values()
        assert len(job["metadata"]["name"]) == 63
        assert job["metadata"]["labels"][NAME] == label_value(name)
        site.reopen()
        assert site.observed("1", told=False).fact is Fact.ACCEPTED

    @pytest.mark.parametrize("name", ["a", "1", "a.b", "x" * 63, "a" * 49 + ".b", "9." * 40 + "z"])
    def test_of_any_name_makes_jobs_whose_pods_are_found(self, opened: Open, name: str) -> None:
        site = opened(template(suspend=True), name=name)

        site.check()
        assert site.launch_one("1") == ACCEPTED

        site.reopen()
        assert site.observed("1", told=False) == ACCEPTED
        assert site.observe().strays[0].id == "id-1"


class TestAJob:
    def test_is_what_its_row_and_its_template_make_it(self, opened: Open) -> None:
        own = {"name": "URL", "value": "pdf/$(PDF_ID)"}
        written = template({**CONTAINER, "command": ["do", "$(TITLE)"], "env": [own]}, suspend=True)
        pod = written["spec"]["template"]["spec"]
        pod["initContainers"] = [{"name": "first", "image": "none"}]
        written["spec"]["ttlSecondsAfterFinished"] = 60
        written["metadata"] = {"labels": {"kueue.x-k8s.io/queue-name": "batch"}}
        site = opened(written, deadline="90s")

        assert site.launch_one("7", title="$(PDF_ID) for $5", none=None, yes=True) == ACCEPTED

        job = site.job("7")
        labels = {NAME: "pdf-pages", UID: site.uid, LAUNCH: "id-7"}
        queue = {"kueue.x-k8s.io/queue-name": "batch"}
        assert job["metadata"]["labels"].items() >= {**labels, **queue}.items()
        assert job["spec"]["template"]["metadata"]["labels"].items() >= labels.items()
        assert job["metadata"]["annotations"][KEY] == "[7]"
        assert job["metadata"]["annotations"][ATTEMPT] == "1"
        (owner,) = job["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (
            site.uid,
            True,
            True,
        )
        spec = job["spec"]
        assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")
        assert (spec["activeDeadlineSeconds"], spec["suspend"]) == (90, True)
        assert "ttlSecondsAfterFinished" not in spec
        pod = spec["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        row = {"PDF_ID": "7", "TITLE": "$(PDF_ID) for $5", "NONE": "", "YES": "true"}
        main, first = expanded(pod["containers"][0]), expanded(pod["initContainers"][0])
        assert main.env == {**row, "URL": "pdf/7"}
        assert main.command == ["do", "$(PDF_ID) for $5"]
        assert first.env == row

    def test_goes_with_its_scannerjob(self, site: Site) -> None:
        site.launch_one("1")

        site.plane.kubectl("-n", site.namespace, "delete", "scj", "pdf-pages")

        eventually(lambda: site.jobs() == {})


class TestLaunching:
    def test_many_are_made_and_each_is_answered(self, site: Site) -> None:
        keys = [f"{number}" for number in range(50)]

        seen = site.launch(*map(send, keys))

        assert seen == {f"id-{key}": ACCEPTED for key in keys}
        assert set(site.jobs()) == {site.job_name(key) for key in keys}

    def test_the_same_launch_sent_twice_is_one_job(self, site: Site) -> None:
        site.launch(send("1"))
        before = site.job("1")["metadata"]["uid"]

        site.reopen()

        assert site.launch(send("1", sends=2)) == {"id-1": ACCEPTED}
        assert site.job("1")["metadata"]["uid"] == before

    def test_anothers_job_of_that_name_is_left_alone(self, site: Site) -> None:
        name = site.job_name("1")
        pod = {"spec": {"restartPolicy": "Never", "containers": [CONTAINER]}}
        spec = {"suspend": True, "template": pod}
        site.create_job({"kind": "Job", "metadata": {"name": name}, "spec": spec})
        before = site.job("1")["metadata"]["uid"]

        seen = site.launch_one("1")

        assert seen.fact is Fact.NOT_SENT
        assert seen.reason == f"NameConflict: Job {name} is not of this launch"
        assert site.job("1")["metadata"]["uid"] == before

    def test_a_row_that_no_environment_holds_is_refused_and_others_go_on(self, site: Site) -> None:
        seen = site.launch(send("1", title="a\0b"), send("2"))

        assert (seen["id-1"].fact, seen["id-2"]) == (Fact.REFUSED, ACCEPTED)
        assert set(site.jobs()) == {site.job_name("2")}

    def test_any_other_text_arrives(self, site: Site) -> None:
        title = '"\\ \n\t\x01 ü 漢 \U0001f600 $$(A) $(B)' + "x" * 60_000

        assert site.launch_one("1", title=title) == ACCEPTED

        pod = site.job("1")["spec"]["template"]["spec"]
        assert expanded(pod["containers"][0]).env["TITLE"] == title

    def test_nothing_is_sent_after_the_deadline(self, site: Site) -> None:
        seen = site.launch(send("1"), send("2"), seconds=0)

        assert {each.fact for each in seen.values()} == {Fact.NOT_SENT}
        assert site.jobs() == {}

    def test_a_quota_proves_that_nothing_was_sent(self, site: Site) -> None:
        hard = {"count/jobs.batch": "1"}
        site.plane.apply(
            {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {"name": "few", "namespace": site.namespace},
                "spec": {"hard": hard},
            }
        )

        def counted() -> bool:
            quota = site.plane.get("-n", site.namespace, "quota", "few")
            return bool(quota.get("status", {}).get("hard") == hard)

        eventually(counted)
        seen = site.launch(*(send(f"{number}") for number in range(8)))

        facts = sorted(each.fact for each in seen.values())
        assert facts == [Fact.ACCEPTED] + [Fact.NOT_SENT] * 7, seen
        assert len(site.jobs()) == 1

    def test_a_namespace_that_is_deleted_takes_no_jobs(self, site: Site) -> None:
        kept = {"name": "kept", "namespace": site.namespace, "finalizers": ["example.com/kept"]}
        site.plane.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": kept})
        site.plane.kubectl("delete", "namespace", site.namespace, "--wait=false")

        seen = site.launch_one("1")

        assert seen.fact is Fact.NOT_SENT, seen
        assert "forbidden" in str(seen.reason)
        site.plane.kubectl(
            *("-n", site.namespace, "patch", "configmap", "kept", "--type=merge"),
            *("-p", '{"metadata": {"finalizers": null}}'),
        )

    def test_no_second_job_is_made_while_a_pod_of_the_first_runs(
        self, site: Site, kubelet: Kubelet
    ) -> None:
        kubelet.fate = lambda pod: Fate(math.inf, lingers=math.inf)
        site.launch_one("1")
        kubelet.wait_running(site.job_name("1"))
        site.delete_job("1")
        eventually(lambda: site.jobs() == {})

        seen = site.launch(send("1", sends=2))["id-1"]
        assert (seen.fact, site.jobs()) == (Fact.UNCERTAIN, {})

        kubelet.end(site.job_name("1"))
        eventually(lambda: site.launch(send("1", sends=2))["id-1"] == ACCEPTED)


class TestWhatAPolicyRefuses:
    """Policies stand in the way of some rows or of all Jobs: only the first is the row's fault."""

    @pytest.fixture
    def deny(self, cluster: ControlPlane, namespace: str) -> Iterator[Callable[[str], None]]:
        """Denies all Jobs of the namespace for which this expression is true."""
        api = "admissionregistration.k8s.io/v1"

        def apply(expression: str) -> None:
            rule = {
                "apiGroups": ["batch"],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["jobs"],
            }
            validation = {"expression": f"!({expression})", "message": "this is not allowed"}
            only = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
            cluster.apply(
                {
                    "apiVersion": api,
                    "kind": "ValidatingAdmissionPolicy",
                    "metadata": {"name": namespace},
                    "spec": {
                        "matchConstraints": {"resourceRules": [rule]},
                        "validations": [validation],
                    },
                },
                {
                    "apiVersion": api,
                    "kind": "ValidatingAdmissionPolicyBinding",
                    "metadata": {"name": namespace},
                    "spec": {
                        "policyName": namespace,
                        "validationActions": ["Deny"],
                        "matchResources": {"namespaceSelector": only},
                    },
                },
            )

        yield apply
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            cluster.kubectl("delete", kind, namespace, "--ignore-not-found")

    def test_for_what_stands_in_it_is_that_rows(
        self, site: Site, deny: Callable[[str], None]
    ) -> None:
        deny(
            "object.spec.template.spec.containers.exists(c, has(c.env) && "
            "c.env.exists(e, has(e.value) && e.value == 'bad'))"
        )
        probe = iter(range(10**6))

        def refused() -> Observation:
            seen = site.launch_one(f"probe-{next(probe)}", title="bad")
            assert seen.fact is Fact.REFUSED, seen
            return seen

        assert "this is not allowed" in str(eventually(refused).reason)
        assert site.launch_one("good", title="good") == ACCEPTED

    def test_in_every_job_is_no_rows(self, site: Site, deny: Callable[[str], None]) -> None:
        deny("true")
        eventually(lambda: _refuses(site))

        assert site.launch_one("1", title="bad").fact is Fact.NOT_SENT
        assert site.jobs() == {}


def _refuses(site: Site) -> bool:
    try:
        site.check()
    except TargetError as error:
        return "this is not allowed" in str(error)
    return False


class TestEndings:
    def test_a_job_that_is_complete_succeeded(self, site: Site, kubelet: Kubelet) -> None:
        site.launch_one("1")
        pod = kubelet.wait_running(site.job_name("1"))
        assert site.observed("1") == ACCEPTED

        kubelet.end(pod.name, SUCCEEDED)

        assert wait_for(site, "1", Fact.SUCCEEDED).reason is None

    @pytest.mark.parametrize(
        ("end", "reason"),
        [
            (FAILED, "exit code 1"),
            (OOM_KILLED, "OOMKilled (exit code 137)"),
            (EVICTED, "Evicted: The node was low on resource: memory."),
        ],
    )
    def test_why_it_failed_is_what_its_pod_says(
        self, site: Site, kubelet: Kubelet, end: Any, reason: str
    ) -> None:
        kubelet.fate = lambda pod: Fate(0, end=end)
        site.launch_one("1")

        assert wait_for(site, "1", Fact.FAILED).reason == reason

    def test_its_deadline_is_the_reason_and_not_how_its_pod_was_killed(
        self, opened: Open, kubelet: Kubelet
    ) -> None:
        site = opened(deadline="1s")
        site.launch_one("1")

        assert wait_for(site, "1", Fact.FAILED).reason == "DeadlineExceeded"

    def test_a_pod_on_a_lost_node_holds_its_slot(self, site: Site, kubelet: Kubelet) -> None:
        kubelet.fate = lambda pod: Fate(math.inf, lost=True)
        site.launch_one("1")
        pod = kubelet.wait_running(site.job_name("1"))
        site.plane.kubectl("-n", site.namespace, "delete", "pod", pod.name, "--wait=false")
        eventually(lambda: site.job("1")["status"].get("terminating") == 1)

        assert site.observed("1").fact is Fact.ACCEPTED

        kubelet.end(pod.name, VANISHED)
        wait_for(site, "1", Fact.FAILED)

    def test_a_job_that_is_to_fail_holds_its_slot_until_its_pod_has_ended(
        self, opened: Open, kubelet: Kubelet
    ) -> None:
        kubelet.fate = lambda pod: Fate(math.inf, lingers=math.inf)
        site = opened(deadline="1s")
        site.launch_one("1")
        pod = kubelet.wait_running(site.job_name("1"))

        def failing() -> bool:
            conditions = site.job("1")["status"].get("conditions") or ()
            return [each["type"] for each in conditions] == ["FailureTarget"]

        eventually(failing)
        assert site.observed("1").fact is Fact.ACCEPTED

        kubelet.end(pod.name, FAILED)
        assert wait_for(site, "1", Fact.FAILED).reason == "DeadlineExceeded"


class TestWhatIsThere:
    def test_a_job_that_no_watch_told_of_is_found(self, site: Site, kubelet: Kubelet) -> None:
        done(site, kubelet, "1")
        site.reopen()

        assert site.observed("1", told=False).fact is Fact.SUCCEEDED

    def test_a_launch_that_was_never_made_is_gone(self, site: Site) -> None:
        assert site.observed("1") == Observation(Fact.GONE, "JobDeleted")

    def test_a_job_deleted_by_hand_is_gone_when_its_pod_is(
        self, site: Site, kubelet: Kubelet
    ) -> None:
        kubelet.fate = lambda pod: Fate(math.inf, lingers=math.inf)
        site.launch_one("1")
        pod = kubelet.wait_running(site.job_name("1"))
        assert site.observed("1") == ACCEPTED
        job = site.job("1")
        site.delete_job("1")
        eventually(lambda: site.jobs() == {})
        assert site.observed("1") == ACCEPTED  # the watch has not told of it
        site.targets.seen("DELETED", job)

        assert site.observed("1") == Observation(
            Fact.ACCEPTED, f"its Job was deleted, but pod {pod.name} runs"
        )
        kubelet.end(pod.name)
        wait_for(site, "1", Fact.GONE)

    def test_a_job_of_ours_that_holds_no_slot_is_a_stray(self, site: Site) -> None:
        site.launch(send("1"), send("2"))
        site.reopen()

        (stray,) = site.observe("1").strays

        assert (stray.id, stray.key, stray.attempt) == ("id-2", "[2]", 1)
        assert stray.name == f"Job {site.job_name('2')}"

    @pytest.mark.parametrize("controlled", [True, False])
    def test_a_copy_is_neither_adopted_nor_touched(
        self, opened: Open, kubelet: Kubelet, controlled: bool
    ) -> None:
        site = opened(successfulJobsHistoryLimit=0, failedJobsHistoryLimit=0)
        kubelet.fate = lambda pod: Fate(0 if pod.job == "copy-that-ends" else math.inf)
        site.launch_one("1")
        job = site.job("1")
        for name in ("copy", "copy-that-ends"):
            site.create_job(_copied(job, name, controlled))
        site.delete_job("1")

        def over() -> bool:
            return bool(site.jobs()["copy-that-ends"].get("status", {}).get("completionTime"))

        eventually(over)
        site.reopen()
        site.tell()

        assert site.observe().strays == ()
        site.clean_up(settled=["1"])
        assert {"copy", "copy-that-ends"} <= set(site.jobs())

    def test_jobs_of_an_earlier_scannerjob_of_the_name_hold_launches(
        self, opened: Open, kubelet: Kubelet
    ) -> None:
        before = opened()
        before.launch_one("1")
        pod = kubelet.wait_running(before.job_name("1"))
        delete = ("-n", before.namespace, "delete", "scj", "pdf-pages", "--cascade=orphan")
        before.plane.kubectl(*delete)
        site = opened()

        hold = site.observe().hold
        assert hold is not None
        assert hold.reason == "PredecessorRuns"
        assert before.job_name("1") in hold.message
        assert site.observe().strays == ()

        kubelet.end(pod.name)
        wait_for_no_hold(site)

    def test_pods_of_an_earlier_scannerjob_whose_jobs_are_gone_hold_launches(
        self, opened: Open, kubelet: Kubelet
    ) -> None:
        kubelet.fate = lambda pod: Fate(math.inf, lingers=math.inf)
        before = opened()
        before.launch_one("1")
        pod = kubelet.wait_running(before.job_name("1"))
        before.plane.kubectl("-n", before.namespace, "delete", "scj", "pdf-pages")
        eventually(lambda: before.jobs() == {})
        site = opened()

        hold = site.observe().hold
        assert hold is not None
        assert pod.name in hold.message

        kubelet.end(pod.name)
        wait_for_no_hold(site)

    def test_what_only_has_our_name_as_a_label_holds_nothing(self, site: Site) -> None:
        labels = {NAME: "pdf-pages"}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "other", "namespace": site.namespace, "labels": labels},
            "spec": {"containers": [CONTAINER]},
        }
        site.plane.apply(pod)
        template = {"spec": {"restartPolicy": "Never", "containers": [CONTAINER]}}
        metadata = {"name": "other", "labels": labels}
        site.create_job({"kind": "Job", "metadata": metadata, "spec": {"template": template}})

        seen = site.observe()

        assert (seen.hold, seen.strays) == (None, ())


def _copied(job: dict[str, Any], name: str, controlled: bool) -> dict[str, Any]:
    """The Job as a person gets it out, renames it, and creates it."""
    labels = {key: value for key, value in job["metadata"]["labels"].items() if "uid" not in key}
    labels[UID] = job["metadata"]["labels"][UID]
    metadata = {"name": name, "labels": labels, "annotations": job["metadata"]["annotations"]}
    if controlled:
        metadata["ownerReferences"] = job["metadata"]["ownerReferences"]
    pod = {"metadata": {"labels": labels}, "spec": job["spec"]["template"]["spec"]}
    spec = {"backoffLimit": 0, "template": pod}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


class TestCleaningUp:
    def test_keeps_the_newest_of_what_was_counted(self, opened: Open, kubelet: Kubelet) -> None:
        site = opened(successfulJobsHistoryLimit=1, failedJobsHistoryLimit=0)
        done(site, kubelet, "1")
        eventually(lambda: view(site.job("1")).changed < datetime.now(UTC) - timedelta(seconds=1))
        done(site, kubelet, "2")
        kubelet.fate = lambda pod: Fate(0, end=FAILED)
        site.launch_one("3")
        wait_for(site, "3", Fact.FAILED)

        site.clean_up(settled=["1", "2", "3"])

        assert set(site.jobs()) == {site.job_name("2")}
        eventually(lambda: [pod["metadata"]["labels"][LAUNCH] for pod in _pods(site)] == ["id-2"])

    def test_leaves_what_holds_a_slot_what_was_not_counted_and_what_was_sent_twice(
        self, opened: Open, kubelet: Kubelet
    ) -> None:
        site = opened(successfulJobsHistoryLimit=0)
        done(site, kubelet, "outstanding", "uncounted", "twice")
        kubelet.fate = lambda pod: Fate(math.inf)
        site.launch_one("runs")

        site.clean_up("outstanding", "runs", settled=["twice"], sends=2)
        site.clean_up("outstanding", "runs")

        assert len(site.jobs()) == 4

    def test_leaves_what_changed_meanwhile_and_what_came_in_its_place(
        self, opened: Open, kubelet: Kubelet
    ) -> None:
        site = opened(successfulJobsHistoryLimit=0)
        done(site, kubelet, "changed", "replaced", "done")
        site.patch_job("changed", {"metadata": {"labels": {"keep": "this"}}})
        site.delete_job("replaced")
        eventually(lambda: site.job_name("replaced") not in site.jobs())
        spec = {"suspend": True, "template": {"spec": {"containers": [CONTAINER]}}}
        spec["template"]["spec"]["restartPolicy"] = "Never"  # type: ignore[index]
        metadata = {"name": site.job_name("replaced")}
        site.create_job({"kind": "Job", "metadata": metadata, "spec": spec})

        site.clean_up(settled=["changed", "replaced", "done"])

        assert set(site.jobs()) == {site.job_name("changed"), site.job_name("replaced")}
        site.tell()
        site.clean_up()
        assert set(site.jobs()) == {site.job_name("replaced")}

    def test_puts_a_time_to_live_on_what_was_counted_alone(
        self, opened: Open, kubelet: Kubelet
    ) -> None:
        site = opened(template(ttlSecondsAfterFinished=3600))
        done(site, kubelet, "1", "2")
        assert _ttl(site, "1") is None

        site.clean_up("2", settled=["1"])

        assert (_ttl(site, "1"), _ttl(site, "2")) == (3600, None)

    def test_of_a_time_of_zero_lets_it_go_at_once(self, opened: Open, kubelet: Kubelet) -> None:
        site = opened(template(ttlSecondsAfterFinished=0))
        done(site, kubelet, "1")
        assert set(site.jobs()) == {site.job_name("1")}

        site.clean_up(settled=["1"])

        eventually(lambda: site.jobs() == {})


def _pods(site: Site) -> Any:
    return site.plane.get("-n", site.namespace, "pods")["items"]


def _ttl(site: Site, key: str) -> Any:
    return site.job(key)["spec"].get("ttlSecondsAfterFinished")
