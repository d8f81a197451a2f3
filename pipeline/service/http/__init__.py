"""The service's REST: OpenAPI 3.1, problems by RFC 9457, signed cursors, ETags, Idempotency-Keys."""
