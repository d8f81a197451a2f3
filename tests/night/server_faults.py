"""The faults of servers: the bucket's, the lake's, the way to them, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.night.asking import words
from tests.night.deployment import Deployment
from tests.night.faults import Deed, Fault
from tests.night.standby import Standby
from tests.night.with_servers import NAMENODE, Secured, Served

LOOKED_AT = ("print_logs", "status", "health", "doctor")
AND_MAIL = (*LOOKED_AT, "mail")


def served(deed: Callable[[Served], object]) -> Deed:
    """A deed to servers."""

    def do(deployment: Deployment) -> None:
        assert isinstance(deployment, Served)
        deed(deployment)

    return do


def with_new_list(deed: Callable[[Served], object]) -> Deed:
    """A deed, and work that arrives after it."""

    def do(deployment: Served) -> None:
        deed(deployment)
        deployment.put_refs()

    return served(do)


def before_it_a_list(deed: Callable[[Served], object]) -> Deed:
    """Work has arrived, and then it happens: the lake takes no list any more."""

    def do(deployment: Served) -> None:
        deployment.put_refs()
        deed(deployment)

    return served(do)


def other_secret(deployment: Served) -> None:
    deployment.rotate("of-tomorrow")


def the_new_secret(deployment: Served) -> None:
    """What the remedy says: it is put into both configurations; the daemons are started again."""
    deployment.secret = "of-tomorrow"
    for name in ("gateway", "box"):
        deployment.configure(name)
    deployment.gateway.stop()
    deployment.gateway.start()


def bucket_deleted(deployment: Served) -> None:
    deployment.s3.place("shared").rename(deployment.s3.place("away"))


def bucket_again(deployment: Served) -> None:
    deployment.s3.place("away").rename(deployment.s3.place("shared"))


def full_bucket(deployment: Served) -> None:
    with deployment.s3.place("ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return  # full


def room_again(deployment: Served) -> None:
    deployment.s3.place("ballast").unlink()


def kill_namenode(deployment: Served) -> None:
    assert deployment.hdfs.namenode is not None
    deployment.hdfs.namenode.kill()


def start_namenode(deployment: Served) -> None:
    deployment.hdfs.start_namenode()
    deployment.hdfs.ready()


def freeze_namenode(deployment: Served) -> None:
    assert deployment.hdfs.namenode is not None
    deployment.hdfs.namenode.freeze()


def thaw_namenode(deployment: Served) -> None:
    assert deployment.hdfs.namenode is not None
    deployment.hdfs.namenode.thaw()
    deployment.hdfs.ready()


def kill_datanode(deployment: Served) -> None:
    assert deployment.hdfs.datanode is not None
    deployment.hdfs.datanode.kill()


def start_datanode(deployment: Served) -> None:
    deployment.hdfs.start_datanode()
    deployment.hdfs.ready()


def safe_mode(deployment: Served) -> None:
    deployment.hdfs.admin("-safemode", "enter")


def out_of_safe_mode(deployment: Served) -> None:
    deployment.hdfs.admin("-safemode", "leave")


def quota(deployment: Served) -> None:
    """Names: the folder of features may hold no more than it does."""
    deployment.hdfs.superuser().limit("/shop/features", names=3)


def no_quota(deployment: Served) -> None:
    deployment.hdfs.superuser().limit("/shop/features")


def space_quota(deployment: Served) -> None:
    deployment.hdfs.superuser().limit("/shop/features", space=1)


def closed_target(deployment: Served) -> None:
    """The lake's administrators take the right to write from its folder of features."""
    deployment.hdfs.superuser().permit("/shop/features", "555")


def open_target(deployment: Served) -> None:
    deployment.hdfs.superuser().permit("/shop/features", "755")


def standby(deployment: Served) -> None:
    kill_namenode(deployment)
    deployment.standby = Standby(deployment.hdfs.web)


def active_again(deployment: Served) -> None:
    assert deployment.standby is not None
    deployment.standby.close()
    start_namenode(deployment)


def nameless_lake(deployment: Served) -> None:
    assert deployment.names is not None
    deployment.names.know()


def silent_names(deployment: Served) -> None:
    assert deployment.names is not None
    deployment.names.answers = False
    deployment.names.know()


def names_again(deployment: Served) -> None:
    assert deployment.names is not None
    deployment.names.answers = True
    deployment.names.know(NAMENODE)


def ticket_ends(deployment: Served) -> None:
    """Nobody renews it: the one that is there ends within a second."""
    assert isinstance(deployment, Secured)
    deployment.tickets.unlink()
    deployment.realm.kinit(deployment.tickets, lifetime="1s")
    deployment.until(lambda: deployment.gateway.run("klist", "-s", "-c", str(deployment.tickets)).returncode, "it ends")


