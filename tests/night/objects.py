"""Faults of what lies in the bucket: something of a shipment is deleted under it, or a batch is given up."""

from __future__ import annotations

from collections.abc import Sequence

from tests.night.asking import words
from tests.night.deployment import Deployment
from tests.night.faults import Fault


def batch_deleted(deployment: Deployment) -> None:
    deployment.put_refs()
    deployment.object_of("compute", "end")  # all of its batches are there
    deployment.object_of("compute", "b/00001").unlink()


def shard_deleted(deployment: Deployment) -> None:
    """Between compute and aggregate."""
    deployment.put_refs()
    deployment.waits_for("compute")
    done = deployment.box.hathi("run", "--once", "compute")
    assert done.returncode == 0, done.stdout
    deployment.object_of("aggregate", "00001.features.parquet").unlink()


def merged_deleted(deployment: Deployment) -> None:
    """Between aggregate and deliver: the gateway's deliver is down while it happens."""
    deployment.put_refs()
    deployment.waits_for("compute")
    deployment.gateway.stop()
    deployment.call_box()
    deployment.object_of("deliver", "features/*.parquet").unlink()
    deployment.gateway.start()


def closed(deployment: Deployment) -> None:
    """What the remedy says: `hathi ship --close SHIPMENT`."""
    (one,) = deployment.open()
    done = deployment.gateway.hathi("ship", "--close", one["shipment"], "--yes")
    assert done.returncode == 0, done.stdout


def given_up(deployment: Deployment) -> None:
    """The box's process dies at each try of the same batches, until nobody tries them any more."""
    deployment.configure("box", {"compute": {"lost": 1, "lost_alone": 1}})
    deployment.shop.mode = "hangs"
    deployment.put_refs()
    deployment.waits_for("compute")
    for _ in range(4):  # each batch once beside others, then one of them alone
        with deployment.box_at_work():
            deployment.box.kill()
    deployment.shop.mode = "well"


def released(deployment: Deployment) -> None:
    deployment.configure("box")
    done = deployment.gateway.hathi("quarantine", "release", "--all", "--yes")
    assert done.returncode == 0, done.stdout


OBJECTS: Sequence[Fault] = (
    Fault("a batch is deleted", batch_deleted, closed,
          words("its batch 1 is gone"), words("ship --close")),
    Fault("a result is deleted", shard_deleted, closed,
          words("00001.features.parquet", "is gone"), words("ship --close"), host="box"),
    Fault("merged features are deleted", merged_deleted, closed,
          words("/features/", "is gone"), words("ship --close")),
    Fault("a batch is held", given_up, released,
          words("held"), words("quarantine show"), host="gateway"),
)  # fmt: skip
