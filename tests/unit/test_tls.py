"""Certificates of Secrets: what is taken for one, and the files they are given to clients as."""

from __future__ import annotations

import gc
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from sqlalchemy import make_url

from scannerjob.model.spec import parse_spec
from scannerjob.ports import ConfigurationError
from scannerjob.tls import Certificates, database_arguments, explain, files_of
from tests.support.certificates import Authority

AUTHORITY = Authority()
SECRET = AUTHORITY.secret(AUTHORITY.issue("client"))


def files(secret: dict[str, bytes]) -> object:
    return files_of(Certificates.from_secret(secret))


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_nobody_else_can_read_the_files(temporary_files: Path) -> None:
    opened = files_of(Certificates.from_secret(SECRET))
    (folder,) = temporary_files.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path, key in ((opened.authority, "ca.crt"), (opened.certificate, "tls.crt")):
        assert path == str(folder / key)
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_bytes() == SECRET[file.name].strip()


def test_equal_certificates_are_the_same_files_until_nobody_uses_them(
    temporary_files: Path,
) -> None:
    one, same = files(SECRET), files(dict(SECRET))
    other = files(AUTHORITY.secret())
    assert one is same
    assert one is not other
    del one, other
    gc.collect()
    assert len(list(temporary_files.iterdir())) == 1
    del same
    gc.collect()
    assert list(temporary_files.iterdir()) == []


def test_files_that_somebody_removed_are_written_anew() -> None:
    one = files_of(Certificates.from_secret(SECRET))
    Path(str(one.key)).unlink()
    other = files_of(Certificates.from_secret(SECRET))
    assert other is not one
    assert Path(str(other.key)).read_bytes() == SECRET["tls.key"].strip()
    assert files_of(Certificates.from_secret(SECRET)) is other


_KEPT = """
import sys
from scannerjob.tls import Certificates, files_of

kept = files_of(Certificates.from_secret({"ca.crt": sys.argv[1].encode()}))
print(kept.authority)
"""
# As the thread of a connection does: a daemon, which the end of the process stops where it is.
_LET_GO_BY_A_THREAD = (
    _KEPT
    + """
import os, threading

def remove(path, *of, unlink=os.unlink, **options):
    if threading.current_thread().daemon:
        busy.set()
        threading.Event().wait()
    unlink(path, *of, **options)

def let_go():
    global kept
    del kept

os.unlink, busy = remove, threading.Event()
threading.Thread(target=let_go, daemon=True).start()
assert busy.wait(60)
"""
)


@pytest.mark.parametrize("script", [_KEPT, _LET_GO_BY_A_THREAD])
def test_no_file_outlives_the_process(temporary_files: Path, script: str) -> None:
    environment = {
        **os.environ,
        "TMPDIR": str(temporary_files),
        "PYTHONPATH": str(Path(__file__).parents[2] / "operator"),
    }
    command = [sys.executable, "-c", script, AUTHORITY.pem.decode()]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.startswith(str(temporary_files))
    assert list(temporary_files.iterdir()) == []


def test_an_empty_value_is_none() -> None:
    """As cert-manager writes them for an issuer whose authority it does not know."""
    opened = files_of(Certificates.from_secret({**SECRET, "ca.crt": b"\n"}))
    assert opened.authority is None
    assert opened.certificate is not None
    assert files_of(Certificates.from_secret({**AUTHORITY.secret(), "tls.crt": b""})).key is None


