import pytest

from scannerjob.worker.errors import StoreError
from scannerjob.worker.stores import open_client, open_store


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://scott:hunter2@db.example/3", "Redis db.example:6379/3"),
        ("rediss://:hunter2@db.example:6380", "Redis db.example:6380/0"),
        ("postgresql://scott:hunter2@db.example/app", "postgresql db.example/app"),
        ("postgres://scott:hunter2@db.example:5433/app", "postgresql db.example:5433/app"),
        ("mysql+pymysql://scott:hunter2@db.example/app", "mysql db.example/app"),
        ("mariadb://scott:hunter2@db.example/app", "mysql db.example/app"),
        ("sqlite:////tmp/guard.db", "sqlite /tmp/guard.db"),
    ],
)
def test_a_store_says_where_it_is_and_connects_to_nothing_yet(url: str, place: str) -> None:
    store = open_store(url)
    assert str(store) == place
    store.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("hunter2", "must begin with redis://"),
        ("amqp://scott:hunter2@db/0", "must begin with redis://"),
        ("redis://scott:hunt/hunter2@db/0", "cannot be read"),
        ("redis://scott:hunt@hunter2@db/0", "cannot be read"),
        ("redis://scott:hunt#hunter2@db/0", "cannot be read"),
        ("redis://scott:hunt?hunter2@db/0", "cannot be read"),
        ("redis://scott:hunter2@db:x/0", "cannot be read"),
        ("redis://scott:hunter2@db/hunter2", "cannot be read"),
        ("redis://scott:hunter2@db/0?ssl_cert_reqs=none", "rediss://"),
        ("redis://scott:hunter2@db/0?socket_timeout=7", "must begin with rediss://"),
        ("rediss://scott:hunter2@db/0?hunter2=1", "has options beside"),
        ("rediss://scott:hunter2@db/0?ssl_cert_reqs=hunter2", "ssl_cert_reqs"),
        ("postgresql://scott:hunt@hunter2@db/app", "cannot be read"),
        ("postgresql://scott:hunter2@db:x/app", "cannot be read"),
        ("postgresql://scott:hunter2@db", "cannot be read"),
        ("postgresql+asyncpg://scott:hunter2@db/app", "psycopg, psycopg2"),
        ("sqlite://", "cannot be read"),
        ("sqlite:///:memory:", "cannot be read"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_not_shown(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as error:
        open_store(url)
    assert "hunter2" not in str(error.value)
    assert "scott" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "demand", "checked"),
    [
        ("", "required", True),
        ("?ssl_cert_reqs=CERT_REQUIRED", "required", True),
        ("?ssl_cert_reqs=optional", "optional", True),
        ("?ssl_check_hostname=false", "required", False),
        ("?ssl_cert_reqs=CERT_NONE", "none", False),
    ],
)
def test_a_server_is_checked_as_far_as_the_url_says(
    options: str, demand: str, checked: bool
) -> None:
    told = open_client(f"rediss://db.example/0{options}").connection_pool.connection_kwargs
    assert told["ssl_cert_reqs"] == demand
    assert told["ssl_check_hostname"] is checked


def test_questions_are_not_repeated_by_themselves_and_have_limits() -> None:
    told = open_client("redis://db.example/0").connection_pool.connection_kwargs
    assert told["retry"]._retries == 0
    assert told["socket_timeout"] == told["socket_connect_timeout"] == 5.0
