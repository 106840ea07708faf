"""Compile loops over numbers by numba."""

from collections.abc import Callable


def compiled(function: Callable, fastmath: bool = False) -> Callable:
    """Return a function that numba compiles at its first call. The compiled code is kept on the disk if possible.

    ``fastmath`` lets the compiler change the order of sums, and so their last bits.
    """
    from numba import njit  # here, because a training on pairs of files does not need numba

    try:
        return njit(fastmath=fastmath, cache=True)(function)
    except RuntimeError:  # numba: "no locator available", because numba can write nowhere
        return njit(fastmath=fastmath)(function)
