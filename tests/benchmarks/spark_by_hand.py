"""What one would write instead: mapInPandas with requests, Pillow and ONNX Runtime (spark_cost.py runs it).

Arguments: model.onnx, the web's URL, the number of pictures, the folder of the result.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession


def features(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    import onnxruntime
    import requests
    from PIL import Image

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(MODEL, options)
    name = session.get_inputs()[0].name
    mean = np.array([104.0, 117.0, 123.0], np.float32)
    web = requests.Session()
    for frame in frames:
        images = []
        for url in frame["url"]:
            picture = Image.open(io.BytesIO(web.get(url, timeout=60).content)).convert("RGB").resize((227, 227), 3)
            images.append((np.asarray(picture, np.float32)[:, :, ::-1] - mean).transpose(2, 0, 1))
        rows = session.run(None, {name: np.stack(images)})[0].reshape(len(images), -1)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        yield pd.DataFrame({"url": frame["url"], "features": list(rows)})


if __name__ == "__main__":
    MODEL, web, count, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    spark = SparkSession.builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", "32").getOrCreate()
    urls = spark.createDataFrame([(f"{web}/{n}.jpg",) for n in range(count)], "url string").repartition(2)
    urls.mapInPandas(features, "url string, features array<float>").write.parquet(out)
    spark.stop()
