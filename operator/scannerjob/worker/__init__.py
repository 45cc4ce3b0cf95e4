"""The guard for Celery workers. It needs celery, and redis or SQLAlchemy; nothing else of ours."""

from scannerjob.worker.errors import StoreError
from scannerjob.worker.fenced import LeaseLostError, fenced
from scannerjob.worker.guard import install

__all__ = ["LeaseLostError", "StoreError", "fenced", "install"]
