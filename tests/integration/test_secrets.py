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
from tests.integration.conftest import ROOT, environ, picture, row

SECRETS = {
    "HATHI_BUCKET__ACCESS_KEY": "planted-access-key",
    "HATHI_BUCKET__SECRET_KEY": "planted-secret-key",
    "HATHI_BUCKET__SESSION_TOKEN": "planted-session-token",
    "HATHI_NOTIFY__WEBHOOK": "http://127.0.0.1:9/hook?token=planted-webhook",
    "HATHI_NOTIFY__SMTP_PASSWORD": "planted-mail-password",
}
URLS = [
    "http://someone:planted-url-password@127.0.0.1:9/a.jpg?X-Amz-Signature=planted-signature",
    "https://someone:planted-url-password@localhost:9/b.jpg?sig=planted-signature#part",
    "http://someone:planted-url-password@[::bad/c.jpg?sig=planted-signature",
    "ftp://someone:planted-url-password@127.0.0.1/d.jpg?sig=planted-signature",
]
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
    lines += [json.dumps({"partner_id": "none", "external_id": "bad", "url": URLS[0]})]
    (tmp_path / "lake" / "refs" / "a.jsonl").write_text("\n".join(lines) + "\n")
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
        "wrong key": hathi(site, "run", *config, HATHI_BUCKET__SECRET="planted-secret-key"),
        "unexpected": hathi(site, "run", *config, HATHI_STATE="/dev/null/x"),
    }
    assert "features" in said["run"]
    assert "sku-0" in said["why"]
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
