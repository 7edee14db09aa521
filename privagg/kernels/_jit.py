"""Numba's compiler with types that mypy can follow, and the machine operations it lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

Compiled = Callable[..., Any]

U8 = types.Array(types.uint8, 1, "C")
U64 = types.Array(types.uint64, 1, "C")
I64 = types.Array(types.int64, 1, "C")
ROWS = (U64, I64, I64, I64, I64)  # the fields of layout.RowTable, in order


def kernel(*signatures: Any, any_order: bool = False) -> Callable[[Compiled], Compiled]:
    """Compile without the GIL for the given signatures only, and keep the machine code on disk.

    Args:
        signatures: of numba's types.
        any_order: floats may be added up in another order, which lets sums use vectors; division
            by zero gives what IEEE 754 says.
    """
    how: dict[str, Any] = {"nogil": True}
    if any_order:
        how |= {"fastmath": {"reassoc"}, "error_model": "numpy"}

    def wrap(function: Compiled) -> Compiled:
        compiled: Any
        try:
            compiled = njit(list(signatures), cache=True, **how)(function)
        except RuntimeError:  # no directory that numba may write to: compile for this process
            compiled = njit(list(signatures), **how)(function)
        made: Compiled = compiled
        return made

    return wrap


def inline(function: Compiled) -> Compiled:
    """Compile a function that only kernels call; LLVM inlines it where that pays."""
    compiled: Any = njit(nogil=True)(function)
    made: Compiled = compiled
    return made


def _load_u64(typingctx: Any, base: Any, offset: Any) -> Any:
    """The little-endian word at byte `offset` of address `base`, at any alignment."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loaded = builder.load(_pointer(builder, args, ir.IntType(64)))
        loaded.align = 1  # a payload may start anywhere in a message
        return loaded

    return types.uint64(types.uint64, types.int64), codegen


def _load_u32(typingctx: Any, base: Any, offset: Any) -> Any:
    """The little-endian half word at byte `offset` of address `base`, at any alignment."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loaded = builder.load(_pointer(builder, args, ir.IntType(32)))
        loaded.align = 1
        return builder.zext(loaded, ir.IntType(64))

    return types.int64(types.uint64, types.int64), codegen


def _load_u8(typingctx: Any, base: Any, offset: Any) -> Any:
    """The byte at `offset` of address `base`, as a word."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loaded = builder.load(_pointer(builder, args, ir.IntType(8)))
        return builder.zext(loaded, ir.IntType(64))

    return types.uint64(types.uint64, types.int64), codegen


def _store_u64(typingctx: Any, base: Any, offset: Any, value: Any) -> Any:
    """Write a word at byte `offset` of address `base`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        stored = builder.store(args[2], _pointer(builder, args, ir.IntType(64)))
        stored.align = 1
        return context.get_dummy_value()

    return types.void(types.uint64, types.int64, types.uint64), codegen


def _pointer(builder: Any, args: Any, kind: Any) -> Any:
    """base + offset as a pointer LLVM can follow through a loop: that lets it use vectors."""
    byte = ir.IntType(8)
    base = builder.inttoptr(args[0], byte.as_pointer())
    return builder.bitcast(builder.gep(base, [args[1]]), kind.as_pointer())


def _multiply_wide(typingctx: Any, left: Any, right: Any) -> Any:
    """The 128-bit product of two uint64 as (high, low)."""
    pair: Any = types.UniTuple(types.uint64, 2)  # type: ignore[no-untyped-call]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))
        low = builder.trunc(product, ir.IntType(64))
        return context.make_tuple(builder, signature.return_type, [high, low])

    return pair(types.uint64, types.uint64), codegen


multiply_wide: Any = intrinsic(_multiply_wide)
load_u64: Any = intrinsic(_load_u64)
load_u32: Any = intrinsic(_load_u32)
load_u8: Any = intrinsic(_load_u8)
store_u64: Any = intrinsic(_store_u64)
