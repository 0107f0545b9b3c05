"""Kubernetes: a pod of APISIX with the runner as a native sidecar, as resources and as values of the Helm chart."""

from textwrap import indent

from .apisix import STANDALONE
from .runner import APISIX_IMAGE, APISIX_USER, GRACE_SECONDS, Deployed, json_list, socket_folder
from .yaml_text import flow, yaml_of

__all__ = ["helm_values", "manifest"]

_SIDECAR = """\
- name: runner
  image: {image}
  imagePullPolicy: IfNotPresent
  # This makes it a sidecar: it starts before the gateway, ends after it, and is started again when it ends.
  restartPolicy: Always
  command: {command}
  # The gateway starts once the runner answers.
  startupProbe:
    exec: &health
      command: {health}
    periodSeconds: 2
    timeoutSeconds: 5
    failureThreshold: 60
{ports}  readinessProbe:
    {ready}
    periodSeconds: 10
    timeoutSeconds: 5
  livenessProbe:
    exec: *health
    periodSeconds: 30
    timeoutSeconds: 10
  # Measure what your plugins need, and set limits.{limited}
  resources:
    requests: {{cpu: 100m, memory: 192Mi}}
    limits: {{cpu: "2"}}
  securityContext:
    runAsNonRoot: true
    # the user of APISIX's image, for which alone the socket is
    runAsUser: {user}
    runAsGroup: {user}
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    capabilities: {{drop: [ALL]}}
    seccompProfile: {{type: RuntimeDefault}}
  volumeMounts:
    - {{name: socket, mountPath: {folder}}}
    - {{name: tmp, mountPath: /tmp}}
"""

_PORTS = """\
  # Metrics, and a page for people. Nobody is asked for a password there.
  ports:
    - {{name: admin, containerPort: {port}}}
"""

_MANIFEST = """\
# APISIX with the runner as its sidecar: two containers that share a socket in a volume. Kubernetes 1.29 or later.
# The ConfigMap {name} has APISIX's config.yaml and its routes:
#   kubectl create configmap {name} --from-file=config.yaml --from-file=apisix.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  replicas: {replicas}
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      terminationGracePeriodSeconds: {grace}
      automountServiceAccountToken: false
      initContainers:
{sidecar}\
      containers:
        - name: apisix
          image: {apisix}
          env:
            # Without this, the image's entry point looks for etcd.
            - {{name: APISIX_STAND_ALONE, value: "true"}}
          ports:
            - {{name: http, containerPort: 9080}}
          readinessProbe:
            tcpSocket: {{port: http}}
            periodSeconds: 5
          # Requests come for a moment after the pod has been told to end.
          lifecycle:
            preStop:
              exec: {{command: [sleep, "5"]}}
          resources:
            requests: {{cpu: 200m, memory: 256Mi}}
          securityContext:
            runAsNonRoot: true
            runAsUser: {user}
            allowPrivilegeEscalation: false
            capabilities: {{drop: [ALL]}}
            seccompProfile: {{type: RuntimeDefault}}
          volumeMounts:
            - {{name: socket, mountPath: {folder}}}
            # Each file is mounted by itself, because the folder has others. So after a change of the ConfigMap, replace
            # the pods: kubectl rollout restart deployment/{name}
            - {{name: conf, mountPath: /usr/local/apisix/conf/config.yaml, subPath: config.yaml}}
            - {{name: conf, mountPath: /usr/local/apisix/conf/apisix.yaml, subPath: apisix.yaml}}
{stand_in}\
      volumes:
        - {{name: socket, emptyDir: {{medium: Memory, sizeLimit: 64Mi}}}}
        - {{name: tmp, emptyDir: {{}}}}
        - {{name: conf, configMap: {{name: {name}}}}}
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  selector: {{app: {name}}}
  ports:
    - {{name: http, port: 80, targetPort: http}}
"""

_STAND_IN = """\
        # Stands in for your service.
        - name: upstream
          image: traefik/whoami:v1.10
          args: ["--port", "1980"]
"""

_HELM = """\
# Values for APISIX's Helm chart (apisix/apisix, written for 2.14), with the runner as a sidecar.
# Kubernetes 1.29 or later.
# The ConfigMap {name} has the routes:
#   kubectl create configmap {name} --from-file=apisix.yaml
#   helm install {name} apisix/apisix -f values.yaml
image:
  repository: {repository}
  tag: {tag}
apisix:
  deployment:
    mode: standalone
    role: data_plane
    standalone:
      existingConfigMap: {name}
  admin:
    enabled: false
  # The chart has no value for path_for_test, so this is the whole config.yaml. With routes in etcd, set mode and role
  # as you need them, and write deployment.etcd and deployment.admin here too.
  fullCustomConfig:
    enabled: true
    config:
{config}\
etcd:
  enabled: false
externalEtcd:
  # otherwise the chart asks for a Secret with its password
  user: ""
extraEnvVars:
  # Without this, the image's entry point looks for etcd.
  - {{name: APISIX_STAND_ALONE, value: "true"}}
extraVolumes:
  - {{name: socket, emptyDir: {{medium: Memory, sizeLimit: 64Mi}}}}
  - {{name: tmp, emptyDir: {{}}}}
extraVolumeMounts:
  - {{name: socket, mountPath: {folder}}}
extraInitContainers:
{sidecar}"""


def _sidecar(runner: Deployed, image: str) -> str:
    port = runner.admin_port
    return _SIDECAR.format(
        image=flow(image),
        command=json_list(runner.command, "\n    "),
        health=json_list(runner.health, "\n        "),
        ports="" if port is None else _PORTS.format(port=port),
        ready="exec: *health" if port is None else "httpGet: {path: /readyz, port: admin}",
        limited=" With --workers auto there is one worker for each CPU." if runner.workers == "auto" else "",
        user=APISIX_USER,
        folder=socket_folder(runner.uds),
    )


def manifest(name: str, runner: Deployed, image: str, *, replicas: int = 2, upstream: bool = False) -> str:
    """Return a Deployment and a Service.

    Args:
        name: Of what is made, and of the ConfigMap.
        runner: The runner.
        image: Its image.
        replicas: Number of pods.
        upstream: True: a container stands in for an upstream.
    """
    return _MANIFEST.format(
        name=name, replicas=replicas, grace=GRACE_SECONDS + 10, sidecar=indent(_sidecar(runner, image), " " * 8),
        apisix=APISIX_IMAGE, user=APISIX_USER, folder=socket_folder(runner.uds), stand_in=_STAND_IN if upstream else "",
    )  # fmt: skip


def helm_values(name: str, runner: Deployed, image: str) -> str:
    """Return values for APISIX's Helm chart.

    Args:
        name: Of what is made, and of the ConfigMap.
        runner: The runner.
        image: Its image.
    """
    repository, _, tag = APISIX_IMAGE.partition(":")
    config = {"deployment": STANDALONE, "ext-plugin": {"path_for_test": runner.uds}}
    return _HELM.format(
        name=name, repository=repository, tag=tag, config=indent(yaml_of(config), " " * 6),
        folder=socket_folder(runner.uds), sidecar=indent(_sidecar(runner, image), " " * 2),
    )  # fmt: skip
