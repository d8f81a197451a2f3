"""The images of items, fetched as the pipeline fetches them and by its rules; and the feature of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.extraction.feature_maker import FeatureMaker
from pipeline.fetch import Fetched, Fetcher
from pipeline.fetch.objects import reader_of
from pipeline.images import decode
from pipeline.records import Failure
from pipeline.settings import Settings

Pixels = npt.NDArray[np.uint8]
Contents = Mapping[str, bytes | str]
"""By URL: the image's bytes, or why there are none."""


def fetched(settings: Settings, urls: Sequence[str]) -> dict[str, bytes | str]:
    """The bytes of each URL, or the reason why not, in words."""
    found: dict[str, bytes | str] = {url: why for url in urls if (why := _cannot(url))}
    wanted = [url for url in dict.fromkeys(urls) if url not in found]
    if not wanted:
        return found
    limits = settings.fetch
    with Fetcher(limits, read_object=reader_of(settings.bucket, limits) if limits.allow_buckets else None) as fetcher:
        for result in fetcher.stream((url, url) for url in wanted):
            if result is not None:
                url, outcome = result
                found[url] = outcome.content if isinstance(outcome, Fetched) else _why(outcome)
    return found


def pixels_of(content: bytes | str) -> tuple[Pixels | None, str]:
    """(height, width, 3) BGR, or None and why."""
    if isinstance(content, str):
        return None, content
    image = decode(content)
    return (None, _why(image)) if isinstance(image, Failure) else (image, "")


def feature_of(settings: Settings, set_name: str, content: bytes, what: str) -> tuple[npt.NDArray[np.float32], str]:
    """The feature (dim,) of an image by a set's net, and its fingerprint.  Raises ConfigError for what is no image."""
    maker = FeatureMaker(settings, set_name, Clock())
    image = maker.prepare(content)
    if isinstance(image, Failure):
        raise ConfigError(f"no feature of {what}", _why(image), "give an image that decodes")
    (row,) = maker.net.forward(np.stack([image]))
    if not np.isfinite(row).all():
        raise ConfigError(f"no feature of {what}", "it is not finite", "hathi net")
    return row, maker.fingerprint


def _cannot(url: str) -> str:
    if not url:
        return "no URL: its image travelled inline, or the features are text"
    return "its URL's query was redacted" if "?redacted" in url else ""


def _why(failure: Failure) -> str:
    return f"{failure.reason}: {failure.detail}" if failure.detail else failure.reason
