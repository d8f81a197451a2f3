"""How Hathi was installed here, and what a person types because of it.

A checkout has scripts/, run-all.sh and locks/; a package (pip, uv, a wheel) has the command `hathi` alone.  What
messages tell a person to type stands here in both forms, so that each names what this host has.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path

_CODE = Path(__file__).resolve().parents[1]
PACKAGED = (_CODE / "share").is_dir()
"""Whether Hathi was installed as a package; else this is a checkout."""
INSTALLATION = _CODE / "share" if PACKAGED else _CODE.parent
"""The folder that holds config/, docs/, proto/ and sample/; in a checkout, the code, scripts/ and locks/ too."""
HOME = Path(sys.prefix) if PACKAGED else INSTALLATION
"""The folder that a crontab line has to lead to."""

LAST_LINES = 'tail "$(hathi config get logs.folder)"/*.log' if PACKAGED else "scripts/print_logs.sh"
"""What shows the last log lines of this host's programs."""
START_DAEMONS = "`hathi serve ship` and `hathi serve deliver`" if PACKAGED else "./run-all.sh CONFIG"
"""What starts a gateway's daemons."""
RUN_ONCE = "hathi run --once --config CONFIG" if PACKAGED else "scripts/compute-cron.sh CONFIG"
"""What cron calls on a compute box."""
RENEW = "install Hathi anew with it" if PACKAGED else "scripts/venv.sh runtime"
"""What brings the packages to the versions that Hathi wants."""
_PACKAGE = {"index": "usearch", "linear": "numba", "training": "h5py"}
"""The package of an extra that has no script and another name."""
_PROJECT = "hathi-features"
_NAMED = re.compile(r"(?<![\w/.-])(?:config|docs|proto|sample)/[\w.-]*\w")


def to_install(extra: str) -> str:
    """The command that installs an optional part: an extra of the project, such as `index`, `kerberos` or `torch`."""
    if PACKAGED:
        return " ".join([*_installer(), *(f"'{name}'" for name in _packages(extra))])
    script = f"scripts/{extra}.sh"
    return script if (INSTALLATION / script).is_file() else f".venv/bin/uv pip install {_PACKAGE.get(extra, extra)}"


def to_install_alone(extra: str, package: str) -> str:
    """The command that installs a package without its dependencies, which Hathi does not need; a checkout's script of
    the extra does so as well."""
    return " ".join([*_installer(), "--no-deps", package]) if PACKAGED else to_install(extra)


def _installer() -> list[str]:
    """What installs into the environment of this process: its own pip, where it has one."""
    return (
        [sys.executable, "-m", "pip", "install"]
        if find_spec("pip") is not None
        else ["uv", "pip", "install", "--python", sys.executable]
    )


def _packages(extra: str) -> list[str]:
    """The packages of an extra, as this distribution itself names them."""
    try:
        wanted = requires(_PROJECT) or []
    except PackageNotFoundError:  # copied, not installed
        wanted = []
    named = [one.partition(";")[0].strip() for one in wanted if re.search(rf"extra == ['\"]{extra}['\"]", one)]
    return named or [f"{_PROJECT}[{extra}]"]


def located(text: str) -> str:
    """A message in which files that came with a package are named by their whole path."""
    return _NAMED.sub(lambda found: _path_of(found[0]), text) if PACKAGED else text


def _path_of(name: str) -> str:
    path = INSTALLATION / name
    return str(path) if path.exists() else name
