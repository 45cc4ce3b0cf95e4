"""Reading ScannerJob documents: each problem with its file, line and field, all at once."""

from pathlib import Path

import pytest

from scannerjob.cli.documents import DocumentError, load_documents, problems_of

GOOD = """\
apiVersion: scannerjob.dev/v1alpha1
kind: ScannerJob
metadata: {name: pdf-pages}
spec:
  database: {urlSecretRef: {name: app-db, key: url}}
  query: SELECT id FROM pdf
  interval: 30s
  celery:
    broker: {urlSecretRef: {name: app-redis, key: url}}
    task: docs.tasks.create_pages
"""


def _file(folder: Path, text: str, name: str = "jobs.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def _problems(folder: Path, text: str, *, in_cluster: bool = True) -> list[str]:
    file = _file(folder, text)
    with pytest.raises(DocumentError) as raised:
        load_documents([file], in_cluster=in_cluster)
    return [problem.removeprefix(f"{file}:") for problem in raised.value.problems]


def test_several_documents_in_several_files(tmp_path: Path) -> None:
    other = GOOD.replace("pdf-pages", "thumbnails, namespace: media")
    first = _file(tmp_path, f"---\n{GOOD}---\n{other}---\n")
    second = _file(tmp_path, GOOD.replace("pdf-pages", "ocr"), "second.yaml")
    found = load_documents([first, second], "docs")
    assert [str(each.ref) for each in found] == ["docs/pdf-pages", "media/thumbnails", "docs/ocr"]
    assert found[0].body["metadata"]["namespace"] == "docs"
    assert found[1].place == f"{first}:13"


def test_what_kubectl_prints_is_accepted(tmp_path: Path) -> None:
    printed = GOOD.replace(
        "{name: pdf-pages}", "{name: pdf-pages, uid: x, resourceVersion: '1', generation: 2}"
    )
    assert load_documents([_file(tmp_path, printed + "status: {active: 3}\n")])


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("interval: 30s", "intervall: 30s", "7: spec.intervall: unknown field; did you mean "),
        ("interval: 30s", "zzz: 1", "7: spec.zzz: unknown field; expected one of suspend, "),
        ("interval: 30s", "interval: 30", "7: spec.interval: must be a duration with a unit"),
        ("interval: 30s", "interval: -1s", "7: spec.interval: must be a duration with a unit"),
        ("interval: 30s", "interval: 100ms", "7: spec.interval: must be at least 500ms"),
        ("interval: 30s", "concurrency: 1001", "7: spec.concurrency: "),
        ("interval: 30s", "interval: 30s\n  interval: 31s", "8: interval: given twice, first on"),
        (
            "key: url}}\n  query",
            "kay: url}}\n  query",
            "5: spec.database.urlSecretRef.kay: ",
        ),
        ("interval: 30s", "job: {template: {}}", "4: spec: exactly one of celery or job"),
        ("kind: ScannerJob", "kind: Job", "2: kind: expected ScannerJob, not 'Job'"),
        ("v1alpha1", "v1", "1: apiVersion: expected scannerjob.dev/v1alpha1, not "),
        ("metadata: {name: pdf-pages}", "metadata: {}", "3: metadata.name: required"),
        ("{name: pdf-pages}", "{name: PDF}", "3: metadata.name: expected lower case letters"),
        ("{name: pdf-pages}", "{name: a, namspace: b}", "3: metadata.namspace: unknown field; did"),
        ("metadata: {name: pdf-pages}\n", "", "1: metadata: required"),
        ("spec:", "specs:", "4: specs: unknown field; did you mean spec?"),
        ("interval: 30s", "interval: [", "9: not YAML: while parsing a flow sequence from line 7"),
        ("interval: 30s", "interval: !!python/name:os.system x", "7: not YAML: "),
        ("interval: 30s", "interval: !!int abc", "7: not YAML: abc cannot be read as int; quote"),
        ("interval: 30s", "interval: !!timestamp x", "7: not YAML: x cannot be read as timestamp"),
        ("interval: 30s", "interval: !!bool maybe", "7: not YAML: maybe cannot be read as bool"),
        ("interval: 30s", f"interval: 1{'0' * 5000}", "7: not YAML: 1000"),
        ("interval: 30s", f"interval: 0x{'f' * 5000}", "7: not YAML: 0xff"),
        ("interval: 30s", "? [a, b]\n  : 1", "7: not YAML: while constructing a mapping"),
        ("interval: 30s", "interval: &a [*a, *a]", "7: not YAML: nested more than 100 deep, or an"),
        ("interval: 30s", f"interval: {'[' * 150 + ']' * 150}", "7: not YAML: nested more than"),
        ("pdf-pages}", "x, labels: {d: 2024-02-30}}", "3: not YAML: 2024-02-30 cannot be read as"),
        ("pdf-pages}", "x, labels: {d: 2024-02-29}}", "3: metadata.labels.d: expected a text"),
        ("pdf-pages}", "x, labels: {1: a}}", "3: metadata.labels.1: expected a text: quote it"),
        ("pdf-pages}", "x, annotations: text}", "3: metadata.annotations: expected a mapping of"),
    ],
)
def test_a_problem_names_line_and_field(
    tmp_path: Path, before: str, after: str, problem: str
) -> None:
    assert before in GOOD
    found = _problems(tmp_path, GOOD.replace(before, after, 1))
    assert any(each.startswith(problem) for each in found), found


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("DELETE FROM pdf", "must be a SELECT, or WITH ... SELECT"),
        ("SELEC id FROM pdf", "must be a SELECT, or WITH ... SELECT"),
        ("SELECT 1; DROP TABLE pdf", "must be one statement, and a semicolon stands between two"),
        ("SELECT id FROM pdf FOR UPDATE", "must not lock rows: no FOR UPDATE, FOR SHARE or LOCK "),
        ("WITH d AS (DELETE FROM pdf RETURNING id) SELECT id FROM d", "must only read: no INSERT"),
    ],
)
def test_a_query_that_no_database_is_asked_is_a_problem(
    tmp_path: Path, query: str, problem: str
) -> None:
    text = GOOD.replace("SELECT id FROM pdf", f"|\n    {query}")
    (told,) = _problems(tmp_path, text)

    assert told.startswith(f"6: spec.query: {problem}")
    # One process does not refuse all its documents for it.
    assert load_documents([_file(tmp_path, text)], in_cluster=False)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id::text AS id FROM pdf WHERE tags @> ARRAY['a'];",
        "SELECT `id` FROM `pdf`  # of MySQL",
        "SELECT id FROM pdf WHERE t > strftime('%s', 'now')",
        "SELECT id FROM a_function_that_no_parser_knows(1, VARIADIC ARRAY[2])",
        "WITH d AS (SELECT id FROM pdf) SELECT id FROM d",
    ],
)
def test_a_query_of_any_database_may_be_valid(tmp_path: Path, query: str) -> None:
    lines = GOOD.replace("SELECT id FROM pdf", f"|\n    {query}")

    assert load_documents([_file(tmp_path, lines)])


