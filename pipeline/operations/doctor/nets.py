"""Each feature set: whether its net loads here, and one image through it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from pipeline.records import Failure
from pipeline.settings import FeatureSet
from pipeline.stores.store import Examined


def feature_set(chosen: FeatureSet, threads: int, now: Callable[[], float]) -> Iterator[Examined]:
    """Load, then one image.  now: monotonic seconds."""
    if chosen.keeps_images:
        yield from _images(chosen, now)
        return
    import cv2
    import numpy as np

    from pipeline.images import Preparation
    from pipeline.nets.features import FeatureNet, finite

    began = now()
    net = FeatureNet(chosen, threads=threads or len(os.sched_getaffinity(0)))
    name = os.path.basename(chosen.net)
    yield Examined("load", True, f"{name} on {net.engine}, {net.dim} values, in {now() - began:.1f} s")
    yield Examined("preprocess", True, net.preprocessing)
    for text in net.warnings:
        yield Examined("load", True, f"warning: {text}")
    pixels = np.random.default_rng(1).integers(0, 256, (*net.input_size, 3), np.uint8)
    _, content = cv2.imencode(".png", pixels)
    began = now()
    prepared = Preparation(net.preprocess, net.input_size, net.mean, net.channels)(content.tobytes())
    if isinstance(prepared, Failure):
        yield Examined(
            "image", False, f"{prepared.reason}: {prepared.detail}", "correct the preprocess settings of the set"
        )
        return
    rows = net.forward(np.asarray(prepared)[None])
    good = bool(finite(rows).all())
    said = f"one image in {1000 * (now() - began):.0f} ms"
    yield Examined("image", good, said if good else f"{said}: its feature is not finite", "" if good else _BROKEN)


def _images(chosen: FeatureSet, now: Callable[[], float]) -> Iterator[Examined]:
    """A set that keeps images: one of them."""
    import cv2
    import numpy as np

    from pipeline.extraction.kept_images import KeptImages

    kept = KeptImages(chosen)
    yield Examined("load", True, kept.engine)
    yield Examined("preprocess", True, kept.preprocessing)
    pixels = np.random.default_rng(1).integers(0, 256, (600, 800, 3), np.uint8)
    began = now()
    found = kept.noted(cv2.imencode(".png", pixels)[1].tobytes())
    if isinstance(found, Failure):
        yield Examined("image", False, f"{found.reason}: {found.detail}", "correct the settings of the set")
        return
    yield Examined("image", True, f"one image of {len(found[0]):,} bytes in {1000 * (now() - began):.0f} ms")


_BROKEN = "the weights are damaged or belong to another net: copy the right file"
