"""Assign people to training, validation or test by their names. No list is needed, so every machine splits alike."""

import hashlib
import os

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)
NUM_SHARES = 20  # equal shares of the people: number 0 is for validation, number 1 for the test


def split_of(person: str) -> str:
    """Return ``train``, ``val`` or ``test`` for a person's name: about 90, 5 and 5 % of all people.

    The first byte of the name's SHA-1, modulo 20, decides: 0 is validation, 1 is test, others are training. Example:
    the SHA-1 of ``George_W_Bush`` begins with 0xed = 237, and 237 % 20 = 17. The person is thus for training.
    """
    share = hashlib.sha1(os.fsencode(person), usedforsecurity=False).digest()[0] % NUM_SHARES
    return {0: VAL, 1: TEST}.get(share, TRAIN)
