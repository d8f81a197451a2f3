"""A set that keeps images, where a net would stand: prepared is all that there is to do."""

from __future__ import annotations

from pipeline.codec.shards import Matrix
from pipeline.errors import NetError
from pipeline.images.keeping import Keeping
from pipeline.nets import fingerprint
from pipeline.records import Failure
from pipeline.settings import FeatureSet


class KeptImages:
    """What the window asks of a net.  A row has no values: it holds the image."""

    dim = 0
    lacking: tuple[str, ...] = ()

    def __init__(self, feature_set: FeatureSet) -> None:
        self._set = feature_set
        self._keeping = Keeping(feature_set)
        self.batch_size = feature_set.batch_size

    @property
    def engine(self) -> str:
        """What writes the images."""
        return self._keeping.encoder or "none: images as they were fetched"

    @property
    def preprocessing(self) -> str:
        """What is done to an image, in one line for people."""
        if not self._set.short_side:
            return "image: as fetched"
        return f"image: JPEG, short side at most {self._set.short_side}, quality {self._set.quality}"

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 over what decides an image's bytes."""
        return fingerprint.of_images(self._set)

    def noted(self, content: bytes) -> tuple[bytes, str] | Failure:
        """As `Keeping.noted`."""
        return self._keeping.noted(content)

    def forward(self, batch: Matrix) -> Matrix:
        """Raises NetError: there is no net."""
        raise NetError(
            'a set of net = "image" computes no features',
            "it keeps the images themselves",
            "name a set with a net; hathi dataset make trains from the images",
        )
