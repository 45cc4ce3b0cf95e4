{{- /* All that the operator may do in the namespaces it serves, be it by Roles or by a ClusterRole. */}}
{{- define "scannerjob-operator.rules" -}}
# To see what is to be scanned. The patch sets one annotation, before the first launch: a ledger was
# begun.
- apiGroups: [scannerjob.dev]
  resources: [scannerjobs]
  verbs: [get, list, watch, patch]
# The ledger. Every write carries the version that it was decided on.
- apiGroups: [scannerjob.dev]
  resources: [scannerjobs/status]
  verbs: [update]
# A Job's owner reference blocks the owner's deletion, which takes this right where the admission
# plugin OwnerReferencesPermissionEnforcement is on.
- apiGroups: [scannerjob.dev]
  resources: [scannerjobs/finalizers]
  verbs: [update]
# URLs and certificates, by name. Secrets are never listed or watched.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
# To launch rows as Jobs and see how they end. The patch sets ttlSecondsAfterFinished once an outcome
# was counted; what is deleted is beyond the history limits.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
# To say why a Job failed, and whether a pod of a deleted Job still runs.
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
# To tell of changes where `kubectl describe` shows them.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