def kinit(deployment: Served) -> None:
    """What the remedy says."""
    assert isinstance(deployment, Secured)
    deployment.realm.kinit(deployment.tickets)


def restart(deed: Callable[[Served], object]) -> Callable[[Served], object]:
    """The host is restarted in the night: nothing that a process remembers helps any more."""

    def do(deployment: Served) -> None:
        deployment.gateway.stop()
        deed(deployment)
        deployment.gateway.start()

    return do


SERVER_FAULTS: Sequence[Fault] = (
    Fault("the S3 server is gone", with_new_list(lambda one: one.s3.kill()), served(lambda one: one.s3.start()),
          words("the S3 server cannot be reached"), words("check that the server runs"),
          named_by=AND_MAIL, ends=True),
    Fault("the S3 server hangs", with_new_list(lambda one: one.s3.freeze()), served(lambda one: one.s3.thaw()),
          words("bucket", "answer"), words("start it again"),
          named_by=LOOKED_AT, ends=True),
    Fault("the keys of S3 were changed", with_new_list(other_secret), served(the_new_secret),
          words("the secret key is not that of the access key"), words("correct bucket.access_key"),
          named_by=AND_MAIL, ends=True),
    Fault("S3 does not allow it (policy)", with_new_list(Served.forbid), served(Served.allow),
          words("S3 does not allow it"), words("give these keys the rights"),
          named_by=AND_MAIL, ends=True),
    Fault("the bucket is deleted", with_new_list(bucket_deleted), served(bucket_again),
          words("there is no such bucket"), words("correct the name in bucket.url"),
          named_by=AND_MAIL, ends=True),
    Fault("the NameNode is gone", before_it_a_list(kill_namenode), served(start_namenode),
          words("the NameNode", "is not reachable"), words("check that it runs"),
          named_by=LOOKED_AT, ends=True),
    Fault("the NameNode hangs", before_it_a_list(freeze_namenode), served(thaw_namenode),
          words("answer", "lake"), words("start it again"),
          named_by=LOOKED_AT, ends=True),
    Fault("another NameNode is active", before_it_a_list(standby), served(active_again),
          words("is a standby NameNode"), words("name all of them"),
          named_by=LOOKED_AT, ends=True),
    Fault("HDFS is in safe mode", before_it_a_list(safe_mode), served(out_of_safe_mode),
          words("HDFS is in safe mode"), words("dfsadmin -safemode get"),
          named_by=LOOKED_AT, ends=True),
    Fault("the quota of names is used up", with_new_list(quota), served(no_quota),
          words("the names quota of /shop/features", "exceeded"), words("raise the quota"),
          named_by=LOOKED_AT, ends=True),
    Fault("the quota of space is used up", with_new_list(space_quota), served(no_quota),
          words("the space quota of /shop/features", "exceeded"), words("raise the quota"),
          named_by=LOOKED_AT, ends=True),
    Fault("the target is closed to us", with_new_list(closed_target), served(open_target),
          words("/shop/features", "hathi"), words("hdfs dfs -ch"),
          named_by=LOOKED_AT, ends=True),
    Fault("no DataNode runs", before_it_a_list(kill_datanode), served(start_datanode),
          words("DataNode"), words("dfsadmin -report"),
          named_by=LOOKED_AT, ends=True),
)  # fmt: skip
MOUNT_FAULTS: Sequence[Fault] = (
    Fault("the S3 server's disk is full", with_new_list(full_bucket), served(room_again),
          words("the disk of the S3 server is full"), words("free space there"),
          named_by=LOOKED_AT, ends=True),
    Fault("the lake's name is not known", before_it_a_list(nameless_lake), served(names_again),
          words("the name of the NameNode", "is not known"), words("getent hosts"),
          named_by=LOOKED_AT[1:], ends=True),  # daemons go on over their open connections: their logs have no trouble
    Fault("the name server hangs", before_it_a_list(silent_names), served(names_again),
          words("the name of the NameNode", "name resolution"), words("getent hosts"),
          named_by=LOOKED_AT, ends=True),
)  # fmt: skip
TICKET_FAULTS: Sequence[Fault] = (
    Fault("the Kerberos ticket has ended", with_new_list(ticket_ends), served(kinit),
          words("the Kerberos ticket has expired"), words("kinit"),
          named_by=LOOKED_AT, ends=True),
    Fault("the Kerberos ticket has ended, and the daemons are new", with_new_list(restart(ticket_ends)), served(kinit),
          words("the Kerberos ticket has expired"), words("kinit"),
          named_by=LOOKED_AT, ends=True),
)  # fmt: skip
