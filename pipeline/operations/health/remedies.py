"""What it usually means when one reason rules the failures of a partner, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Remedy:
    """What it usually means when one reason rules, and what to do."""

    means: str
    do: str


_ONE = "see one of them: hathi fetch URL"
REMEDIES: Mapping[str, Remedy] = {
    "bad_url": Remedy("the source writes addresses that are no URLs", "look at the column of URLs in the source"),
    "blocked": Remedy(
        "the URLs lead to a private network, or to a port or scheme that is not allowed",
        "for a network of your own set fetch.allow_private or fetch.allow_ports; else tell the partner",
    ),
    "dns": Remedy(
        "the host has no name any more, or this box's DNS does not answer",
        "hathi doctor on the compute box; then ask the partner for the host's new name",
    ),
    "connect": Remedy("the host is down, or a firewall stands between", f"{_ONE}, on the compute box"),
    "tls": Remedy("the host's certificate has expired or does not fit its name", f"{_ONE}; tell the partner"),
    "timeout": Remedy("the host or the line is overloaded", "lower fetch.connections_per_host"),
    "too_slow": Remedy("the host sends very slowly", "lower fetch.connections_per_host, or fetch.min_bytes_per_second"),
    "redirect": Remedy(
        "the host sends us elsewhere: a login page, a cookie wall, or URLs that have moved",
        f"{_ONE}; ask the partner for URLs that lead to images",
    ),
    "http_4xx": Remedy(
        "404 and 410: the images were removed; 401 and 403: the host does not let us in, or signed URLs have expired",
        f"{_ONE}; then ask the partner, or ship fresh URLs",
    ),
    "http_429": Remedy(
        "we ask the host for too much, or more boxes than planned ask it",
        "lower fetch.requests_per_second; with several boxes set fetch.share",
    ),
    "http_5xx": Remedy(
        "the host is broken or overloaded", "retries follow by themselves; if it lasts, tell the partner"
    ),
    "too_large": Remedy("the images are larger than the cap", "raise fetch.max_bytes, or ask for smaller images"),
    "empty": Remedy("the host answers without an image", f"{_ONE}; tell the partner"),
    "truncated": Remedy("the host or a proxy cuts the images off", f"{_ONE}; tell the partner"),
    "protocol": Remedy("the host, or a proxy before it, does not speak proper HTTP", f"{_ONE}; tell the partner"),
    "not_image": Remedy("the URLs lead to pages, not to images", f"{_ONE}; look at the column of URLs in the source"),
    "decode": Remedy("the images are damaged, or of a rare format", f"{_ONE}; hathi report shows what can be seen"),
    "too_many_pixels": Remedy("the images are larger than the cap", "raise preprocess.max_pixels of the set"),
    "not_finite": Remedy(
        "the net computes NaN or infinity: wrong weights, mean or precision", "hathi net check; try precision fp32"
    ),
    "poison": Remedy("these images kill the process that computes them", "hathi report; report it with one image"),
    "bad_ref": Remedy("rows have neither a URL nor an image", "look at the source, and at the columns of the setting"),
    "held": Remedy("their batches are held", "hathi quarantine list, then release or drop"),
    "id_collision": Remedy("different external ids share an item id", "look at the external ids in the source"),
    "host_busy": Remedy(
        "the host failed so often that it was left alone, or has more images than the time allows",
        "retries follow by themselves; if it lasts, raise fetch.batch_seconds or the limits of the host",
    ),
}
"""By reason; every one that there is."""
UNKNOWN = Remedy("its reasons were not looked at", "hathi report shows reasons and hosts")
