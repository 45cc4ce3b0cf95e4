"""The guard for Celery workers. It needs celery, and redis or SQLAlchemy; nothing else of ours."""

from scannerjob.worker.errors import StoreError
from scannerjob.worker.fenced import LeaseLostError, fenced
from scannerjob.worker.guard import install
from scannerjob.worker.single_flight import (
    BusyError,
    LockUnavailableError,
    held,
    single_flight,
)

__all__ = [
    "BusyError",
    "LeaseLostError",
    "LockUnavailableError",
    "StoreError",
    "fenced",
    "held",
    "install",
    "single_flight",
]
