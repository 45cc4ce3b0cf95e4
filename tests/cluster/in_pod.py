"""`scannerjob` as if in a pod: `python -m tests.cluster.in_pod FOLDER COMMAND ...`.

FOLDER stands in for the one where Kubernetes mounts a service account's token and ca.crt, whose
place is fixed.
"""

import sys
from pathlib import Path

from kubernetes.aio.config import incluster_config

from scannerjob.cli import main

if __name__ == "__main__":
    folder = Path(sys.argv.pop(1))
    incluster_config.SERVICE_TOKEN_FILENAME = str(folder / "token")
    incluster_config.SERVICE_CERT_FILENAME = str(folder / "ca.crt")
    main()
