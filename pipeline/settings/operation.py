"""How programs run, log, report their health and show metrics."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from pipeline.settings.reading import FilePath
from pipeline.settings.section import Section


class Daemon(Section):
    """How daemons and processes work, and how other hosts notice that one has died."""

    poll_seconds: Annotated[float, Field(gt=0)] = 60.0
    """The pause between two looks for work, seconds. Lower it to deliver sooner; each look costs a few requests."""
    beat_seconds: Annotated[float, Field(gt=0)] = 120.0
    """How often a process writes its sign of life (its beat) to the bucket, seconds. Keep it under a third of
    alive_seconds."""
    alive_seconds: Annotated[float, Field(gt=0)] = 360.0
    """A process without a beat for this long, seconds by the store's clock, counts as dead, and other processes take
    over its work. Set the same value on every host."""
    parting_seconds: Annotated[float, Field(ge=2)] = 25.0
    """How long a training in the bucket may go on with the upload of its snapshot once its process is asked to end,
    seconds. Keep it under the time after which your supervisor kills: 30 in Kubernetes, 90 in systemd."""
    watchdog_seconds: Annotated[float, Field(gt=0)] = 900.0
    """A process that has work and fetches, computes and commits nothing for this long, seconds, writes its stacks to
    a file and kills itself; cron or the supervisor starts it again. Raise it where one step really takes longer."""


class Logs(Section):
    """Log files."""

    folder: FilePath = "../logs"
    """The folder of log files, one for each program; by default beside the default of state. Put it on a disk with room
    for max_bytes times keep for each program."""
    max_bytes: Annotated[int, Field(ge=1024)] = 16 * 2**20
    """The size at which a log file is rotated, bytes. Lower it where the disk is small."""
    keep: Annotated[int, Field(ge=0)] = 5
    """How many rotated files of each program are kept. Raise it to look further back."""
    echo: bool = True
    """Also print log lines, and how far a run has come, on stderr. Turn it off where a supervisor stores stderr as
    well."""
    redact_queries: bool = True
    """Keep the query, user and password of URLs out of logs, failures and reports: they can be secrets. Turn it off
    only where no URL is signed and readers of failures need whole URLs."""


class Health(Section):
    """When `hathi health` and the daemons say Warning or Alert."""

    every_seconds: Annotated[float, Field(gt=0)] = 300.0
    """How often the daemons judge the health, seconds. Lower it to hear of trouble sooner; each look costs a few
    requests."""
    warning_hours: Annotated[float, Field(gt=0)] = 6.0
    """Warning when nothing was delivered for this long although images wait, hours. Raise it where a list takes longer
    than that."""
    alert_hours: Annotated[float, Field(gt=0)] = 12.0
    """Alert when nothing was delivered for this long although images wait, hours. Raise it together with
    warning_hours."""
    disk_percent: Annotated[float, Field(gt=0, le=100)] = 90.0
    """Alert when a local disk is fuller than this, percent. Lower it to be told earlier."""
    ticket_hours: Annotated[float, Field(ge=0)] = 4.0
    """Alert when a Kerberos ticket or temporary keys end within this time and nothing renews them, hours. Raise it to
    be told earlier."""
    clock_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Alert when the clock of this host and the clock of a store differ by more than this, seconds. Kerberos and S3
    refuse requests from about 300 s on."""
    failed_percent: Annotated[float, Field(ge=0, le=100)] = 50.0
    """Warning when more than this share of a partner's images of the last day has no feature, percent. Raise it
    where half of the images are always missing; 100: never warn."""
    failed_refs: Annotated[int, Field(ge=1)] = 100
    """Partners with fewer images in a day are not judged by failed_percent. Raise it where small lists raise too
    many warnings."""
    silent_days: Annotated[float, Field(gt=0)] = 2.0
    """Warning when a partner's source has not been renewed for this long, days, and for twice as long as it ever paused
    before. Raise it where partners often pause."""
    gateway_minutes: Annotated[float, Field(gt=0)] = 30.0
    """Warning when a daemon of the gateway, ship or deliver, has given no sign of life in the bucket for this long,
    minutes. Every host judges it, so boxes tell when the gateway is dead. Raise it where daemons are stopped for longer
    on purpose."""


class Notify(Section):
    """Where Hathi reports each change of the health, by mail or webhook. When nothing is set, it reports to nobody."""

    mail_to: list[str] = []
    """The mail addresses that get each change of the health. Empty: no mail is sent."""
    mail_from: str = "hathi@localhost"
    """The sender of these mails. Change it if the mail server refuses this address."""
    smtp_host: str = "localhost"
    """The mail server's host name. Set it where this host runs no mail server."""
    smtp_port: Annotated[int, Field(ge=1, le=65535)] = 25
    """The mail server's port: 25, 587 (STARTTLS) or 465 (TLS from the first byte)."""
    smtp_tls: bool = False
    """Encrypt the connection with TLS: on port 465 from the first byte, elsewhere by STARTTLS. Turn it on wherever the
    server supports it."""
    smtp_user: str | None = Field(default=None, examples=["hathi"])
    """The user name for the mail server. none: the server takes mail without a login."""
    smtp_password: SecretStr | None = Field(default=None, examples=["..."])
    """The password for the mail server; it is never printed. Set it as the variable HATHI_NOTIFY__SMTP_PASSWORD."""
    webhook: SecretStr | None = Field(default=None, examples=["https://chat.example.org/hook"])
    """A URL that gets the same news as JSON by POST: a chat, a pager. It may contain a token, so it is never printed;
    set it as the variable HATHI_NOTIFY__WEBHOOK rather than here."""


class Metrics(Section):
    """Metrics for Prometheus."""

    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(default=None, examples=[9464])
    """The port on which a daemon serves metrics; a second daemon of the host takes the next port. none: Hathi opens no
    port."""
    address: str = "127.0.0.1"
    """The address of that port. Set 0.0.0.0 to let other hosts read the metrics; everybody in the network can then read
    them."""
    file: FilePath | None = Field(default=None, examples=["/var/lib/node_exporter/hathi.prom"])
    """A file into which runs from cron and trainings write their metrics, for the node exporter's textfile collector;
    its name must end in .prom. none: Hathi writes no file."""
