"""`--refs` by a URL or by standard input: really read from real servers, and nothing is believed that was not read."""

from __future__ import annotations

import functools
import gzip
import json
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from pipeline.cli.wiring.brought import bring, path_of, scheme_of
from pipeline.clock import random_nonce
from pipeline.errors import ConfigError, Denied, PermanentError, PipelineError, TemporaryError
from pipeline.settings import Bucket, Hdfs, Settings, Source
from pipeline.sources.each_file import WatchedFiles
from pipeline.sources.found import NONE_LEFT, Left
from pipeline.stores.local import LocalStore
from pipeline.stores.s3.store import S3Store
from tests.environment import environ
from tests.integration.conftest import OwnList, picture, row
from tests.servers.hdfs import HdfsServer
from tests.servers.s3 import S3Server
from tests.simulation.world import settings_of

LIST = b"id,url\na,http://shop.example/a.jpg\n"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server of a folder on this machine, and the folder."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.func.log_message = lambda *_: None  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


def here(settings: Settings, refs: str, out: Path, **more: Any) -> tuple[list[str], Left, list[str]]:
    """What the list has here once it was brought: its files below the folder, what it lacks, what was said."""
    said: list[str] = []
    source = Source(path=path_of(refs, out), **more)
    left = bring(settings, source, refs, out, said.append)
    named = WatchedFiles(LocalStore(Path("/")), source, (f"{out}/".lstrip("/"),)).look(0.0)
    top = str(out / ".hathi" / "refs").lstrip("/")
    assert not named.troubles
    return [one.snapshot.source.removeprefix(top)[14:] for one in named.found], left, said


@pytest.fixture
def filled(s3_server: S3Server) -> tuple[Settings, str]:
    """A prefix of a bucket with lists and other things."""
    prefix = random_nonce()
    store = S3Store(s3_server.settings(f"s3://shared/{prefix}"))
    for name in ("a.csv", "deep/partner=7/b.csv", "deep/[1].csv", "README", "_SUCCESS", "_tmp/x.csv", "z/"):
        store.put(name, b"" if name.endswith("/") else LIST)
    return settings_of(bucket=s3_server.settings("/nowhere").model_dump()), f"s3://shared/{prefix}"


def test_lists_in_s3_are_read(filled: tuple[Settings, str], tmp_path: Path) -> None:
    settings, top = filled
    key = top.removeprefix("s3://shared/")
    assert here(settings, f"{top}/a.csv", tmp_path)[0] == [f"{key}/a.csv"]
    assert here(settings, f"{top}/deep/[1].csv", tmp_path)[0] == [f"{key}/deep/[1].csv"]
    assert here(settings, f"{top.replace('s3:', 's3a:')}/*.csv", tmp_path)[0] == [f"{key}/a.csv"]
    found, left, said = here(settings, f"{top}/", tmp_path)
    assert found == [f"{key}/a.csv", f"{key}/deep/[1].csv", f"{key}/deep/partner=7/b.csv"]
    assert list(left.first) == [f"{key}/README"]
    assert len(said) == 1
    with pytest.raises(ConfigError, match="no refs at"):
        here(settings, f"{top}/none.csv", tmp_path)
    with pytest.raises(PermanentError, match="nothing matches"):
        here(settings, f"{top}/none*.csv", tmp_path)


def test_a_table_in_s3_is_refused_and_a_folder_beside_it_is_read(s3_server: S3Server, tmp_path: Path) -> None:
    prefix = random_nonce()
    store = S3Store(s3_server.settings(f"s3://shared/{prefix}"))
    for name in ("t/_delta_log/0.json", "t/part-0.csv", "odd/a.csv"):
        store.put(name, LIST)
    settings = settings_of(bucket=s3_server.settings("/nowhere").model_dump())
    with pytest.raises(PermanentError, match="a Delta table"):
        here(settings, f"s3://shared/{prefix}", tmp_path)
    found, left, _ = here(settings, f"s3://shared/{prefix}/odd", tmp_path)
    assert (len(found), left) == (1, NONE_LEFT)


def test_what_has_not_changed_is_not_copied_again_and_what_is_gone_is_gone(
    filled: tuple[Settings, str], s3_server: S3Server, tmp_path: Path
) -> None:
    settings, top = filled
    here(settings, top, tmp_path)
    (one,) = tmp_path.rglob("a.csv")
    before = one.stat()
    here(settings, top, tmp_path)
    assert one.stat() == before or one.stat().st_ino == before.st_ino
    store = S3Store(s3_server.settings(top))
    store.delete("a.csv")
    assert "a.csv" not in str(here(settings, top, tmp_path)[0])


def test_lists_in_hdfs_are_read(hdfs_server: HdfsServer, tmp_path: Path) -> None:
    folder = f"tests/{random_nonce()}"
    store = hdfs_server.store(folder)
    for name in ("a.csv", "deep/partner=7/b.csv", "part-00000", "_SUCCESS"):
        store.put(name, LIST)
    lakes = {"list": {"url": "/", "hdfs": hdfs_server.settings().model_dump()}}
    settings = settings_of(lakes=lakes)
    found, left, _ = here(settings, hdfs_server.url(folder), tmp_path)
    assert found == [f"{folder}/a.csv", f"{folder}/deep/partner=7/b.csv"]
    assert list(left.first) == [f"{folder}/part-00000"]
    assert here(settings, f"{hdfs_server.url(folder)}/de*/**", tmp_path)[0] == [f"{folder}/deep/partner=7/b.csv"]
    with pytest.raises(ConfigError, match="no refs at"):
        here(settings, f"{hdfs_server.url(folder)}/none.csv", tmp_path)


