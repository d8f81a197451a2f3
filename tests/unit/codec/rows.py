"""Rows of shards, for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.codec.shards import FailureRow, FeatureRow

NOON = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)


def feature(partner_id: int, item_id: int, ordinal: int, **more: Any) -> FeatureRow:
    """A feature whose other columns follow from its ordinal."""
    cells: dict[str, Any] = {
        "external_id": f"SKU-{item_id}",
        "url": f"http://a/{ordinal}?key=secret",
        "content_sha256": ordinal.to_bytes(32, "big"),
        "fetched_at": NOON + timedelta(microseconds=ordinal),
    }
    return FeatureRow(partner_id, item_id, ordinal, **cells | more)


def failure(partner_id: int, item_id: int, ordinal: int, **more: Any) -> FailureRow:
    """A failure whose other columns follow from its ordinal."""
    cells: dict[str, Any] = {
        "external_id": f"SKU-{item_id}",
        "url": f"http://a/{ordinal}?key=secret",
        "reason": "http_4xx",
        "retriable": False,
        "detail": "404",
    }
    return FailureRow(partner_id, item_id, ordinal, **cells | more)
