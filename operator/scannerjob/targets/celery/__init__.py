"""Launching rows as Celery tasks: Redis and SQLAlchemy brokers, Redis and SQL result backends."""

from scannerjob.targets.celery.brokers import Brokers
from scannerjob.targets.celery.target import CeleryTarget

__all__ = ["Brokers", "CeleryTarget"]
