"""URLs that cannot work, for each part of a ScannerJob, with canaries for users and passwords."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.support.canary import LONG, MARK, ODD, PLAIN, QUOTED, USER, encoded, userinfo
from tests.support.impostors import Impostors

FIELDS = {
    "database": "spec.database",
    "broker": "spec.celery.broker",
    "results": "spec.celery.resultBackend",
    "guard": "spec.celery.guard",
}


@dataclass(frozen=True)
class SecretUrl:
    """A URL in one of a ScannerJob's Secrets, the place it leads to, and the failure it is for."""

    what: str
    part: str
    url: str | bytes
    place: str = ""
    failure: str = ""

    @property
    def name(self) -> str:
        """A name for a Secret or a ScannerJob."""
        return f"{self.part}-{self.what}"

    def is_named(self, said: str) -> bool:
        """Whether a message names the host or, where the URL cannot be read, the field."""
        return any(place in said for place in (self.place, FIELDS[self.part]) if place)


def wrong_servers(part: str, begin: str, end: str, impostors: Impostors) -> Iterator[SecretUrl]:
    """A host that is not there, and servers that are not what they should be."""
    quoting = impostors.pg_tattler if "postgresql" in begin else impostors.tattler
    places = {
        "unknown-host": ("canary-test.invalid", ODD),
        "refused": (impostors.refused, ODD),
        "hole": (impostors.hole, PLAIN),
        "closes": (impostors.closes, ODD),
        "http": (impostors.http, ODD),
        "noise": (impostors.noise, ODD),
        "echo": (impostors.echo, ODD),
        "tattler": (quoting, QUOTED),
        "gossip": (impostors.gossip, LONG),
    }
    for what, (place, password) in places.items():
        url = f"{begin}{userinfo(USER, password)}@{place}{end}"
        yield SecretUrl(f"{_label(begin)}-{what}", part, url, place, what)


def malformed(part: str, scheme: str) -> Iterator[SecretUrl]:
    """URLs that no parser should take."""
    good = f"{MARK}:{PLAIN}@127.0.0.1:1"
    urls: Mapping[str, str | bytes] = {
        "empty": "",
        "blank": " \n",
        "password-alone": PLAIN,
        "password-and-at": f":{PLAIN}@",
        "no-scheme": f"{good}/app",
        "one-slash": f"{scheme}:/{good}/app",
        "no-colon": f"{scheme}//{good}/app",
        "password-as-scheme": f"{PLAIN}://127.0.0.1:1/app",
        "unknown-scheme": f"oracle://{good}/app",
        "unknown-driver": f"{scheme}+{MARK}://{good}/app",
        "not-encoded": f"{scheme}://app:{ODD}@127.0.0.1:1/app",
        "two-at": f"{scheme}://app:{PLAIN}@{MARK}@127.0.0.1:1/1",
        "port-of-letters": f"{scheme}://app:{PLAIN}@127.0.0.1:port/1",
        "port-is-password": f"{scheme}://app@127.0.0.1:{PLAIN}/1",
        "two-lines": f"{scheme}://app:{MARK}\n{PLAIN}@127.0.0.1:1/1",
        "nul": f"{scheme}://app:{MARK}\0{PLAIN}@127.0.0.1:1/1",
        "encoded-nul": f"{scheme}://app:{MARK}%00{PLAIN}@127.0.0.1:1/1",
        "option": f"{scheme}://{good}/1?{PLAIN}={PLAIN}",
        "password-option": f"{scheme}://127.0.0.1:1/1?password={PLAIN}",
        "latin-1": f"{scheme}://app:{MARK}ü{PLAIN}@127.0.0.1:1/1".encode("latin-1"),
        "utf-16": f"{scheme}://{good}/1".encode("utf-16"),
        "two-urls": f"{scheme}://{good}/1;{scheme}://{good}/2",
        "yaml": f"url: {scheme}://{good}/1",
        "quotes": f"'{scheme}://{good}/1'",
    }
    for what, url in urls.items():
        yield SecretUrl(f"{_label(scheme)}-{what}", part, url, failure=what)


def misread(part: str, scheme: str) -> Iterator[SecretUrl]:
    """URLs of which one parser reads something else than another: refused, or read as we say."""
    urls = {
        "slash": f"{scheme}://app:{MARK}/{PLAIN}@127.0.0.1:1/1",
        "hash": f"{scheme}://app:{MARK}#{PLAIN}@127.0.0.1:1/1",
        "question-mark": f"{scheme}://app:{MARK}?{PLAIN}@127.0.0.1:1/1",
        "colon-and-slash": f"{scheme}://app:6379/{PLAIN}@127.0.0.1:1/1",
        "no-at": f"{scheme}://app:{PLAIN}",
        "large-port": f"{scheme}://app:{PLAIN}@127.0.0.1:99999/1",
        "bracket": f"{scheme}://app:[{PLAIN}@127.0.0.1:1/1",
    }
    for what, url in urls.items():
        yield SecretUrl(f"{_label(scheme)}-{what}", part, url, "127.0.0.1:", what)


def refused(part: str, begin: str, place: str, known: str, end: str) -> Iterator[SecretUrl]:
    """What a real server is there for: wrong passwords, unknown users, and a wrong database.

    `known` is the userinfo of one whom it lets in.
    """
    urls = {
        "wrong-password": f"app:{encoded(ODD)}@{place}{end}",
        "quoted-password": f"app:{encoded(QUOTED)}@{place}{end}",
        "long-password": f"app:{LONG}@{place}{end}",
        "no-utf-8-in-password": f"app:{MARK}%ff{PLAIN}@{place}{end}",
        "unknown-user": f"{userinfo(USER, PLAIN)}@{place}{end}",
        "wrong-database": f"{known}@{place}/nowhere",
    }
    for what, url in urls.items():
        yield SecretUrl(f"{_label(begin)}-{what}", part, f"{begin}{url}", place, what)


def tls_where_there_is_none(postgres: str, mariadb: str, redis: str) -> Iterator[SecretUrl]:
    """Encryption asked of servers that have none, and certificates that are not there."""
    user = userinfo(USER, ODD)
    required = f"postgresql://{user}@{postgres}/app?sslmode=require"
    yield SecretUrl("tls-postgresql", "database", required, postgres, "no-encryption")
    missing = f"mysql://{user}@{mariadb}/app?ssl_ca=/no/such/ca.crt"
    yield SecretUrl("tls-mysql", "database", missing, mariadb, "no-certificate")
    plain = f"rediss://{user}@{redis}/0"
    yield SecretUrl("tls-redis", "broker", plain, redis, "encryption-not-understood")


def _label(scheme: str) -> str:
    return scheme.partition(":")[0].replace("+", "-")