def test_a_list_of_the_web_is_read_by_the_rules_that_images_are_under(web: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = web
    (folder / "refs.csv").write_bytes(LIST)
    (folder / "packed.csv.gz").write_bytes(gzip.compress(LIST))
    allowed = settings_of(fetch={"allow_private": True})
    for name in ("refs.csv", "packed.csv.gz"):
        assert here(allowed, f"{url}/{name}?token=secret", tmp_path)[0] == [name.removesuffix(".gz")]
        (one,) = tmp_path.joinpath(".hathi").rglob(name.removesuffix(".gz"))
        assert one.read_bytes() == LIST
        before = one.stat().st_ino
        here(allowed, f"{url}/{name}?token=secret", tmp_path)
        assert one.stat().st_ino == before, "the same list is no new snapshot"
    with pytest.raises(PermanentError, match=r"cannot be fetched.*--allow-private") as blocked:
        here(settings_of(), f"{url}/refs.csv?token=secret", tmp_path / "other")
    assert "secret" not in str(blocked.value)
    with pytest.raises(PermanentError, match=r"http_4xx: 404"):
        here(allowed, f"{url}/none.csv", tmp_path)


@pytest.mark.parametrize(
    ("refs", "words"),
    [
        ("gs://bucket/x.csv", "Hathi does not read gs://"),
        ("ftp://host/x.csv", "copy the list to this host"),
        ("hdfs:///data/x.csv", "names no server"),
        ("s3://bucket/a/../x.csv", "write the path without `..`"),
        ("file://elsewhere/x.csv", "a file of another host"),
    ],
)
def test_a_url_that_cannot_be_read_says_what_can(refs: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        path_of(refs, tmp_path)


def test_a_server_that_is_not_reached_says_which_settings_lead_there(tmp_path: Path) -> None:
    bucket = Bucket(url="/nowhere", endpoint="http://127.0.0.1:9", region="r", access_key="a", secret_key="b")  # type: ignore[arg-type]
    lakes = {"list": {"url": "/", "hdfs": Hdfs().model_dump()}}
    settings = settings_of(bucket=bucket.model_dump(), lakes=lakes)
    for refs, words in (
        ("s3://bucket/x.csv", "HATHI_BUCKET__ENDPOINT"),
        ("hdfs://127.0.0.1:9/x", "lakes.list.hdfs.user"),
    ):
        with pytest.raises(PipelineError, match=words) as error:
            here(settings, refs, tmp_path)
        assert isinstance(error.value, TemporaryError)


def test_schemes_are_told_from_paths() -> None:
    told = {
        refs: scheme_of(refs) for refs in ("-", "a.csv", "C:x", "S3A://b/k", "file:/x", "FILE:///x", "./-", "a://b")
    }
    assert told == {
        "-": "-", "a.csv": "", "C:x": "", "S3A://b/k": "s3a", "file:/x": "file", "FILE:///x": "file", "./-": "",
        "a://b": "a",
    }  # fmt: skip


@pytest.mark.parametrize("given", ["options", "looked at"])
def test_standard_input_is_a_list(own: OwnList, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    from tests.integration.conftest import ROOT

    text = "\n".join(row(f"sku-{n}", picture(n)) for n in range(2)) + "\n"
    more = ["--format", "jsonl"] if given == "options" else []
    command = own.command("--json", *more)
    command[command.index("--refs") + 1] = "-"

    def run(stdin: str) -> Any:
        return subprocess.run(
            command, input=stdin, cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=300
        )

    first = run(text)
    assert json.loads(first.stdout)["features"] == 2, first.stderr
    if given == "options":
        assert json.loads(run(text).stdout)["refs"] == 0, "the same list is not shipped again"
        empty = run("")
        assert (empty.returncode, "standard input is empty" in empty.stderr) == (2, True)


def test_a_file_url_is_a_path(own: OwnList) -> None:
    folder = own.folder / "my lists"
    folder.mkdir()
    (folder / "refs.jsonl").write_text(row("a", picture(1)))
    (folder / "b.bak").write_text("x")
    command = own.command("--json")
    command[command.index("--refs") + 1] = f"file://{str(folder).replace(' ', '%20')}"
    import subprocess

    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ})
    told = json.loads(done.stdout)
    assert (told["features"], told["left_out"], done.returncode) == (1, 1, 3)
    assert list(told["left"]) == [str(folder / "b.bak").lstrip("/")]


def test_a_folder_of_hdfs_that_may_not_be_read_is_passed_over_and_named(hdfs_server: HdfsServer) -> None:
    folder = f"tests/{random_nonce()}"
    store = hdfs_server.store(folder)
    for name in ("refs/a/x.csv", "refs/secret/y.csv", "refs/z.csv"):
        store.put(name, LIST)
    url = f"http://{hdfs_server.address}/webhdfs/v1/{folder}/refs/secret?op=SETPERMISSION&permission=700&user.name=root"
    requests.put(url, timeout=30).raise_for_status()
    stranger = hdfs_server.store(folder, user="nobody")
    told: dict[str, str] = {}
    found = [one.path for one in stranger.walk("refs", told.__setitem__)]
    assert found == ["refs/a/x.csv", "refs/z.csv"]
    assert "this user may not read it: user nobody is not allowed" in told["refs/secret"]
    with pytest.raises(Denied):  # nobody is there to be told
        list(stranger.walk("refs"))
