"""What a tenant is told of an error: its words, without where the service's hosts and stores are.

Texts of errors, of children and of nets come from everywhere: a store that names its folder or its server, a library's
trace with the folder it is installed in.  What is the tenant's own stays: layers, files of its archive, ids, keys below
its own prefix.  The whole text is for the service's log.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pipeline.service.keys import TOP

PATH, ADDRESS = "[path]", "[address]"
_STOP = r"\s'\"|,;()<>\[\]"
_PATH = re.compile(rf"(?<![\w.\-/:#~%\]])/(?:[^{_STOP}:/]+/+)+(?:[^{_STOP}:]*[^{_STOP}:.])?")
"""An absolute path of two names at least.  Behind a letter or `#` it is none: `conv1/3x3`, `#/net`."""
_OWN = re.compile(rf"/({TOP}te_[^{_STOP}]*)$")
_STORES = re.compile(rf"\b(?!https?://)[a-z][a-z0-9+.\-]*://[^{_STOP}]+")
_WEB = re.compile(rf"\bhttps?://[^{_STOP}]+")


def within(text: str, folder: str) -> str:
    """The text with what lies in the folder where the work was done by its name there."""
    return re.sub(rf"{re.escape(folder)}(/|(?![\w\-]))", lambda found: "" if found[1] else ".", text)


def neutral(text: str, *, web: bool = True) -> str:
    """The text with paths and addresses of the service replaced.

    web: URLs of http, too; not where they are the tenant's own.
    """
    text = _STORES.sub(_key_or(ADDRESS), text)
    if web:
        text = _WEB.sub(_key_or(ADDRESS), text)
    return _PATH.sub(_key_or(PATH), text)


def _key_or(word: str) -> Callable[[re.Match[str]], str]:
    def replaced(found: re.Match[str]) -> str:
        own = _OWN.search(found[0])
        return own[1] if own else word

    return replaced
