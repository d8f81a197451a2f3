"""Run inside a mount namespace of its own: a service whose small disk is filled and freed while it answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import requests

from tests.integration.full_disk import fill
from tests.servers.demand import Server

HATHI = Path(__file__).parents[2] / ".venv/bin/hathi"


def main(folder: Path, port: str) -> None:
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=True)
    config = folder / "service.toml"
    config.write_text(
        f'state = "{folder}/state"\nlogs.folder = "{folder}/logs"\nhealth.disk_percent = 95\n'
        f'[bucket]\nurl = "{small}/bucket"\n[service]\ndatabase = "{small}/service.db"\nlisten = "127.0.0.1:{port}"\n'
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HATHI_HEALTH")}

    def hathi(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [HATHI, "service", *words, "--config", str(config)], env=environ, capture_output=True, text=True
        )

    assert hathi("migrate").returncode == 0
    assert hathi("tenant", "ayes").returncode == 0
    token = hathi("token", "ayes", "ann", "--role", "admin").stdout.strip()
    server = Server.start([HATHI, "service", "serve", "--config", config], log=folder / "serve.log", env=environ)
    url = f"http://127.0.0.1:{port}"
    seen: dict[str, object] = {}
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"

    def upload(name: str) -> requests.Response:
        made = session.post(f"{url}/v1/datafiles", json={"name": name, "size": 100_000}, timeout=60)
        if made.status_code != 201:
            return made
        where = f"{url}/v1/datafiles/{made.json()['id']}/content"
        put = session.put(where, data=b"x" * 100_000, timeout=60)
        return made if put.status_code == 200 else put

    try:
        server.until(lambda: "the API answers" in (folder / "serve.log").read_text(), "the API answers")
        assert upload("before").status_code == 201
        fill(small / "filler")
        refused = upload("refused")
        seen["full"], seen["detail"] = refused.status_code, refused.json()["detail"]
        checked = hathi("check")
        seen["check"] = (checked.returncode, checked.stdout + checked.stderr)
        (small / "filler").unlink()
        seen["freed"] = upload("after").status_code
        items = session.get(f"{url}/v1/datafiles", timeout=60).json()["items"]
        seen["names"] = sorted(one["name"] for one in items if one["complete"])
        seen["check_after"] = hathi("check").returncode
    finally:
        server.stop(20)
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
