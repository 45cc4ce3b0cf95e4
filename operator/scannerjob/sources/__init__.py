"""Where rows come from: a query on SQLite, PostgreSQL, MySQL or MariaDB."""

from scannerjob.sources.engines import Databases
from scannerjob.sources.sql import SqlSource

__all__ = ["Databases", "SqlSource"]
