"""The Celery app, and the task that makes the pages of a PDF."""

import os
import time
from collections.abc import Iterator

from celery import Celery
from sqlalchemy import update
from sqlalchemy.orm import Session

from pdfs import Page, Pdf, engine
from scannerjob.worker import fenced, install

app = Celery("pdfs", broker=os.environ["REDIS_URL"])
# A worker then has no messages but those it works on, so that none is lost with it for long.
app.conf.worker_prefetch_multiplier = 1
app.conf.task_acks_late = True
# The guard keeps its records where the broker is, as the ScannerJob says.
install(app, os.environ["REDIS_URL"])


@app.task
def create_pages_for_pdf(pdf_id: int, title: str) -> str:
    """Make the pages of a PDF. Called with the columns of the scanner's query."""
    pages = [Page(pdf_id=pdf_id, number=n, content=c) for n, c in enumerate(_render(title), 1)]
    with Session(engine) as session:
        session.add_all(pages)
        session.execute(update(Pdf).where(Pdf.id == pdf_id).values(pages_created=True))
        with fenced():  # nothing is committed if the launch is not ours any more
            session.commit()
    return f"PDF {pdf_id} has its pages"


def _render(title: str) -> Iterator[str]:
    """Three pages; that this takes a second is all the example knows of rendering."""
    time.sleep(1)
    yield from (f"{title}, page {number}" for number in range(1, 4))
