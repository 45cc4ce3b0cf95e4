"""PDFs, and the pages that were made of them."""

from django.db import models


class Pdf(models.Model):
    """A PDF; `pages_created` becomes true in the transaction that stores its pages."""

    title = models.CharField(max_length=200)
    uploaded_at = models.DateTimeField(auto_now_add=True)
    pages_created = models.BooleanField(default=False)

    class Meta:
        indexes = [
            # The scanner's query reads this index alone, however many PDFs are done.
            models.Index(
                fields=["uploaded_at", "id"],
                condition=models.Q(pages_created=False),
                name="pdf_to_do",
            ),
        ]

    def __str__(self) -> str:
        return str(self.title)


class Page(models.Model):
    """A page of a PDF. Its constraint lets no PDF have the same page twice."""

    pdf = models.ForeignKey(Pdf, on_delete=models.CASCADE, related_name="pages")
    number = models.PositiveIntegerField()
    content = models.TextField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pdf", "number"], name="page_once")]

    def __str__(self) -> str:
        return f"{self.pdf}, page {self.number}"
