"""`hathi kube`: training jobs on Kubernetes, which come back by themselves (docs/kubernetes.md)."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.wiring.numbers import number_from
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.kube.api import Api
    from pipeline.kube.manifests import Wish

ACTIONS = ("operator", "manifests", "check", "status", "why")
LOOK_SECONDS = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`hathi kube operator|manifests|check|status|why`."""
    parser.usage = (
        "hathi kube manifests [--image IMAGE] [--caffe2jobs] | kubectl apply -f -\n"
        "       hathi kube operator [--namespace NAME] [--lease NAME] [--caffe2jobs] [--port N]\n"
        "       hathi kube check [--json]                  is the operator installed, and does it work?\n"
        "       hathi kube status [--namespace NAME] [--json]\n"
        "       hathi kube why JOB [--namespace NAME] [--json]"
    )
    option = parser.add_argument
    option("action", choices=ACTIONS, help="what to do")
    option("names", nargs="*", metavar="JOB", help="of why: the job")
    option("--namespace", default="", metavar="NAME",
           help="whose jobs (operator, manifests, status: default: all; why: that of the kubeconfig)")  # fmt: skip
    option("--caffe2jobs", action="store_true", help="the seed's Caffe2Job as well as TrainingJob")
    option("--kubeconfig", default="", metavar="FILE",
           help="as JSON: kubectl config view --raw --flatten -o json (default: $KUBECONFIG; in a pod its service "
           "account)")  # fmt: skip
    option("--context", default="", metavar="NAME", help="of the kubeconfig (default: its current one)")
    option("--json", action="store_true", help="print JSON")
    group = parser.add_argument_group("operator, manifests")
    group.add_argument("--lease", default="", metavar="NAME",
                       help="operator: the namespace of the lease by which one of several works (default: none); "
                       "manifests: the namespace to install into (default: hathi-system)")  # fmt: skip
    group.add_argument("--threads", type=number_from(1), default=4, metavar="N",
                       help="operator: jobs that are looked at side by side (default: 4)")  # fmt: skip
    group.add_argument("--address", default="127.0.0.1", help="operator: where it answers (default: 127.0.0.1)")
    group.add_argument("--port", type=number_from(0), default=8080, metavar="N",
                       help="operator: of /metrics, /healthz and /readyz (default: 8080; 0: any)")  # fmt: skip
    group.add_argument("--image", default="", help="manifests: the operator's image")
    group.add_argument("--only-kinds", action="store_true", help="manifests: the kinds of jobs alone")


def run(args: argparse.Namespace) -> int:
    """0; what cannot be done is raised.  check: 1 where the operator does not work."""
    wanted = 1 if args.action == "why" else 0
    if len(args.names) != wanted:
        usage = "hathi kube why JOB" if wanted else f"hathi kube {args.action}"
        given = " ".join(args.names) or "nothing"
        takes = "one job" if wanted else "no name"
        raise ConfigError(f"hathi kube {args.action} takes {takes}", f"given: {given}", usage)
    return _ACTIONS[args.action](args)


def _operator(args: argparse.Namespace) -> int:
    from pipeline.clock import Clock
    from pipeline.kube.probes import answering, answers
    from pipeline.kube.running import Operator, Wish
    from pipeline.process.host import this_process
    from pipeline.process.stop import Stop, signals

    clock = Clock()
    wish = Wish(args.namespace, args.caffe2jobs, args.threads, args.lease, this_process().name)
    stop = Stop(None, clock, _say)
    with signals(stop, lambda: None), _asking(args, args.threads + 4) as api:
        operator = Operator(api, wish, _say, clock)
        with answering(answers(operator.figures, lambda: operator.ready), args.address, args.port) as port:
            where = f"of {args.namespace}" if args.namespace else "of all namespaces"
            _say(f"the operator works for jobs {where}; figures at http://{args.address}:{port}/metrics")
            operator.start()
            while not stop():
                clock.sleep(LOOK_SECONDS)
            _say(f"it ends: {stop.why}")
            operator.stop()
    return stop.exit_code


def _manifests(args: argparse.Namespace) -> int:
    from pipeline.kube.manifests import printed

    sys.stdout.write(printed(_wish(args), only_kinds=args.only_kinds))
    return 0


def _wish(args: argparse.Namespace) -> Wish:
    from pipeline.kube.manifests import Wish

    default = Wish()
    return Wish(args.lease or default.home, args.image or default.image, args.namespace, args.caffe2jobs)


