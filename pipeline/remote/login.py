"""The service that this person uses and the token for it: kept in a file that nobody else may read."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import requests

from pipeline.errors import ConfigError
from pipeline.remote.transport import ANSWER_SECONDS, CONNECT_SECONDS, base_of, problem_of

URL, TOKEN = "HATHI_REMOTE_URL", "HATHI_REMOTE_TOKEN"
"""Variables, which win over the file."""
_TO_LOG_IN = "hathi remote login URL"
_OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


@dataclass(frozen=True)
class Login:
    """A token is never printed, so it is not in the words of this value."""

    url: str
    token: str = field(repr=False)


def place_of(environ: Mapping[str, str]) -> Path:
    """The file: ~/.config/hathi/remote.json, or below $XDG_CONFIG_HOME."""
    base = environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base else Path.home() / ".config") / "hathi" / "remote.json"


def login_of(environ: Mapping[str, str]) -> Login:
    """What variables and file say.  Raises ConfigError where there is none, or where others may read the file."""
    url, token = environ.get(URL, ""), environ.get(TOKEN, "")
    if url and token:
        return Login(base_of(url), token)
    kept = _kept(place_of(environ))
    if kept is None:
        missing = f"${TOKEN} is not set" if url else f"${URL} is not set" if token else "nobody has logged in here"
        raise ConfigError("it is not known which service is asked, and as whom", missing, _TO_LOG_IN)
    if url and base_of(url) != kept.url:
        raise ConfigError(
            f"there is no token for {base_of(url)}", f"the one that is kept is for {kept.url}", _TO_LOG_IN
        )
    return Login(kept.url, token or kept.token)


def _kept(path: Path) -> Login | None:
    try:
        with path.open() as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(f"others may read {path}", "it holds a token", f"chmod 600 {path}, or log in anew")
            found = json.load(file)
        return Login(base_of(str(found["url"])), str(found["token"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read", f"{type(error).__name__}: {error}", _TO_LOG_IN) from error


def keep(login: Login, path: Path) -> None:
    """Writes the file, which appears whole and never is another's to read."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"url": login.url, "token": login.token}, file)
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        raise ConfigError(f"{path} cannot be written", error.strerror or str(error), f"set {TOKEN}") from error


def forget(path: Path) -> bool:
    """Whether there was a file."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def in_the_clear(url: str) -> bool:
    """Whether a token travels over a network without TLS."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")


def token_by_password(url: str, who: tuple[str, str], tenant: str = "", name: str = "hathi remote") -> str:
    """A new token of the user's own role.  who: name and password; tenant: of a user of several.

    Raises Problem where they are wrong, ConfigError where nobody answers.
    """
    body = {"username": who[0], "password": who[1], **({"tenant": tenant} if tenant else {})}
    with requests.Session() as session:
        session.auth = lambda request: request  # no entry of a ~/.netrc

        def ask(method: str, path: str, body: object = None) -> requests.Response:
            answer = session.request(
                method, base_of(url) + path, json=body, headers=_OWN_PAGE, allow_redirects=False,
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
            )  # fmt: skip
            if not answer.ok or answer.is_redirect:
                raise problem_of(answer)
            return answer

        try:
            me = ask("POST", "/v1/session", body).json()
            made = ask("POST", "/v1/tokens", {"name": name, "role": me["role"]}).json()
            ask("DELETE", "/v1/session")
        except requests.RequestException as error:
            raise ConfigError(f"{base_of(url)} does not answer", str(error), "is it running?") from error
    return str(made["token"])
