"""Who promotes for the service, which lies below what knows how a model goes into use."""

from __future__ import annotations

from pipeline.service.promotion import Promoter
from pipeline.settings import Settings


def promoter_of(settings: Settings) -> Promoter | None:
    """None where the configuration grants no feature set to any tenant."""
    if not any(settings.service.promotion.values()):
        return None
    from pipeline.app.promotions import Promotions  # an API server that promotes nothing is smaller without

    return Promotions(settings)