ENCRYPTED = b"""-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjCANARYcanary4AgIIADAM
-----END ENCRYPTED PRIVATE KEY-----
"""


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        ({}, "has none of ca.crt, tls.crt, tls.key; it has nothing"),
        ({"ca.pem": b"canary"}, "has none of ca.crt, tls.crt, tls.key; it has ca.pem"),
        ({"ca.crt": b"", "tls.crt": b"", "tls.key": b""}, "has none of"),
        ({"tls.crt": SECRET["tls.crt"]}, "has no tls.key: tls.crt and tls.key come together"),
        ({"tls.key": SECRET["tls.key"], "ca.crt": AUTHORITY.pem}, "has no tls.crt"),
        ({"ca.crt": b"canary"}, "has a ca.crt that holds no certificate in PEM form"),
        ({**SECRET, "tls.key": b"canary"}, "are not PEM, are encrypted, or do not belong together"),
        ({**SECRET, "tls.key": ENCRYPTED}, "are not PEM, are encrypted, or do not belong together"),
        (
            {**SECRET, "tls.key": AUTHORITY.issue("other").key},
            "are not PEM, are encrypted, or do not belong together",
        ),
    ],
)
def test_what_cannot_be_used_is_not_shown(
    secret: dict[str, bytes], expected: str, temporary_files: Path
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        files(secret)
    assert refused.value.reason == "InvalidCertificate"
    assert expected in str(refused.value)
    assert "canary" not in str(refused.value)
    assert refused.value.__cause__ is None
    gc.collect()
    assert list(temporary_files.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named_by_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/no-such-folder")
    with pytest.raises(ConfigurationError, match="set TMPDIR"):
        files(SECRET)


def test_nothing_of_them_is_in_their_representation() -> None:
    certificates = Certificates.from_secret(SECRET)
    assert "BEGIN" not in repr(certificates)


def test_postgresql_is_checked_with_its_host_unless_the_url_asks_for_less() -> None:
    opened = files_of(Certificates.from_secret(SECRET))
    full = database_arguments(make_url("postgresql://db/app"), opened)
    assert full == {
        "sslmode": "verify-full",
        "sslrootcert": opened.authority,
        "sslcert": opened.certificate,
        "sslkey": opened.key,
    }
    less = database_arguments(make_url("postgresql://db/app?sslmode=require"), opened)
    assert less["sslmode"] == "require"


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_a_secret_never_ends_in_plain_text(mode: str) -> None:
    opened = files_of(Certificates.from_secret(SECRET))
    with pytest.raises(ConfigurationError, match=f"says sslmode={mode}, which need not encrypt"):
        database_arguments(make_url(f"postgresql://db/app?sslmode={mode}"), opened)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://db/app?sslcert=/c&sslkey=/k", r"names certificates itself \(sslcert, sslk"),
        ("mysql://db/app?ssl_ca=/c", r"names certificates itself \(ssl_ca\)"),
        ("sqlite:///app.db", "names a file, to which no connection leads"),
    ],
)
def test_a_url_and_a_secret_that_contradict_each_other(url: str, expected: str) -> None:
    opened = files_of(Certificates.from_secret(SECRET))
    with pytest.raises(ConfigurationError, match=expected) as refused:
        database_arguments(make_url(url), opened)
    assert "remove one of the two" in str(refused.value)


def test_without_tls_a_driver_is_told_nothing() -> None:
    for url in ("postgresql://db/app?sslmode=require", "mysql://db/app", "sqlite:///app.db"):
        assert database_arguments(make_url(url), None) == {}


def test_a_file_that_a_url_names_and_that_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match="certificates that cannot be used: No such file"):
        database_arguments(make_url("mysql://db/app?ssl_ca=/no/such/file"), None)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("FATAL: no pg_hba.conf entry for host, no encryption", "with TLS only"),
        ("no pg_hba.conf entry, SSL encryption\nno pg_hba.conf entry, no encryption", None),
        ('root certificate file "/root/x" does not exist', "put ca.crt into a Secret"),
        ("[SSL: UNSUPPORTED_PROTOCOL] unsupported protocol hunter2", "TLS failed: [SSL: UNSUPP"),
        ("Connection refused", None),
        ("Connection reset by peer", None),
    ],
)
def test_what_clients_say_of_tls(said: str, expected: str | None) -> None:
    meaning = explain(said, "postgresql://u:hunter2@db/app")
    assert (meaning is None) == (expected is None)
    assert (expected or "") in (meaning or "")
    assert "hunter2" not in (meaning or "")
    assert "/root/x" not in (meaning or "")


def test_the_example_of_the_documentation_is_a_scannerjob() -> None:
    text = (Path(__file__).parents[2] / "docs" / "tls.md").read_text()
    example = text.partition("```yaml\n")[2].partition("```")[0]
    secret, document = yaml.safe_load_all(example)
    spec = parse_spec(document["spec"])
    assert spec.database.tls_secret_ref
    assert spec.database.tls_secret_ref.name == secret["metadata"]["name"]
    assert secret["data"].keys() == SECRET.keys()
