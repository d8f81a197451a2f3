"""Credentials, the lease, the queue, conditions, statuses, the story, manifests and probes."""

from __future__ import annotations

import base64
import json
import re
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.kube import manifests
from pipeline.kube.api import ApiError, resource_of
from pipeline.kube.conditions import Condition, with_condition
from pipeline.kube.credentials import find, in_pod, token_file
from pipeline.kube.figures import Figures
from pipeline.kube.lease import LEASE_SECONDS, SURE_SECONDS, Lease
from pipeline.kube.model import Failure
from pipeline.kube.plan import plan
from pipeline.kube.probes import answering, answers
from pipeline.kube.queue import Due
from pipeline.kube.reading import job_of
from pipeline.kube.statuses import body_of, indexes_of, ranges_of, status_of
from pipeline.kube.story import story
from pipeline.kube.times import micro_stamp, seconds_of, stamp
from tests.unit.kube.jobs import NOW, job, job_body, pod_body

# ---- who we are


def kubeconfig(folder: Path, user: dict[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://h:6443",
                                               "certificate-authority-data": base64.b64encode(b"ca").decode()}}],
        "users": [{"name": "u", "user": user}],
    }))  # fmt: skip
    return path


def test_a_kubeconfig_gives_server_namespace_token_and_files_that_go_again(tmp_path: Path) -> None:
    found = find({}, lambda: 0.0, str(kubeconfig(tmp_path, {"token": "t"})))
    assert (found.server, found.namespace, found.token()) == ("https://h:6443", "team", "t")
    assert Path(found.ca).read_bytes() == b"ca"
    assert Path(found.ca).stat().st_mode & 0o77 == 0
    found.close()
    assert not Path(found.ca).exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("apiVersion: v1", "is not JSON"),
        ("{}", "lacks something"),
        ('{"contexts": [], "current-context": "x"}', "does not have"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_says_what_to_type(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        find({"KUBECONFIG": str(tmp_path / "config")}, lambda: 0.0)
    assert "kubectl config" in caught.value.hint


def test_a_program_that_makes_tokens_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="from a program"):
        find({}, lambda: 0.0, str(kubeconfig(tmp_path, {"exec": {"command": "aws"}})))


def test_without_a_kubeconfig_outside_of_a_pod_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no kubeconfig"):
        find({}, lambda: 0.0)


def test_a_pods_token_is_read_again_each_minute(tmp_path: Path) -> None:
    for name, text in (("token", "one\n"), ("namespace", "team"), ("ca.crt", "ca")):
        (tmp_path / name).write_text(text)
    now = [0.0]
    found = in_pod({"KUBERNETES_SERVICE_HOST": "fd00::1"}, lambda: now[0], tmp_path)
    assert found is not None
    assert found.server == "https://[fd00::1]:443"
    assert found.namespace == "team"
    assert found.token() == "one"
    (tmp_path / "token").write_text("two")
    assert found.token() == "one"
    now[0] = 61.0
    assert found.token() == "two"
    (tmp_path / "token").unlink()
    now[0] = 130.0
    with pytest.raises(ConfigError, match="cannot be read"):
        token_file(tmp_path / "token", lambda: now[0])()


# ---- who works


class Leases:
    """One Lease, kept as the API server keeps it."""

    def __init__(self) -> None:
        self.body: dict[str, Any] | None = None
        self.version = 0

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **query: str) -> dict[str, Any]:
        if method == "GET":
            if self.body is None:
                raise ApiError(404, "NotFound", "", path)
            return json.loads(json.dumps(self.body))  # type: ignore[no-any-return]
        assert body is not None
        if (
            self.body is not None
            and body["metadata"].get("resourceVersion") != self.body["metadata"]["resourceVersion"]
        ):
            raise ApiError(409, "Conflict", "", path)
        self.version += 1
        self.body = json.loads(
            json.dumps({**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}})
        )
        return self.body or {}

    def list(self, path: str, **query: str) -> tuple[list[dict[str, Any]], str]:
        return [], ""


def two() -> tuple[Leases, Lease, Lease, Callable[[float], None]]:
    there, now = Leases(), [0.0]
    clock = Clock(now=lambda: NOW + now[0], monotonic=lambda: now[0])

    def later(seconds: float) -> None:
        now[0] += seconds

    return there, Lease(there, "home", "a", clock), Lease(there, "home", "b", clock), later


