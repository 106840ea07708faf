"""Compiling loops over numbers, once a machine."""

from collections.abc import Callable


def compiled(function: Callable, fastmath: bool = False) -> Callable:
    """Compile a function by numba when it is first called, and keep the code on the disk where it can be written.

    ``fastmath`` lets the compiler change the order of sums, and so their last bits.
    """
    from numba import njit  # here because a training on pairs of files needs none

    try:
        return njit(fastmath=fastmath, cache=True)(function)
    except RuntimeError:  # numba: "no locator available", that is, nowhere to write
        return njit(fastmath=fastmath)(function)
