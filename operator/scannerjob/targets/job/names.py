"""What Jobs are called and labelled: how they are found again, and told from others'."""

from __future__ import annotations

import hashlib
import re

from scannerjob.model.spec import API_GROUP

# The ScannerJob's name (cut to what a label holds), its UID, and the launch's id.
NAME = f"{API_GROUP}/name"
UID = f"{API_GROUP}/uid"
LAUNCH = f"{API_GROUP}/launch"
# Annotations: the ScannerJob's whole name, the row's key, and which attempt of it this is.
SCANNERJOB = f"{API_GROUP}/scannerjob"
KEY = f"{API_GROUP}/key"
ATTEMPT = f"{API_GROUP}/attempt"

# A Job's name is the value of a label on its pods.
_MAX_NAME = 63
_TOKEN = 12


def job_name(scannerjob: str, launch_id: str) -> str:
    """The name of a launch's Job, at most 63 characters: the same for every send of the launch."""
    token = hashlib.sha256(launch_id.encode()).hexdigest()[:_TOKEN]
    prefix = scannerjob.replace(".", "-")[: _MAX_NAME - _TOKEN - 1].rstrip("-")
    return f"{prefix}-{token}"


def label_value(scannerjob: str) -> str:
    """The ScannerJob's name as a label's value; a name over 63 characters ends in its hash."""
    if len(scannerjob) <= _MAX_NAME:
        return scannerjob
    digest = hashlib.sha256(scannerjob.encode()).hexdigest()[:_TOKEN]
    return f"{re.sub(r'[-.]+$', '', scannerjob[: _MAX_NAME - _TOKEN - 1])}-{digest}"
