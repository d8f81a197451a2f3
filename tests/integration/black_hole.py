"""A network of its own whose world is a black hole: what is sent out of it is written down, and nobody answers.

Loopback works.  Everything else leaves by one interface, whose other end this file's own process reads: names that are
asked for, and connections that are tried.  Gone with that process, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.apt import install_packages

HERE = ("10.97.0.1", "fd97::1")
THERE = ("10.97.0.2", "fd97::2")
MAC = "02:00:00:00:97:02"
_IPV4, _IPV6, _ICMPV6 = 0x0800, 0x86DD, 58


@dataclass(frozen=True)
class BlackHole:
    """pid: whoever keeps the network.  log: what was sent, a line each."""

    pid: int
    log: Path

    def inside(self, *words: str) -> list[str]:
        """The same command line, inside the network, from the folder where it is started."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", *user, f"--wd={os.getcwd()}", *words]

    def run(self, *words: str, env: Mapping[str, str], timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.inside(*words), env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )

    def sent(self) -> list[str]:
        """What has left until now."""
        return self.log.read_text().splitlines()


@contextlib.contextmanager
def black_hole(folder: Path) -> Iterator[BlackHole]:
    """Fails where this machine gives no network of its own: such a test proves nothing elsewhere."""
    if missing := [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]:
        install_packages(f"a network of its own ({', '.join(missing)})", "iproute2", "util-linux")
    log = folder / "sent.txt"
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    words = ["unshare", "--net", "--mount", "--propagation=private", *user, sys.executable, __file__, str(log)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout is not None
        if keeper.stdout.readline() != "ready\n":
            pytest.fail("no network namespace could be made here (see above): run this as root, or allow it")
        hole = BlackHole(keeper.pid, log)
        try:
            yield hole
        finally:
            keeper.kill()


def main(log: Path) -> None:
    """Make the network and read what leaves it, until somebody ends this process."""
    resolver = log.parent / "resolv.conf"
    resolver.write_text(f"nameserver {THERE[0]}\noptions timeout:1 attempts:1\n")
    for words in (
        ["mount", "--bind", str(resolver), "/etc/resolv.conf"],
        "ip link set lo up",
        "ip link add away type veth peer name hole",
        "ip link set hole address " + MAC,
        "ip link set hole up",
        "ip link set away up",
        f"ip -4 address add {HERE[0]}/24 dev away",
        f"ip -6 address add {HERE[1]}/64 dev away nodad",
        f"ip -4 neighbour add {THERE[0]} lladdr {MAC} dev away nud permanent",
        f"ip -6 neighbour add {THERE[1]} lladdr {MAC} dev away nud permanent",
        f"ip -4 route add default via {THERE[0]}",
        f"ip -6 route add default via {THERE[1]}",
    ):
        subprocess.run(words.split() if isinstance(words, str) else words, check=True)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
    wire.bind(("hole", 0x0003))
    with log.open("a", buffering=1) as file:
        print("ready", flush=True)
        while True:
            packet, (_, kind, direction, *_) = wire.recvfrom(65536)
            if direction != socket.PACKET_OUTGOING and (line := told(kind, packet)):
                file.write(line + "\n")


def told(kind: int, packet: bytes) -> str:
    """A packet as a line; "" for what the kernel itself says to its neighbours."""
    if kind == _IPV4:
        to, protocol, rest = socket.inet_ntop(socket.AF_INET, packet[16:20]), packet[9], packet[4 * (packet[0] & 15) :]
    elif kind == _IPV6:
        to, protocol, rest = socket.inet_ntop(socket.AF_INET6, packet[24:40]), packet[6], packet[40:]
        if protocol in (_ICMPV6, 0):
            return ""
    else:
        return ""
    port = struct.unpack_from("!H", rest, 2)[0] if protocol in (6, 17) else 0
    name = {6: "tcp", 17: "udp"}.get(protocol, f"protocol {protocol}")
    asked = f" asks for {_name(rest[20:])}" if (protocol, port) == (17, 53) else ""
    return f"{name} to {to}:{port}{asked}"


def _name(question: bytes) -> str:
    labels, at = [], 0
    while at < len(question) and question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode("ascii", "replace"))
        at += 1 + question[at]
    return json.dumps(".".join(labels))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
