"""HDFS: one NameNode and one DataNode from Maven Central, plain or secured, on free ports of localhost."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from hdfs.client import _Request

from pipeline.clock import random_nonce
from pipeline.errors import PipelineError
from pipeline.settings import Hdfs
from pipeline.stores.hdfs.store import HdfsStore
from tests.servers.demand import Server, Uninstalled, accepts, free_port, installed, missing, until
from tests.servers.kerberos import Realm

HADOOP = "3.4.3"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
JARS = (
    ("org.apache.hadoop", "hadoop-common", HADOOP),
    ("org.apache.hadoop", "hadoop-hdfs", HADOOP),
    ("org.apache.hadoop", "hadoop-hdfs-client", HADOOP),
    ("io.netty", "netty-codec-http", "4.1.127.Final"),
)
# commons-math3 looks unused until a NameNode that was killed reads its edits.
UNUSED = (
    "org.apache.curator:*", "org.apache.zookeeper:*", "org.bouncycastle:*",
    "org.xerial.snappy:*", "com.nimbusds:*", "org.apache.avro:*", "dnsjava:*", "com.jcraft:*",
    "org.fusesource.leveldbjni:*", "com.google.guava:*", "io.netty:netty-all",
    "io.netty:netty-transport-native-epoll", "javax.servlet.jsp:*",
)  # fmt: skip
JVM = (
    "-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
)  # fmt: skip
PAGE = 20
"""Entries in one answer of a listing, so that small folders have several."""
NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
DATANODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"


def install() -> Path:
    """The folder of Hadoop's jars, from the cache or from Maven Central.  Raises Uninstalled."""
    what = hashlib.sha256(repr((JARS, UNUSED)).encode()).hexdigest()[:8]
    return installed(f"hadoop-{HADOOP}-{what}", _fetch)


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None or shutil.which("java") is None:
        raise Uninstalled("HDFS needs Java 17 and Maven: apt-get install openjdk-17-jre-headless maven")
    unused = "".join(
        f"<exclusion><groupId>{group}</groupId><artifactId>{name}</artifactId></exclusion>"
        for group, _, name in (one.partition(":") for one in UNUSED)
    )
    wanted = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version>"
        f"<exclusions>{unused}</exclusions></dependency>"
        for group, name, version in JARS
    )
    (folder / "pom.xml").write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>tests</groupId>'
        "<artifactId>servers</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{wanted}</dependencies></project>"
    )
    command = [
        maven, "-B", "-q", f"-Dmaven.repo.local={folder / 'repository'}", "-Dmaven.artifact.threads=16",
        f"{PLUGIN}:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder / 'lib'}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise Uninstalled(f"{PLUGIN}:copy-dependencies failed: {(done.stdout + done.stderr).strip()[-500:]}")
    shutil.rmtree(folder / "repository")


class Superuser(HdfsStore):
    """What only administrators do."""

    def open_to_all(self, path: str) -> None:
        """A folder in which everybody may write."""
        self._hdfs.make_folder(path)
        self.permit(path, "777")

    def permit(self, path: str, mode: str) -> None:
        self._hdfs._ask(lambda one: one._set_permission(path, permission=mode))

    def limit(self, path: str, *, names: int = -1, space: int = -1) -> None:
        """Quotas of a folder; -1: none."""
        set_quota = _Request("PUT").to_method("SETQUOTA")
        self._hdfs._ask(lambda one: set_quota(one, path, namespacequota=names, storagespacequota=space))

    def owner(self, path: str) -> str:
        answer = self._hdfs._ask(lambda one: one._get_file_status(path))
        return str(answer.json()["FileStatus"]["owner"])


@dataclass
class HdfsServer:
    """Both processes over `folder`; they keep their ports when they are started again.  realm: secured by Kerberos."""

    folder: Path
    realm: Realm | None = None
    rpc: int = field(default_factory=free_port)
    web: int = field(default_factory=free_port)
    data: int = field(default_factory=free_port)
    data_web: int = field(default_factory=free_port)
    data_ipc: int = field(default_factory=free_port)
    namenode: Server | None = None
    datanode: Server | None = None

    @property
    def address(self) -> str:
        return f"localhost:{self.web}"

    def url(self, folder: str = "") -> str:
        """The lake's URL; a folder of its own for each caller when none is named."""
        return f"hdfs://{self.address}/{folder or 'tests/' + random_nonce()}"

    def settings(self, **more: object) -> Hdfs:
        """Who the tests are: the user of the processes, or the principal that the realm knows."""
        values: dict[str, object] = {"user": "root"}
        if self.realm is not None:
            values = {"authentication": "kerberos", "principal": "hathi", "keytab": str(self.realm.keytab("hathi"))}
        return Hdfs.model_validate({**values, **more})

    def store(self, folder: str = "", **more: object) -> HdfsStore:
        return HdfsStore(self.url(folder), self.settings(**more))

    def start(self) -> None:
        try:
            install()
        except Uninstalled as error:
            missing(str(error))
        self._configure()
        formatted = self._java(NAMENODE, "-format", "-force", "-nonInteractive")
        formatted.process.wait()
        if formatted.process.returncode != 0:
            raise RuntimeError(f"the NameNode could not be formatted: {formatted.last_words()}")
        self.start_namenode()
        self.start_datanode()
        self.ready()

    def start_namenode(self) -> None:
        """Comes back when it listens; it may still be in safe mode."""
        self.namenode = self._java(NAMENODE)
        self.namenode.until(lambda: accepts(self.web), "the NameNode listens")

    def start_datanode(self) -> None:
        self.datanode = self._java(DATANODE)
        self.datanode.until(lambda: accepts(self.data_web), "the DataNode listens")

    def ready(self) -> None:
        """Waits until a small file can be written: the only proof that both are at work."""
        store = self.store("tests/ready", retry_seconds=0.0, read_seconds=10.0)
        said = ""

        def written() -> bool:
            nonlocal said
            try:
                self.superuser().open_to_all("/tests")
                store.put("ready", b"yes")
            except PipelineError as error:
                said = str(error)
                return False
            return True

        try:
            until(written, f"HDFS takes a file ({self.folder})", 90.0)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {said}") from error

    def superuser(self) -> Superuser:
        """Who may do anything."""
        if self.realm is None:
            return Superuser(f"hdfs://{self.address}/", self.settings(retry_seconds=0.0))
        principal = {"principal": "hdfs/localhost", "keytab": str(self.realm.keytab("services"))}
        return Superuser(f"hdfs://{self.address}/", self.settings(**principal, retry_seconds=0.0))

    def admin(self, *words: str) -> str:
        """`hdfs dfsadmin` with these words; what it printed.  Plain servers only."""
        return self._tool("org.apache.hadoop.hdfs.tools.DFSAdmin", *words)

    def stop(self) -> None:
        for server in (self.datanode, self.namenode):
            if server is not None:
                server.kill()

    def _tool(self, name: str, *words: str) -> str:
        done = subprocess.run(self._command(name, *words), cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{name} {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _command(self, name: str, *words: str) -> Sequence[str]:
        kerberos = () if self.realm is None else (f"-Djava.security.krb5.conf={self.realm.conf}",)
        path = f"{self.folder / 'conf'}:{install() / 'lib'}/*"
        return ["java", *JVM, *kerberos, "-cp", path, name, *words]

    def _java(self, name: str, *words: str) -> Server:
        return Server.start(
            self._command(name, *words),
            log=self.folder / f"{name.rpartition('.')[2]}.log",
            env={**os.environ, "HADOOP_USER_NAME": "root"},
            cwd=self.folder,
        )

    def _configure(self) -> None:
        conf = self.folder / "conf"
        for pages in ("hdfs", "datanode", "static"):
            (conf / "webapps" / pages).mkdir(parents=True, exist_ok=True)
        core = {"fs.defaultFS": f"hdfs://localhost:{self.rpc}", "hadoop.tmp.dir": str(self.folder / "tmp")}
        hdfs = {
            "dfs.namenode.name.dir": str(self.folder / "name"),
            "dfs.datanode.data.dir": str(self.folder / "data"),
            "dfs.namenode.rpc-address": f"localhost:{self.rpc}",
            "dfs.namenode.http-address": f"localhost:{self.web}",
            "dfs.datanode.address": f"localhost:{self.data}",
            "dfs.datanode.http.address": f"localhost:{self.data_web}",
            "dfs.datanode.ipc.address": f"localhost:{self.data_ipc}",
            "dfs.datanode.hostname": "localhost",
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            "dfs.replication": "1",
            "dfs.namenode.safemode.extension": "0",
            "dfs.heartbeat.interval": "1",
            "dfs.namenode.heartbeat.recheck-interval": "1000",
            "dfs.namenode.resource.du.reserved": "0",
            "dfs.namenode.fs-limits.min-block-size": "1024",
            "dfs.client.block.write.locateFollowingBlock.initial.delay.ms": "5",
            "dfs.namenode.edits.noeditlogchannelflush": "true",  # kept by kill -9, if not by a power cut
            "dfs.namenode.handler.count": "16",
            "dfs.ls.limit": str(PAGE),
        }
        if self.realm is not None:
            core |= self._secured_core()
            hdfs |= self._secured_hdfs(self.realm)
        _write(conf / "core-site.xml", core)
        _write(conf / "hdfs-site.xml", hdfs)
        (conf / "log4j.properties").write_text(
            "log4j.rootLogger=WARN,out\nlog4j.appender.out=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.out.layout=org.apache.log4j.PatternLayout\n"
            "log4j.appender.out.layout.ConversionPattern=%d{ISO8601} %p %c{2}: %m%n\n"
        )

    def _secured_core(self) -> dict[str, str]:
        secret = self.folder / "secret"
        secret.write_text(random_nonce())
        return {
            "hadoop.security.authentication": "kerberos",
            "hadoop.security.authorization": "true",
            "hadoop.http.authentication.type": "kerberos",
            "hadoop.http.authentication.signature.secret.file": str(secret),
            "hadoop.security.auth_to_local": "DEFAULT",
        }

    def _secured_hdfs(self, realm: Realm) -> dict[str, str]:
        keytab, service = str(realm.keytab("services")), f"hdfs/localhost@{realm.name}"
        web = {"principal": f"HTTP/localhost@{realm.name}", "keytab": keytab}
        return {
            "ignore.secure.ports.for.testing": "true",
            "dfs.block.access.token.enable": "true",
            "dfs.permissions.superusergroup": "hathi",
            "dfs.namenode.kerberos.principal": service,
            "dfs.namenode.keytab.file": keytab,
            "dfs.datanode.kerberos.principal": service,
            "dfs.datanode.keytab.file": keytab,
            "dfs.web.authentication.type": "kerberos",
            **{f"dfs.web.authentication.kerberos.{name}": value for name, value in web.items()},
            **{f"hadoop.http.authentication.kerberos.{name}": value for name, value in web.items()},
        }


def _write(path: Path, values: dict[str, str]) -> None:
    lines = "".join(
        f"<property><name>{name}</name><value>{escape(value)}</value></property>\n" for name, value in values.items()
    )
    path.write_text(f"<configuration>\n{lines}</configuration>\n")


@contextmanager
def running(realm: Realm | None = None) -> Iterator[HdfsServer]:
    """A server over a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="hathi-hdfs-") as folder:
        server = HdfsServer(Path(folder), realm)
        try:
            server.start()
            yield server
        finally:
            server.stop()
