"""How the programs run, speak, and are watched."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from pipeline.settings.reading import FilePath
from pipeline.settings.section import Section


class Daemon(Section):
    """How daemons and processes work, and how their death is noticed."""

    poll_seconds: Annotated[float, Field(gt=0)] = 60.0
    """The pause between two looks for work, seconds. Lower it to deliver sooner; each look costs a few requests."""
    beat_seconds: Annotated[float, Field(gt=0)] = 120.0
    """How often a process says in the bucket that it lives, seconds. Keep it under a third of alive_seconds."""
    alive_seconds: Annotated[float, Field(gt=0)] = 360.0
    """A process that has said nothing for this long, seconds by the store's clock, counts as dead, and others take
    its work. Set it alike on every host."""
    watchdog_seconds: Annotated[float, Field(gt=0)] = 900.0
    """A process that has work and fetches, computes and commits nothing for this long, seconds, writes down its
    stacks and kills itself; cron or the supervisor starts it again."""


class Logs(Section):
    """Log files."""

    folder: FilePath = "../logs"
    """The folder of log files, one for each program."""
    max_bytes: Annotated[int, Field(ge=1024)] = 16 * 2**20
    """The size at which a log file is rotated, bytes."""
    keep: Annotated[int, Field(ge=0)] = 5
    """How many rotated files of each program are kept."""
    echo: bool = True
    """Also print log lines on stderr. Turn it off where a supervisor would keep them a second time."""
    redact_queries: bool = True
    """Keep the query, user and password of URLs out of logs, failures and reports, since they can be secrets. Turn
    it off only where no URL is signed and consumers need whole URLs in failures."""


class Health(Section):
    """When `hathi health` and daemons say Warning or Alert."""

    every_seconds: Annotated[float, Field(gt=0)] = 300.0
    """How often daemons look at the health, seconds. Each look costs a few requests."""
    warning_hours: Annotated[float, Field(gt=0)] = 6.0
    """Warning when nothing was delivered for this long while images wait, hours. Raise it where lists need longer
    than that."""
    alert_hours: Annotated[float, Field(gt=0)] = 12.0
    """Alert when nothing was delivered for this long while images wait, hours."""
    disk_percent: Annotated[float, Field(gt=0, le=100)] = 90.0
    """Alert when a local disk is fuller than this, percent."""
    ticket_hours: Annotated[float, Field(ge=0)] = 4.0
    """Alert when a Kerberos ticket or temporary keys end sooner than this, hours, and nothing renews them."""
    clock_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Alert when this host's clock and a store's differ by more, seconds."""
    failed_percent: Annotated[float, Field(ge=0, le=100)] = 50.0
    """Warning when more than this share of a partner's images of the last day has no feature, percent. Raise it for
    partners whose lists are always half dead; 100: never."""
    failed_refs: Annotated[int, Field(ge=1)] = 100
    """Partners with fewer images in a day are not judged by failed_percent. Raise it where small lists raise too
    many warnings."""


class Notify(Section):
    """Who is told when the health changes: by mail or webhook, nobody when nothing is set."""

    mail_to: list[str] = []
    """Mail addresses that hear of every change of the health. Empty: nobody does by mail."""
    mail_from: str = "hathi@localhost"
    """The sender of these mails. Change it where the mail server refuses strangers."""
    smtp_host: str = "localhost"
    """The mail server."""
    smtp_port: Annotated[int, Field(ge=1, le=65535)] = 25
    """The mail server's port: 25, 587 (STARTTLS) or 465 (TLS from the first byte)."""
    smtp_tls: bool = False
    """Begin TLS before anything is said: on port 465 from the first byte, else by STARTTLS. Turn it on wherever the
    server can."""
    smtp_user: str | None = Field(default=None, examples=["hathi"])
    """The user name for the mail server. none: it takes mail without."""
    smtp_password: SecretStr | None = Field(default=None, examples=["..."])
    """The password for the mail server; it is never printed. Better set as the variable HATHI_NOTIFY__SMTP_PASSWORD."""
    webhook: SecretStr | None = Field(default=None, examples=["https://chat.example.org/hook"])
    """A URL that gets the same news as JSON by POST: a chat, a pager. It may hold a token, so it is never printed;
    better set as the variable HATHI_NOTIFY__WEBHOOK."""


class Metrics(Section):
    """Figures for Prometheus."""

    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(default=None, examples=[9464])
    """The port on which daemons answer Prometheus; a second daemon of the host takes the next one. none: they do not
    answer."""
    address: str = "127.0.0.1"
    """The address on which they answer. 0.0.0.0 lets other hosts ask: anybody in the network can then."""
    file: FilePath | None = Field(default=None, examples=["/var/lib/node_exporter/hathi.prom"])
    """A file for the figures of runs from cron, read by the node exporter's textfile collector; its name ends in
    .prom. none: no file."""
