"""Where things lie on a lake: however a path or a URL is spelled, one place is one place."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.app.config_check import check
from pipeline.errors import ConfigError
from pipeline.settings import Settings, Source
from pipeline.settings.places import folder_of, place_of
from tests.simulation.world import settings_of

ONE = {"net": "n", "blob": "b"}


def sets(*roots: str) -> dict[str, Any]:
    return {f"set{number}": {**ONE, "root": root} for number, root in enumerate(roots)}


@pytest.mark.parametrize(
    "spelled", ["features/x", "features/./x", "./features/x", "features//x", "features/x/", "a/../features/x"]
)  # fmt: skip
def test_a_root_is_the_path_that_it_names_however_it_is_spelled(spelled: str) -> None:
    assert settings_of(sets=sets(spelled)).sets["set0"].root == "features/x"
    with pytest.raises(ValidationError, match="give each set a root of its own"):
        settings_of(sets=sets("features/x", spelled))


@pytest.mark.parametrize("roots", [("features", "features/two"), ("features/two/./", "features//")])
def test_a_root_within_another_sets_root_is_refused(roots: tuple[str, str]) -> None:
    with pytest.raises(ValidationError, match="lie in each other; give each set a root of its own"):
        settings_of(sets=sets(*roots))
    assert isinstance(settings_of(sets=sets("features", "features2", "Features")), Settings)


@pytest.mark.parametrize("root", ["", "/", ".", "a/..", "//", "../x", "a/../../x", "hdfs://nn:9870/x"])
def test_what_is_no_folder_of_the_lake_is_no_root(root: str) -> None:
    with pytest.raises(ValidationError, match=r"name a folder in it|leads out of the lake|not a URL"):
        settings_of(sets=sets(root))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/x", "file:///x"),
        ("/x", "/x/"),
        ("/my lake", "file:///my%20lake"),
        ("file://localhost/x", "/a/../x"),
        ("hdfs://a:1,b:1/x", "hdfs://B:1,a:1//x/."),
    ],
)
def test_two_lakes_that_are_one_place_are_refused_where_a_set_delivers_to_both(first: str, second: str) -> None:
    assert place_of(first) == place_of(second)
    lakes = {"a": {"url": first}, "b": {"url": second}}
    both = settings_of(lakes=lakes, sets=sets("features"))
    with pytest.raises(ConfigError, match="lakes b and a are the same place"):
        both.check_lakes()
    findings = [one for one in check(both, ("deliver",), costly=False) if one.level == "error"]
    assert [one.key for one in findings][:1] == ["lakes"]
    apart = {**ONE, "root": "features", "lakes": ["a"]}
    settings_of(lakes=lakes, sets={"one": apart}).check_lakes()
    with pytest.raises(ConfigError, match="lakes b and a are the same place"):
        settings_of(
            lakes=lakes, sets={"one": apart, "two": {**apart, "root": "features/x", "lakes": ["b"]}}
        ).check_lakes()


def test_what_another_lake_delivers_below_a_lake_is_no_source_of_it() -> None:
    lakes = {"outer": {"url": "/x"}, "inner": {"url": "file:///x/sub"}, "apart": {"url": "/y"}}
    settings = settings_of(lakes=lakes, sets={"one": {**ONE, "root": "./out", "lakes": ["inner"]}})
    assert settings.delivered("outer") == ("out/", "sub/out/")
    assert settings.delivered("inner") == settings.delivered("apart") == ("out/",)


@pytest.mark.parametrize(
    ("given", "path"), [("./refs", "refs"), ("refs//x/", "refs/x"), ("a/../refs/*.csv", "refs/*.csv"), (".", "")]
)  # fmt: skip
def test_a_sources_path_is_the_path_that_it_names(given: str, path: str) -> None:
    assert Source(path=given).path == path


@pytest.mark.parametrize("path", ["../refs", "a/*/../refs", "s3://bucket/refs"])
def test_a_sources_path_stays_in_the_lake(path: str) -> None:
    with pytest.raises(ValidationError, match=r"leads out of the lake|not a URL"):
        Source(path=path)


def test_a_url_of_a_server_is_no_folder() -> None:
    assert folder_of("s3://bucket/x") is None
    assert folder_of("file://elsewhere/x") is None
    assert str(folder_of("FILE:///x%20y")) == "/x y"
