"""`python manage.py pdfs`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from docs.models import Pdf


class Command(BaseCommand):
    """Shows how many PDFs have their pages."""

    help = "Show how many PDFs have their pages."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the number of PDFs to insert."""
        parser.add_argument("--add", type=int, default=0, help="so many PDFs are inserted first")

    def handle(self, *_: Any, **options: Any) -> None:
        """Insert, then print."""
        numbers = range(1, options["add"] + 1)
        Pdf.objects.bulk_create(Pdf(title=f"Report no. {number}") for number in numbers)
        done = Pdf.objects.filter(pages_created=True).count()
        self.stdout.write(f"{done} of {Pdf.objects.count()} PDFs have their pages")
