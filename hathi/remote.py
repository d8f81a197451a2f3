"""A client of the service: what teams do over REST, as calls.

    service = hathi.remote.connect("https://hathi.example", token)
    file = service.push("spots.zip")
    dataset = service.imported(service.make_dataset("spots", file["id"], {"train": 80, "test": 20})["id"])
    solver = service.make_solver("spots", solver_text, net_text, dataset["id"])
    job = service.ended(service.train("spots", solver["id"])["id"])
    classifier = service.make_classifier("spots", training_job_id=job["id"])
    for one in service.classify(classifier["id"], ["picture.png"]):
        ...                        # one["predictions"], or one["failure"] and why

An answer is the dictionary that docs/api.md describes, with a type; a refusal is a `Problem`, an `Error` with its
`status`.  Requests are sent again where the connection breaks, and a lost answer makes nothing twice.
"""

from __future__ import annotations

import os

from pipeline.remote.client import Client
from pipeline.remote.login import login_of
from pipeline.remote.transport import PATIENCE_SECONDS, Away, Event, Problem

__all__ = ["Away", "Client", "Event", "Problem", "connect"]


def connect(url: str = "", token: str = "", *, patience: float = PATIENCE_SECONDS) -> Client:
    """A client of a service; nothing is asked yet.

    url, token: by default $HATHI_REMOTE_URL and $HATHI_REMOTE_TOKEN, else what `hathi remote login` keeps.
    patience: seconds for which a request is tried again while nobody answers.
    Raises `Error` where there is no address or no token.

    >>> import hathi
    >>> service = hathi.remote.connect("http://127.0.0.1:8974", TOKEN)
    >>> service.me()["tenant"]
    'red'
    >>> file = service.push("spots.zip")
    >>> file["complete"]
    True
    >>> [one["name"] for one in service.datafiles()]
    ['spots.zip']
    >>> service.job("tj_00000000000000000000000000")
    Traceback (most recent call last):
        ...
    pipeline.remote.transport.Problem: no such thing is here, or it is not yours | list what is there
    """
    if url and token:
        return Client(url, token, patience=patience)
    given = {name: one for name, one in (("HATHI_REMOTE_URL", url), ("HATHI_REMOTE_TOKEN", token)) if one}
    kept = login_of({**os.environ, **given})
    return Client(kept.url, kept.token, patience=patience)
