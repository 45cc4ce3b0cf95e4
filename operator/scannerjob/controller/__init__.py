"""The Kubernetes operator: kopf watches, starts and stops; the engine does the work.

`scannerjob operator` and `kopf run -m scannerjob.controller` start the same.
"""

from scannerjob.controller.options import Options
from scannerjob.controller.process import run

__all__ = ["Options", "run"]
