"""Two workers of `hathi train` on the real servers: whatever ends them, the job ends with the undisturbed bits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kube import training
from tests.kube.site import Site


@pytest.fixture(scope="module")
def here(site: Site) -> Iterator[Site]:
    """With two nodes that run processes, and an operator as its own service account."""
    for name in ("n1", "n2"):
        site.node(name)
    with site.operating("--threads", "2"):
        yield site


@pytest.fixture(scope="module")
def undisturbed(here: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The final weights of a job of two workers that nobody disturbs."""
    folder = training.folder_of(tmp_path_factory.mktemp("kube-training") / "calm")
    space = here.space("calm")
    here.submit(space, "calm", training.spec_of(folder))
    status = here.ends(space, "calm")
    assert (status["attempt"], status["restarts"], status["failures"]) == (0, 0, 0)
    conditions = {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}
    assert conditions == {"Running": ("False", "ChiefSucceeded"), "Complete": ("True", "ChiefSucceeded")}
    return training.weights(folder)


def test_a_job_of_two_workers_completes(undisturbed: str, here: Site) -> None:
    ran = sorted(each.pod for node in here.nodes.values() for each in node.ran)
    assert ran == ["calm-0-0", "calm-0-1"]
    assert here.alive("calm", "calm") == []
