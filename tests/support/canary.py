"""Passwords that sing when they are seen: they can be found in any text, however it is encoded.

Each part of one, wherever a parser may break it in two, has the same mark. So what finds the mark
finds any part of a password.
"""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil

MARK = "c4n4ry"
USER = f"{MARK}@{MARK}"
PLAIN = f"{MARK}7f3a91"
# What must be percent-encoded in a URL, and what Latin-1 and ASCII cannot say.
ODD = f"{MARK}/{MARK}@{MARK}:{MARK}#{MARK}?{MARK}%{MARK}+{MARK} {MARK}ü{MARK}€{MARK}"
QUOTED = f"{MARK}'{MARK}\"{MARK}\\{MARK}`{MARK}${MARK};{MARK}&{MARK}={MARK}"
# As the tokens of cloud providers, which stand in a password's place.
LONG = f"{MARK}-" * 40


def encoded(text: str) -> str:
    """As it stands in a URL."""
    return quote(text, safe="")


def userinfo(user: str, password: str) -> str:
    """Both, as they stand in a URL."""
    return f"{encoded(user)}:{encoded(password)}"


def songs(text: str | bytes) -> list[str]:
    """Every place where the mark is, with what stands around it."""
    raw = text.encode() if isinstance(text, str) else text
    return [raw[max(0, at - 100) : at + 60].decode(errors="replace") for at in _places(raw)]


def assert_none(found: list[str]) -> None:
    """Nothing sings."""
    assert not found, f"a canary sings in {len(found)} places: {found[:5]}"


def _places(raw: bytes) -> Iterator[int]:
    for form in _FORMS:
        yield from (found.start() for found in form.finditer(raw))


def _in_base64(mark: bytes) -> Iterator[bytes]:
    """As it stands in the base64 of whatever holds it: what its neighbours do not change."""
    for before in range(3):
        text = base64.b64encode(b"\0" * before + mark + b"\0" * 3)
        first, last = -(-before * 8 // 6), (before + len(mark)) * 8 // 6
        yield text[first:last]


_FORMS = [
    re.compile(re.escape(MARK.encode()), re.IGNORECASE),
    re.compile(MARK.encode().hex().encode(), re.IGNORECASE),
    re.compile("\0".join(MARK).encode()),
    *(re.compile(re.escape(form)) for form in _in_base64(MARK.encode())),
]


def songs_in_files(folder: Path) -> list[str]:
    """Every place below this folder where the mark is: in what files hold, or are called."""
    found = []
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        found += [f"{file}: {song}" for song in [*songs(str(file)), *songs(file.read_bytes())]]
    return found


def songs_in_processes(pid: int, given: str) -> list[str]:
    """Every place where the mark is in what all users of the machine, or its own, see of a process.

    Of it and of its descendants: arguments, names of threads, and the environment, apart from the
    variable `given`, in which it was told of the password.
    """
    parent = psutil.Process(pid)
    return [
        f"{file}: {song}"
        for each in [parent, *parent.children(recursive=True)]
        for file in _files_of(each.pid)
        for song in songs(_without(file, given))
    ]


def _files_of(pid: int) -> list[Path]:
    process = Path(f"/proc/{pid}")
    threads = sorted(process.glob("task/*/comm"))
    return [process / "cmdline", process / "environ", process / "comm", *threads]


def _without(file: Path, given: str) -> bytes:
    try:
        lines = file.read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return b""  # a thread has ended meanwhile
    return b"\0".join(line for line in lines if not line.startswith(f"{given}=".encode()))
