"""The guard for Celery workers. It needs celery, and redis or SQLAlchemy; nothing else of ours."""

from scannerjob.worker.single_flight import (
    BusyError,
    LockUnavailableError,
    held,
    single_flight,
)

__all__ = ["BusyError", "LockUnavailableError", "held", "single_flight"]
