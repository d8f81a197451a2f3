"""A Kerberos realm of its own: a KDC on a free port, principals and keytabs in a folder; /etc stays as it is."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.apt import install_packages
from tests.servers.demand import Server, Uninstalled, accepts, free_port, locked, missing

PACKAGES = ("krb5-kdc", "krb5-admin-server", "krb5-user", "libkrb5-dev", "libfaketime")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
PROGRAMS = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit", "krb5-config")
PASSWORD = "secret"
SCRIPT = Path(__file__).parents[2] / "scripts" / "kerberos.sh"


def install() -> None:
    """Debian's packages, where this process may install them, and the Python package.  Raises Uninstalled."""
    with locked("kerberos"):
        if not _there():
            install_packages("Kerberos", *PACKAGES)
        done = subprocess.run([SCRIPT], capture_output=True, text=True)
        if done.returncode != 0:
            raise Uninstalled(f"{SCRIPT.name} failed: {done.stderr.strip()[-500:]}")


def _there() -> bool:
    return all(shutil.which(name, path=PATH) for name in PROGRAMS) and _faketime() is not None


def faked(offset: str) -> dict[str, str]:
    """The environment of a process whose clock is off, as `+3600`."""
    return {"LD_PRELOAD": _faketime() or "", "FAKETIME": offset}


def _faketime() -> str | None:
    return next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), None)


@dataclass
class Realm:
    """One realm over `folder`.  Principals: hathi, and hdfs/localhost and HTTP/localhost in the keytab `services`."""

    folder: Path
    name: str = "HATHI.TEST"
    port: int = field(default_factory=free_port)
    kdc: Server | None = None

    @property
    def conf(self) -> Path:
        return self.folder / "krb5.conf"

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs in its environment to find the realm; it has no tickets yet."""
        return {"KRB5_CONFIG": str(self.conf), "KRB5CCNAME": f"FILE:{self.folder / 'tickets'}"}

    def keytab(self, name: str) -> Path:
        return self.folder / f"{name}.keytab"

    def start(self) -> None:
        try:
            install()
        except Uninstalled as error:
            missing(str(error))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._configure()
        self._run("kdb5_util", "create", "-s", "-P", PASSWORD)
        self.add("hathi")
        self.add("hdfs/localhost", "services")
        self.add("HTTP/localhost", "services")
        self.start_kdc()

    def start_kdc(self, **more: str) -> None:
        """more: variables of its environment, as `faked` gives them."""
        self.kdc = Server.start(
            [shutil.which("krb5kdc", path=PATH) or "krb5kdc", "-n"],
            log=self.folder / "kdc.log",
            env={**os.environ, **self._environ(), **more},
        )
        self.kdc.until(lambda: accepts(self.port), "the KDC listens")

    def add(self, principal: str, keytab: str = "") -> Path:
        """A new principal with keys of its own in a keytab."""
        path = self.keytab(keytab or principal)
        self.admin(f"addprinc -randkey {principal}")
        self.admin(f"ktadd -k {path} {principal}")
        return path

    def admin(self, words: str) -> None:
        """As an administrator of the KDC says it."""
        self._run("kadmin.local", "-q", words)

    def kinit(self, cache: Path, principal: str = "hathi", lifetime: str = "1h") -> None:
        """A ticket into a cache, as a person's kinit."""
        environ = {"KRB5CCNAME": f"FILE:{cache}"}
        self._run("kinit", "-l", lifetime, "-kt", str(self.keytab(principal)), principal, **environ)

    def stop(self) -> None:
        if self.kdc is not None:
            self.kdc.kill()

    def _environ(self) -> Mapping[str, str]:
        return {"KRB5_CONFIG": str(self.conf), "KRB5_KDC_PROFILE": str(self.folder / "kdc.conf"), "PATH": PATH}

    def _run(self, *words: str, **more: str) -> None:
        environ = {**os.environ, **self._environ(), **more}
        done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")

    def _configure(self) -> None:
        # Names are taken as they are: no DNS of the machine has a part in the tests.
        self.conf.write_text(f"""[libdefaults]
default_realm = {self.name}
dns_lookup_kdc = false
dns_lookup_realm = false
dns_canonicalize_hostname = false
rdns = false
udp_preference_limit = 1
[realms]
{self.name} = {{
  kdc = 127.0.0.1:{self.port}
}}
[domain_realm]
localhost = {self.name}
""")
        (self.folder / "kdc.conf").write_text(f"""[kdcdefaults]
kdc_listen = 127.0.0.1:{self.port}
kdc_tcp_listen = 127.0.0.1:{self.port}
[realms]
{self.name} = {{
  database_name = {self.folder / "principal"}
  key_stash_file = {self.folder / "stash"}
  acl_file = {self.folder / "kadm5.acl"}
  max_life = 24h
}}
[logging]
kdc = FILE:{self.folder / "kdc.log"}
""")


@contextmanager
def running() -> Iterator[Realm]:
    """A realm in a temporary folder, known to this process by its environment."""
    with tempfile.TemporaryDirectory(prefix="hathi-kdc-") as folder, pytest.MonkeyPatch.context() as patch:
        realm = Realm(Path(folder))
        realm.start()
        for name, value in realm.environ.items():
            patch.setenv(name, value)
        try:
            yield realm
        finally:
            realm.stop()
