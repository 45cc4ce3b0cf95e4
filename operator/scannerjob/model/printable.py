"""Texts of others, made fit to be shown: they move no cursor, hide nothing and begin no line."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text in one line, with an escape for what is not printable or is not seen.

    Line breaks and control characters are among these, which a terminal obeys, and marks that let a
    text be read in another order than it is written in.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