def _check(args: argparse.Namespace) -> int:
    from pipeline.kube.checking import findings

    with _asking(args) as api:
        found = findings(api, _wish(args), time.time())
    if args.json:
        print(json.dumps([asdict(each) for each in found]))
    else:
        for each in found:
            print(f"{'ok' if each.ok else 'NOT'}  {each.what}: {each.words}{f'; {each.hint}' if each.hint else ''}")
    return 0 if all(each.ok for each in found) else 1


def _status(args: argparse.Namespace) -> int:
    from pipeline.cli.output.columns import columns
    from pipeline.kube.reading import job_of

    with _asking(args) as api:
        jobs = [job_of(body, kind) for kind, body in _bodies(api, args)]
    if args.json:
        print(json.dumps([
            {"kind": job.kind, "namespace": job.namespace, "name": job.name, "state": job.status.state or "Pending",
             "ready": job.status.ready, "replicas": job.spec.replicas, "attempt": job.status.attempt,
             "failures": job.status.failures, "message": job.status.message}
            for job in jobs
        ]))  # fmt: skip
        return 0
    if not jobs:
        print("there are no training jobs")
        return 0
    rows = [
        (job.namespace, job.name, job.status.state or "Pending", f"{job.status.ready}/{job.spec.replicas}",
         str(job.status.attempt), str(job.status.failures), job.status.message)
        for job in jobs
    ]  # fmt: skip
    for line in columns([("NAMESPACE", "NAME", "STATE", "READY", "ATTEMPT", "FAILURES", "MESSAGE"), *rows], {4, 5}):
        _print(line)
    return 0


def _why(args: argparse.Namespace) -> int:
    from pipeline.kube.api import ApiError
    from pipeline.kube.names import JOB, resource_path
    from pipeline.kube.perform import RESOURCES
    from pipeline.kube.reading import job_of
    from pipeline.kube.story import story

    kind, (name,) = _kind(args), args.names
    with _asking(args) as api:
        space = args.namespace or api.namespace
        version, plural = RESOURCES[kind]
        try:
            body = api.call("GET", resource_path(version, plural, space, name))
        except ApiError as error:
            if error.code != 404:
                raise
            other = "" if args.caffe2jobs else "; --caffe2jobs looks for one of the seed's kind"
            raise ConfigError(
                f"there is no {kind} {name} in the namespace {space}", error.words, f"hathi kube status{other}"
            ) from error
        job = job_of(body, kind)
        pods, _ = api.list(resource_path("v1", "pods", space), labelSelector=f"{JOB}={name}")
        told = resource_path("events.k8s.io/v1", "events", space)
        events, _ = api.list(told, fieldSelector=f"regarding.uid={job.uid}")
    if args.json:
        print(json.dumps({"job": body, "pods": [pod["metadata"]["name"] for pod in pods], "events": events}))
    else:
        for line in story(job, pods, events):
            _print(line)
    return 0


def _kind(args: argparse.Namespace) -> str:
    from pipeline.kube.names import CAFFE2_KIND, KIND

    return CAFFE2_KIND if args.caffe2jobs else KIND


def _bodies(api: Api, args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    from pipeline.kube.names import CAFFE2_KIND, KIND, resource_path
    from pipeline.kube.perform import RESOURCES

    for kind in (KIND, *([CAFFE2_KIND] if args.caffe2jobs else [])):
        version, plural = RESOURCES[kind]
        found, _ = api.list(resource_path(version, plural, args.namespace))
        yield from ((kind, body) for body in found)


@contextmanager
def _asking(args: argparse.Namespace, threads: int = 2) -> Iterator[Api]:
    from pipeline.kube.api import Api
    from pipeline.kube.credentials import find

    if args.kubeconfig and not Path(args.kubeconfig).is_file():
        raise ConfigError(f"there is no kubeconfig {args.kubeconfig}", "", "--kubeconfig names a file")
    credentials = find(os.environ, time.monotonic, args.kubeconfig, args.context)
    try:
        yield Api(credentials, threads=threads)
    finally:
        credentials.close()


def _say(text: str) -> None:
    from pipeline.process import logs
    from pipeline.times import to_the_second

    print(f"{to_the_second(time.time())} {logs.escape(logs.redact(text))}", file=sys.stderr, flush=True)


def _print(text: str) -> None:
    """A line about what others wrote."""
    from pipeline.process import logs

    print(logs.escape(logs.redact(text)))


_ACTIONS = {"operator": _operator, "manifests": _manifests, "check": _check, "status": _status, "why": _why}
