"""Images: fetching them as the pipeline does, and decoding them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.fetch import Fetched, fetch_all
from pipeline.images import decode as _decode
from pipeline.records import Failure
from pipeline.settings import load_fetch


def fetch(
    urls: str | Iterable[str], *, allow_private: bool = False, settings: Mapping[str, object] | None = None
) -> Iterator[Fetched | Failure]:
    """Fetch images politely: limits for each host, retries, a cap on size, no addresses inside your network.

    urls: one or many; Hathi reads an iterable only as fast as you take results.  None and NaN, as in a column of
        pandas, become failures.
    allow_private: also fetch from private networks and from any port.
    settings: settings of the table `[fetch]`, e.g. {"requests_per_second": 5.0, "contact": "me@example.com"}; variables
        HATHI_FETCH__... count as well.  config/reference.toml has them all.
    Yields a `Fetched` (url, content, final_url, status, sha256 ...) or a `Failure` (url, reason, detail, retriable) for
    each URL, in the order in which they end.  Memory: `fetch.buffer_bytes` of bodies.
    Raises `Error` for a wrong setting, never for a URL; TypeError for a value that is not a text.

    >>> import hathi
    >>> urls = ["https://img.shop.example/shoe.png", "https://img.shop.example/missing.png"]
    >>> for one in sorted(hathi.fetch(urls), key=lambda one: one.url, reverse=True):
    ...     if isinstance(one, hathi.Failure):
    ...         print("no image:", one.reason, one.detail)
    ...     else:
    ...         print(one.status, hathi.decode(one.content).shape)
    200 (20, 30, 3)
    no image: http_4xx 404
    """
    limits = load_fetch(None, os.environ, _overrides(allow_private, settings))
    return fetch_all(map(_url, [urls] if isinstance(urls, str) else urls), limits)


def decode(content: bytes, *, max_pixels: int = 100_000_000) -> NDArray[np.uint8] | Failure:
    """The pixels of an image, as nets see them: upright, over white, the first frame.

    content: JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF, JPEG 2000 or ICO.
    max_pixels: an image that declares more pixels is refused before it takes memory.
    Returns (height, width, 3) uint8 in the order blue, green, red (`pixels[:, :, ::-1]` is RGB), or a `Failure`.
    It raises no exception, whatever the bytes are.

    >>> import hathi
    >>> from pathlib import Path
    >>> hathi.decode(Path("shoe.png").read_bytes()).shape
    (20, 30, 3)
    >>> hathi.decode(b"<html>moved</html>").reason
    'not_image'
    """
    return _decode(content, max_pixels=max_pixels)


def is_missing(one: object) -> bool:
    """Whether a cell holds nothing: None, or NaN."""
    return one is None or (isinstance(one, float) and one != one)


def _url(one: object) -> str:
    if is_missing(one):
        return ""
    if not isinstance(one, str):
        raise TypeError(f"a {type(one).__name__} is not a URL: give a text (str)")
    return one


def _overrides(allow_private: bool, settings: Mapping[str, object] | None) -> dict[str, object]:
    """Settings of `[fetch]` by their dotted names."""
    given = {f"fetch.{name}": value for name, value in (settings or {}).items()}
    return {**given, "fetch.allow_private": True} if allow_private else given