def test_an_alias_that_stands_for_billions_of_values_is_not_expanded(tmp_path: Path) -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10)]
    bomb = "\n".join(["l0: &l0 x", *levels])

    assert _problems(tmp_path, bomb) == [
        "1: not YAML: more than 100000 values, with each alias in full"
    ]


def test_a_key_that_an_alias_repeats_is_told_once(tmp_path: Path) -> None:
    told = _problems(tmp_path, f"{GOOD}status: [&a {{b: 1, b: 2}}, *a]\n")

    assert told == ["11: b: given twice, first on line 11"]


def test_a_text_that_is_in_no_file_is_checked_too() -> None:
    assert problems_of(GOOD) == []
    assert problems_of(GOOD.replace("pdf-pages", "PDF"))[0].startswith("metadata.name: expected")
    assert problems_of("a: \x07") == ["not YAML: expected text in UTF-8"]


def test_no_target_at_all(tmp_path: Path) -> None:
    text = GOOD.partition("  celery:")[0]
    assert _problems(tmp_path, text) == ["4: spec: exactly one of celery or job must be set"]


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    bad = GOOD.replace("interval: 30s", "interval: 30").replace("task:", "tsk:")
    first = _file(tmp_path, f"{GOOD}---\n{bad}")
    second = _file(tmp_path, "kind: Secret\n", "second.yaml")
    missing = tmp_path / "missing.yaml"
    with pytest.raises(DocumentError) as raised:
        load_documents([first, second, missing])
    found = "\n".join(raised.value.problems)
    assert f"{first}:18: spec.interval: " in found
    assert f"{first}:21: spec.celery.tsk: unknown field; did you mean task?" in found
    assert f"{second}:1: kind: expected ScannerJob, not 'Secret'" in found
    assert f"{missing}: cannot be read: No such file or directory" in found


def test_the_same_name_twice(tmp_path: Path) -> None:
    assert _problems(tmp_path, f"{GOOD}---\n{GOOD}") == [
        f"12: default/pdf-pages is given twice, first in {tmp_path / 'jobs.yaml'}:1"
    ]


@pytest.mark.parametrize("text", ["", "---\n---\n", "# nothing\n"])
def test_a_file_without_documents(tmp_path: Path, text: str) -> None:
    assert _problems(tmp_path, text)[0].endswith("expected a ScannerJob document, found none")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: \x07", b"[" * 20_000])
def test_a_file_that_is_no_text(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_bytes(content)
    with pytest.raises(DocumentError, match="not YAML"):
        load_documents([file])


def test_jobs_are_for_clusters(tmp_path: Path) -> None:
    pod = "{spec: {template: {spec: {containers: [{name: main, image: pages}]}}}}"
    text = GOOD.partition("  celery:")[0] + f"  job:\n    template: {pod}\n"
    assert load_documents([_file(tmp_path, text)])
    assert _problems(tmp_path, text, in_cluster=False) == [
        "8: spec.job: Kubernetes Jobs are launched by the operator only; use spec.celery here"
    ]


def test_a_problem_of_a_job_template_has_its_line(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("  celery:")] + (
        "  job:\n"
        "    template:\n"
        "      spec:\n"
        "        template:\n"
        "          spec:\n"
        "            containers:\n"
        "              - name: pages\n"
        "                command: make pages\n"
    )
    path = "spec.job.template.spec.template.spec.containers[0].command"
    assert _problems(tmp_path, text) == [f"15: {path}: expected a list, not a text"]
