"""The task that makes the pages of a PDF."""

import time
from collections.abc import Iterator

from celery import shared_task
from django.db import transaction

from docs.models import Page, Pdf
from scannerjob.worker import fenced


@shared_task
def create_pages_for_pdf(pdf_id: int, title: str) -> str:
    """Make the pages of a PDF. Called with the columns of the scanner's query."""
    pages = [Page(pdf_id=pdf_id, number=n, content=c) for n, c in enumerate(_render(title), 1)]
    with transaction.atomic():
        Page.objects.bulk_create(pages)
        Pdf.objects.filter(pk=pdf_id).update(pages_created=True)
        fenced()  # nothing is committed if the launch is not ours any more
    return f"PDF {pdf_id} has its pages"


def _render(title: str) -> Iterator[str]:
    """Three pages; that this takes a second is all the example knows of rendering."""
    time.sleep(1)
    yield from (f"{title}, page {number}" for number in range(1, 4))
