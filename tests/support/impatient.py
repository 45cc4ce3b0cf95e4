"""ScannerJob with a tenth of its patience for a watch that says nothing, run by `python -m`.

What comes after that patience is tested with it; how long it is, unit tests tell.
"""

from scannerjob.cli import main
from scannerjob.controller import handlers, health, resync, watched
from scannerjob.targets.job import target

handlers._MAX_SILENCE /= 10
health._MAX_BEHIND /= 10
resync._EVERY /= 10
resync._PATIENCE /= 10
target._LIST_EVERY /= 10
watched.TRUSTED_FOR /= 10

if __name__ == "__main__":
    main()
