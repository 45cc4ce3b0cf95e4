"""The Kubernetes operator: kopf watches and reports health, everything else is the engine."""
