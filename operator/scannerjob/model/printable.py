"""Texts of others, made fit to be shown.

They move no cursor, hide nothing and begin no line, and no URL in them lets anybody in.
"""

from __future__ import annotations

import re


def printable(text: str) -> str:
    """The text in one line, with an escape for what is not printable or is not seen.

    Line breaks and control characters are among these, which a terminal obeys, and marks that let a
    text be read in another order than it is written in.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def without_userinfo(said: str) -> str:
    """What somebody else wrote, without user and password of any URL in it.

    A URL that was taken for a path has lost one of its slashes.
    """
    return re.sub(r"(?<=\w:/)(/?)\S*@", r"\1***@", said)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
