"""Who is trained on and who is tested on: a rule that needs no list, so that every machine splits alike."""

import hashlib
import os

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)
NUM_SHARES = 20  # of the people; the first is for validation, the second for the test


def split_of(person: str) -> str:
    """Return ``train``, ``val`` or ``test`` for a person's name: about 90, 5 and 5 % of people.

    The first byte of the SHA-1 of the name decides, modulo 20: 0 is validation, 1 is test. The SHA-1 of
    ``George_W_Bush`` begins with 0xed = 237, and 237 % 20 = 17: training. A person's pictures all have the same split.
    """
    share = hashlib.sha1(os.fsencode(person), usedforsecurity=False).digest()[0] % NUM_SHARES
    return {0: VAL, 1: TEST}.get(share, TRAIN)
