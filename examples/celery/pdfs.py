"""The application's database: PDFs, and the pages that were made of them."""

import argparse
import os

from sqlalchemy import ForeignKey, Index, create_engine, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine(os.environ["DATABASE_URL"])

_TO_DO = text("NOT pages_created")


class Base(DeclarativeBase):
    """What all tables have in common."""


class Pdf(Base):
    """A PDF; `pages_created` becomes true in the transaction that stores its pages."""

    __tablename__ = "pdf"
    # The scanner's query reads this index alone, however many PDFs are done.
    __table_args__ = (Index("pdf_to_do", "id", postgresql_where=_TO_DO, sqlite_where=_TO_DO),)

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    pages_created: Mapped[bool] = mapped_column(default=False)


class Page(Base):
    """A page of a PDF. Its key lets no PDF have the same page twice."""

    __tablename__ = "page"

    pdf_id: Mapped[int] = mapped_column(ForeignKey(Pdf.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[str]


def add(count: int) -> None:
    """Insert PDFs without pages; the tables are created where they are missing."""
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add_all(Pdf(title=f"Report no. {number}") for number in range(1, count + 1))


def show() -> None:
    """Print how many PDFs have their pages."""
    with Session(engine) as session:
        total = session.scalar(select(func.count(Pdf.id)))
        done = session.scalar(select(func.count(Pdf.id)).where(Pdf.pages_created))
    print(f"{done} of {total} PDFs have their pages")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Show how many PDFs have their pages.")
    parser.add_argument("--add", type=int, default=0, help="so many PDFs are inserted first")
    if count := parser.parse_args().add:
        add(count)
    show()
