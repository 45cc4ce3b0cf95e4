import ast
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_source_root_is_no_package() -> None:
    """As a package it would shadow the standard library's `operator` from the repository's root."""
    assert not (REPOSITORY / "operator" / "__init__.py").exists()


def test_the_standard_library_operator_is_found_from_the_repository() -> None:
    program = "import operator, collections; print(operator.itemgetter(1)('ab'))"
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("b\n", "")


def test_workers_are_never_asked() -> None:
    """Celery's `control`, and `inspect` with it, is silent just when workers are busy."""
    files = [*(REPOSITORY / "operator").rglob("*.py")]
    asked = [
        f"{file.name}:{node.lineno}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in ("control", "inspect", "broadcast"))
        or (isinstance(node, ast.ImportFrom) and node.module == "celery.app.control")
    ]

    assert len(files) > 50
    assert not asked
