"""SHA-256 of values and of what is made of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def digest(array: np.ndarray[Any, Any]) -> str:
    """Of an array's values as float32, little-endian, C order."""
    return hashlib.sha256(np.ascontiguousarray(array, "<f4").data).hexdigest()


def hashed(parts: Any) -> str:
    """Of plain values, as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
