"""Settings: three sources, one order, paths made absolute, and errors that say what to change."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from pipeline.errors import ConfigError
from pipeline.settings import (
    Bucket,
    Columns,
    FeatureSet,
    Hdfs,
    HostFetch,
    Lake,
    Preprocess,
    Service,
    Settings,
    Source,
    Text,
    load,
    load_fetch,
    reading,
    travelling,
)
from pipeline.settings.reference import reference
from pipeline.settings.words import words_of

MINIMAL = '[bucket]\nurl = "bucket"\n'
CONFIG = Path(__file__).parents[2] / "config"
REFERENCE = CONFIG / "reference.toml"
FILES = [CONFIG / name for name in ("local.toml", "gateway.toml", "compute.toml")]


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "hathi.toml"
    path.write_text(text)
    return path


def refused(path: Path | None, environ: dict[str, str] | None = None, **overrides: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {}, overrides)
    return caught.value


def test_options_win_over_the_environment_and_the_environment_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "[fetch]\nattempts = 1\nburst = 2\nmax_redirects = 3\n")
    environ = {"HATHI_FETCH__ATTEMPTS": "4", "HATHI_FETCH__BURST": "5"}
    fetch = load(path, environ, {"fetch.attempts": 6}).fetch
    assert (fetch.attempts, fetch.burst, fetch.max_redirects) == (6, 5, 3)


def test_overrides_may_be_nested_dotted_or_models(tmp_path: Path) -> None:
    settings = load(None, {}, {"bucket": Bucket(url="s3://b/p"), "fetch": {"burst": 3}, "fetch.attempts": 2})
    assert (settings.bucket.url, settings.fetch.burst, settings.fetch.attempts) == ("s3://b/p", 3, 2)


def test_lists_tables_and_names_come_from_the_environment(tmp_path: Path) -> None:
    environ = {
        "HATHI_FETCH__ALLOW_PORTS": "[80, 8080]",
        "HATHI_LAKES__MAIN__URL": "hdfs://nn:8020",
        "HATHI_LAKES__MAIN__SOURCES": '[{"path": "refs"}]',
        "HATHI_SETS__FC7__BLOB": "7",
        "HATHI_SETS__FC7__NET": "/n.prototxt",
        "HATHI_SETS__FC7__ROOT": "features",
        "HATHI_BUCKET": '{"url": "s3://b"}',
        "HATHI_BUCKET__REGION": "eu-west-1",
    }
    settings = load(None, environ)
    assert settings.fetch.allow_ports == [80, 8080]
    assert settings.lakes == {"main": Lake(url="hdfs://nn:8020", sources=[Source(path="refs")])}
    assert settings.sets["fc7"].blob == "7"
    assert (settings.bucket.url, settings.bucket.region) == ("s3://b", "eu-west-1")


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert load(write(tmp_path, MINIMAL), {"HATHI_BUCKET__URL": ""}).bucket.url == str(tmp_path / "bucket")


def test_paths_of_the_file_are_relative_to_the_file_and_those_of_the_environment_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    path = write(
        tmp_path / "etc",
        '[bucket]\nurl = "../b"\n[lakes.a]\nurl = "lake"\n[lakes.h]\nurl = "hdfs://h:1"\n[sets.s]\nnet = "n.prototxt"\n'
        'weights = "/w.caffemodel"\nblob = "x"\nroot = "r"\npreprocess.mean = "m.npy"\n',
    )
    settings = load(path, {"HATHI_LAKES__E__URL": "e"}, {"logs.folder": "logs"})
    assert settings.bucket.url == str(tmp_path / "b")
    assert settings.lakes["a"].url == str(tmp_path / "etc" / "lake")
    assert settings.lakes["h"].url == "hdfs://h:1"
    assert settings.lakes["e"].url == str(here / "e")
    assert settings.sets["s"].net == str(tmp_path / "etc" / "n.prototxt")
    assert settings.sets["s"].weights == "/w.caffemodel"
    assert settings.sets["s"].preprocess.mean == str(tmp_path / "etc" / "m.npy")
    assert settings.sets["s"].root == "r"
    assert settings.logs.folder == str(here / "logs")
    assert settings.state == str(tmp_path / "state"), "a default is relative to the file, too"


def test_without_a_file_defaults_are_those_of_a_file_in_the_folder_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, {"HATHI_BUCKET__URL": "b"}).logs.folder == str(tmp_path / "logs")


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(None, {}, {"bucket.url": "~/b"}).bucket.url == str(tmp_path / "b")


def test_an_unknown_key_is_named_with_the_file_the_nearest_key_and_those_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "[fetch]\nconnections_per_hosts = 8\n")
    error = refused(path)
    assert error.message == f"{path}: unknown key fetch.connections_per_hosts"
    assert "allow_private, allow_ports" in error.detail
    assert error.hint == "did you mean fetch.connections_per_host?"
    assert error.exit_code == 2


def test_a_key_in_the_wrong_section_is_pointed_to_the_right_one(tmp_path: Path) -> None:
    assert refused(write(tmp_path, "share = 0.5\n" + MINIMAL)).hint == "did you mean fetch.share?"


def test_a_wrong_value_is_named_with_what_it_was_and_what_is_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "[fetch]\nshare = 3\n")
    error = refused(path)
    assert error.message == f"{path}: fetch.share = 3 is wrong"
    assert "less than or equal to 1" in error.detail


def test_a_share_may_be_written_as_a_quotient_and_a_wrong_one_is_named() -> None:
    environ = {"HATHI_BUCKET__URL": "b"}
    assert load(None, {**environ, "HATHI_FETCH__SHARE": "1/3"}).fetch.share == 1 / 3
    assert load(None, {**environ, "HATHI_FETCH__SHARE": "0.25"}).fetch.share == 0.25
    for wrong in ("1/0", "2/1", "0/4", "1/", "a/b", "1/2/3"):
        error = refused(None, {**environ, "HATHI_FETCH__SHARE": wrong})
        assert error.message.startswith("HATHI_FETCH__SHARE: fetch.share = ")


def test_all_wrong_settings_are_named_at_once(tmp_path: Path) -> None:
    error = refused(write(tmp_path, MINIMAL + "[fetch]\nshare = 3\nburst = 0\n"))
    assert "fetch.burst = 0" in f"{error.message} {error.detail}"
    assert "fetch.share = 3" in f"{error.message} {error.detail}"


def test_a_choice_names_the_choices(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + '[lakes.a]\nurl = "l"\nsources = [{ path = "p", format = "xls" }]\n')
    error = refused(path)
    assert error.message == f"{path}: lakes.a.sources.0.format = 'xls' is wrong"
    assert "'csv'" in error.detail


def test_a_wrong_variable_is_named_and_lists_get_a_hint() -> None:
    environ = {"HATHI_BUCKET__URL": "b", "HATHI_FETCH__ALLOW_PORTS": "80,443"}
    error = refused(None, environ)
    assert error.message == "HATHI_FETCH__ALLOW_PORTS: fetch.allow_ports = '80,443' is wrong"
    assert "JSON" in error.hint


def test_a_variable_of_an_unknown_section_is_refused_with_the_nearest() -> None:
    error = refused(None, {"HATHI_FECTH__SHARE": "1"})
    assert "HATHI_FECTH__SHARE" in error.message
    assert error.hint == "did you mean HATHI_FETCH__...?"


def test_a_missing_key_names_the_file_and_says_what_it_is_for(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    error = refused(path)
    assert error.message == f"{path}: bucket is missing"
    assert "share" in error.detail


def test_invalid_toml_names_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, "state = 'x'\n[bucket\n")
    error = refused(path)
    assert str(path) in error.message
    assert "line 2" in error.detail


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent.toml").message


@pytest.mark.parametrize("name", ["Main", "-a", "a b", "a" * 64, "ä", "a\\n"])
def test_names_of_lakes_become_keys_and_so_are_restricted(tmp_path: Path, name: str) -> None:
    error = refused(write(tmp_path, MINIMAL + f'[lakes."{name}"]\nurl = "l"\n'))
    assert "is not an allowed name" in error.message
    assert "a to z" in error.detail


def test_a_set_that_names_an_unknown_lake_is_refused_with_the_lakes_there_are(tmp_path: Path) -> None:
    text = MINIMAL + '[lakes.a]\nurl = "l"\n[sets.s]\nnet = "n"\nblob = "b"\nroot = "r"\nlakes = ["b"]\n'
    path = write(tmp_path, text)
    error = refused(path)
    assert error.message == f"{path}: sets.s.lakes = ['b'] is wrong"
    assert error.detail.endswith("lakes are: a")


def test_float16_is_refused_where_features_have_any_size(tmp_path: Path) -> None:
    text = MINIMAL + '[sets.s]\nnet = "n"\nblob = "b"\nroot = "r"\nparquet_numbers = "float16"\n'
    assert load(write(tmp_path, text), {}).sets["s"].parquet_numbers == "float16"
    path = write(tmp_path, text + 'normalise = "none"\n')
    error = refused(path)
    assert error.message == f"{path}: sets.s.parquet_numbers = 'float16' is wrong"
    assert 'set normalise = "l2"' in error.detail


@pytest.mark.parametrize(
    "line", ['access_kye = "hunter2"', 'secret_key = ["hunter2"]', 'url = ["x"]\nsecret_key = "hunter2"']
)
def test_a_secret_is_never_in_an_error_nor_in_the_settings_as_printed(tmp_path: Path, line: str) -> None:
    error = refused(write(tmp_path, f"[bucket]\n{line}\n"))
    assert "hunter2" not in f"{error} {error.detail} {error.hint} {error.__cause__}"
    settings = load(None, {"HATHI_BUCKET__URL": "b", "HATHI_BUCKET__SECRET_KEY": "hunter2"})
    assert "hunter2" not in f"{settings} {settings!r} {settings.model_dump_json()}"
    assert isinstance(settings.bucket.secret_key, SecretStr)


SHOP = '[fetch.hosts."img.shop.example"]\n'


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Host", "the fetcher sets the header Host itself"),
        ("RANGE", "the fetcher sets the header RANGE itself"),
        ("connection", "the fetcher sets the header connection itself"),
        ("Accept-Encoding", "the fetcher sets the header Accept-Encoding itself"),
        ("If-None-Match", "the fetcher sets the header If-None-Match itself"),
        ("Proxy-Authorization", "the fetcher sets the header Proxy-Authorization itself"),
        ("User-Agent", "is set by user_agent, in the same table"),
        ("X-Token: hunter2", 'no colon or blank (it begins with "X-Token")'),
        ("X\\nHost", 'no colon or blank (it begins with "X")'),
        ("", "no colon or blank"),
    ],
)
def test_a_header_that_the_fetcher_owns_or_that_has_no_name_is_refused(tmp_path: Path, name: str, what: str) -> None:
    path = write(tmp_path, f'{MINIMAL}{SHOP}headers = {{ "{name}" = "hunter2" }}\n')
    error = refused(path)
    assert error.message == f"{path}: fetch.hosts.img.shop.example.headers is wrong"
    assert what in error.detail
    assert "hunter2" not in f"{error} {error.detail} {error.hint}"


@pytest.mark.parametrize(
    "value",
    [
        r'"hunter2\nHost: x"',
        r'"hunter2\r"',
        r'"hunter2\u0000"',
        r'"hunter2\u00e4"',
        '["hunter2"]',
        '{ a = "hunter2" }',
        '" "',
    ],
)
def test_a_header_of_more_than_one_line_is_refused_and_its_value_never_named(tmp_path: Path, value: str) -> None:
    error = refused(write(tmp_path, f"{MINIMAL}{SHOP}headers.X-Token = {value}\n"))
    assert "the value of the header X-Token must be" in error.detail
    assert "hunter2" not in f"{error} {error.detail} {error.hint} {error.__cause__}"


@pytest.mark.parametrize(
    "text",
    [
        'hosts = "hunter2"',
        'hosts."img.shop.example" = "hunter2"',
        'hosts."img.shop.example".headers = "hunter2"',
        'hosts."img.shop.example".X-Token = "hunter2"',
        'hosts."*.shop.example".headers.X-Token = "hunter2"',
        'hosts."a.example".headers.X-Token = "hunter2"\nhosts."A.example".burst = 2',
        'hosts."a.example".headers.X-Token = "hunter2"\nhosts."a.example".burst = 0',
    ],
)
def test_no_error_beside_a_header_shows_its_value(tmp_path: Path, text: str) -> None:
    error = refused(write(tmp_path, f"{MINIMAL}[fetch]\n{text}\n"))
    assert "fetch.hosts" in error.message
    assert "hunter2" not in f"{error} {error.detail} {error.hint} {error.__cause__}"


def test_a_wrong_header_in_a_variable_is_refused_without_its_value() -> None:
    environ = {"HATHI_BUCKET__URL": "b", "HATHI_FETCH__HOSTS": '{"a.example": {"headers": {"X-Token": "hunter2\\n"}}}'}
    error = refused(None, environ)
    assert "fetch.hosts.a.example.headers is wrong" in error.message
    broken = refused(None, {**environ, "HATHI_FETCH__HOSTS": '{"a.example": "hunter2"'})
    assert "hunter2" not in f"{error} {error.detail} {broken} {broken.detail}"


@pytest.mark.parametrize(
    "name", ["*.shop.example", "https://shop.example", "shop.example/x", "u:p@shop.example", "", "a b", "a:b"]
)
def test_what_is_no_host_has_no_settings_of_its_own(tmp_path: Path, name: str) -> None:
    error = refused(write(tmp_path, f'{MINIMAL}[fetch.hosts."{name}"]\nburst = 2\n'))
    assert "must be a host, or host:port" in error.detail


@pytest.mark.parametrize(
    "second", ["IMG.Shop.Example", "img.shop.example.", "img.shop.example:443", "img.shop.example:80"]
)
def test_a_host_has_settings_once_in_whatever_spelling(tmp_path: Path, second: str) -> None:
    error = refused(write(tmp_path, f'{MINIMAL}{SHOP}burst = 2\n[fetch.hosts."{second}"]\nburst = 3\n'))
    assert f'"img.shop.example" and "{second}" are one host' in error.detail
    load(write(tmp_path, f'{MINIMAL}{SHOP}burst = 2\n[fetch.hosts."img.shop.example:8080"]\nburst = 3\n'), {})


def test_a_user_agent_is_one_line(tmp_path: Path) -> None:
    for line in ('user_agent = "a\\r\\nHost: x"', 'contact = "a\\nb"', 'hosts."a.example".user_agent = "a\\nb"'):
        assert "must be one line" in refused(write(tmp_path, f"{MINIMAL}[fetch]\n{line}\n")).detail


def test_headers_of_a_host_travel_to_other_processes_and_are_printed_nowhere(tmp_path: Path) -> None:
    settings = load(write(tmp_path, f'{MINIMAL}{SHOP}headers.X-Token = "hunter2"\n'), {})
    assert "hunter2" not in f"{settings} {settings!r} {settings.fetch!r} {settings.model_dump_json()}"
    there = Settings.model_validate_json(travelling(settings))
    assert there == settings
    assert there.fetch.hosts["img.shop.example"].headers["X-Token"].get_secret_value() == "hunter2"


def test_the_environment_is_looked_at_only_by_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HATHI_STATE", "/elsewhere")
    assert Settings(bucket=Bucket(url="b")).state == "../state"


def test_section_fetch_is_read_without_a_bucket() -> None:
    assert load_fetch(None, {"HATHI_FETCH__BURST": "3"}, {"fetch.allow_private": True}).burst == 3
    with pytest.raises(ConfigError, match=r"fetch\.burst"):
        load_fetch(None, {"HATHI_FETCH__BURST": "0"})


def test_where_each_value_came_from_is_known(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    read = reading.read(Settings, path, {"HATHI_FETCH__BURST": "3"}, {"fetch.attempts": 1})
    assert read.origin("bucket.url") == str(path)
    assert read.origin("fetch.burst") == "HATHI_FETCH__BURST"
    assert read.origin("fetch.attempts") == "option"
    assert read.origin("fetch.share") == "default"


# The reference names every setting: with an example where it has no default, else commented out with the default.

ENTRY = re.compile(r"^(?P<off># )?(?P<key>[a-z0-9_.]+) = (?P<value>.+)$")
TABLE = re.compile(r"^(?:# )?(?P<head>\[{1,2}(?P<name>[a-z0-9_.\x22-]+)\]{1,2})(?P<rest>\s*(#.*)?)$")


def fields_of(path: Path) -> Iterator[tuple[str, type[BaseModel], str, Any, bool, str]]:
    """(table, its model, key, value, commented out, the words above it) of each entry in a configuration file."""
    table = words = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := TABLE.match(line):
            table = found["name"]
        elif found := ENTRY.match(line):
            value = tomllib.loads(f"value = {found['value']}")["value"]
            yield table, model_of(table), found["key"], value, bool(found["off"]), words.strip()
        words = f"{words} {line[2:]}" if line.startswith("# ") else ""


def model_of(table: str) -> type[BaseModel]:
    if not table:
        return Settings
    first, *rest = table.split(".")
    if first == "lakes":
        return {"hdfs": Hdfs, "sources": Source, "columns": Columns, "text": Text}.get(rest[-1], Lake)
    if rest and first == "fetch":
        return HostFetch
    if first == "preprocess":
        return Preprocess
    if first == "sets":
        return FeatureSet if len(rest) == 1 else Preprocess
    annotation = Settings.model_fields[first].annotation
    for inner in rest:
        assert isinstance(annotation, type)
        annotation = annotation.model_fields[inner].annotation
    assert isinstance(annotation, type)
    return annotation


def is_table(field: FieldInfo) -> bool:
    parts = [field.annotation, *get_args(field.annotation)]
    return any(isinstance(part, type) and issubclass(part, BaseModel) for part in parts)


def models() -> list[type[BaseModel]]:
    tables = [
        name
        for name, field in Settings.model_fields.items()
        if is_table(field) and name not in ("lakes", "sets", "preprocess")
    ]
    tabled = [model_of(name) for name in tables]
    within = [model_of(f"service.{name}") for name, field in Service.model_fields.items() if is_table(field)]
    return [*tabled, *within, Settings, HostFetch, Lake, Hdfs, Source, Columns, Text, FeatureSet, Preprocess]


def test_the_reference_is_what_the_settings_say() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference(), "hathi config reference > config/reference.toml"


def test_every_setting_stands_in_the_reference_once() -> None:
    seen = Counter((model, key) for _, model, key, *_ in fields_of(REFERENCE))
    assert set(seen.values()) == {1}
    for model in models():
        leaves = {name for name, field in model.model_fields.items() if not is_table(field)}
        assert {key for of, key in seen if of is model} == leaves, model.__name__


def test_every_default_in_the_reference_is_the_default() -> None:
    for table, model, key, value, commented, words in fields_of(REFERENCE):
        field, place = model.model_fields[key], f"{table}.{key}"
        assert commented is not field.is_required(), place
        if field.is_required():
            continue
        if words.endswith("Default: none."):
            assert field.default is None, place
        else:
            assert value == field.default, place


def test_the_examples_of_the_reference_are_values_that_are_allowed(tmp_path: Path) -> None:
    """Everything that is commented out put in force at once; a set has either files or a model."""
    lines = REFERENCE.read_text(encoding="utf-8").splitlines()
    entries = [line.removeprefix("# ") for line in lines if ENTRY.match(line) or TABLE.match(line)]
    following = [line for line in entries if not line.startswith(("net = ", "weights = "))]
    assert load(write(tmp_path, "\n".join(following)), {}).sets["features"].model == "shoes"
    with_files = [line for line in entries if not line.startswith("model = ")]
    settings = load(write(tmp_path, "\n".join(with_files)), {})
    assert settings.lakes["main"].hdfs.user == "hathi"
    assert settings.prune.lake_days == 400.0
    assert load(REFERENCE, {}).fetch == Settings(bucket=Bucket(url="b")).fetch, "as it stands: the defaults"


UNITS = {
    "_seconds": "second", "_bytes": "bytes", "_days": "day", "_hours": "hour", "_percent": "percent",
    "_per_second": "second", "_delays": "second", "_length": "characters", "_pixels": "pixels",
}  # fmt: skip


def test_the_words_of_each_setting_are_sentences_that_name_the_unit() -> None:
    for model in models():
        for name, field in model.model_fields.items():
            if is_table(field):
                continue
            words, place = " ".join(words_of(model).get(name, "").split()), f"{model.__name__}.{name}"
            assert re.fullmatch(r"\S.{9,}[.]", words), f"{place}: say what it is, why one would change it, the unit"
            clauses = re.findall(r"[.:;](?= |$)", words)
            assert len(clauses) >= 2, f"{place} says what it is, but not why one would change it: {words}"
            for suffix, unit in UNITS.items():
                assert not name.endswith(suffix) or unit in words, f"{place} names no unit: {words}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_short_configuration_is_valid_short_and_sets_only_what_differs_from_the_defaults(path: Path) -> None:
    assert load(path, {}).bucket.url
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60
    for table, model, key, value, commented, _ in fields_of(path):
        first, _, rest = key.partition(".")
        owner = model_of(first) if rest else model
        field = owner.model_fields[rest or first]
        assert commented or field.is_required() or value != field.default, f"{path.name}: {table}.{key}"
    assert "reference.toml" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_a_short_configuration_shows_commented_out_is_valid_as_well(path: Path, tmp_path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    in_force = [line.removeprefix("# ") if ENTRY.match(line) or TABLE.match(line) else line for line in lines]
    load(write(tmp_path, "\n".join(in_force)), {})


def test_a_set_has_either_files_or_a_model(tmp_path: Path) -> None:
    def of(text: str) -> Settings:
        return load(write(tmp_path, f'[bucket]\nurl = "b"\n[sets.demo]\nblob = "fc7"\nroot = "r"\n{text}\n'), {})

    assert of('model = "shoes"').sets["demo"].model == "shoes"
    assert Settings.model_validate_json(travelling(of('model = "shoes"'))) == of('model = "shoes"'), "it travels"
    for text, both in (
        ('net = "n.prototxt"\nmodel = "shoes"', "net"),
        ('weights = "w.caffemodel"\nmodel = "shoes"', "weights"),
        ('net = "n.prototxt"\nweights = "w.caffemodel"\nmodel = "shoes"', "net and weights"),
    ):
        with pytest.raises(ConfigError) as refused:
            of(text)
        assert f"this one has {both} and model: remove one of them" in str(refused.value)
    with pytest.raises(ConfigError) as refused:
        of("")
    assert "sets.demo.net is missing" in str(refused.value)
    assert "model" in str(refused.value), "the hint names the other way"
    with pytest.raises(ConfigError, match=r"sets.demo.model"):
        of('model = "Sh oes"')
