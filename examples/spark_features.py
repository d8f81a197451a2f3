"""A classifier on Spark: a DataFrame of URLs becomes features, and Spark ML learns the labels from them.

    spark-submit --master 'local-cluster[2,1,1024]' examples/spark_features.py things.csv \\
        --net deploy.prototxt --weights x.caffemodel --blob fc7

The table has a line of names, `url` and `label` among them.  Images that cannot be fetched or decoded are rows with a
failure; the others are split, a logistic regression learns from one part and is judged by the other.
"""

from __future__ import annotations

import argparse
import sys

from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import StringIndexer
from pyspark.ml.functions import array_to_vector
from pyspark.sql import SparkSession, functions

import hathi
from hathi.spark import Fetch, features


def main() -> int:
    """0; 1 where the classifier is no better than chance; 2 where Hathi cannot use the net or the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="a .csv that Spark reads")
    parser.add_argument("--net", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--blob", required=True)
    parser.add_argument("--allow-private", action="store_true", help="fetch from private networks, too")
    args = parser.parse_args()
    chosen = {"net": args.net, "weights": args.weights, "blob": args.blob}
    with SparkSession.builder.appName("features").getOrCreate() as spark:
        table = spark.read.option("header", True).csv(args.table)
        try:
            found = features(table, "url", chosen, fetch=Fetch(allow_private=args.allow_private)).cache()
        except hathi.Error as error:
            print(error, file=sys.stderr)
            return 2
        for one in found.where("failure is not null").groupBy("failure.reason").count().collect():
            print(f"no feature: {one['reason']} {one['count']}")
        vectors = found.where("failure is null").withColumn("vector", array_to_vector("features"))
        known = StringIndexer(inputCol="label", outputCol="class").fit(vectors).transform(vectors)
        held = functions.pmod(functions.xxhash64("url"), functions.lit(4)) == 0  # the same rows in each run
        model = LogisticRegression(featuresCol="vector", labelCol="class", maxIter=20).fit(known.where(~held))
        judged = model.transform(known.where(held))
        accuracy = MulticlassClassificationEvaluator(labelCol="class", metricName="accuracy").evaluate(judged)
        labels = model.numClasses
        print(f"{known.count()} images of {labels} labels: accuracy {accuracy:.3f} on {judged.count()} others")
    return int(accuracy <= 1 / labels)


if __name__ == "__main__":
    sys.exit(main())
