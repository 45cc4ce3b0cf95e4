"""Logging for people and for collectors alike: one line per event, on standard error."""

from __future__ import annotations

import logging
import sys
import time

# A bug's traceback follows its line; a person's mistake never has one.
_LINE = "%(asctime)sZ %(levelname)s %(message)s"


class _OneLine(logging.Formatter):
    """Keeps a message on its line, whatever a database or a broker wrote into it."""

    @staticmethod
    def converter(seconds: float | None) -> time.struct_time:
        return time.gmtime(seconds)

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = " ".join(record.message.split("\n"))
        return super().formatMessage(record)


def set_up_logging(level: int = logging.INFO) -> None:
    """Log what ScannerJob does from `level` on, and of its libraries only what is a warning."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(_LINE, datefmt="%Y-%m-%dT%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("scannerjob").setLevel(level)
    logging.captureWarnings(True)
