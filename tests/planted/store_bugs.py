"""Bugs in the stores: a compare-and-swap that is none."""

from __future__ import annotations

from tests.planted.bug import bug

STORE_BUGS = (
    bug(
        "the version is read right before the write",
        "The watch may be late, and its old version would make writes fail for nothing.",
        "stores/kubernetes.py",
        (
            '        body = {\n            "apiVersion": API_VERSION,\n',
            "        snapshot = await self.read(snapshot.ref) or snapshot\n"
            '        body = {\n            "apiVersion": API_VERSION,\n',
        ),
    ),
    bug(
        "a conflict is tried again in the store",
        "That is what client libraries call retry on conflict.",
        "stores/kubernetes.py",
        (
            """\
        with _swapping(f"write the status of {KIND} {snapshot.ref}"):
            written = await self._objects.replace_namespaced_custom_object_status(
                **self._to(snapshot.ref), body=body
            )
        return snapshot_of(written)
""",
            """\
        try:
            with _swapping(f"write the status of {KIND} {snapshot.ref}"):
                written = await self._objects.replace_namespaced_custom_object_status(
                    **self._to(snapshot.ref), body=body
                )
        except ConflictError:
            newest = await self.read(snapshot.ref)
            if newest is None or newest.uid != snapshot.uid:
                raise
            return await self.write(newest, status)
        return snapshot_of(written)
""",
        ),
    ),
    bug(
        "the ledger's row is found by its uid alone",
        "The uid already says that it is the same object.",
        "stores/sql.py",
        (
            "        _ledger.c.version == version,\n",
            "",
        ),
    ),
    bug(
        "an UPDATE of no row is a success",
        "Drivers disagree on what rowcount counts, and no error was raised.",
        "stores/sql.py",
        (
            "    if connection.execute(change).rowcount != 1:\n"
            '        raise ConflictError(f"{snapshot.ref} changed since it was read")\n',
            "    connection.execute(change)\n",
        ),
    ),
    bug(
        "NULL is a key like any other",
        "A row with a NULL in its key wants its work done too.",
        "sources/records.py",
        (
            "        if value is None:\n"
            '            raise UnusableRow(f"key column {name} is NULL")\n',
            "        _ = name, value\n",
        ),
    ),
)
