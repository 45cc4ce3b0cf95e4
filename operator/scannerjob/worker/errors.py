"""What the guard raises by itself; whatever else comes of a store is its client's own error."""

from __future__ import annotations


class StoreError(Exception):
    """The guard's store cannot be used as it is; the message says where, why, and what to do.

    It holds no password. To try again does not help.
    """
