"""How loops are compiled, and what a worker needs that NumPy does not have: atomic words, and locks that spin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pipeline.training.packages import demand

numba: Any = demand("numba", "hathi train linear", "linear")
_types: Any = demand("numba.core.types", "hathi train linear", "linear")
_memory: Any = demand("numba.core.cgutils", "hathi train linear", "linear")
_extending: Any = demand("numba.extending", "hathi train linear", "linear")
_ir: Any = demand("llvmlite.ir", "hathi train linear", "linear")

_Function = TypeVar("_Function", bound=Callable[..., Any])
_REORDERED = {"reassoc", "contract", "nsz", "arcp"}  # sums may be vectorised; NaN and infinity stay what they are
_SPINS = 64
"""A worker looks at a lock so many times before it lets others run."""
PAD = 16
"""Locks are so many int32 apart: one in a cache line."""


def compiled(function: _Function) -> _Function:
    """The function as machine code without the interpreter's lock, kept on the disk where it can be.

    It means the same on every call: sums are reordered when it is compiled, not when it runs.
    """
    return _jit(function, True)


def inlined(function: _Function) -> _Function:
    """As `compiled`, for a few lines within such a function."""
    return _jit(function, False)


def _jit(function: _Function, kept: bool) -> _Function:
    try:
        found: _Function = numba.njit(nogil=True, fastmath=_REORDERED, error_model="numpy", cache=kept)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written: it compiles in each process
        found = numba.njit(nogil=True, fastmath=_REORDERED, error_model="numpy")(function)
    return found


def _word(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Where a number of an array lies."""
    held = context.make_array(kind)(context, builder, array)
    return _memory.get_item_pointer(context, builder, kind, held, [at], wraparound=False)


def _swap(context: Any, array: Any, at: Any, value: Any) -> Any:
    def generated(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("xchg", _word(context, builder, signature.args[0], args[0], args[1]), args[2],
                                  "seq_cst")  # fmt: skip

    return array.dtype(array, _types.intp, array.dtype), generated


def _add(context: Any, array: Any, at: Any, value: Any) -> Any:
    def generated(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("fadd", _word(context, builder, signature.args[0], args[0], args[1]), args[2],
                                  "monotonic")  # fmt: skip

    return array.dtype(array, _types.intp, array.dtype), generated


def _ask(context: Any, array: Any, at: Any) -> Any:
    def generated(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.bitcast(_word(context, builder, signature.args[0], args[0], args[1]), _memory.voidptr_t)
        whole = _memory.int32_t
        kind = _ir.FunctionType(_ir.VoidType(), [_memory.voidptr_t, whole, whole, whole])
        asking = builder.module.declare_intrinsic("llvm.prefetch", [_memory.voidptr_t], kind)
        builder.call(asking, [place, whole(0), whole(3), whole(1)])  # to read, for long, data
        return context.get_dummy_value()

    return _types.none(array, _types.intp), generated


ask: Any = _extending.intrinsic(_ask)
"""ask(array, at): has memory fetch the line with array[at], and waits for nothing."""
swap: Any = _extending.intrinsic(_swap)
"""swap(array, at, value): puts a value, gives the old one: one step for everybody who looks at the memory."""
atomic_add: Any = _extending.intrinsic(_add)
"""atomic_add(array, at, value): array[at] += value, and no other worker's addition is lost."""
_give_way: Any = _types.ExternalFunction("sched_yield", _types.int32())


@inlined
def lock(locks: Any, number: int) -> int:
    """Takes a lock of `locks`, int32 zeros of PAD a lock.  1 where another worker had it, else 0."""
    at = number * PAD
    if swap(locks, at, numba.int32(1)) == 0:
        return 0
    while True:
        for _ in range(_SPINS):
            if locks[at] == 0 and swap(locks, at, numba.int32(1)) == 0:
                return 1
        _give_way()


@inlined
def unlock(locks: Any, number: int) -> None:
    """Gives a lock back."""
    swap(locks, number * PAD, numba.int32(0))
