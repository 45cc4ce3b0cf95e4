"""Where ledgers are kept: in the status on an API server, in a SQL table, or in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scannerjob.ports import Ref


def reference(document: Mapping[str, Any]) -> Ref:
    """The namespace and name of a ScannerJob document; the namespace is `default` if not given."""
    metadata = document["metadata"]
    return Ref(namespace=metadata.get("namespace", "default"), name=metadata["name"])
