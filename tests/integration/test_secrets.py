"""A secret that a configuration or a URL holds stands nowhere but there: planted everywhere, and looked for."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT, picture, row

SECRETS = {
    "HATHI_BUCKET__ACCESS_KEY": "planted-access-key",
    "HATHI_BUCKET__SECRET_KEY": "planted-secret-key",
    "HATHI_BUCKET__SESSION_TOKEN": "planted-session-token",
    "HATHI_NOTIFY__WEBHOOK": "http://127.0.0.1:9/hook?token=planted-webhook",
    "HATHI_NOTIFY__SMTP_PASSWORD": "planted-mail-password",
    "HATHI_FETCH__HOSTS": json.dumps(
        {
            host: {"headers": {"Authorization": "Bearer planted-host-token", "X-Key": "planted-host-key"}}
            for host in ("127.0.0.1:9", "localhost:9", "[::1]:9")
        }
    ),
}
URLS = [
    "http://someone:planted-url-password@127.0.0.1:9/a.jpg?X-Amz-Signature=planted-signature",
    "https://someone:planted-url-password@localhost:9/b.jpg?sig=planted-signature#part",
    "http://someone:planted-url-password@[::bad/c.jpg?sig=planted-signature",
    "ftp://someone:planted-url-password@127.0.0.1/d.jpg?sig=planted-signature",
    "someone:planted-url-password@127.0.0.1:9/e.jpg",
    "//someone:planted-url-password@127.0.0.1:9/e.jpg",
    "http://127.0.0.1:9/f.jpg;jsessionid=planted-session?a=b",
    "http://127.0.0.1:9/g.jpg#access_token=planted-token",
    "http%3A%2F%2Fsomeone%3Aplanted-url-password%40127.0.0.1%3A9%2Fh.jpg%3Fsig%3Dplanted-signature",
    "http://127.0.0.1:9/cdn/https%253A%252F%252Fsomeone%253Aplanted-url-password%2540h%252Fx",
    "HTTP:\\\\someone:planted-url-password@127.0.0.1:9\\i.jpg",
    "s3a://planted-key:planted-secret@bucket/j.jpg",
    "http://some\tone:planted url planted-password@127.0.0.1:9/k.jpg",
    "http://someone:planted-url-password/planted-more@127.0.0.1:9/l.jpg",
    "http://a@b:planted-url-password@[::1]:9/m.jpg",
    "data:image/png;base64,planted-inline-content",
    "http://user:planted-url-password@127.0.0.1:9/" + "n" * 9000 + "?sig=planted-signature",
]
BAD_ROWS = [json.dumps({"partner_id": "none", "external_id": "bad", "url": url}) for url in URLS] + [
    '{"partner_id":7,"url":"http:\\/\\/u:planted-password@127.0.0.1\\/x?token=planted-token"',
    '{"partner_id":"x","url":"http:\\u002f\\u002fu:planted-password\\u0040127.0.0.1/x\\u003ftoken=planted-token"}',
    '{"partner_id":7,"url":["http://127.0.0.1/?t=planted-token"]}',
]
"""Ten of a file are quoted, so each file has ten."""
PROXIES = dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://someone:planted-proxy-password@127.0.0.1:9"
)
CONFIG = """
state = "state"
[bucket]
url = "bucket"
fsync = false
retry_seconds = 0.0
[lakes.shop]
url = "lake"
sources = [{{ path = "refs/*.jsonl" }}]
[sets.demo]
net = "{net}"
weights = "random.caffemodel"
blob = "features"
root = "features"
[fetch]
allow_private = true
attempts = 1
[notify]
smtp_host = "127.0.0.1"
smtp_port = 9
smtp_user = "hathi"
mail_to = ["operator@example.org"]
[logs]
folder = "logs"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    random_features.write(tmp_path / "random.caffemodel")
    config = CONFIG.format(net=ROOT / "sample" / "random_features.prototxt")
    (tmp_path / "hathi.toml").write_text(config)
    (tmp_path / "lake" / "refs").mkdir(parents=True)
    (tmp_path / "temp").mkdir()
    lines = [row("good", picture(1))]
    lines += [json.dumps({"partner_id": 7, "external_id": f"sku-{at}", "url": url}) for at, url in enumerate(URLS)]
    (tmp_path / "lake" / "refs" / "a.jsonl").write_text("\n".join(lines) + "\n")
    for at in range(0, len(BAD_ROWS), 10):
        rows = [json.dumps({"partner_id": 7, "external_id": f"good-{at}", "url": URLS[0]}), *BAD_ROWS[at : at + 10]]
        (tmp_path / "lake" / "refs" / f"bad{at}.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path


def hathi(site: Path, *words: str, **more: str) -> str:
    """What a command says, all of it."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", "--debug", *words],
        cwd=ROOT,
        env={**environ(), **SECRETS, "TMPDIR": str(site / "temp"), **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return done.stdout


def readable(path: Path) -> str:
    """A file as a person could read it."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return str(table.drop_columns([name for name in ("features",) if name in table.column_names]).to_pylist())
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8", "replace")


def test_no_secret_stands_in_any_log_message_trace_manifest_or_delivery(site: Path) -> None:
    config = ("--config", str(site / "hathi.toml"))
    said = {
        "run": hathi(site, "run", *config),
        "status": hathi(site, "status", *config),
        "status --json": hathi(site, "status", *config, "--json"),
        "health": hathi(site, "health", *config),
        "verify": hathi(site, "verify", *config),
        "why": hathi(site, "why", *config, "7", "sku-0"),
        "why --json": hathi(site, "why", *config, "7", "sku-0", "--json"),
        "quarantine": hathi(site, "quarantine", *config, "list"),
        "config": hathi(site, "config", "show", *config),
        "check": hathi(site, "config", "check", *config),
        "no bucket": hathi(
            site, "run", *config, HATHI_BUCKET__URL="s3://b/p", HATHI_BUCKET__ENDPOINT="http://127.0.0.1:9"
        ),
        "wrong setting": hathi(site, "run", *config, HATHI_NOTIFY__SMTP_PASSWORD='["planted-mail-password"'),
        "wrong header": hathi(
            site, "config", "check", *config,
            HATHI_FETCH__HOSTS='{"img.shop.example": {"headers": {"Range": "planted-host-token"}}}',
        ),
        "two lines": hathi(
            site, "config", "check", *config,
            HATHI_FETCH__HOSTS='{"img.shop.example": {"headers": {"X-Key": "planted-host-token\\nHost: x"}}}',
        ),
        "no table": hathi(site, "run", *config, HATHI_FETCH__HOSTS='{"img.shop.example": "planted-host-token"'),
        "wrong key": hathi(site, "run", *config, HATHI_BUCKET__SECRET="planted-secret-key"),
        "unexpected": hathi(site, "run", *config, HATHI_STATE="/dev/null/x"),
        "why by url": hathi(site, "why", *config, "--url", URLS[4]),
        "health --json": hathi(site, "health", *config, "--json"),
        "doctor": hathi(site, "doctor", *config),
        "report": hathi(site, "report", *config, "--out", str(site / "logs" / "report.html")),
        "fetch": hathi(site, "fetch", *config, *URLS),
        "fetch --json": hathi(site, "fetch", *config, "--json", *URLS),
        "endpoint in show": hathi(
            site, "config", "show", *config, HATHI_BUCKET__ENDPOINT="http://someone:planted-endpoint@127.0.0.1:9"
        ),
        "proxy": hathi(
            site, "run", *config,
            HATHI_BUCKET__URL="s3://b/p", **PROXIES,
            HATHI_BUCKET__ENDPOINT="http://someone:planted-endpoint-password@store.invalid:9",
        ),
        "lake in status": hathi(
            site, "status", *config, HATHI_LAKES__SHOP__URL="webhdfs://someone:planted-lake-password@127.0.0.1:9/lake"
        ),
    }  # fmt: skip
    assert "features" in said["run"]
    assert "sku-0" in said["why"]
    assert "connect" in said["fetch --json"]
    assert 'fetch.hosts.127.0.0.1:9.headers.X-Key = "********"' in said["config"]
    assert "the fetcher sets the header Range itself" in said["wrong header"]
    assert "the value of the header X-Key must be one line" in said["two lines"]
    assert said["fetch --json"].count("\n") == len(URLS)
    # Complete refs lie in the bucket's d/ and in the source, by design: without them nothing could be fetched.
    files = {
        str(path.relative_to(site)): path
        for part in ("bucket/shop/c", "bucket/shop/h", "state", "logs", "temp", "lake/features")
        for path in (site / part).rglob("*")
        if path.is_file()
    }
    assert {name.split("/")[0] for name in files} >= {"bucket", "logs", "lake"}
    assert any("failures" in name for name in files)
    texts = {**said, **{name: readable(path) + name for name, path in files.items()}}
    found = {
        where: text[max(0, at - 80) : at + 30] for where, text in texts.items() if (at := text.find("planted-")) >= 0
    }
    assert found == {}
    assert os.path.getsize(site / "lake" / "refs" / "a.jsonl") > 0