def test_one_of_two_leads_and_the_other_takes_over_when_it_is_silent() -> None:
    there, first, second, later = two()
    assert first.renew()
    assert not second.renew()
    later(SURE_SECONDS)
    assert not first.leads, "it stops before the other may begin"
    later(LEASE_SECONDS - SURE_SECONDS - 1)
    assert not second.renew()
    later(2)
    assert second.renew()
    assert second.leads
    assert not first.renew(), "who comes back finds the other one"
    assert there.body is not None
    assert there.body["spec"]["leaseTransitions"] == 1


def test_who_renews_keeps_it_and_who_gives_it_back_lets_the_other_begin_at_once() -> None:
    _, first, second, later = two()
    first.renew()
    for _ in range(5):
        later(5)
        assert first.renew()
        assert not second.renew()
    first.release()
    assert not first.leads
    assert second.renew()


# ---- when


def test_a_key_is_worked_on_once_at_a_time_and_again_where_it_changed_meanwhile() -> None:
    now = [0.0]
    due = Due(lambda: now[0])
    key = ("TrainingJob", "team", "digits")
    due.add(key)
    due.add(key, 5.0)
    assert due.take() == key
    assert len(due) == 1
    due.add(key)
    due.done(key, 60.0)
    assert due.take() == key, "what came meanwhile counts"
    due.done(key, 30.0)
    taken: list[Any] = []
    thread = threading.Thread(target=lambda: taken.append(due.take()))
    thread.start()
    due.close()
    thread.join(10.0)
    assert taken == [None], "it is due in 30 s, and the queue was closed"


@pytest.mark.parametrize("seconds", [0.0, 1_800_000_000.0, 951_782_400.0])
def test_times_go_there_and_back(seconds: float) -> None:
    assert seconds_of(stamp(seconds)) == seconds_of(micro_stamp(seconds)) == seconds
    assert seconds_of("2026-11-20T18:59:07.250000Z") == 1795201147.25
    assert seconds_of(None) is None


# ---- what is written


def test_a_conditions_time_moves_with_its_status_alone() -> None:
    first = with_condition((), Condition("Running", True, "A", "", 1.0, 1))
    again = with_condition(first, Condition("Running", True, "B", "words", 2.0, 2))
    assert [(each.since, each.reason, each.observed) for each in again] == [(1.0, "B", 2)]
    assert with_condition(again, Condition("Running", False, "C", "", 3.0, 2))[0].since == 3.0
    assert with_condition((), Condition("Failed", False, "X", "", 1.0, 1)) == ()


@pytest.mark.parametrize(("numbers", "text"), [(set(), ""), ({0}, "0"), ({0, 2, 3, 4, 9}, "0,2-4,9")])
def test_indexes_are_written_as_ranges(numbers: set[int], text: str) -> None:
    assert ranges_of(frozenset(numbers)) == text
    assert indexes_of(text) == numbers


def test_a_status_goes_to_the_api_and_comes_back_as_it_was() -> None:
    one = job(replicas=2)
    status = plan(one, [], NOW).status
    failed = Failure(1, 1, "digits-1-1", "Error", NOW, True, "n1", 137, "last words")
    status = replace(status, last_failure=failed, succeeded=frozenset({0, 1}), started=NOW, completed=NOW + 1)
    assert status_of(body_of(one, status)) == status


def test_a_body_of_another_version_is_left_alone_with_its_problem() -> None:
    found = job_of({**job_body(), "spec": {"replicas": 2}})
    assert found.problem.startswith("KeyError")


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/api/v1/namespaces/a/pods/b", "pods"),
        ("/apis/hathi.dev/v1alpha1/namespaces/a/trainingjobs/b/status", "trainingjobs/status"),
        ("/apis/hathi.dev/v1alpha1/trainingjobs", "trainingjobs"),
        ("/api/v1/pods", "pods"),
        ("/version", "version"),
    ],
)
def test_requests_are_counted_by_resource(path: str, resource: str) -> None:
    assert resource_of(path) == resource


# ---- what is told


