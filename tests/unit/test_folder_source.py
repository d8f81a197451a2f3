"""Convention `success`: watched folders, their days, their partners, and what a poll of them costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PermanentError
from pipeline.ledger.layout import version_of
from pipeline.sources.paths import moments, partner_number, partner_text
from pipeline.stores.local import LocalStore
from tests.unit.sources import DAY, NOW, Shore, partners

DAILY = "events/%Y/%m/%d"
TODAY, YESTERDAY, LONG_AGO = "events/2023/11/14", "events/2023/11/13", "events/2023/10/20"


def shore(tmp_path: Path, path: str = DAILY, **settings: object) -> Shore:
    return Shore(tmp_path / "lake", path, convention="success", **settings)  # type: ignore[arg-type]


def filled(lake: Shore, folder: str, *, at: float | None = None) -> None:
    lake.put(f"{folder}/part-0.parquet", b"abc", at)
    lake.put(f"{folder}/_SUCCESS", b"", at)


def sources(lake: Shore, **options: bool) -> list[str]:
    return [one.snapshot.source for one in lake.look(**options).found]


def test_a_folder_is_a_snapshot_once_it_holds_success(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    lake.put(f"{TODAY}/part-0.parquet", b"abc", NOW - 100)
    assert sources(lake) == []
    lake.put(f"{TODAY}/_SUCCESS", b"", NOW - 50)
    found = lake.look().found[0].snapshot
    assert (found.source, found.version) == (TODAY, version_of(NOW - 50))
    assert [file.path for file in found.files] == [f"{TODAY}/part-0.parquet"]
    assert found.group == DAILY


def test_a_newer_success_is_a_new_snapshot_and_one_that_goes_away_takes_it_back(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    filled(lake, TODAY, at=NOW - 100)
    first = lake.look().found[0]
    lake.put(f"{TODAY}/_SUCCESS", b"", NOW)
    second = lake.look().found[0]
    assert (first.snapshot.version, second.snapshot.version) == (version_of(NOW - 100), version_of(NOW))
    assert first.digest != second.digest
    (lake.folder / TODAY / "_SUCCESS").unlink()
    assert sources(lake) == []
    lake.put(f"{TODAY}/_SUCCESS", b"", NOW)
    assert lake.look().found[0].digest == second.digest


def test_today_and_some_days_before_are_looked_at_with_one_list_each(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    for folder in (TODAY, YESTERDAY):
        for number in range(50):
            lake.put(f"{folder}/partner={number}/part-0.parquet", b"abc")
        filled(lake, folder)
    assert sources(lake) == [YESTERDAY, TODAY]
    assert lake.asked == {"list": 31, "walk": 2}, "a new process sweeps"
    assert sources(lake) == [YESTERDAY, TODAY]
    assert lake.asked == {"list": 4}, "today and three days before, and no walk where nothing changed"
    lake.put(f"{TODAY}/part-1.parquet", b"abc")
    assert len(lake.look().found[1].snapshot.files) == 52
    assert lake.asked == {"list": 4, "walk": 1}


def test_a_day_later_another_folder_is_todays(tmp_path: Path) -> None:
    lake = shore(tmp_path, sweep_days=3)
    sources(lake)
    filled(lake, "events/2023/11/15")
    assert sources(lake) == [], "tomorrow is not looked at"
    lake.now += 2 * 3600
    assert sources(lake) == ["events/2023/11/15"]


def test_once_a_day_a_sweep_finds_what_came_late_and_it_stays_found(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    sources(lake)
    filled(lake, LONG_AGO)
    lake.now += DAY - 60
    assert sources(lake) == []
    lake.now += 60
    assert sources(lake) == [LONG_AGO]
    assert lake.asked["list"] == 31
    lake.now += 60
    assert sources(lake) == [LONG_AGO]
    assert lake.asked == {"list": 4}, "it is known, and not asked for again"


def test_who_wants_to_forget_the_rest_looks_as_wide_as_a_sweep(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    sources(lake)
    filled(lake, LONG_AGO)
    assert sources(lake) == []
    assert sources(lake, wide=True) == [LONG_AGO]


def test_hours_are_looked_at_where_the_path_names_them(tmp_path: Path) -> None:
    lake = shore(tmp_path, "events/%Y-%m-%d/%H", look_back_days=0, sweep_days=1)
    filled(lake, "events/2023-11-14/21")
    filled(lake, "events/2023-11-13/00")
    assert sources(lake) == ["events/2023-11-13/00", "events/2023-11-14/21"]
    assert sources(lake) == ["events/2023-11-13/00", "events/2023-11-14/21"]
    assert lake.asked == {"list": 23}, "the hours of today up to now"


def test_a_path_by_months_is_looked_at_once_a_month() -> None:
    paths = [f"{words['%Y']}-{words['%m']}" for words in moments("by/%Y-%m", NOW, 40)]
    assert paths == ["2023-10", "2023-11"]


def test_globs_and_days_may_stand_in_one_path_and_each_place_takes_its_own_turn(tmp_path: Path) -> None:
    lake = shore(tmp_path, "shops/*/%Y/%m/%d", look_back_days=1, sweep_days=1)
    for shop in ("a", "b c%20+#ü", "_hidden"):
        filled(lake, f"shops/{shop}/2023/11/14")
    filled(lake, "shops/a/2023/11/13")
    named = lake.look()
    assert [one.snapshot.source for one in named.found] == [
        "shops/a/2023/11/13", "shops/a/2023/11/14", "shops/b c%20+#ü/2023/11/14",
    ]  # fmt: skip
    assert [one.group for one in named.found] == ["shops/a/%Y/%m/%d"] * 2 + ["shops/b c%20+#ü/%Y/%m/%d"]
    lake.look()
    assert lake.asked == {"list": 1 + 2 * 2}, "the shops once, and a list for each folder"


# Whose a folder is


@pytest.mark.parametrize(
    ("path", "folder", "partner"),
    [
        ("in/partner=*/%Y/%m/%d", "in/partner=7/2023/11/14", 7),
        ("in/%Y/%m/%d/*", "in/2023/11/14/partner_id=7", 7),
        ("in/*", "in/PARTNER_ID=007", 7),
        ("in/*", "in/partner%3D7", 7),
        ("in/*", "in/partner=%37", 7),
        ("in/*", "in/7", None),
        ("partner=3/*", "partner=3/partner=7", 7),
    ],
)
def test_the_partner_stands_in_the_folder_at_any_depth(
    tmp_path: Path, path: str, folder: str, partner: int | None
) -> None:
    lake = shore(tmp_path, path, partner_id=None)
    filled(lake, folder)
    named = lake.look()
    assert partners(named) == {partner: [f"{folder}/part-0.parquet"]}
    assert named.found[0].group == (str(partner) if partner is not None else folder)


def test_a_folder_whose_partner_is_no_number_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    lake = shore(tmp_path, "in/*")
    for name in ("partner=7", "partner=seven", "partner=__HIVE_DEFAULT_PARTITION__", "partner="):
        filled(lake, f"in/{name}")
    named = lake.look()
    assert list(partners(named)) == [7]
    assert sorted(named.troubles) == ["in/partner=", "in/partner=__HIVE_DEFAULT_PARTITION__", "in/partner=seven"]
    assert "'seven' is not a number" in named.troubles["in/partner=seven"]
    assert not named.blind
    assert lake.look().troubles == named.troubles
    assert lake.asked == {"list": 5}, "it is not walked, now or later"


def test_each_file_keeps_the_partner_of_its_own_folder(tmp_path: Path) -> None:
    lake = shore(tmp_path, "in/*")
    for path in ("part-0.csv", "partner=7/part-0.csv", "partner=8/a/part-0.csv", "partner=x/part-0.csv"):
        lake.put(f"in/all/{path}")
    lake.put("in/all/_SUCCESS")
    files = lake.look().found[0].snapshot.files
    assert [(file.path.removeprefix("in/all/"), file.partner) for file in files] == [
        ("part-0.csv", ""), ("partner=7/part-0.csv", "7"), ("partner=8/a/part-0.csv", "8"),
        ("partner=x/part-0.csv", "x"),
    ]  # fmt: skip


def test_the_names_before_the_equals_sign_are_those_of_the_column() -> None:
    assert partner_text("shop=7/partner=8", ["shop"]) == "7"
    assert partner_text("shop=7/SHOP=8", ["shop"]) == "8"
    assert partner_text("partner=7", ["shop"]) == ""
    assert [partner_number(text) for text in ("7", "\u0667", "-7", "", "9" * 19, str(2**63 - 1))] == [
        7, None, None, None, None, 2**63 - 1,
    ]  # fmt: skip


# What goes wrong


def test_what_hathi_delivers_is_never_a_source(tmp_path: Path) -> None:
    lake = Shore(tmp_path / "lake", "*", ("features/",), convention="success")
    filled(lake, "features")
    filled(lake, "refs")
    assert sources(lake) == ["refs"]


def test_a_path_where_nothing_stands_is_named(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    assert "no folder events" in lake.look().troubles[DAILY]
    (lake.folder / "events").mkdir()
    assert lake.look().troubles == {}


def test_a_folder_that_cannot_be_read_stops_no_other(tmp_path: Path) -> None:
    lake = shore(tmp_path, "in/*")
    filled(lake, "in/a")
    filled(lake, "in/b")
    filled(lake, "in/c")
    real = LocalStore.list

    def refuses(self: LocalStore, prefix: str, **options: Any) -> Any:
        if prefix == "in/b/":
            raise PermanentError("not allowed")
        return real(self, prefix, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "list", refuses)
        named = lake.look()
    assert [one.snapshot.source for one in named.found] == ["in/a", "in/c"]
    assert (list(named.troubles), named.blind) == (["in/b"], False)
    (lake.folder / "in/b/loop").symlink_to("loop")  # one entry that leads nowhere is passed over, and named
    assert lake.look().left.first == {"in/b/loop": "a link that leads in a circle"}
    assert sources(lake) == ["in/a", "in/b", "in/c"]


def test_a_folder_whose_shipment_was_void_is_walked_anew(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    lake.put(f"{TODAY}/deep/part-0.parquet", b"abc")
    filled(lake, TODAY)
    before = lake.look().found[0]
    lake.put(f"{TODAY}/deep/part-0.parquet", b"longer")
    assert lake.look().found[0] is before, "the folder's own listing says nothing of it"
    lake.sources.forget(TODAY)
    after = lake.look().found[0]
    assert after.digest != before.digest
    assert lake.look().found[0] is after
    lake.now += 10 * DAY - 1  # behind the look-back by now, and its day is not swept yet
    lake.anew()
    lake.look()
    lake.put(f"{TODAY}/deep/part-0.parquet", b"longer still")
    lake.sources.forget(TODAY)
    assert lake.look().found[0].snapshot.files[0].length == len("longer still")
