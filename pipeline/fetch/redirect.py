"""Where a redirect may lead; every rule of the first URL holds for it again."""

from __future__ import annotations

from pipeline import settings
from pipeline.fetch.job import Job
from pipeline.fetch.target import Target, join
from pipeline.records import Failure


def port_allowed(target: Target, limits: settings.Fetch) -> bool:
    return limits.allow_private or target.port in limits.allow_ports


def follow(job: Job, location: str, limits: settings.Fetch) -> Target | Failure:
    """The job's next target, or the `redirect` failure that says which rule is in the way.

    The user and password of the first URL are dropped, and those that a redirect names are not taken up.
    """
    target = join(job.target, location, limits.max_url_length)
    job.hops += 1
    job.seen = job.seen or {job.first.url}
    if isinstance(target, Failure):
        return Failure.of("redirect", f"to {'a bad url' if target.reason == 'bad_url' else target.detail}")
    wall = ": the host sets a cookie, and none is kept" if job.cookie else ""
    if target.url in job.seen:
        return Failure.of("redirect", f"loop{wall}")
    if job.hops > limits.max_redirects:
        return Failure.of("redirect", f"too many{wall}")
    if job.target.scheme == "https" and target.scheme == "http" and not limits.allow_downgrade:
        return Failure.of("redirect", "from https to http")
    if not port_allowed(target, limits):
        return Failure.of("redirect", f"to port {target.port}")
    job.seen.add(target.url)
    return target._replace(user=b"")
