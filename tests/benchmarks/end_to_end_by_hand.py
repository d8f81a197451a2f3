"""The stand-in: URLs to features as one would write it for a single case, everything overlapped and nothing checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np
import pycurl

from pipeline.nets.features import FeatureNet, Rows

CONNECTIONS = 32
MEAN = np.array([104.0, 117.0, 123.0], np.float32)
AHEAD = 4


def by_hand(net: FeatureNet, urls: list[str]) -> Rows:
    """A loop over sockets, a thread for each core that decodes into the batch, one thread for the net."""
    batches: list[Future[Rows]] = []
    with (
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as decoders,
        ThreadPoolExecutor(1) as runner,
    ):
        batch = np.empty((net.batch_size, 3, *net.input_size), np.float32)
        filling: list[Future[None]] = []
        for content in fetched(urls):
            filling.append(decoders.submit(decode, content, batch[len(filling)]))
            if len(filling) == net.batch_size:
                batches.append(runner.submit(run, net, batch, filling))
                batch, filling = np.empty_like(batch), []
                if len(batches) > AHEAD:
                    batches[-AHEAD].result()
        batches.append(runner.submit(run, net, batch[: len(filling)], filling))
        return np.concatenate([done.result() for done in batches])


def run(net: FeatureNet, batch: Rows, filling: list[Future[None]]) -> Rows:
    for one in filling:
        one.result()
    return net.forward(batch)


def decode(content: bytes, place: Rows) -> None:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    high, wide = pixels.shape[:2]
    if min(high // 2, wide // 2) >= max(place.shape[1:]):
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_REDUCED_COLOR_2)
    pixels = cv2.resize(pixels, place.shape[:0:-1], interpolation=cv2.INTER_AREA)
    np.subtract(pixels, MEAN, out=place.transpose(1, 2, 0))


def fetched(urls: list[str]) -> Iterator[bytes]:
    """Bodies by libcurl's multi interface."""
    multi = pycurl.CurlMulti()
    waiting = iter(urls)
    parts: dict[pycurl.Curl, list[bytes]] = {}

    def begin(curl: pycurl.Curl) -> bool:
        url = next(waiting, None)
        if url is not None:
            parts[curl].clear()
            curl.setopt(pycurl.URL, url)
            multi.add_handle(curl)
        return url is not None

    running = 0
    for _ in range(CONNECTIONS):
        curl = pycurl.Curl()
        parts[curl] = []
        curl.setopt(pycurl.WRITEFUNCTION, parts[curl].append)
        running += begin(curl)
    while running:
        multi.perform()
        _, well, badly = multi.info_read()
        assert not badly
        if not well:
            multi.select(1.0)
        for curl in well:
            yield b"".join(parts[curl])
            multi.remove_handle(curl)
            running += begin(curl) - 1
