"""Compile loops over numbers, once a machine."""

from collections.abc import Callable


def compiled(function: Callable, fastmath: bool = False) -> Callable:
    """Compile a function by numba at its first call. The code is kept on the disk if there is a place to write it.

    ``fastmath`` lets the compiler change the order of sums, and so their last bits.
    """
    from numba import njit  # here: a training on pairs of files does not need it

    try:
        return njit(fastmath=fastmath, cache=True)(function)
    except RuntimeError:  # numba: "no locator available", which means that it can write nowhere
        return njit(fastmath=fastmath)(function)
