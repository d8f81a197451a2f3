"""Telling people and programs that the health has changed: by mail and by webhook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from pipeline.errors import TemporaryError
from pipeline.operations.health.judge import Finding, Level
from pipeline.process.installed import located
from pipeline.process.logs import escape, redact
from pipeline.process.redaction import redact_tree
from pipeline.settings import Notify
from pipeline.times import readable_time

if TYPE_CHECKING:
    import smtplib

SECONDS = 20.0
"""A server that is silent for so long has not been told."""
SMTPS = 465
"""On this port TLS begins with the first byte; on others by STARTTLS."""


@dataclass(frozen=True)
class News:
    """What is told."""

    host: str
    at: float
    level: Level
    findings: tuple[Finding, ...]
    over: tuple[str, ...] = ()
    """Keys of findings that the channel was told of and that are over."""

    @property
    def title(self) -> str:
        """One line."""
        first = f": {self.findings[0].text}" if self.findings else ""
        more = f" and {len(self.findings) - 1} more" if len(self.findings) > 1 else ""
        return escape(redact(f"Hathi on {self.host}: {self.level.word}{first}{more}"))

    @property
    def text(self) -> str:
        """A line for each finding, one for what to do, and what is over."""
        lines = [f"{self.level.word} on {self.host} at {readable_time(self.at)}"]
        for one in self.findings:
            since = f" (since {readable_time(one.since)})" if one.since is not None else ""
            lines.append(escape(redact(f"{one.level.word}: {one.text}{since}")))
            if one.hint:
                lines.append(escape(redact(located(f"  to do: {one.hint}"))))
        lines += [escape(redact(f"resolved: {key}")) for key in self.over]
        return "\n".join(lines) + "\n"

    def as_json(self) -> dict[str, Any]:
        """For a webhook; `text` is what chat servers show."""
        return {
            "host": self.host,
            "at": readable_time(self.at),
            "level": self.level.word,
            "findings": [as_json(one) for one in self.findings],
            "over": redact_tree(self.over),
            "text": f"{self.title}\n{self.text}",
        }


def as_json(one: Finding) -> dict[str, Any]:
    """A finding for programs."""
    since = None if one.since is None else readable_time(one.since)
    return {
        "level": one.level.word,
        "key": one.key,
        "text": redact(one.text),
        "hint": redact(located(one.hint)),
        "since": since,
    }


class Channel(Protocol):
    """Somebody who is told."""

    @property
    def name(self) -> str:
        """As the log and the memory know it."""

    def tell(self, news: News) -> str:
        """A complaint where not everybody was reached.  Raises TemporaryError, without secrets: tell it again."""


def channels(settings: Notify) -> Sequence[Channel]:
    """Those that are configured."""
    found: list[Channel] = []
    if settings.mail_to:
        found.append(Mail(settings))
    if settings.webhook is not None:
        found.append(Webhook(settings.webhook.get_secret_value()))
    return found


@dataclass(frozen=True)
class Mail:
    """One mail to all addresses (RFC 5321 by smtplib)."""

    settings: Notify

    name = "mail"

    def tell(self, news: News) -> str:
        import smtplib  # only where there is something to tell
        from email.message import EmailMessage

        settings = self.settings
        where = f"{settings.smtp_host}:{settings.smtp_port}"
        try:
            message = EmailMessage()
            message["Subject"] = news.title[:200]
            message["From"] = settings.mail_from
            message["To"] = ", ".join(settings.mail_to)
            message.set_content(news.text)
            with self._connected() as server:
                refused = server.send_message(message)
        except smtplib.SMTPResponseException as error:
            said = f"{error.smtp_code} {_text(error.smtp_error)}"
            raise self._trouble(where, said) from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise self._trouble(where, f"{type(error).__name__}: {error}") from None
        return f"the mail server {where} refused {', '.join(sorted(refused))}" if refused else ""

    def _connected(self) -> smtplib.SMTP:
        import smtplib
        import ssl

        settings = self.settings
        if settings.smtp_tls and settings.smtp_port == SMTPS:
            context = ssl.create_default_context()
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                settings.smtp_host, settings.smtp_port, timeout=SECONDS, context=context
            )
        else:
            server = smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=SECONDS)
        try:
            if settings.smtp_tls and settings.smtp_port != SMTPS:
                server.starttls(context=ssl.create_default_context())
            if settings.smtp_user is not None:
                password = settings.smtp_password
                server.login(settings.smtp_user, password.get_secret_value() if password is not None else "")
        except BaseException:
            server.close()
            raise
        return server

    def _trouble(self, where: str, said: str) -> TemporaryError:
        password = self.settings.smtp_password
        if password is not None and password.get_secret_value():
            said = said.replace(password.get_secret_value(), "********")
        return TemporaryError(f"the mail server {where} did not take the mail", escape(said), "look at [notify]")


@dataclass(frozen=True)
class Webhook:
    """A POST of JSON.  The URL is a secret: only its host is ever named."""

    url: str

    name = "webhook"

    def __repr__(self) -> str:
        return f"Webhook({self._where})"

    @property
    def _where(self) -> str:
        try:
            return urlsplit(self.url).hostname or "no host"
        except ValueError:
            return "no host"

    def tell(self, news: News) -> str:
        import requests  # takes its time to import, and few need it

        try:
            answer = requests.post(self.url, json=news.as_json(), timeout=SECONDS, allow_redirects=False)
        except (requests.RequestException, ValueError) as error:
            raise self._trouble(type(error).__name__) from None  # its text may hold the URL
        if not 200 <= answer.status_code < 300:
            raise self._trouble(f"status {answer.status_code}")
        return ""

    def _trouble(self, said: str) -> TemporaryError:
        return TemporaryError(f"the webhook at {self._where} did not take the message", said, "look at notify.webhook")


def _text(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said
