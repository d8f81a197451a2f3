"""The sample's shop: it serves the pictures over HTTP on loopback, with the faults of real shops.

`python sample/server.py FOLDER --port 8973`: prints `ready` once it answers, and ends with the process that started it,
or, with --wait, when its stdin ends; after a number there it stays open for so many seconds after its last answer.
/NAME a picture; /moved/NAME a redirect to it; /sold-out.html a page; /busy.jpg 503; /shop the folder that it serves;
anything else 404.
"""

from __future__ import annotations

import argparse
import errno
import mimetypes
import os
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = b"<!doctype html><title>Sold out</title><p>This cushion is sold out.\n"


class Shop(BaseHTTPRequestHandler):
    """One connection to the shop; answers are short and all in memory."""

    protocol_version = "HTTP/1.1"
    server_version = "HathiSample/1"

    def __init__(self, *args: object, folder: Path, asked: list[float]) -> None:
        self.folder = folder
        self.asked = asked
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.asked[0] = time.monotonic()
        name = self.path.partition("?")[0].lstrip("/")
        moved = name.removeprefix("moved/")
        picture = self.folder / name
        if moved != name and "/" not in moved:
            self._answer(301, b"", "text/plain", Location=f"/{moved}")
        elif name == "sold-out.html":
            self._answer(200, PAGE, "text/html; charset=utf-8")
        elif name == "shop":
            self._answer(200, str(self.folder).encode(), "text/plain; charset=utf-8")
        elif name == "busy.jpg":
            self._answer(503, b"come back later\n", "text/plain")
        elif name and "/" not in name and picture.is_file():
            self._answer(200, picture.read_bytes(), mimetypes.guess_type(name)[0] or "application/octet-stream")
        else:
            self._answer(404, b"no such picture\n", "text/plain")

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, content_type: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the pipeline's own report is what a reader wants to see."""


def open_server(
    folder: Path, port: int, patience: float = 3.0, asked: list[float] | None = None
) -> ThreadingHTTPServer:
    """A listening server; a port that a server just left is waited for.  Raises OSError when it stays taken.

    asked: gets the monotonic time of the last request.
    """
    handler = partial(Shop, folder=folder, asked=asked if asked is not None else [0.0])
    deadline = time.monotonic() + patience
    while True:
        try:
            return ThreadingHTTPServer(("127.0.0.1", port), handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def end_with(parent: int) -> None:
    """Ends this process when the one that started it is gone, however that one ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def end_when_told(asked: list[float]) -> None:
    """Ends this process when its stdin ends; after a number there, so many seconds after the last request."""
    said = sys.stdin.readline()
    if not said:
        os._exit(0)
    if float(said) > 0:
        null = os.open(os.devnull, os.O_RDWR)
        print("stays", flush=True)
        for stream in (0, 1, 2):  # whoever reads what the run prints waits for its end
            os.dup2(null, stream)
        asked[0] = time.monotonic()
        while (left := asked[0] + float(said) - time.monotonic()) > 0:
            time.sleep(left)
    else:
        print("ends", flush=True)
    os._exit(0)


def main() -> int:
    """0; 2 when the port is taken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--wait", action="store_true", help="read stdin: its end ends the shop, a number lets it stay")
    args = parser.parse_args()
    asked = [time.monotonic()]
    parent = os.getppid()
    try:
        server = open_server(args.folder, args.port, asked=asked)
    except OSError as error:
        print(f"the sample's web server cannot listen on 127.0.0.1:{args.port}: {error.strerror}", file=sys.stderr)
        print("end the program on that port, or choose another port by the variable SAMPLE_PORT", file=sys.stderr)
        return 2
    # Without a pipe from whoever started it, e.g. by hand, it is a child like any other.
    if args.wait:
        threading.Thread(target=end_when_told, args=(asked,), daemon=True).start()
    else:
        threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    print("ready", flush=True)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
