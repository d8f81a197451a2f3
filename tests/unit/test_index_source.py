"""Convention `index`: what each partner has, as the original's outputByPartner says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.ledger.deliveries import Index, IndexPartner
from pipeline.ledger.layout import seconds_of, version_of
from pipeline.settings import Source
from pipeline.sources.index_entries import Home, judge
from pipeline.sources.index_times import job_seconds
from tests.unit.sources import NOW, Shore, partners


def shore(tmp_path: Path, **settings: Any) -> Shore:
    """A lake with an index, and two files of partner 7."""
    made = Shore(tmp_path / "lake", "index", convention="index", **settings)
    made.put("out/7/part-0", b"abc", NOW - 500)
    made.put("out/7/part-1", b"de", NOW - 400)
    return made


def entry(**more: Any) -> dict[str, Any]:
    """Partner 7 as it should be."""
    return {
        "jobTimeStamp": int((NOW - 3600) * 1000), "outputFolder": "out/7", "files": ["part-0", "part-1"],
        "outputSize": 5, **more,
    }  # fmt: skip


def test_each_partner_is_a_snapshot_of_its_files_and_its_version_is_the_greatest_of_all_times(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    lake.put("out/8/refs.parquet", b"xyz", NOW - 9000)
    lake.index({"7": entry(), "8": entry(outputFolder="out/8", files=["refs.parquet"], outputSize=3)})
    named = lake.look()
    assert (dict(named.troubles), named.blind) == ({}, False)
    assert partners(named) == {7: ["out/7/part-0", "out/7/part-1"], 8: ["out/8/refs.parquet"]}
    seven, eight = named.found
    assert seven.snapshot.version == version_of(NOW - 400), "the youngest file"
    assert eight.snapshot.version == version_of(NOW - 3600), "the job"
    assert {one.snapshot.job_time for one in named.found} == {version_of(NOW - 3600)}
    assert [one.snapshot.source for one in named.found] == ["index#7", "index#8"]
    assert (seven.reading.format, seven.reading.otherwise) == ("auto", "protobuf")


@pytest.mark.parametrize(
    "written",
    [
        entry(jobTimeStamp=str(int((NOW - 3600) * 1000)), outputSize="5"),
        entry(jobTimeStamp=(NOW - 3600) * 1000.0, outputSize=5.0),
        entry(files=[{"name": "part-0", "size": "3"}, {"path": "part-1", "length": 2}]),
        entry(files={"part-0": 3, "part-1": {"size": 2}}),
        entry(outputFolder="/out/7/", files=["./part-0", "part-1"]),
        entry(outputSize=None, more="fields"),
    ],
)
def test_an_entry_may_be_written_in_many_ways(tmp_path: Path, written: dict[str, Any]) -> None:
    lake = shore(tmp_path)
    if written["outputFolder"] == "/out/7/":
        written["outputFolder"] = f"{tmp_path}/lake/out/7/"
        written["files"] = [f"{tmp_path}/lake/out/7/part-0", f"file://{tmp_path}/lake/out/7/part-1"]
    lake.index({"7": written})
    named = lake.look()
    assert dict(named.troubles) == {}
    assert partners(named) == {7: ["out/7/part-0", "out/7/part-1"]}


def test_the_object_itself_or_a_list_of_entries_may_be_the_index(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    lake.put("index", json.dumps({"7": entry(), "written": "today", "format": 3}))
    assert partners(lake.look()) == {7: ["out/7/part-0", "out/7/part-1"]}
    lake.put("index", json.dumps({"outputByPartner": [{"partnerId": 7, **entry()}]}))
    assert partners(lake.look()) == {7: ["out/7/part-0", "out/7/part-1"]}


def test_an_index_that_hathi_delivered_elsewhere_is_a_source_too(tmp_path: Path) -> None:
    lake = Shore(tmp_path / "lake", "there/outputByPartner", ("features/",), convention="index", job_time_unit="text")
    files = ("S/7/cnn_features.txt.gz", "S/7/failures/part-0.parquet", "S/7/features/part-0.parquet")
    for file in files:
        lake.put(f"there/{file}", b"123", NOW - 100)
    delivered = IndexPartner(jobTimeStamp=version_of(NOW - 200), outputFolder="there", files=files, outputSize=9)
    lake.put("there/outputByPartner", Index(version=4, partners={"7": delivered}).encode())
    named = lake.look()
    assert dict(named.troubles) == {}
    assert partners(named) == {7: [f"there/{file}" for file in files[1:]]}, "the text of features holds no refs"
    assert named.found[0].snapshot.job_time == version_of(NOW - 200)


def test_what_this_lake_delivers_itself_is_never_its_source(tmp_path: Path) -> None:
    own = Shore(tmp_path / "lake", "features/outputByPartner", ("features/",), convention="index")
    own.index({}, "features/outputByPartner")
    assert "this lake's own deliveries" in own.look().troubles["features/outputByPartner"]
    lake = Shore(tmp_path / "lake", "index", ("features/",), convention="index")
    lake.put("features/S/7/part", b"123")
    lake.index({"7": entry(outputFolder="features", files=["S/7/part"], outputSize=3)})
    assert "this lake's own deliveries" in lake.look().troubles["index#7"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b'{"outputByPartner": {"7": {"jobTimeStamp": 17', "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[1, 2]", "not an index"),
        (b'{"outputByPartner": "soon"}', "not an index"),
    ],
)
def test_an_index_that_is_no_index_yet_is_named_and_read_again_when_it_changed(
    tmp_path: Path, content: bytes, says: str
) -> None:
    lake = shore(tmp_path)
    lake.put("index", content)
    named = lake.look()
    assert (named.found, named.blind) == ((), True)
    assert says in named.troubles["index"]
    assert lake.look().troubles == named.troubles
    assert lake.asked == {"stat": 1}, "it is not read while it stays the same"
    lake.index({"7": entry()})
    assert (partners(lake.look()).keys(), lake.look().troubles) == ({7}, {})


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (entry(files=["part-0", "part-2"]), "part-2 does not exist"),
        (entry(files=["part-0", "../8/part-0"]), "contains `..`"),
        (entry(outputFolder="out/../../7"), "contains `..`"),
        (entry(files=["part-0", "/etc/hostname"]), "lies outside the lake"),
        (entry(outputFolder="/etc"), "lies outside the lake"),
        (entry(outputFolder="hdfs://other:8020/out/7"), "not of this lake's cluster"),
        (entry(outputFolder="s3://bucket/out/7"), "not of this lake's cluster"),
        (entry(files=["part-0", "file:///etc/hostname"]), "lies outside the lake"),
        (entry(files=["part-0", "part-0"], outputSize=6), "it names 1 file twice"),
        (entry(files=["part-0", "part\u0000-1"]), "not a path"),
        (entry(files=["part-0", "part\ud800"]), "not a path"),
        (entry(files=["part-0", None]), "not a path"),
        (entry(files=17), "not a list"),
        (entry(files=["."]), "outside its outputFolder"),
        (entry(outputFolder="out", files=["7"]), "out/7 is a folder"),
        (entry(outputSize=6), "outputSize is 6, but 2 files in all are 5 bytes long"),
        (entry(outputSize="many"), "not a number of bytes"),
        (entry(outputSize=-5), "not a number of bytes"),
        (entry(files=[{"name": "part-0", "size": 4}, "part-1"]), "part-0 has 3 bytes, and 4 in the index"),
        (entry(jobTimeStamp="soon"), "not a time"),
        (entry(jobTimeStamp=None), "lacks jobTimeStamp"),
        (entry(jobTimeStamp=[1]), "not a time"),
        ({"jobTimeStamp": 1}, "lacks outputFolder, files"),
        ("gone", "not an object"),
    ],
)
def test_a_partner_whose_entry_is_wrong_is_refused_alone_and_named(tmp_path: Path, written: Any, says: str) -> None:
    lake = shore(tmp_path)
    lake.put("out/8/part-0", b"xyz")
    lake.put("out/9/part-0", b"xyz")
    good = entry(outputFolder="out/8", files=["part-0"], outputSize=3)
    lake.index({"7": written, "8": good, "9": {**good, "outputFolder": "out/9"}})
    named = lake.look()
    assert partners(named) == {8: ["out/8/part-0"], 9: ["out/9/part-0"]}
    assert list(named.troubles) == ["index#7"]
    assert "partner 7 of index is not shipped" in named.troubles["index#7"]
    assert says in named.troubles["index#7"]
    assert not named.blind


def test_a_file_outside_its_output_folder_is_refused(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    lake.put("out/70/part-0", b"xyz")
    lake.index({"7": entry(files=[f"{tmp_path}/lake/out/70/part-0"], outputSize=3)})
    named = lake.look()
    assert "out/70/part-0 lies outside its outputFolder out/7" in named.troubles["index#7"]
    assert named.found == ()


@pytest.mark.parametrize("name", ["seven", "-7", "7.5", "", "9" * 20, "\u0667"])
def test_a_partner_id_that_is_no_number_is_refused_and_the_others_go_on(tmp_path: Path, name: str) -> None:
    lake = shore(tmp_path)
    lake.index({name: entry(), "7": entry()})
    named = lake.look()
    assert list(partners(named)) == [7]
    assert "is not a number" in named.troubles[f"index#{name}"]


def test_a_partner_that_stands_there_twice_is_taken_once(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    lake.index({"7": entry(), "07": entry()})
    named = lake.look()
    assert list(partners(named)) == [7]
    assert "twice" in named.troubles["index#07"]


MILLISECONDS = 1_699_990_000_000


@pytest.mark.parametrize(
    ("stamp", "unit", "zone", "seconds"),
    [
        (MILLISECONDS, "milliseconds", "UTC", 1_699_990_000),
        (str(MILLISECONDS), "milliseconds", "UTC", 1_699_990_000),
        (1_699_990_000, "seconds", "UTC", 1_699_990_000),
        ("20231114192640", "text", "UTC", 1_699_990_000),
        ("2023-11-14 19:26:40", "text", "UTC", 1_699_990_000),
        ("20231114T192640Z", "text", "Asia/Tokyo", 1_699_990_000),
        ("2023-11-15T04:26:40", "text", "Asia/Tokyo", 1_699_990_000),
        ("2023-11-14T20:26:40.123+01:00", "text", "UTC", 1_699_990_000),
        ("2023-07-14 21:26:40", "text", "Europe/Paris", seconds_of("20230714T192640Z")),
        ("2023-11-14 20:26:40", "text", "Europe/Paris", 1_699_990_000),
    ],
)
def test_a_job_time_stamp_is_read_in_its_unit_and_zone(stamp: object, unit: str, zone: str, seconds: float) -> None:
    assert job_seconds(stamp, unit, zone, NOW) == seconds


@pytest.mark.parametrize(
    ("stamp", "unit", "says"),
    [
        (MILLISECONDS // 1000, "milliseconds", 'in seconds | set job_time_unit = "seconds"'),
        (MILLISECONDS, "seconds", 'in milliseconds | set job_time_unit = "milliseconds"'),
        ("20231114192640", "milliseconds", 'in text | set job_time_unit = "text"'),
        (20231114192640, "seconds", 'in text | set job_time_unit = "text"'),
        (MILLISECONDS, "text", "cannot be read in text, but 20231114T192640Z in milliseconds"),
        (
            NOW * 1000 + 90_000_000,
            "milliseconds",
            "more than a day in the future | correct job_time_unit, job_time_zone",
        ),
        (7, "milliseconds", "before 2000"),
        ("20231314192640", "text", "not a time in text"),
        (True, "milliseconds", "not a time"),
        (10**400, "milliseconds", "future"),
        (float("nan"), "milliseconds", "jobTimeStamp nan"),
    ],
)
def test_a_job_time_stamp_that_makes_no_sense_says_which_setting_would(stamp: object, unit: str, says: str) -> None:
    with pytest.raises(ValueError, match="jobTimeStamp") as caught:
        job_seconds(stamp, unit, "UTC", NOW)
    assert says in str(caught.value)


HDFS = Home.of("hdfs://nn1:50070,NN2:50070/data/hathi")


@pytest.mark.parametrize(
    ("folder", "there"),
    [
        ("out/7", "out/7"),
        ("/data/hathi/out/7", "out/7"),
        ("hdfs://nn1:8020/data/hathi/out/7", "out/7"),
        ("hdfs://nn2/data/hathi/out//7/", "out/7"),
        ("hdfs:///data/hathi/out/7", "out/7"),
        ("hdfs:/data/hathi/out/7", "out/7"),
        ("a b%20c+d#e;f?ü", "a b%20c+d#e;f?ü"),
    ],
)
def test_a_folder_on_hdfs_may_be_named_by_its_url(folder: str, there: str) -> None:
    source = Source(path="index", convention="index")
    assert judge("7", entry(outputFolder=folder), source, HDFS, NOW).folder == there


@pytest.mark.parametrize("folder", ["/data/other/7", "/data/hathi2", "hdfs://nn3/data/hathi/out", "hdfs://nn1/data"])
def test_a_folder_of_another_place_or_cluster_is_refused(folder: str) -> None:
    with pytest.raises(ValueError, match=r"outside the lake|not of this lake's cluster"):
        judge("7", entry(outputFolder=folder), Source(path="index", convention="index"), HDFS, NOW)


# What a poll costs


def test_an_index_that_did_not_change_costs_one_status_a_poll_whatever_it_holds(tmp_path: Path) -> None:
    lake = Shore(tmp_path / "lake", "index", convention="index")
    many = {}
    for partner in range(1, 301):
        for file in range(3):
            lake.put(f"out/{partner}/part-{file}", b"abc")
        files = ["part-0", "part-1", "part-2"]
        many[str(partner)] = entry(outputFolder=f"out/{partner}", files=files, outputSize=9)
    lake.index(many)
    assert len(lake.look().found) == 300
    assert lake.asked == {"stat": 1, "get": 1, "walk": 300}, "one list for each folder, and no status for each file"
    first = lake.look().found
    assert lake.asked == {"stat": 1}
    assert [one is two for one, two in zip(first, lake.look().found, strict=True)] == [True] * 300
    lake.anew()
    lake.look()
    assert lake.asked["get"] == 1, "a new process reads it"
    lake.index(many)
    lake.look()
    assert lake.asked["get"] == 1, "and whoever sees that it changed"


def test_a_file_that_comes_later_than_the_index_is_found_without_a_change_of_the_index(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    lake.index({"7": entry(files=["part-0", "part-1", "part-2"], outputSize=10)})
    assert "part-2 does not exist" in lake.look().troubles["index#7"]
    lake.put("out/7/part-2", b"fghij")
    assert lake.look().found == ()
    assert lake.asked == {"stat": 1}, "not looked at again at once"
    lake.now += 61
    assert list(partners(lake.look())) == [7]
    assert lake.look().troubles == {}


def test_a_refused_partner_is_looked_at_ever_more_rarely(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    lake.index({"7": entry(outputSize=99)})
    lake.look()
    looks = 0
    for _ in range(24 * 60):
        lake.now += 60
        assert "outputSize is 99" in lake.look().troubles["index#7"]
        looks += "walk" in lake.asked
    assert 24 <= looks <= 36, "about once an hour"


def test_what_a_void_shipment_was_about_is_looked_at_anew(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    lake.index({"7": entry(outputSize=None)})
    before = lake.look().found[0]
    lake.put("out/7/part-1", b"longer")
    assert lake.look().found[0] is before, "the index says nothing of it"
    lake.sources.forget("index#7")
    assert [file.length for file in lake.look().found[0].snapshot.files] == [3, 6]


def test_an_index_that_is_not_there_is_named_and_found_when_it_comes(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    named = lake.look()
    assert (named.blind, named.found) == (True, ())
    assert "no index at index" in named.troubles["index"]
    lake.index({"7": entry()})
    assert list(partners(lake.look())) == [7]
