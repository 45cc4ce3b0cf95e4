"""Logging for people and for collectors alike: one line per event, on standard error."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Hashable
from types import TracebackType
from typing import Any

from scannerjob.model.printable import printable

log = logging.getLogger(__name__)

# A bug's traceback follows its line; a person's mistake never has one.
_LINE = "%(asctime)sZ %(levelname)s %(message)s"

# The URLs in use, by who uses them. What an adapter says of an error is scrubbed where it is made;
# but whatever a bug raises, anywhere, may quote what it stumbled over.
_hidden: dict[Hashable, tuple[str, ...]] = {}


def hide(user: Hashable, *urls: str) -> None:
    """Show no password of these URLs in any traceback; they replace those of the same user.

    None are those of a user who is gone.
    """
    if urls:
        _hidden[user] = urls
    else:
        _hidden.pop(user, None)


class _OneLine(logging.Formatter):
    """Keeps a message on its line, whatever a database or a broker wrote into it."""

    @staticmethod
    def converter(seconds: float | None) -> time.struct_time:
        return time.gmtime(seconds)

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(" ".join(record.message.split("\n")))
        return super().formatMessage(record)


class _Record(logging.LogRecord):
    """One whose traceback shows no password of the URLs in use, whoever formats it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.exc_info:
            self.exc_text = _as_shown(logging.Formatter().formatException(self.exc_info))
            self.exc_info = None


def _as_shown(traceback: str) -> str:
    """Without passwords, and indented: no line of it looks like one of the log."""
    from scannerjob.urls import scrub

    scrubbed = scrub(traceback, *(url for urls in list(_hidden.values()) for url in urls))
    return "\n".join(f"  {printable(line)}" for line in scrubbed.split("\n"))


def scrub_tracebacks() -> None:
    """Scrub all that is logged from now on, whoever has set up logging: under `kopf run`, kopf."""
    logging.setLogRecordFactory(_Record)


def set_up_logging(level: int = logging.INFO) -> None:
    """Log what ScannerJob does from `level` on, and of its libraries only what is a warning.

    What nobody catches is logged too, with its traceback.
    """
    scrub_tracebacks()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(_LINE, datefmt="%Y-%m-%dT%H:%M:%S"))
    handler.addFilter(_is_news)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("scannerjob").setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _tell_end
    threading.excepthook = _tell_end_of_thread


def _is_news(record: logging.LogRecord) -> bool:
    """Not what others tell with a traceback of what is told in words elsewhere.

    kopf tells so of each task that fails and of those around it; what ended them comes out of it in
    the end, and `controller.process` tells of it. SQLAlchemy tells so of a connection that breaks
    while it is tidied up, and whoever used it tells of that.
    """
    by_kopf = record.name.startswith("kopf.") and record.funcName == "guard"
    by_pool = record.name.startswith("sqlalchemy.pool") and bool(record.exc_text)
    return not (by_kopf or by_pool)


def _tell_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("a bug has ended this process", exc_info=(kind, error, trace))


def _tell_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    log.critical("a bug has ended a thread", exc_info=ended.exc_value)
