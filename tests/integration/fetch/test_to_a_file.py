"""One long body into a file: flat in memory, gone on where it broke, by the rules that images are under."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main
from pipeline.errors import PermanentError, TemporaryError
from pipeline.fetch.sink import Stored
from pipeline.service.downloading import download, fetcher_of, of_strangers
from pipeline.settings import Fetch
from tests import peak
from tests.integration.fetch.asking import limits
from tests.unit.service.hostile_archives import GREY

BODY = gzip.compress(b"".join(hashlib.sha512(b"%d" % at).digest() for at in range(40_000)), 1)
"""2.5 MB that no compression makes smaller; it begins as an archive does."""


@dataclass
class Site:
    """A host of one body.  cuts: so many bytes an answer, in turn; then all.  ranges: those that were asked for."""

    body: bytes = BODY
    cuts: list[int] = field(default_factory=list)
    etags: list[str] = field(default_factory=lambda: ['"v1"'])
    ranges: list[str] = field(default_factory=list)
    whole: bool = False
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/set.tar.gz?token=secret"


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked, tag = self.headers.get("Range", ""), self.headers.get("If-Range", "")
            found.ranges.append(asked)
            etag = found.etags.pop(0) if len(found.etags) > 1 else found.etags[0]
            first = 0
            if asked and not found.whole and tag == etag:
                first = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(found.body) - first))
            if etag:
                self.send_header("ETag", etag)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(found.body) - 1}/{len(found.body)}")
            self.end_headers()
            last = first + found.cuts.pop(0) if found.cuts else len(found.body)
            self.wfile.write(found.body[first:last])
            self.wfile.flush()
            if last < len(found.body):
                self.close_connection = True
                self.connection.close()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


def fetched(site: Site, path: Path, **changes: Any) -> Stored:
    return download(site.url, path, fetcher_of(limits(**{"max_bytes": 2**30, "attempts": 5} | changes)))


def test_a_body_comes_whole_through_twenty_cuts(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000] * 20
    found = fetched(site, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert (found.size, found.status, found.etag) == (len(BODY), 206, '"v1"')
    assert site.ranges == ["", *(f"bytes={100_000 * at}-" for at in range(1, 21))]
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_another_process_goes_on_where_one_was_ended(site: Site, tmp_path: Path) -> None:
    site.cuts = [300_000] + [0] * 3
    with pytest.raises(TemporaryError, match="goes on where it broke"):
        fetched(site, tmp_path / "a", attempts=2)
    assert (tmp_path / "a").stat().st_size == 300_000
    site.ranges.clear()
    site.cuts.clear()
    fetched(site, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert site.ranges == ["bytes=300000-"]


@pytest.mark.parametrize("etags", [['"v1"', '"v2"'], ["", ""], ['W/"v1"', 'W/"v1"']])
def test_a_body_that_may_have_changed_comes_from_its_beginning(site: Site, tmp_path: Path, etags: list[str]) -> None:
    site.cuts, site.etags = [300_000], etags
    fetched(site, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_host_that_knows_no_ranges_is_asked_anew(site: Site, tmp_path: Path) -> None:
    site.cuts, site.whole = [300_000, 200_000], True
    fetched(site, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_file_that_is_no_archive_ends_with_its_first_bytes(site: Site, tmp_path: Path) -> None:
    site.body = b"<html>" + b"x" * 10**6
    with pytest.raises(PermanentError, match="is no archive") as refused:
        fetched(site, tmp_path / "a")
    assert "secret" not in str(refused.value)
    assert (tmp_path / "a").stat().st_size == 0


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_cap_ends(site: Site, tmp_path: Path, announced: bool) -> None:
    site.cuts = [] if announced else [500_000]
    with pytest.raises(PermanentError, match="too_large"):
        fetched(site, tmp_path / "a", max_bytes=2_000_000)
    assert (tmp_path / "a").stat().st_size <= 2_000_000


def test_memory_is_flat(site: Site, tmp_path: Path) -> None:
    fetched(site, tmp_path / "a")
    site.body = b"\x1f\x8b" + bytes(150 * 2**20)
    before = peak.forget()
    fetched(site, tmp_path / "b")
    assert peak.held() - before < 40 * 2**20
    assert (tmp_path / "b").stat().st_size == len(site.body)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{}/a.zip", "http://169.254.169.254/a.zip", "data:,x", "file:///etc/x"]
)
def test_what_a_stranger_names_is_fetched_from_public_places_alone(site: Site, tmp_path: Path, url: str) -> None:
    allowed = Fetch(allow_private=True, allow_folders=["/"], allow_buckets=["b"])
    safe = of_strangers(allowed, 2**20)
    with pytest.raises(PermanentError, match="blocked"):
        download(url.format(site.port), tmp_path / "a", fetcher_of(safe))
    assert site.ranges == []


def test_a_file_that_cannot_be_written_is_no_fault_of_the_host(site: Site, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="No space left"):
        download(site.url, Path("/dev/full"), fetcher_of(limits(max_bytes=2**30)))
    with pytest.raises(PermanentError, match="cannot be written"):
        fetched(site, tmp_path / "none" / "a")


def test_the_command_makes_a_dataset_of_a_url(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as file:
        for name in ("a/1.png", "b/1.png"):
            told = tarfile.TarInfo(name)
            told.size = len(GREY)
            file.addfile(told, io.BytesIO(GREY))
    site.body, site.cuts = out.getvalue(), [100]
    monkeypatch.chdir(tmp_path)
    assert main(["dataset", "import", site.url, "made", "--allow-private", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["examples"] == 2
    assert "secret" not in printed.err + (tmp_path / "made" / "_manifest.json").read_text()
    assert [one.name for one in tmp_path.iterdir()] == ["made"]
    assert main(["dataset", "import", site.url, "again"]) != 0
    assert "blocked" in capsys.readouterr().err
