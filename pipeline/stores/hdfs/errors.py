"""What an HDFS server or the way to it says, as errors that name the cause and the remedy.

The servers' words are those of Hadoop's RemoteException (WebHDFS, "Error Responses").
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import requests
import urllib3

from pipeline.errors import Denied, Exists, NotFound, PermanentError, PipelineError, TemporaryError, Unknown
from pipeline.settings import Hdfs
from pipeline.stores.hdfs import tickets

_DENIED = re.compile(
    r"user=(?P<user>[^,]*), access=(?P<access>\w+), "
    r'inode="(?P<path>[^"]*)":(?P<owner>[^:]*):(?P<group>[^:]*):(?P<mode>\S+)'
)
_QUOTA = re.compile(r"quota .*?of (?:directory )?(?P<path>/\S*) is exceeded")
_MINUTES = 60.0


class Elsewhere(TemporaryError):
    """This NameNode does not serve now, and has done nothing: another one may."""


def refused(response: requests.Response, settings: Hdfs, path: str) -> PipelineError:
    """The error of an answer of 400 and more.  Unknown where it may come from a proxy after the effect."""
    host = urlsplit(response.url).netloc
    exception, words = _remote(response)
    if response.status_code == 401 or exception in ("AuthenticationException", "AuthorizationException"):
        return _unbelieved(host, words, settings)
    if "Clock skew" in words or "not yet valid" in words:
        return tickets.skewed(f"{host}: {words}")
    if "GSSException" in words or "replay" in words:
        return TemporaryError(f"{host} refused our Kerberos ticket", words, "Hathi tries it again", 1.0)
    if exception:
        return _named(exception, words, host, path)
    said = f"HTTP {response.status_code} {words}".rstrip()
    if response.status_code >= 500:
        return Unknown(f"{host} cannot answer", said, "Hathi tries it again; if it lasts, see the server's log", 2.0)
    return PermanentError(
        f"{host} answers, but not as WebHDFS does", said, "correct lakes.*.url: it needs the port of WebHDFS (9870)"
    )


def unanswered(error: requests.RequestException, host: str) -> PipelineError:
    """The error of no answer, or of half an answer, of the NameNode `host` or of a DataNode that it named.

    Of the NameNode: Elsewhere where nothing was sent, Unknown where perhaps it was done.
    """
    address = urlsplit(error.request.url).netloc if error.request is not None and error.request.url else host
    words = _innermost(error)
    if isinstance(error, requests.exceptions.SSLError):
        hint = "name the certificates in lakes.*.hdfs.ca_bundle, or use hdfs:// where the server has no TLS"
        return PermanentError(f"TLS with {address} failed", words, hint)
    whose = "NameNode" if address == host else "DataNode"
    if _nameless(error):
        name = address.rpartition(":")[0] or address
        what = "correct lakes.*.url, or see" if whose == "NameNode" else "see"
        hint = f"{what} that this host finds the name: `getent hosts {name}`; Hathi tries it again"
        kind = Elsewhere if whose == "NameNode" else TemporaryError
        return kind(f"the name of the {whose} {name} is not known", words, hint, 1.0)
    if address != host:
        said = "is not reachable" if _unsent(error) else "did not answer"
        hint = "check with hdfs dfsadmin -report that it runs, and start it if not; Hathi tries it again"
        return TemporaryError(f"the DataNode {address} {said}", words, hint, 1.0)
    if _unsent(error):
        hint = f"check that it runs and that the port is right: curl -s http://{address}/jmx; Hathi tries it again"
        return Elsewhere(f"the NameNode {address} is not reachable", words, hint, 1.0)
    hint = (
        f"Hathi tries it again; if it lasts, the NameNode hangs or has too much to do: curl -m 5 http://{address}/jmx "
        "shows it; see its log, and start it again"
    )
    return Unknown(f"the NameNode {address} did not answer", words, hint, 1.0)


def _named(exception: str, words: str, host: str, path: str) -> PipelineError:
    """The error of one of Hadoop's exceptions."""
    if exception in ("StandbyException", "ObserverRetryOnActiveException"):
        hint = "name all of them in lakes.*.url: hdfs://one:9870,two:9870/folder; see: hdfs haadmin -getAllServiceState"
        return Elsewhere(f"{host} is a standby NameNode", words, hint, 2.0)
    if exception == "RetriableException" or "startup mode" in words or "not started" in words:
        return Elsewhere(f"{host} is starting", words, "Hathi tries it again", 2.0)
    if exception == "SafeModeException" or "safe mode" in words:
        hint = "wait until it has all blocks, or ask the administrators; see: hdfs dfsadmin -safemode get"
        return TemporaryError("HDFS is in safe mode: nothing can be written", words, hint, 5.0)
    if exception == "FileNotFoundException":
        return NotFound(f"nothing at {path}", words)
    if exception == "FileAlreadyExistsException":
        return Exists(f"{path} exists", words)
    if exception == "AccessControlException" or "Permission denied" in words:
        return _denied(words, path)
    if "QuotaExceeded" in exception or ("quota" in words and "exceeded" in words):
        return _over_quota(exception, words, path)
    if "could only be written to" in words or "No space left" in words or "not enough space" in words:
        hint = (
            "free space on the DataNodes, or start those that are down: hdfs dfsadmin -report; "
            "Hathi then continues by itself"
        )
        return TemporaryError("HDFS has no room for a block", words, hint, _MINUTES)
    if "Failed to find datanode" in words:
        hint = "start the DataNodes, or free space on them; see: hdfs dfsadmin -report; Hathi tries it again"
        return TemporaryError("no DataNode of this HDFS takes a block", words, hint, 5.0)
    if exception == "BlockMissingException" or "No active nodes contain this block" in words:
        hint = (
            "start the DataNodes that are down: hdfs dfsadmin -report; where all run, `hdfs fsck / "
            "-list-corruptfileblocks` names what is lost; Hathi tries it again"
        )
        return TemporaryError(f"no DataNode that runs has {path}", words, hint, 5.0)
    if exception in ("InvalidToken", "ExpiredToken", "SecretManager$InvalidToken"):
        return TemporaryError(f"{host} refused the token of the NameNode", words, "Hathi tries it again", 1.0)
    if exception in ("ParentNotDirectoryException", "PathIsNotDirectoryException"):
        return PermanentError(f"a file stands where a folder is needed: {path}", words, "move the file away")
    if exception == "PathIsNotEmptyDirectoryException" or "is non empty" in words:
        return PermanentError(f"the folder is not empty: {path}", words)
    if "encryption zone" in words:
        hint = "correct sets.*.root: the root must be the encryption zone or a folder in it"
        return PermanentError(f"{path} lies in another encryption zone", words, hint)
    if exception in ("PathComponentTooLongException", "MaxDirectoryItemsExceededException"):
        return PermanentError(f"HDFS refuses {path}", words, "see dfs.namenode.fs-limits.* of the cluster")
    if exception in ("InvalidPathException", "IllegalArgumentException", "UnsupportedOperationException"):
        return PermanentError(
            f"{host} does not understand the request for {path}", words, "check that the server is WebHDFS of Hadoop 3"
        )
    return TemporaryError(
        f"{host} failed at {path}",
        f"{exception}: {words}",
        "Hathi tries it again; if it lasts, see the server's log",
        2.0,
    )