def test_a_story_tells_the_end_the_events_in_order_the_pods_and_what_to_do() -> None:
    one = job(replicas=2)
    status = plan(one, [], NOW).status
    failed = Failure(0, 1, "digits-0-1", "Error", NOW, True, "n1", 2, "hathi: no such dataset")
    condition = Condition("Failed", True, "PermanentFailure", "replica 1 of attempt 0: Error, exit code 2", NOW, 1)
    status = replace(status, last_failure=failed, conditions=(condition,), state="Failed", message=condition.message)
    events = [
        {"eventTime": "2027-01-15T08:00:02.000000Z", "reason": "PermanentFailure", "note": "replica 1", "metadata": {}},
        {"eventTime": "2027-01-15T08:00:01.000000Z", "reason": "Launched", "note": "attempt 0", "metadata": {}},
    ]
    told = story(replace(one, status=status), [pod_body(1, code=2, phase="Failed"), pod_body(0, owner="else")], events)
    text = "\n".join(told)
    assert told[0] == "TrainingJob team/digits: Failed"
    assert "digits-0-1 on n1: Error, exit code 2; it counts" in text
    assert "hathi: no such dataset" in text
    assert text.index("Launched: attempt 0") < text.index("PermanentFailure: replica 1")
    assert "digits-0-0" not in text, "it belongs to another job"
    assert told[-1].startswith("what to do: no restart mends")


def test_a_story_of_a_job_that_nobody_saw_names_the_check() -> None:
    assert story(job(), [], [])[-1] == "what to do: is the operator installed? hathi kube check"


# ---- what is installed


def test_the_roles_are_of_one_namespace_where_one_is_watched() -> None:
    kinds = {
        each["kind"] for each in manifests.objects(manifests.Wish(watched="team")) if each["kind"].endswith("Role")
    }
    bound = [each for each in manifests.objects(manifests.Wish(watched="team")) if each["kind"] == "RoleBinding"]
    assert "Role" in kinds
    assert {each["metadata"]["namespace"] for each in bound} == {"team", "hathi-system"}
    everything = json.dumps(list(manifests.objects(manifests.Wish(caffe2=True))))
    assert "secrets" not in everything
    assert "configmaps" not in everything
    assert '"*"' not in everything


def test_what_the_deployment_types_is_what_the_command_takes() -> None:
    from pipeline.cli.main import _parser

    args = _parser("kube").parse_args(manifests.arguments(manifests.Wish(watched="team", caffe2=True)))
    assert (args.action, args.namespace, args.lease, args.caffe2jobs) == ("operator", "team", "hathi-system", True)
    assert (args.address, args.port) == ("0.0.0.0", manifests.PORT)


def test_manifests_are_documents_apart() -> None:
    first, *rest = re.split(r"^---$", manifests.printed(manifests.Wish(image="registry/hathi:1")), flags=re.M)
    assert "CustomResourceDefinition" in first
    bodies = [json.loads(each) for each in rest]
    assert [each["kind"] for each in bodies][:2] == ["Namespace", "ServiceAccount"]
    assert bodies[-1]["spec"]["template"]["spec"]["containers"][0]["image"] == "registry/hathi:1"
    assert manifests.printed(manifests.Wish(), only_kinds=True).count("kind: CustomResourceDefinition") == 1


class Watch:
    """A watch, as far as the figures look at it."""

    _path, silent = "/api/v1/pods", 1.0

    def __init__(self) -> None:
        self.deaf = False


def test_a_deaf_watch_makes_the_operator_unwell() -> None:
    watch, ready = Watch(), [False]
    figures = Figures([watch], lambda: Counter({("TrainingJob", "Running"): 2}), Counter(), lambda: True)  # type: ignore[list-item]
    figures.stepped("done", 0.01)
    with answering(answers(figures, lambda: ready[0]), "127.0.0.1", 0) as port:

        def ask(path: str) -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        assert ask("/healthz") == (200, "ok\n")
        assert ask("/readyz")[0] == 503
        assert ask("/")[0] == 404
        watch.deaf = ready[0] = True
        assert ask("/healthz") == (503, "deaf: /api/v1/pods\n")
        assert ask("/readyz") == (200, "ok\n")
        code, text = ask("/metrics")
        assert code == 200
        assert 'hathi_kube_jobs{kind="TrainingJob",state="Running"} 2.0' in text
        with (
            pytest.raises(ConfigError, match="cannot be had"),
            answering(lambda path: (200, "", b""), "127.0.0.1", port),
        ):
            pass
