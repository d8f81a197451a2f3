"""How the programs run, speak, and are watched."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from pipeline.configuration import FilePath
from pipeline.settings.section import Section


class Daemon(Section):
    poll_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Between two looks for work."""
    beat_seconds: Annotated[float, Field(gt=0)] = 120.0
    """Between two signs of life of a process in the bucket."""
    alive_seconds: Annotated[float, Field(gt=0)] = 360.0
    """A process without a sign of life for so long counts as dead, by the store's clock."""
    watchdog_seconds: Annotated[float, Field(gt=0)] = 900.0
    """A process at work that fetches, computes and commits nothing for so long dumps its stacks and kills itself."""


class Logs(Section):
    folder: FilePath = "../logs"
    """One file for each program."""
    max_bytes: Annotated[int, Field(ge=1024)] = 16 * 2**20
    """Of one file, before it is rotated."""
    keep: Annotated[int, Field(ge=0)] = 5
    """Rotated files that are kept."""
    echo: bool = True
    """Print the lines on stderr, too."""
    redact_queries: bool = True
    """Keep the query and the user of a URL out of logs, failures and reports: it can be a secret."""


class Health(Section):
    every_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Daemons look at the health so often."""
    warning_hours: Annotated[float, Field(gt=0)] = 6.0
    """Warning: nothing was sent for so long while refs wait."""
    alert_hours: Annotated[float, Field(gt=0)] = 12.0
    """Alert: nothing was sent for so long while refs wait."""
    disk_percent: Annotated[float, Field(gt=0, le=100)] = 90.0
    """Alert: a local disk that is fuller."""
    ticket_hours: Annotated[float, Field(ge=0)] = 4.0
    """Alert: a Kerberos ticket that ends sooner and that nothing renews."""
    clock_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Alert: this host's clock and a store's differ by more."""
    failed_percent: Annotated[float, Field(ge=0, le=100)] = 50.0
    """Warning: more than this share of a partner's images of the last day has no feature.  100: never."""
    failed_refs: Annotated[int, Field(ge=1)] = 100
    """Partners with fewer images in a day are not judged by that share."""


class Notify(Section):
    """Who is told when the health changes."""

    mail_to: list[str] = []
    """Mail addresses."""
    mail_from: str = "hathi@localhost"
    """The sender of these mails."""
    smtp_host: str = "localhost"
    """The mail server,"""
    smtp_port: Annotated[int, Field(ge=1, le=65535)] = 25
    """and its port."""
    smtp_tls: bool = False
    """Begin TLS before anything is said: on port 465 from the first byte, else by STARTTLS."""
    smtp_user: str | None = None
    """Where the mail server wants to know who sends."""
    smtp_password: SecretStr | None = None
    """Better as a variable."""
    webhook: SecretStr | None = None
    """A URL that gets the same as JSON, by POST; it may hold a token, so it is not printed."""


class Metrics(Section):
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Daemons answer Prometheus on this port (the second daemon of a gateway on the next one)."""
    address: str = "127.0.0.1"
    """The address that they listen on."""
    file: FilePath | None = None
    """Runs from cron write their figures here, for the node exporter's textfile collector (ends in .prom)."""
