"""What it usually means when one reason rules the failures of a partner, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Remedy:
    """What it usually means when one reason rules, and what to do."""

    means: str
    do: str


_ONE = "try one of the URLs with hathi fetch URL"
REMEDIES: Mapping[str, Remedy] = {
    "bad_url": Remedy("the source holds addresses that are not URLs", "look at the column of URLs in the source"),
    "blocked": Remedy(
        "the URLs lead to a private network, or to a port or scheme that the settings do not allow",
        "if the network is your own, set fetch.allow_private or fetch.allow_ports; if not, tell the partner",
    ),
    "dns": Remedy(
        "the host has no name any more, or this box's DNS does not answer",
        "run hathi doctor on the compute box; if its DNS answers, ask the partner for the host's new name",
    ),
    "connect": Remedy("the host is down, or a firewall blocks the way", f"{_ONE}, on the compute box"),
    "tls": Remedy("the host's certificate has expired or is for another name", f"{_ONE}; tell the partner"),
    "timeout": Remedy(
        "the host does not answer at all, or the host or the line is overloaded",
        f"{_ONE}, on the compute box; if it answers, lower fetch.connections_per_host",
    ),
    "too_slow": Remedy("the host sends very slowly", "lower fetch.connections_per_host, or fetch.min_bytes_per_second"),
    "redirect": Remedy(
        "the host redirects us elsewhere: to a login page, a cookie wall, or moved URLs",
        f"{_ONE}; ask the partner for URLs that lead to images",
    ),
    "http_4xx": Remedy(
        "404 and 410: the images were removed; 401 and 403: the host does not let us in, or signed URLs have expired",
        f"{_ONE}; then ask the partner, or ship fresh URLs",
    ),
    "http_429": Remedy(
        "we send the host too many requests, or more boxes than planned do",
        "lower fetch.requests_per_second; if several boxes fetch, set fetch.share",
    ),
    "http_5xx": Remedy(
        "the host is broken or overloaded", "Hathi tries them again by itself; if it lasts, tell the partner"
    ),
    "too_large": Remedy(
        "the images are larger than the cap", "raise fetch.max_bytes, or ask the partner for smaller images"
    ),
    "empty": Remedy("the host answers without an image", f"{_ONE}; tell the partner"),
    "truncated": Remedy("the host or a proxy cuts the images off", f"{_ONE}; tell the partner"),
    "protocol": Remedy("the host, or a proxy before it, does not speak proper HTTP", f"{_ONE}; tell the partner"),
    "not_image": Remedy("the URLs lead to pages, not to images", f"{_ONE}; look at the column of URLs in the source"),
    "decode": Remedy("the images are damaged, or of a rare format", f"{_ONE}; hathi report shows examples"),
    "too_many_pixels": Remedy("the images are larger than the cap", "raise preprocess.max_pixels of the set"),
    "not_finite": Remedy(
        "the net computes NaN or infinity: wrong weights, mean or precision",
        "run hathi net check; try precision = fp32",
    ),
    "poison": Remedy(
        "these images kill the process that computes them",
        "find them with hathi report; please report the bug with one such image",
    ),
    "bad_ref": Remedy("rows have neither a URL nor an image", "look at the source, and at the columns in its settings"),
    "held": Remedy("their batches are held", "see them with hathi quarantine list, then release or drop them"),
    "id_collision": Remedy("different external ids share an item id", "make the external ids in the source unique"),
    "host_busy": Remedy(
        "the host failed so often that Hathi stopped asking it, or it has more images than the time allows",
        "Hathi tries them again by itself; if it lasts, raise fetch.batch_seconds or the limits of the host",
    ),
}
"""By reason; every one that there is."""
UNKNOWN = Remedy("the reasons were not looked at", "hathi report shows the reasons and the hosts")
