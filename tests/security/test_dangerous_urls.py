"""URLs in Secrets that would have a driver read files, run code or turn checks off: refused.

Whoever may write a Secret of a namespace chooses where the operator connects to. That is all.
"""

import pytest

from scannerjob.ports import ConfigurationError
from scannerjob.sources import Databases
from scannerjob.targets.celery import Brokers
from tests.support.celery_target import celery_spec
from tests.support.servers import PostgresServer
from tests.support.sources import failure, spec

REDIS = "redis://redis/0"
DATABASES = [
    "postgresql://app@db/app?sslkey=/etc/shadow",
    "postgresql://app@db/app?sslcert=/var/run/secrets/kubernetes.io/serviceaccount/token",
    "postgresql://app@db/app?sslrootcert=/etc/shadow",
    "postgresql://app@db/app?service=evil",
    "postgresql://app@db/app?servicefile=/tmp/evil",
    "postgresql://app@db/app?passfile=/etc/shadow",
    "postgresql://app@db/app?options=-c%20default_transaction_read_only%3Doff",
    "postgresql://app@db/app?host=/var/run/postgresql",
    "postgresql://app@db/app?host=evil",
    "postgresql://app@db/app?hostaddr=10.0.0.1",
    "postgresql://app@db/app?dbname=other",
    "postgresql://app@db/app?gssencmode=require&krbsrvname=evil",
    "postgresql://app@db/app?requirepeer=root",
    "postgresql://app@db/app?context=1",
    "postgresql://app@db/app?sslmode=disable&plugin=evil",
    "postgresql+evil://app@db/app",
    "postgresql+psycopg2://app@db/app",
    "postgresql+pg8000://app@db/app?unix_sock=/tmp/s",
    "mysql://app@db/app?read_default_file=/etc/shadow",
    "mysql://app@db/app?read_default_group=evil",
    "mysql://app@db/app?init_command=DROP%20TABLE%20pdf",
    "mysql://app@db/app?local_infile=1",
    "mysql://app@db/app?unix_socket=/var/run/mysqld/mysqld.sock",
    "mysql://app@db/app?ssl_ca=/etc/shadow",
    "mysql://app@db/app?ssl_key=/etc/shadow",
    "mysql://app@db/app?client_flag=65536",
    "mysql://app@db/app?auth_plugin_map=evil",
    "mysql://app@db/app?conv=evil",
    "mysql+mysqldb://app@db/app",
    "mysql+mysqlconnector://app@db/app",
    "mariadb+mariadbconnector://app@db/app",
    "sqlite:////etc/app.db",
    "sqlite:///file:app?mode=rwc&uri=true",
    "sqlite+pysqlite:////etc/app.db",
    "duckdb:////etc/app.db",
    "mssql+pyodbc:///?odbc_connect=evil",
    "file:///etc/passwd",
    "http://metadata/latest",
]
SERVERS = [
    "redis+socket:///var/run/redis.sock",
    "unix:///var/run/redis.sock",
    "sentinel://redis:26379",
    "redis://redis/0?ssl_cert_reqs=none",
    "redis://redis/0?virtual_host=evil",
    "rediss://redis/0?ssl_certfile=/etc/shadow",
    "rediss://redis/0?ssl_ca_certs=/etc/shadow",
    "rediss://redis/0?ssl_ca_path=/etc",
    "rediss://redis/0?ssl_keyfile=/etc/shadow",
    "rediss://redis/0?ssl_ca_data=evil",
    "redis://redis/0;redis://evil/0",
    "redis://redis/0%0d%0aFLUSHALL",
]
BROKERS = [
    "amqp://mq//?login_method=EXTERNAL",
    "amqp://mq//?transport=evil",
    "amqps://mq//?ssl_ca_certs=/etc/shadow",
    "amqps://mq//?cert_reqs=none",
    "librabbitmq://mq//",
    "memory://",
    "filesystem:///tmp",
    "pickle://",
    "sqs://key:secret@",
    "zookeeper://zk",
    "pyro://evil",
    "evil.module:Transport://x",
]
RESULTS = [
    "rpc://",
    "cache+memory://",
    "file:///tmp",
    "filesystem:///tmp",
    "s3://evil",
    "mongodb://db",
    "disabled://",
    "evil.module:Backend://x",
]


@pytest.mark.parametrize("url", DATABASES)
def test_a_database_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="the URL") as refused:
        Databases(in_cluster=True).open(url, spec("SELECT 1 AS id"))
    assert refused.value.reason == "InvalidURL"


def wrapped(prefix: str) -> list[str]:
    return [prefix + url for url in DATABASES]


@pytest.mark.parametrize("url", [*SERVERS, *BROKERS, *wrapped("sqla+")])
def test_a_broker_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"spec\.celery\.broker") as refused:
        Brokers(local_files=False).open(url, None, celery_spec())
    assert refused.value.reason == "InvalidURL"


@pytest.mark.parametrize("url", [*SERVERS, *RESULTS, *wrapped("db+")])
def test_a_result_backend_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"spec\.celery\.resultBackend") as refused:
        Brokers(local_files=False).open(REDIS, url, celery_spec())
    assert refused.value.reason == "InvalidURL"


@pytest.mark.parametrize("url", [*SERVERS, *DATABASES])
def test_a_guard_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"spec\.celery\.guard") as refused:
        Brokers(local_files=False).open(REDIS, None, celery_spec(), guard_url=url)
    assert refused.value.reason == "InvalidURL"


@pytest.mark.parametrize(
    "database",
    ["app%20host=127.0.0.1%20port={port}", "postgresql:%2F%2F127.0.0.1:{port}%2Fapp", "app'%20x='"],
)
def test_a_databases_name_is_no_more_than_a_name(
    postgres_server: PostgresServer, database: str
) -> None:
    name = database.format(port=postgres_server.port)
    url = f"postgresql://app:{postgres_server.password}@127.0.0.1:{postgres_server.port}/{name}"

    failed = failure(url, "SELECT 1 AS id")

    assert failed.reason == "DatabaseUnreachable"
    assert "does not exist" in str(failed)
