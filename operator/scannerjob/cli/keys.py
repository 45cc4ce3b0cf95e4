"""Rows by what a person types of them: `17` for the key `[17]`, or the key itself."""

from __future__ import annotations

import json

from scannerjob.model.ledger import Item, Ledger
from scannerjob.model.row import canonical_key, key_parts


def keys_meant(text: str) -> list[str]:
    """The keys that this may stand for, the likeliest first.

    A JSON array is a key as it stands in the status, whatever blanks it has. All else is the value
    of the only key column: `17` a number or a text, `abc` a text.
    """
    try:
        value = json.loads(text)
        if isinstance(value, list):
            return [canonical_key(value)]
        plain = [] if isinstance(value, dict) else [canonical_key([value])]
    except (ValueError, RecursionError):
        # A key that was too long to be kept whole is no JSON any more.
        return [canonical_key([text]), text]
    return [*plain, canonical_key([text])]


def typed(key: str) -> str:
    """What a person types for this key: its value alone, where that is enough."""
    match key_parts(key):
        case [value]:
            alone = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            return alone if keys_meant(alone)[0] == key else key
        case _:
            return key


def find_item(text: str, ledger: Ledger) -> Item | None:
    """What is remembered of the row that is meant; None if nothing."""
    by_key = {item.key: item for item in ledger.items}
    return next((by_key[key] for key in keys_meant(text) if key in by_key), None)
