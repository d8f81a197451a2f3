"""What spark-submit sends to Kubernetes: submitted for real, or taken down by a server of this process alone.

spark-submit has no dry run.  So it runs as it is, against an API server on this host that takes the pod down and
refuses it: what is printed is what Spark itself made, and no cluster hears of it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, PermanentError
from pipeline.process.child import asked, passed_to

PROGRAM = "local:///opt/hathi/spark_submit.py"
"""In the image: it runs `hathi` with the words that follow (docs/linear.md)."""
_LOOPBACK = "127.0.0.1"
_SECONDS = 300.0


@dataclass(frozen=True)
class Submission:
    """master: k8s://....  words: of `hathi` in the pod."""

    master: str
    image: str
    conf: Mapping[str, str]
    words: Sequence[str]

    def command(self, master: str | None = None) -> list[str]:
        """Of spark-submit."""
        conf = {"spark.kubernetes.container.image": self.image, **self.conf}
        given = [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
        return ["spark-submit", "--master", master or self.master, "--deploy-mode", "cluster", "--name", "hathi-linear",
                *given, PROGRAM, *self.words]  # fmt: skip


def submit(submission: Submission) -> int:
    """Runs spark-submit until the pod has ended; its exit code.  Raises ConfigError where there is no Spark."""
    program, environ = _spark()
    return passed_to([program, *submission.command()[1:]], environ)


def pod_of(submission: Submission) -> dict[str, Any]:
    """The pod that spark-submit would send.  Raises PermanentError where it sends none."""
    program, environ = _spark()
    pods: list[dict[str, Any]] = []

    class TakesDown(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.partition("?")[0].endswith("/pods"):
                pods.append(json.loads(body))
            self._refuse(422, "Invalid")

        def do_GET(self) -> None:
            self._refuse(404, "NotFound")

        def _refuse(self, code: int, reason: str) -> None:
            told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
            body = json.dumps({**told, "message": "a dry run"}).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((_LOOPBACK, 0), TakesDown) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            command = submission.command(f"k8s://http://{_LOOPBACK}:{server.server_port}")
            direct = environ | dict.fromkeys(("NO_PROXY", "no_proxy"), _LOOPBACK)
            code, printed = asked([program, *command[1:]], _SECONDS, direct)
        finally:
            server.shutdown()
    if code is None:
        raise PermanentError("spark-submit does not end", f"{_SECONDS:.0f} s", "look at its settings")
    if not pods:
        lines = [line.strip() for line in printed.splitlines() if line.strip() and not line.startswith("\t")]
        cause = next((line for line in lines if "xception" in line or "rror" in line), " ".join(lines[-1:]))
        raise PermanentError("spark-submit sends no pod", cause[:400], "correct what --spark-conf gives")
    return pods[0]


def _spark() -> tuple[str, dict[str, str]]:
    """(spark-submit, the environment that it runs in)."""
    found = find_spec("pyspark")
    own = Path(found.origin).parent if found is not None and found.origin else None
    environ = dict(os.environ)
    if "SPARK_HOME" not in environ and own is not None and (own / "bin" / "spark-submit").is_file():
        environ |= {"SPARK_HOME": str(own), "PYSPARK_PYTHON": environ.get("PYSPARK_PYTHON", sys.executable)}
    home = environ.get("SPARK_HOME", "")
    program = shutil.which("spark-submit", path=f"{home}/bin" if home else None)
    if program is None:
        raise ConfigError("no spark-submit here", f"SPARK_HOME is {home or 'not set'}", "see docs/spark.md")
    return program, environ
