"""`hathi fetch` as people and programs call it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from tests.integration.fetch.hostile import JPEG, PIXEL, Hostile

KEYS = ["url", "ok", "reason", "retriable", "detail", "final_url", "status", "bytes", "sha256", "seconds", "number"]


def hathi(*words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", "fetch", *words],
        input=given,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_json_gives_one_object_a_line_and_url_and_exit_code_0(server: Hostile, tmp_path: Path) -> None:
    urls = [
        server.url("/ok.jpg"),
        server.url("/nope"),
        server.url("/ok.jpg"),
        "http://",
        server.url("/to?/ok.jpg"),
        "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7",
    ]
    listed = tmp_path / "urls.txt"
    listed.write_text("\n".join(urls[2:]) + "\n\n")
    done = hathi("--allow-private", "--json", "--urls", str(listed), *urls[:2])
    assert (done.returncode, done.stderr) == (0, "")
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    shown = dict(enumerate(urls)) | {4: server.url("/to?redacted"), 5: "data:redacted"}
    assert {found["number"]: found["url"] for found in objects} == shown
    assert all(list(found) == KEYS for found in objects)
    by_url = {urls[found["number"]]: found for found in objects}
    good = by_url[urls[0]]
    assert (good["ok"], good["status"], good["bytes"]) == (True, 200, len(JPEG))
    assert good["sha256"] == hashlib.sha256(JPEG).hexdigest()
    bad = by_url[urls[1]]
    assert (bad["ok"], bad["reason"], bad["retriable"], bad["detail"], bad["status"]) == (
        False,
        "http_4xx",
        False,
        "404",
        404,
    )
    assert by_url[urls[4]]["final_url"] == urls[0]
    assert by_url[urls[5]]["bytes"] == len(PIXEL)


def test_a_line_comes_as_soon_as_its_url_has_ended(server: Hostile) -> None:
    command = [sys.executable, "-m", "pipeline.cli.main", "fetch", "--allow-private", "--json", "--urls", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(server.url(f"/ok.jpg?{number}") + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["number"] == number
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait(20) == 0


def test_secrets_of_urls_are_shown_only_where_the_settings_say_so(server: Hostile, tmp_path: Path) -> None:
    url = server.url("/to?/ok.jpg?sig=secret").replace("http://", "http://user:secret@")
    config = tmp_path / "open.toml"
    config.write_text("[logs]\nredact_queries = false\n")
    for words in ([url], ["--json", url]):
        assert "secret" not in hathi("--allow-private", *words).stdout
        assert "secret" in hathi("--allow-private", "--config", str(config), *words).stdout


def test_without_allow_private_this_machine_is_out_of_reach(server: Hostile) -> None:
    done = hathi("--json", server.url("/ok.jpg"), "http://127.0.0.1/")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["reason"], one["detail"]) for one in found] == [
        ("blocked", f"port {server.port}"),
        ("blocked", "address: loopback"),
    ]
    assert not server.visits


def test_the_text_tells_each_step_and_the_rule_that_made_the_verdict(server: Hostile) -> None:
    done = hathi("--allow-private", server.url("/to?/html"))
    assert done.returncode == 0
    steps = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert steps == [
        "resolved",
        "connected",
        "headers",
        "redirected",
        "resolved",
        "connected",
        "headers",
        "sniffed",
        "bytes",
        "verdict",
    ]
    assert "not_image: html (final; the bytes are not in an image format that Hathi knows)" in done.stdout


def test_images_are_saved_by_their_hash(server: Hostile, tmp_path: Path) -> None:
    hathi("--allow-private", "--save", str(tmp_path / "kept"), server.url("/ok.jpg"), server.url("/nope"))
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "kept").iterdir()] == [
        (hashlib.sha256(JPEG).hexdigest() + ".jpeg", JPEG)
    ]


def test_settings_come_from_the_file(server: Hostile, tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text("[fetch]\nallow_private = true\nmax_bytes = 100\n")
    done = hathi("--config", str(config), "--json", server.url("/ok.jpg"))
    assert json.loads(done.stdout)["reason"] == "too_large"


def test_no_url_at_all_is_an_error_of_usage() -> None:
    done = hathi("--json")
    assert done.returncode == 2
    assert "no URL is given" in done.stderr


def test_a_list_that_cannot_be_read_is_an_error_of_usage(tmp_path: Path) -> None:
    done = hathi("--urls", str(tmp_path / "missing.txt"))
    assert done.returncode == 2
    assert "missing.txt" in done.stderr