def _unbelieved(host: str, words: str, settings: Hdfs) -> PipelineError:
    if "Clock skew" in words or "not yet valid" in words:
        return tickets.skewed(f"{host}: {words}")
    if settings.authentication == "simple":
        hint = 'set lakes.*.hdfs.authentication = "kerberos", with principal and keytab'
        return PermanentError(f"{host} asks for Kerberos", words, hint)
    hint = (
        "check with klist that this principal is allowed on the "
        "cluster, and use the NameNode's full name in lakes.*.url"
    )
    return PermanentError(f"{host} does not accept our Kerberos ticket", words, hint)


def _denied(words: str, path: str) -> PipelineError:
    found = _DENIED.search(words)
    if found is None:
        return Denied(
            f"HDFS does not allow access to {path}", words, "ask the administrators for the right, or use another user"
        )
    inode, user, mode = found["path"], found["user"], found["mode"]
    hint = f"as the owner: hdfs dfs -chown {user} {inode}, or hdfs dfs -setfacl -m user:{user}:rwx {inode}"
    if found["owner"] == user:  # its own bits decide, whatever else is granted
        hint = f"as the owner: hdfs dfs -chmod u+rwx {inode}; ask who took the right away"
    said = f"{found['access']} of {path}: {inode} is {mode} {found['owner']}:{found['group']}"
    return Denied(f"user {user} is not allowed at {inode}", said, hint)


def _over_quota(exception: str, words: str, path: str) -> PipelineError:
    found = _QUOTA.search(words)
    folder = found["path"] if found else path
    clear, kind = ("-clrQuota", "names") if exception.startswith("NS") else ("-clrSpaceQuota", "space")
    hint = (
        f"delete files there, or raise the quota: hdfs dfsadmin {clear.replace('clr', 'set')} N {folder}; "
        "Hathi then continues by itself"
    )
    return TemporaryError(f"the {kind} quota of {folder} is exceeded", words, hint, _MINUTES)


def _remote(response: requests.Response) -> tuple[str, str]:
    """Name and first line of Hadoop's exception; no name where something else answered."""
    try:
        found = response.json()["RemoteException"]
        return str(found["exception"]), _line(str(found.get("message", "")))
    except (ValueError, KeyError, TypeError):
        title = re.search(r"<title>(.*?)</title>", response.text, re.IGNORECASE | re.DOTALL)
        return "", _line(title[1] if title else response.reason or "")


def _line(words: str) -> str:
    return next((line.strip() for line in words.splitlines() if line.strip()), "")[:500]


def _unsent(error: requests.RequestException) -> bool:
    """Whether the request cannot have reached a server: there was no connection."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, urllib3.exceptions.NewConnectionError | urllib3.exceptions.NameResolutionError)


def _nameless(error: requests.RequestException) -> bool:
    """Whether no address was found for the name."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, urllib3.exceptions.NameResolutionError)


def _innermost(error: BaseException) -> str:
    """The cause that says most: the operating system's where there is one."""
    seen: BaseException = error
    while (below := seen.__cause__ or seen.__context__) is not None:
        seen = below
    words = str(seen) or str(error)
    return f"{type(seen).__name__}: {words}"[:300]
