"""What the operator answers over HTTP: its figures, whether it is well, whether it has seen everything once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pipeline.errors import ConfigError
from pipeline.kube.figures import Figures

Answer = tuple[int, str, bytes]
"""HTTP's status, the content's type, the content."""


def answers(figures: Figures, ready: Callable[[], bool]) -> Callable[[str], Answer]:
    """What a path answers.

    /healthz fails where a watch hears nothing: a process that is deaf for ever is begun anew by its kubelet.
    """
    registry = CollectorRegistry()
    registry.register(figures)

    def answer(path: str) -> Answer:
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(registry)
        if path == "/healthz":
            deaf = figures.deaf
            return (503, "text/plain", f"deaf: {', '.join(deaf)}\n".encode()) if deaf else (200, "text/plain", b"ok\n")
        if path == "/readyz":
            return (200, "text/plain", b"ok\n") if ready() else (503, "text/plain", b"it has not seen every job yet\n")
        return 404, "text/plain", b"/metrics, /healthz, /readyz\n"

    return answer


@contextlib.contextmanager
def answering(answer: Callable[[str], Answer], address: str, port: int) -> Iterator[int]:
    """Answers while it lasts; on which port, 0 asking for any.  Raises ConfigError where the port cannot be had."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0

        def do_GET(self) -> None:
            code, kind, content = answer(self.path.partition("?")[0])
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *words: object) -> None:
            """Probes come each ten seconds: none is worth a line."""

    try:
        server = ThreadingHTTPServer((address, port), Handler)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"port {port} of {address} cannot be had", str(error), "--port names another") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="probes", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)
