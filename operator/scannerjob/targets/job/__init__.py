"""Launching rows as Kubernetes Jobs, and knowing them from what the API server tells."""

from scannerjob.targets.job.names import UID as JOB_LABEL
from scannerjob.targets.job.target import JobTarget
from scannerjob.targets.job.targets import JobTargets

__all__ = ["JOB_LABEL", "JobTarget", "JobTargets"]
