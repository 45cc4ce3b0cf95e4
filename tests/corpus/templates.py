"""Job templates, good and bad: the command line and the API server say the same of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Template = Mapping[str, Any]


def _template(
    container: Template | None = None, pod: Template | None = None, **job: Any
) -> Template:
    containers = [{"name": "pages", "image": "none", **(container or {})}]
    spec = {"containers": containers, "restartPolicy": "Never", **(pod or {})}
    return {"spec": {"template": {"spec": spec}, **job}}


GOOD_TEMPLATES: Mapping[str, Template] = {
    "numbers as quantities": _template({"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}),
    "a size as a number": _template(pod={"volumes": [{"name": "v", "emptyDir": {"sizeLimit": 5}}]}),
    "ports by number and by name": _template(
        {
            "livenessProbe": {"httpGet": {"port": 80, "path": "/"}},
            "readinessProbe": {"httpGet": {"port": "http", "path": "/"}},
        }
    ),
    "nothing where something may be": _template({"env": None, "args": None}, backoffLimit=None),
    "a number without a fraction": _template(backoffLimit=3.0),
    "labels": {"metadata": {"labels": {"team": "docs"}}, **_template()},
}

# The problem of each, below `spec.job.template`.
BAD_TEMPLATES: Mapping[str, tuple[Template, str]] = {
    "a command that is a text": (
        _template({"command": "make pages"}),
        "spec.template.spec.containers[0].command: expected a list, not a text",
    ),
    "an argument that is a number": (
        _template({"args": ["--copies", 3]}),
        "spec.template.spec.containers[0].args[1]: expected a text: quote it, not a number",
    ),
    "variables by name": (
        _template({"env": {"COLOR": "red"}}),
        "spec.template.spec.containers[0].env: expected a list, not a mapping",
    ),
    "a variable that is a truth": (
        _template({"env": [{"name": "DEBUG", "value": True}]}),
        "spec.template.spec.containers[0].env[0].value: expected a text: quote it, not a truth",
    ),
    "a mistyped field": (
        _template({"resouces": {}}),
        "spec.template.spec.containers[0].resouces: unknown field; did you mean resources?",
    ),
    "a container that is a text": (
        _template(pod={"initContainers": ["pages"]}),
        "spec.template.spec.initContainers[0]: expected a mapping, not a text",
    ),
    "a limit that is a text": (
        _template(backoffLimit="3"),
        "spec.backoffLimit: expected a whole number, not a text",
    ),
    "a limit that is a truth": (
        _template(backoffLimit=True),
        "spec.backoffLimit: expected a whole number, not a truth",
    ),
    "a limit with a fraction": (
        _template(backoffLimit=1.5),
        "spec.backoffLimit: expected a whole number, not a fraction",
    ),
    "a truth that is a text": (
        _template(pod={"hostNetwork": "no"}),
        "spec.template.spec.hostNetwork: expected true or false, not a text",
    ),
    "a label that is a number": (
        {"metadata": {"labels": {"year": 2026}}, **_template()},
        "metadata.labels.year: expected a text: quote it, not a number",
    ),
    "a spec that is a list": (
        {"spec": []},
        "spec: expected a mapping, not a list",
    ),
}
