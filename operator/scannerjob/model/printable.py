"""Texts of others, made fit to be shown.

They move no cursor, hide nothing and begin no line, and no URL in them lets anybody in.
"""

from __future__ import annotations

import re

# What follows `scheme:/`; with blanks in it only after `user:`, where no port and no blank is next.
_USERINFO = re.compile(
    r"""(?<=\w:/) (/?) (?:
        \S*@
        | [^\s/@:\[]* : (?! \s | \d+ (?:[/?\#\s]|$) ) (?: (?!://) [^@\n] ){1,256} @
    )""",
    re.VERBOSE,
)


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

    A URL that was taken for a path has lost one of its slashes. A blank, which no URL has, does not
    end a password that nobody can take for a port or for prose.
    """
    return _USERINFO.sub(r"\1***@", said)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
