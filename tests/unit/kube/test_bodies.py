"""What the operator makes: pods, the Service, groups, events; and what the seed's kind of job becomes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pipeline.kube.bodies import event_body, pod_body, service_body
from pipeline.kube.caffe2 import caffe2_status
from pipeline.kube.gang import group
from pipeline.kube.model import Job
from pipeline.kube.names import CAFFE2_KIND
from pipeline.kube.plan import Event, Wanted, plan
from pipeline.kube.reading import job_of
from tests.unit.kube.jobs import NOW, job, job_body, pod

SEEDS: dict[str, Any] = {
    "backendSpecs": {"backendType": "redis", "redisHost": "redis-service", "redisPort": 6379},
    "replicaSpecs": {
        "replicas": 2,
        "template": {
            "spec": {
                "hostNetwork": True,
                "containers": [{"image": "trainer", "name": "caffe2", "command": ["python", "resnet50_trainer.py"]}],
            }
        },
    },
}
"""What tests/kube/samples/caffe2job.yaml holds."""


def environ(body: dict[str, Any], container: int = 0) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in body["spec"]["containers"][container]["env"]}


def seeds_job(**spec: Any) -> Job:
    body = {**job_body(name="example-job"), "spec": {**SEEDS, **spec}}
    return job_of(body, CAFFE2_KIND)


def test_a_pod_has_its_place_in_its_name_its_labels_and_its_environment() -> None:
    body = pod_body(job(replicas=2), Wanted(3, 1, 2))
    assert body["metadata"]["name"] == body["spec"]["hostname"] == "digits-3-1"
    assert body["metadata"]["labels"] == {"hathi.dev/job": "digits", "hathi.dev/attempt": "3", "hathi.dev/index": "1"}
    assert (
        body["metadata"]["ownerReferences"][0] | {"uid": "u1", "controller": True}
        == body["metadata"]["ownerReferences"][0]
    )
    assert (body["spec"]["subdomain"], body["spec"]["restartPolicy"]) == ("digits", "Never")
    given = environ(body)
    assert (given["RANK"], given["WORLD_SIZE"], given["SHARD_ID"], given["NUM_SHARDS"]) == ("1", "2", "1", "2")
    assert (given["MASTER_ADDR"], given["MASTER_PORT"]) == ("digits-3-0.digits.team.svc", "29500")
    assert (given["HATHI_RUN"], given["RUN_ID"], given["HATHI_ATTEMPT"]) == ("u1", "u1.3", "3")
    assert {each["tolerationSeconds"] for each in body["spec"]["tolerations"]} == {30}


def test_what_the_template_says_itself_wins() -> None:
    template = {
        "metadata": {"labels": {"mine": "1", "hathi.dev/job": "another"}},
        "spec": {
            "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 5}],
            "containers": [{"name": "t", "image": "i", "env": [{"name": "RANK", "value": "9"}],
                            "terminationMessagePolicy": "File"}, {"name": "side", "image": "i"}],
        },
    }  # fmt: skip
    one = job(template=template)
    body = pod_body(one, Wanted(0, 0, 1))
    assert environ(body)["RANK"] == "9"
    assert environ(body, 1)["RANK"] == "0"
    assert body["spec"]["containers"][0]["terminationMessagePolicy"] == "File"
    assert body["metadata"]["labels"] | {"mine": "1"} == body["metadata"]["labels"]
    assert body["metadata"]["labels"]["hathi.dev/job"] == "digits", "by this label its pods are found"
    assert sorted(each["tolerationSeconds"] for each in body["spec"]["tolerations"]) == [5, 30]
    assert one.spec.template == template, "the template stays as it is"


def test_the_seeds_pod_has_its_labels_and_variables_word_for_word() -> None:
    one = seeds_job(runtimeID="1529307087")
    body = pod_body(one, Wanted(0, 0, 2))
    seeds = {
        "caffe2_job_key": "team-example-job", "caffe2_replica_index": "0", "caffe2_replica_type": "worker",
        "group_name": "kubeflow.org", "runtime_id": "1529307087",
    }  # fmt: skip
    assert {name: body["metadata"]["labels"][name] for name in seeds} == seeds
    given = environ(body)
    assert {name: given[name] for name in ("SHARD_ID", "NUM_SHARDS", "RUN_ID", "REDIS_HOST", "REDIS_PORT")} == {
        "SHARD_ID": "0", "NUM_SHARDS": "2", "RUN_ID": "1529307087", "REDIS_HOST": "redis-service", "REDIS_PORT": "6379",
    }  # fmt: skip
    config = json.loads(given["CAFFE2_CONFIG"])
    assert config["task"] == {"type": "worker", "index": 0}
    assert len(config["cluster"]["worker"]) == 2
    assert body["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet", "else names of the cluster do not resolve"
    assert body["metadata"]["ownerReferences"][0]["apiVersion"] == "kubeflow.org/v1alpha1"


@pytest.mark.parametrize(
    ("chief", "wanted"), [(None, None), ({}, 0), ({"replicaName": "worker", "replicaIndex": 1}, 1)]
)
def test_without_a_chief_all_of_the_seeds_workers_have_to_succeed(chief: Any, wanted: int | None) -> None:
    policy = {} if chief is None else {"terminationPolicy": {"chief": chief}}
    assert seeds_job(**policy).spec.chief == wanted


def test_the_seeds_status_is_written_beside_ours() -> None:
    one = seeds_job()
    done = plan(one, [], NOW)
    body = caffe2_status(one, done.status, [pod(0), pod(1, phase="Pending")])
    assert body["replicaStatuses"] == [
        {"type": "worker", "state": "Running", "replicasStates": {"Running": 1, "Waiting": 1}}
    ]
    read = job_of({**job_body(name="example-job", status=body), "spec": SEEDS}, CAFFE2_KIND)
    assert read.status == done.status


def test_the_service_is_headless_and_names_pods_that_are_not_ready() -> None:
    spec = service_body(job(rendezvous={"port": 2222}))["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)
    assert spec["selector"] == {"hathi.dev/job": "digits"}
    assert spec["ports"][0]["port"] == 2222


@pytest.mark.parametrize("kind", ["PodGroup", "Volcano", "Kueue"])
def test_a_gang_belongs_to_a_group_of_its_attempt(kind: str) -> None:
    one = job(replicas=4, scheduling={"gang": kind, "queue": "night"})
    body, made = pod_body(one, Wanted(2, 1, 4)), group(one, 2, 4, {"uid": "u1"})
    assert "digits-2" in json.dumps(body)
    assert (made is None) == (kind == "Kueue")
    if made is not None:
        assert made[1]["metadata"]["name"] == "digits-2"
        assert "4" in json.dumps(made[1]["spec"])
    assert (
        pod_body(replace(one, spec=replace(one.spec, gang="None")), Wanted(2, 1, 4))["metadata"].get("annotations")
        is None
    )


def test_a_shared_folder_is_mounted_where_the_job_names_its_claim() -> None:
    one = job(replicas=2, rendezvous={"backend": "nfs", "nfs": {"path": "/shared", "claimName": "disk"}})
    body = pod_body(one, Wanted(0, 0, 2))
    assert body["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "disk"}
    assert body["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] == environ(body)["NFS_PATH"] == "/shared"


def test_an_event_is_cut_where_the_api_takes_no_more() -> None:
    body = event_body(job(), Event("Restarting", "x" * 5000, warning=True), "n1", NOW)
    assert len(body["note"]) == 1024
    assert body["type"] == "Warning"
    assert body["regarding"]["uid"] == "u1"
