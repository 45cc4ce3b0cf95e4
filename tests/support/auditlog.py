"""What service accounts ask of an API server, by its own audit log."""

import json
from pathlib import Path

import yaml

Asked = tuple[str, str, str]
"""An API group, a resource with its subresource, and a verb."""

_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    # Of a watch that goes on, only ResponseStarted tells.
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
    ],
}


class AuditLog:
    """Written by an API server that is started with these `options`, before it answers.

    Kubernetes' own service accounts are left out.
    """

    def __init__(self, folder: Path) -> None:
        policy, self._file = folder / "policy.yaml", folder / "audit.log"
        policy.write_text(yaml.safe_dump(_POLICY))
        self.options = [
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self._file}",
            "--audit-log-mode=blocking",
        ]

    def asked_by(self, account: str, namespace: str) -> set[Asked]:
        """All that this service account has asked for until now, refused or not."""
        user = f"system:serviceaccount:{namespace}:{account}"
        *lines, _ = self._file.read_text().split("\n")
        found = [json.loads(line) for line in lines]
        return {
            _asked(each["objectRef"], each["verb"])
            for each in found
            if each["user"]["username"] == user and "objectRef" in each
        }


def _asked(about: dict[str, str], verb: str) -> Asked:
    resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
    return about.get("apiGroup", ""), resource, verb
