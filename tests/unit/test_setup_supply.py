"""The bill of materials and the audit, as commands; the advisory service is one of our own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread

import pytest

from tests.support.ports import free_port

SETUP = Path(__file__).parents[1] / "setup"
VULNERABLE = {"name": "celery", "version": "4.0.0"}
ADVISORY = {
    "id": "PYSEC-0000-1",
    "modified": "2030-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "celery", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "5.2.2"}]}],
        }
    ],
}

pytestmark = pytest.mark.timeout(600)


class Advisories(BaseHTTPRequestHandler):
    """Knows one vulnerability of one version."""

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = {"name": question["package"]["name"], "version": question["version"]}
        answer = json.dumps({"vulns": [ADVISORY]} if asked == VULNERABLE else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def advisories() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    return tmp_path / "constraints.txt"


def audit(pins: Path, advisories: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SETUP / "audit.py"), "--advisories", advisories, str(pins)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_audit_fails_where_a_pin_has_a_known_vulnerability(pins: Path, advisories: str) -> None:
    pins.write_text("# Pins.\ncelery==4.0.0\nkopf==1.45.2\n")
    told = audit(pins, advisories)
    assert told.returncode == 1
    assert "celery 4.0.0: PYSEC-0000-1; fixed in 5.2.2" in told.stderr
    assert "kopf" not in told.stderr


def test_the_audit_passes_pins_without_a_known_vulnerability(pins: Path, advisories: str) -> None:
    pins.write_text("celery==5.7.0\nkopf==1.45.2\n")
    told = audit(pins, advisories)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == "2 packages have no known vulnerability\n"


def test_the_audit_fails_where_pins_make_no_sense(pins: Path, advisories: str) -> None:
    pins.write_text("celery>=5\n")
    told = audit(pins, advisories)
    assert told.returncode == 1
    assert "celery" in told.stderr


def test_the_audit_says_so_where_nobody_can_be_asked(pins: Path) -> None:
    pins.write_text("celery==4.0.0\n")
    told = audit(pins, f"http://127.0.0.1:{free_port()}/v1/query")
    assert told.returncode == 0
    assert told.stdout.startswith("NOT AUDITED: ")


def test_the_bill_of_materials_lists_what_runs_and_nothing_of_the_tests(tmp_path: Path) -> None:
    bill = tmp_path / "made" / "sbom.json"
    subprocess.run([sys.executable, SETUP / "sbom.py", bill, "--no-validate"], check=True)
    document = json.loads(bill.read_text())
    listed = {each["name"].lower(): each["version"] for each in document["components"]}
    runs = ("kopf", "kubernetes", "celery", "sqlalchemy", "redis", "psycopg", "pymysql")
    assert {name: listed[name] for name in runs} == {name: version(name) for name in runs}
    assert not listed.keys() & {"pytest", "hypothesis", "mypy", "django", "cyclonedx-bom"}
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "scannerjob"
