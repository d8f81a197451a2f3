"""Features of a DataFrame's images on Apache Spark: `from hathi.spark import features`.  It needs pyspark.

    found = features(df, "image_url", {"net": "deploy.prototxt", "weights": "x.caffemodel", "blob": "fc7"})

docs/spark.md has the whole story.
"""

from __future__ import annotations

from pipeline.cluster.frames import features
from pipeline.settings import Fetch

__all__ = ["Fetch", "features"]
