"""A NameNode that stands by: it answers every request, and refuses to serve it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Standby:
    """On the NameNode's port, where it used to be active: another one is now, and nobody told us which."""

    def __init__(self, port: int) -> None:
        content = json.dumps(
            {
                "RemoteException": {
                    "exception": "StandbyException",
                    "javaClassName": "org.apache.hadoop.ipc.StandbyException",
                    "message": "Operation category READ is not supported in state standby",
                }
            }
        ).encode()

        class Guest(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(403)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Connection", "close")  # else it would go on answering after `close`
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = answer

            def log_message(self, format: str, *args: object) -> None:
                """Not in the tests' output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Guest)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
