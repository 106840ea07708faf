"""The network that adds a tenth, as in the tests of restoration."""

from restoration.conftest import _registered, weights  # noqa: F401
