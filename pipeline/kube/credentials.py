"""Who the operator is to the API server: its service account in a pod, or what a kubeconfig says."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
FRESH_SECONDS = 60.0
"""How long a token that was read is used: the kubelet renews the file about hourly."""


@dataclass
class Credentials:
    """A server and how to be known to it.  token: read anew each minute; ca, cert, key: files, "" where there is none.

    server: `https://HOST:PORT`.  namespace: the one that is meant where none is named.
    """

    server: str
    namespace: str = "default"
    token: Callable[[], str] = lambda: ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    made: list[str] = field(default_factory=list, repr=False)
    """Files with secrets that were made of a kubeconfig's inline data; deleted by `close`."""

    def close(self) -> None:
        for path in self.made:
            Path(path).unlink(missing_ok=True)
        self.made.clear()


def token_file(path: Path, monotonic: Callable[[], float]) -> Callable[[], str]:
    """A token that is read from its file again each minute.  The function raises ConfigError."""
    kept: list[tuple[float, str]] = []

    def token() -> str:
        now = monotonic()
        if not kept or now - kept[0][0] > FRESH_SECONDS:
            try:
                kept[:] = [(now, path.read_text().strip())]
            except OSError as error:
                raise ConfigError("the service account's token cannot be read", str(error)) from error
        return kept[0][1]

    return token


def in_pod(environ: Mapping[str, str], monotonic: Callable[[], float], folder: Path = IN_POD) -> Credentials | None:
    """The service account of the pod that we run in; None outside of a cluster."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (folder / "token").is_file():
        return None
    named = f"[{host}]" if ":" in host else host
    space = folder / "namespace"
    return Credentials(
        server=f"https://{named}:{port}",
        namespace=space.read_text().strip() if space.is_file() else "default",
        token=token_file(folder / "token", monotonic),
        ca=str(folder / "ca.crt"),
    )


def of_kubeconfig(path: Path, monotonic: Callable[[], float], context: str = "") -> Credentials:
    """What a kubeconfig's context says: a token, a token's file or a client certificate.

    A kubeconfig is YAML; only JSON is read here, which `kubectl config view --raw --flatten -o json` prints.
    Raises ConfigError; programs that make tokens (`exec`) are refused by name.
    """
    try:
        body = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError("the kubeconfig cannot be read", str(error)) from error
    except ValueError as error:
        hint = (
            f"kubectl config view --raw --flatten -o json > kubeconfig.json; then --kubeconfig kubeconfig.json ({path})"
        )
        raise ConfigError("the kubeconfig is not JSON", str(error), hint) from error
    try:
        return _of_body(body, context or body.get("current-context", ""), monotonic)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError("the kubeconfig lacks something", f"{path}: {error!r}", "see kubectl config view") from error


def find(
    environ: Mapping[str, str], monotonic: Callable[[], float], kubeconfig: str = "", context: str = ""
) -> Credentials:
    """`kubeconfig`, else $KUBECONFIG, else the pod's service account.  Raises ConfigError where there is none."""
    if not kubeconfig and not environ.get("KUBECONFIG"):
        inside = in_pod(environ, monotonic)
        if inside is not None:
            return inside
    path = kubeconfig or environ.get("KUBECONFIG", "")
    if not path:
        hint = "name one: --kubeconfig FILE, made by kubectl config view --raw --flatten -o json > FILE"
        raise ConfigError("there is no kubeconfig, and this is no pod", "", hint)
    return of_kubeconfig(Path(path), monotonic, context)


def _of_body(body: Mapping[str, Any], context: str, monotonic: Callable[[], float]) -> Credentials:
    chosen = _named(body["contexts"], context)["context"]
    cluster = _named(body["clusters"], chosen["cluster"])["cluster"]
    user = _named(body["users"], chosen["user"])["user"]
    if "exec" in user or "auth-provider" in user:
        raise ConfigError(
            "the kubeconfig gets its token from a program, which Hathi does not run",
            str(chosen["user"]),
            "kubectl create token SERVICE_ACCOUNT makes one",
        )
    found = Credentials(cluster["server"], chosen.get("namespace") or "default")
    if "token" in user:
        word = str(user["token"])
        found.token = lambda: word
    elif "tokenFile" in user:
        found.token = token_file(Path(user["tokenFile"]), monotonic)
    found.ca = _file(found, cluster, "certificate-authority")
    found.cert = _file(found, user, "client-certificate")
    found.key = _file(found, user, "client-key")
    return found


def _named(entries: list[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    for each in entries:
        if each["name"] == name:
            return each
    raise ConfigError("the kubeconfig does not have what its context names", name, "kubectl config get-contexts")


def _file(found: Credentials, body: Mapping[str, Any], name: str) -> str:
    """A file that the kubeconfig names, or one of ours with what it holds inline."""
    inline = body.get(f"{name}-data")
    if not inline:
        return str(body.get(name) or "")
    handle, path = tempfile.mkstemp(prefix="hathi-kube-")
    with os.fdopen(handle, "wb") as file:
        file.write(base64.b64decode(inline))
    found.made.append(path)
    return path
