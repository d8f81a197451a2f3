"""Kerberos tickets for asking a web server: from a keytab or from a ticket cache, and why there are none.

Each lake has credentials of its own, given to GSSAPI explicitly (RFC 2743; MIT's credential store extension): nothing
in the environment is changed, and two lakes with two keytabs live in one process.  `gssapi` is an extra: it compiles
against libkrb5-dev, so it is imported only where a lake asks for Kerberos.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.clock import Clock, random_nonce
from pipeline.errors import ConfigError, PermanentError, PipelineError, TemporaryError
from pipeline.process.installed import to_install
from pipeline.settings import Hdfs

_KRB5 = "1.2.840.113554.1.2.2"
_KEYTAB_BEGINS = b"\x05"
# Numbers of krb5_err.et (MIT), which GSSAPI gives as 32 bits without sign.
_BASE = -1765328384
_UNKNOWN_CLIENT = _BASE + 6
_UNKNOWN_SERVER = _BASE + 7
_REVOKED = _BASE + 18
_PREAUTH_FAILED = _BASE + 24
_BAD_INTEGRITY = _BASE + 31
_TICKET_EXPIRED = _BASE + 32
_TICKET_NOT_YET = _BASE + 33
_SKEW = _BASE + 37
_KDC_REPLY_SKEW = _BASE + 137
_CACHE_NOT_FOUND = _BASE + 141
_REALM_UNKNOWN = _BASE + 154
_KDC_UNREACHABLE = _BASE + 156
_KEYTAB_NO_ENTRY = _BASE + 181
_CACHE_NO_FILE = _BASE + 195
_REALM_UNRESOLVED = _BASE + 220


class Handshake:
    """One proof of who we are, and of who answers."""

    def __init__(self, context: Any, first: bytes) -> None:
        self._context = context
        self.token = first

    def believe(self, answer: bytes) -> bool:
        """Whether the answer is of the server that was meant."""
        import gssapi

        try:
            self._context.step(answer)
        except gssapi.exceptions.GSSError:
            return False
        return bool(self._context.complete)


@dataclass(frozen=True)
class Held:
    """Credentials that are there now.  ends: seconds since 1970."""

    principal: str
    ends: float


class Tickets:
    """The tickets of one lake.  Every error names the cause and what to type."""

    def __init__(self, settings: Hdfs, clock: Clock | None = None) -> None:
        """Raises ConfigError where the Python package is not installed."""
        try:
            import gssapi
        except ImportError as error:
            raise ConfigError(
                "Kerberos needs the Python package gssapi",
                str(error),
                f"sudo apt-get install libkrb5-dev gcc, then {to_install('kerberos')}",
            ) from error
        self._gssapi = gssapi
        self._settings = settings
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._store = None
        if settings.keytab is not None:
            # A cache in memory, so that the KDC is asked once in a ticket's life and no file of a person is touched.
            self._store = {"client_keytab": f"FILE:{settings.keytab}", "ccache": f"MEMORY:hathi-{random_nonce()}"}
        elif settings.ticket_cache is not None:
            self._store = {"ccache": f"FILE:{settings.ticket_cache}"}

    def held(self) -> Held:
        """Who we are believed to be, and until when.  A keytab is used to get a ticket where none is there."""
        try:
            with self._lock:
                credentials = self._credentials()
                return Held(str(credentials.name), self._clock.now() + float(credentials.lifetime))
        except self._gssapi.exceptions.GSSError as error:
            raise self._explained(error, "") from error

    def end(self) -> float | None:
        """When the ticket ends, seconds since 1970; None where a keytab renews it."""
        return None if self._settings.keytab is not None else self.held().ends

    def handshake(self, host: str) -> Handshake:
        """The first token for `HTTP/host` (RFC 4559)."""
        gssapi = self._gssapi
        try:
            with self._lock:
                context = gssapi.SecurityContext(
                    name=gssapi.Name(f"HTTP@{host}", gssapi.NameType.hostbased_service),
                    creds=self._credentials(),
                    usage="initiate",
                    mech=gssapi.OID.from_int_seq(_KRB5),
                    flags=gssapi.RequirementFlag.mutual_authentication,
                )
                return Handshake(context, bytes(context.step()))
        except gssapi.exceptions.GSSError as error:
            raise self._explained(error, host) from error

    def _credentials(self) -> Any:
        gssapi, principal = self._gssapi, self._settings.principal
        name = gssapi.Name(principal, gssapi.NameType.kerberos_principal) if principal else None
        credentials = gssapi.Credentials(name=name, usage="initiate", store=self._store)
        credentials.lifetime  # noqa: B018  raises where it is over
        return credentials

    def _explained(self, error: Any, host: str) -> PipelineError:
        if self._settings.keytab is not None and (wrong := _keytab_wrong(Path(self._settings.keytab))):
            return wrong
        number = int(error.min_code) - 2**32 if error.min_code > 2**31 else int(error.min_code)
        expired = isinstance(error, self._gssapi.exceptions.ExpiredCredentialsError)
        return explained(_TICKET_EXPIRED if expired else number, _said(error), self._settings, host)


def explained(number: int, said: str, settings: Hdfs, host: str = "") -> PipelineError:
    """A krb5 error as ours.  number: of krb5_err.et; said: Kerberos's own words; host: whom the ticket was for."""
    again, who = _kinit(settings), settings.principal or "the principal"
    if number in (_KDC_UNREACHABLE, _REALM_UNRESOLVED):
        hint = "check the network and kdc = in /etc/krb5.conf; Hathi tries it again"
        return TemporaryError("the KDC is not reachable", said, hint, 10.0)
    if number == _REALM_UNKNOWN:
        return PermanentError("the Kerberos realm is not known", said, "name the realm and its kdc in /etc/krb5.conf")
    if number in (_SKEW, _KDC_REPLY_SKEW, _TICKET_NOT_YET):
        return skewed(said)
    if number == _TICKET_EXPIRED:
        return PermanentError("the Kerberos ticket has expired", said, f"run: {again}")
    if number in (_CACHE_NOT_FOUND, _CACHE_NO_FILE):
        if settings.keytab is not None:
            hint = (
                f"list its principals with klist -kt {settings.keytab}, and set lakes.*.hdfs.principal to one of them"
            )
            return PermanentError(f"the keytab holds no key of {who}", said, hint)
        if "principal" in said and settings.principal:
            return PermanentError(
                f"the ticket is not of {who}", said, f"see whose ticket it is with klist, then run: {again}"
            )
        return PermanentError("there is no Kerberos ticket", said, f"run: {again}")
    if number == _KEYTAB_NO_ENTRY:
        hint = f"list its principals with klist -kt {settings.keytab}, and set lakes.*.hdfs.principal to one of them"
        return PermanentError(f"the keytab holds no key of {who}", said, hint)
    if number in (_PREAUTH_FAILED, _BAD_INTEGRITY):
        hint = f"its password or key was changed: ask for a new keytab, then test it with: {again}"
        return PermanentError("the KDC does not accept the key of the keytab", said, hint)
    if number in (_UNKNOWN_CLIENT, _REVOKED):
        hint = "correct lakes.*.hdfs.principal, or ask the administrators to create the principal again"
        return PermanentError(f"the KDC does not know {who}", said, hint)
    if number == _UNKNOWN_SERVER:
        hint = "use the NameNode's full name in lakes.*.url, as its keytab has it"
        return PermanentError(f"the KDC knows no service HTTP/{host}", said, hint)
    return PermanentError("Kerberos gives no ticket", said, f"test it by hand with: {again}")


