"""The systems that are compared."""

from dataclasses import dataclass

OURS = "ScannerJob"


@dataclass(frozen=True)
class System:
    """One way to have rows worked on; `kind` is what the tasks know it by, `lock` in seconds."""

    name: str
    kind: str
    lock: int = 0

    @property
    def is_ours(self) -> bool:
        return self.kind == OURS


SYSTEMS = (
    System("beat", "beat"),
    System("beat, lock of 5 s", "beat", lock=5),
    System("beat, lock of 300 s", "beat", lock=300),
    System("beat, celery-once", "celery-once"),
    System("beat, celery-singleton", "celery-singleton"),
    System(OURS, OURS),
)
