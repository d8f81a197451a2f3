"""Mistakes with promotions that look harmless, planted one at a time: the simulation has to find each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.app import promoting
from pipeline.app.candidates import Piece
from pipeline.errors import Exists, Unknown
from pipeline.ledger import promotions
from pipeline.ledger.bodies import body_of
from pipeline.ledger.promotions import PromotedFile, Promotion
from pipeline.ledger.protocol import Context
from pipeline.operations.prune import promotions as pruned
from pipeline.stages.following import Following

Plant = Callable[[pytest.MonkeyPatch], None]


def looking_once_at_the_start(patch: pytest.MonkeyPatch) -> None:
    """Each process keeps the promotion that it saw first."""
    patch.setattr(Following, "refresh", lambda self: None)


def newest_files_for_an_old_plan(patch: pytest.MonkeyPatch) -> None:
    """A box computes everything with what is in use."""
    patch.setattr(Following, "asked", lambda self, plan: self.newest_of(plan.set))


def newest_files_under_an_old_number(patch: pytest.MonkeyPatch) -> None:
    """One folder a model, fetched again when a file is missing: whoever asks for an older one gets what lies there."""
    patch.setattr(Promotion, "digest", property(lambda self: self.model))
    patch.setattr("pipeline.ledger.model_files._is", lambda path, one: path.is_file())


def pruning_all_files_but_the_newest(patch: pytest.MonkeyPatch) -> None:
    """Who needs an older model than the one in use?"""

    def named(context: Context) -> frozenset[str]:
        found: set[str] = set()
        for model in promotions.models(context):
            newest = promotions.newest(context, model)
            found.update(file.key for file in promotions.read(context, newest).files if newest)  # type: ignore[arg-type]
        return frozenset(found)

    patch.setattr(pruned, "named", named)


def overwriting_a_promotion(patch: pytest.MonkeyPatch) -> None:
    """The later of two with one number wins."""

    def write(context: Context, number: int, body: Promotion) -> tuple[bool, Promotion]:
        context.bucket.put(context.keys.promotion(body.model, number), body.encode())
        return True, body

    patch.setattr(promotions, "write", write)


def the_key_before_its_files(patch: pytest.MonkeyPatch) -> None:
    """The files follow as soon as the key stands."""
    waiting: list[tuple[str, Path]] = []

    def stored(context: Context, model: str, piece: Piece) -> tuple[PromotedFile, bool]:
        key = context.keys.model_file(context.process.nonce(), piece.name)
        waiting.append((key, piece.path))
        return PromotedFile(role=piece.role, name=piece.name, key=key, size=piece.size, sha256=piece.sha256), True

    real = promotions.write

    def write(context: Context, number: int, body: Promotion) -> tuple[bool, Promotion]:
        done = real(context, number, body)
        while waiting:
            context.bucket.put(*waiting.pop())
        return done

    patch.setattr(promoting, "_stored", stored)
    patch.setattr(promotions, "write", write)


def taking_an_unknown_answer_for_a_loss(patch: pytest.MonkeyPatch) -> None:
    """Whoever gets no answer takes his files away, though his key may stand."""

    def write(context: Context, number: int, body: Promotion) -> tuple[bool, Promotion]:
        key = context.keys.promotion(body.model, number)
        mine = body.model_copy(update={"nonce": context.process.nonce()})
        try:
            context.bucket.put_new(key, mine.encode())
        except Unknown:
            return False, mine
        except Exists:
            return False, body_of(Promotion, context.bucket.get(key), key)
        return True, mine

    patch.setattr(promotions, "write", write)


def not_looking_for_the_request(patch: pytest.MonkeyPatch) -> None:
    """The queue gives a request to one worker, so who else could have done it?"""
    patch.setattr(promoting, "_mine", lambda context, wanted, numbers: None)


def looking_for_the_request_in_a_list_of_its_own(patch: pytest.MonkeyPatch) -> None:
    """First whether it was done, then how it would be numbered: what is written between the two is not seen."""
    real = promoting.judge

    def judge(context: Context, wanted: promoting.Wanted) -> promoting.Judged:
        before = real(context, wanted)
        if before.mine is not None:
            return before
        return replace(real(context, replace(wanted, request="")), wanted=wanted)

    patch.setattr(promoting, "judge", judge)


def taking_the_next_number_after_a_loss(patch: pytest.MonkeyPatch) -> None:
    """Whoever lost goes on with the number behind, without looking who was first."""
    real = promotions.write

    def write(context: Context, number: int, body: Promotion) -> tuple[bool, Promotion]:
        won, stands = real(context, number, body)
        return (won, stands) if won else real(context, number + 1, body)

    patch.setattr(promotions, "write", write)


OF_REQUESTS: list[Plant] = [
    not_looking_for_the_request,
    looking_for_the_request_in_a_list_of_its_own,
    taking_the_next_number_after_a_loss,
]

MISTAKES: list[Plant] = [
    looking_once_at_the_start,
    newest_files_for_an_old_plan,
    newest_files_under_an_old_number,
    pruning_all_files_but_the_newest,
    overwriting_a_promotion,
    the_key_before_its_files,
    taking_an_unknown_answer_for_a_loss,
]
