"""A first ScannerJob file, with a comment on each field that is worth a thought."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from scannerjob.cli.documents import DocumentError, problems_of

_WORD = re.compile(r"[\w./-]+", re.ASCII)


@dataclass(frozen=True)
class Answers:
    """What has to be known; `task` for Celery, `image` for Kubernetes Jobs."""

    name: str
    namespace: str
    query: str
    database: str
    interval: str
    concurrency: int
    task: str | None = None
    queue: str = "celery"
    broker: str = ""
    guard: str | None = None
    image: str | None = None
    command: str | None = None


def document(answers: Answers) -> str:
    """The file. Raises DocumentError naming what cannot be used."""
    problems = [*_no_texts(answers)]
    if problems:
        raise DocumentError(problems)
    text = _text(answers)
    problems = problems_of(text)
    if problems:
        raise DocumentError(problems)
    return text


def _no_texts(answers: Answers) -> Iterator[str]:
    for name, answer in vars(answers).items():
        try:
            str(answer).encode()
        except UnicodeEncodeError:
            yield f"{name}: expected text in UTF-8, not {answer!r}"


def _text(answers: Answers) -> str:
    target = _job(answers) if answers.image else _celery(answers)
    return f"""\
apiVersion: scannerjob.dev/v1alpha1
kind: ScannerJob
metadata:
  name: {_quoted(answers.name)}
  namespace: {_quoted(answers.namespace)}
spec:
  database:
    # A Secret of this namespace with a SQLAlchemy URL, of a user that may do nothing but read:
    #   kubectl create secret generic NAME --from-literal=url=postgresql://USER:PASSWORD@HOST/DATABASE
    urlSecretRef: {_reference(answers.database)}
  # One SELECT. A row must match until its work is done. The columns become {_become(answers)}
  # by their aliases, and the first one identifies the row (else: key: [...]).
  query: {_block(answers.query)}
  # How long to wait before looking again when there is nothing to do.
  interval: {_quoted(answers.interval)}
  # The most launches that are out at any time: queued and running.
  concurrency: {answers.concurrency}
  # How long one attempt may run; without it, as long as it takes.
  # deadline: 1h
  # How often a row is tried in all, and the rest after a failure, doubled each time.
  retry: {{attempts: 3, backoff: 10s, maxBackoff: 10m}}
{target}"""


def _become(answers: Answers) -> str:
    return "environment variables" if answers.image else "keyword arguments"


def _celery(answers: Answers) -> str:
    guard = (
        f"    guard:\n      urlSecretRef: {_reference(answers.guard)}\n"
        if answers.guard
        else "    # guard: {urlSecretRef: {name: app-redis, key: url}}\n"
    )
    return f"""\
  celery:
    broker:
      urlSecretRef: {_reference(answers.broker)}
    # Where workers keep what they run: a killed worker's row runs again within seconds, and no
    # message runs twice. Needs scannerjob.worker.install(app, url) in the Celery app.
{guard}    task: {_quoted(answers.task or "")}
    queue: {_quoted(answers.queue)}
"""


def _job(answers: Answers) -> str:
    command = f"\n                command: {_list(answers.command)}" if answers.command else ""
    return f"""\
  job:
    # A Job of each row, from this template (batch/v1 JobTemplateSpec).
    template:
      spec:
        template:
          spec:
            containers:
              - name: main
                image: {_quoted(answers.image or "")}{command}
    successfulJobsHistoryLimit: 3
    failedJobsHistoryLimit: 1
"""


def _reference(secret: str) -> str:
    name, _, key = secret.partition("/")
    return f"{{name: {_quoted(name)}, key: {_quoted(key or 'url')}}}"


def _quoted(text: str) -> str:
    """The text as a YAML scalar: plain where it is a word that YAML takes for itself."""
    import yaml

    if _WORD.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    quoted = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf)
    return str(quoted).strip()


def _list(command: str) -> str:
    """The YAML list of texts that this is, each of them quoted where it has to be."""
    import yaml

    try:
        node = yaml.compose(command, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        node = None
    words = node.value if isinstance(node, yaml.SequenceNode) else []
    if not words or not all(word.tag == "tag:yaml.org,2002:str" for word in words):
        raise DocumentError(
            [f"--command: expected a YAML list of texts, as '[sleep, \"5\"]', not {command!r}"]
        )
    return f"[{', '.join(_quoted(word.value) for word in words)}]"


def _block(query: str) -> str:
    """The query line by line, or quoted if it has what ends a line or is not kept in a block."""
    lines = query.strip().split("\n")
    if not all(line.replace("\t", " ").isprintable() for line in lines):
        return _quoted(query)
    return "\n".join(["|", *(f"    {line}" for line in lines)])
