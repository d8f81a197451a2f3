"""Features of a DataFrame on Apache Spark, and of a table that Spark reads, written as another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession, functions
from pyspark.sql.types import ArrayType, BinaryType, BooleanType, FloatType, StringType, StructField, StructType

from pipeline import __version__
from pipeline.amounts import counted
from pipeline.cluster import task as executor
from pipeline.cluster.dataframe import FAILURE, FEATURES, check_columns, domain_of, featurise
from pipeline.cluster.spark import Carrying, device, given_up, here
from pipeline.cluster.task import Loaded
from pipeline.errors import ConfigError, PermanentError, PipelineError
from pipeline.process.host import same_version
from pipeline.settings import Bucket, FeatureSet, Fetch, Settings, travelling

if TYPE_CHECKING:
    import pyarrow as pa

_SET = "set"
_FAILURE = StructType(
    [StructField("reason", StringType()), StructField("retriable", BooleanType()), StructField("detail", StringType())]
)


def features(
    frame: DataFrame,
    column: str,
    feature_set: FeatureSet | Mapping[str, Any],
    *,
    fetch: Fetch | None = None,
    partitions: int = 0,
) -> DataFrame:
    """The rows of a DataFrame of images with `features` (array<float>) and `failure` (reason, retriable, detail).

    Exactly one of the two is null.  column: URLs, as texts, or images, as bytes.  feature_set: as a [sets.NAME] table,
    e.g. {"net": "deploy.prototxt", "weights": "x.caffemodel", "blob": "fc7"}, its files on the driver.  Rows of URLs
    are hashed to `partitions` (the cluster's slots when 0) by the registered domain of their URL, so that one partition
    alone meets a host and its limits hold; rows of images stay where they are.
    Raises ConfigError for a column that is missing, taken or of another type; a net that is refused fails the job when
    it is used.
    """
    return _Frame(frame, column, feature_set, fetch or Fetch()).computed(partitions)


@dataclass(frozen=True)
class Table:
    """A table that Spark reads, and where the one with features goes.

    path, format: Spark's.  column: of URLs or images.  kept: the other columns that are kept; (): all.  output: a
    folder that is not there yet, unless `overwrite`.  output_format: parquet, json.  partitions: 0: as many as slots.
    """

    path: str
    format: str
    column: str
    output: str
    output_format: str = "parquet"
    kept: tuple[str, ...] = ()
    overwrite: bool = False
    partitions: int = 0


@dataclass(frozen=True)
class Written:
    """What was written.  failures: by reason; their rows are there, too.  loaded: the net that computed."""

    rows: int
    failures: Mapping[str, int]
    loaded: Loaded

    @property
    def features(self) -> int:
        return self.rows - sum(self.failures.values())


def write(session: SparkSession, table: Table, feature_set: FeatureSet, fetch: Fetch) -> Written:
    """Computes features of a table's images.  Images themselves are left out of what is written.

    Raises ConfigError for a table that is not there, a column that is missing, or an output that is there; what a
    worker says of the net; TemporaryError where Spark gives the job up; PermanentError where rows are missing.
    """
    try:
        frame = session.read.format(table.format).options(**_options(table.format)).load(table.path)
        made = _Frame(_of(frame, table), table.column, feature_set, fetch)
        loaded = made.loaded()
        found, wanted = made.computed(table.partitions), frame.count()
        kept = found.drop(table.column) if made.images else found
        mode = "overwrite" if table.overwrite else "errorifexists"
        kept.write.format(table.output_format).mode(mode).save(table.output)
        schema = StructType([StructField(FAILURE, _FAILURE)])
        there = session.read.schema(schema).format(table.output_format).load(table.output)
        counts = {one["reason"]: one["count"] for one in there.groupBy(f"{FAILURE}.reason").count().collect()}
    except AnalysisException as error:
        says = next(iter(str(error).splitlines()), "")
        if "PATH_ALREADY_EXISTS" in says:
            raise ConfigError(
                f"the output {table.output} is there already", says, "name another, or --overwrite"
            ) from error
        raise ConfigError(f"Spark does not read {table.path} as {table.format}", says,
                          "look at the path, the format and the columns") from error  # fmt: skip
    except (PySparkException, Py4JError) as error:
        raise given_up(error, "nothing is written by halves: compute it anew") from error
    rows = sum(counts.values())
    if rows != wanted:
        raise PermanentError(
            f"{counted(wanted, 'row')} went in, {counted(rows, 'row')} came out", table.output,
            "the table changed meanwhile, or something else wrote there: compute it anew",
        )  # fmt: skip
    return Written(rows, {name: number for name, number in sorted(counts.items(), key=str) if name is not None}, loaded)


class _Frame:
    """A DataFrame, and the set whose features it is to get."""

    def __init__(
        self, frame: DataFrame, column: str, feature_set: FeatureSet | Mapping[str, Any], fetch: Fetch
    ) -> None:
        check_columns(frame.columns, column)
        kind = frame.schema[column].dataType
        if not isinstance(kind, StringType | BinaryType):
            raise ConfigError(f"column {column!r} holds {kind.simpleString()}", "",
                              "name a column of URLs (string) or of images (binary)")  # fmt: skip
        if not isinstance(feature_set, FeatureSet):
            feature_set = FeatureSet.model_validate({"root": "unused", **feature_set})
        self._frame, self._column, self.images = frame, column, isinstance(kind, BinaryType)
        settings = Settings(bucket=Bucket(url="unused"), sets={_SET: feature_set}, fetch=fetch)
        self._spark = frame.sparkSession.sparkContext
        carrying = Carrying(self._spark)
        self._carried, self._longest = travelling(carrying.settings(settings)), fetch.max_url_length

    def loaded(self) -> Loaded:
        """The set as a worker has loaded it.  Raises what it says where it cannot."""
        carried, driver = self._carried, __version__
        task = self._spark.parallelize([0], 1).map(lambda _: executor.look(here(carried), _SET, device(), driver))
        found: Loaded | PipelineError = task.first()
        if isinstance(found, PipelineError):
            raise found
        return found

    def computed(self, partitions: int) -> DataFrame:
        carried, column, longest, driver = self._carried, self._column, self._longest, __version__

        def made(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
            same_version(driver)
            return featurise(executor.maker(here(carried), _SET, device()), batches, column)

        frame, number = self._frame, partitions or self._spark.defaultParallelism
        if not self.images:
            domain = functions.udf(lambda url: domain_of(url, longest), StringType())
            frame = frame.repartition(number, domain(frame[column]))
        elif partitions:
            frame = frame.repartition(partitions)
        ours = [StructField(FEATURES, ArrayType(FloatType())), StructField(FAILURE, _FAILURE)]
        return frame.mapInArrow(made, StructType([*frame.schema.fields, *ours]))


def _of(frame: DataFrame, table: Table) -> DataFrame:
    """The columns that are wanted.  Raises ConfigError for one that is not there."""
    missing = [name for name in table.kept if name not in frame.columns]
    if missing:
        raise ConfigError(f"no column {missing[0]!r}", f"there are: {', '.join(frame.columns)}")
    check_columns(frame.columns, table.column)
    return frame.select(*dict.fromkeys([*table.kept, table.column])) if table.kept else frame


def _options(form: str) -> dict[str, str]:
    """How a table of this form is read: a .csv has names in its first line."""
    return {"header": "true"} if form == "csv" else {"recursiveFileLookup": "true"} if form == "binaryFile" else {}