def skewed(said: str) -> PipelineError:
    """The clocks differ by more than Kerberos allows, five minutes."""
    hint = "compare `date` on this host, the NameNode and the KDC; start NTP (timedatectl set-ntp true)"
    return TemporaryError("the clocks differ too much for Kerberos", said, hint, 30.0)


def _kinit(settings: Hdfs) -> str:
    cache = f"-c {settings.ticket_cache} " if settings.ticket_cache and not settings.keytab else ""
    keytab = f"-kt {settings.keytab} " if settings.keytab else ""
    return f"kinit {cache}{keytab}{settings.principal or 'PRINCIPAL'}"


def _said(error: Any) -> str:
    """Kerberos's own words: the minor status where it says something."""
    words = str(error)
    major, _, minor = words.partition(", Minor (")
    minor = minor.partition("): ")[2]
    return minor if minor and minor != "Success" else major.partition("): ")[2]


def _keytab_wrong(path: Path) -> PipelineError | None:
    """What is wrong with the file itself."""
    try:
        with path.open("rb") as file:
            begins = file.read(1)
    except FileNotFoundError:
        return PermanentError("the keytab is not there", str(path), "correct lakes.*.hdfs.keytab, or ask for a keytab")
    except OSError as error:
        hint = f"make it readable for this user alone: chown $(id -un) {path}; chmod 400 {path}"
        return PermanentError("the keytab cannot be read", f"{path}: {error.strerror}", hint)
    if begins != _KEYTAB_BEGINS:
        return PermanentError(
            "the file is no keytab", str(path), f"check it with klist -kt {path}, and ask for a new keytab"
        )
    return None
