#!/usr/bin/env python3
"""Records the AdmissionReviews that a real kube-apiserver sends, as fixtures for tests/router.rs.

Run it inside the network of the test cluster, with its environment (see e2e/README.md):

    source target/cluster/env
    $CLUSTER_EXEC scripts/record_reviews.py tests/reviews

It registers a webhook of its own for one new namespace, makes the changes listed below with kubectl,
writes each review to a file named after its case, and removes everything again.
"""

import base64
import http.server
import json
import os
import pathlib
import ssl
import subprocess
import sys
import tempfile
import threading

NAMESPACE = "zen-lead-record"
PORT = 29443
USER = "alice"
KUBECTL = os.environ["KUBECTL_BIN"]
case = ""
recorded = {}


class Recorder(http.server.BaseHTTPRequestHandler):
    """Allows everything and keeps what came."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        review = json.loads(body)
        # A controller that runs in the cluster may react; only what this script does is recorded.
        if case == "probe" or review["request"]["userInfo"]["username"] == USER:
            recorded.setdefault(case, review)
        answer = {
            "apiVersion": review["apiVersion"],
            "kind": "AdmissionReview",
            "response": {"uid": review["request"]["uid"], "allowed": True},
        }
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def kubectl(*args, data=None, user=None):
    env = dict(os.environ)
    if user:
        env["KUBECONFIG"] = env["KUBECONFIG_USER"]
    text = json.dumps(data) if data is not None else None
    done = subprocess.run([KUBECTL, *args], input=text, text=True, env=env, capture_output=True)
    if done.returncode:
        sys.exit(f"kubectl {' '.join(args)}: {done.stderr}")
    return done.stdout


def service(name, annotations=None, **spec):
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": annotations or {}}
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    spec = {"selector": {"app": "web"}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def record(name, *args, data=None):
    global case
    case = name
    kubectl("-n", NAMESPACE, *args, data=data, user=True)
    case = ""
    if name not in recorded:
        sys.exit(f"{name}: the API server sent no review")


def changes():
    on = {"zen-lead.io/enabled": "true"}
    wrong = {**on, "zen-lead.io/sticky": "yes", "zen-lead.io/stratgy": "oldest-ready"}
    record("create-plain", "create", "-f-", data=service("plain"))
    record("create-enabled", "create", "-f-", data=service("web", on))
    record("create-invalid", "create", "-f-", data=service("wrong", wrong))
    record("create-dry-run", "create", "--dry-run=server", "-f-", data=service("dry", on))
    record("apply-server-side", "apply", "--server-side", "-f-", data=service("applied", on))
    record("update-add-key", "annotate", "service/plain", "zen-lead.io/enabled=true")
    record("update-change-key", "annotate", "--overwrite", "service/web", "zen-lead.io/sticky=maybe")
    record("update-opt-out", "annotate", "--overwrite", "service/wrong", "zen-lead.io/enabled=false")
    selector = {"spec": {"selector": {"app": "other"}}}
    record("update-selector", "patch", "service/web", "-p", json.dumps(selector))
    status_key = {"metadata": {"annotations": {"zen-lead.io/leader-epoch": "7"}}}
    patch = ("patch", "service/web", "-p", json.dumps(status_key))
    record("update-status-key", *patch)
    other = {"metadata": {"annotations": {"zen-lead.io/current-leader": "me"}}}
    kubectl("create", "role", "status", "-n", NAMESPACE, "--verb=patch", "--resource=services/status")
    kubectl("create", "rolebinding", "status", "-n", NAMESPACE, "--role=status", f"--user={USER}")
    record("status-subresource", "patch", "service/web", "--subresource=status", "-p", json.dumps(other))
    record("delete", "delete", "service/applied")


def main():
    out = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as temp:
        key, crt = f"{temp}/key", f"{temp}/crt"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "1", "-subj", "/CN=record", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", key, "-out", crt],
            check=True, capture_output=True,
        )
        server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Recorder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(crt, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        bundle = base64.b64encode(pathlib.Path(crt).read_bytes()).decode()
    webhook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": NAMESPACE},
        "webhooks": [{
            "name": "record.zen-lead.io",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {"url": f"https://127.0.0.1:{PORT}/", "caBundle": bundle},
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"],
                "resources": ["services", "services/status"],
            }],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
        }],
    }
    kubectl("create", "namespace", NAMESPACE)
    try:
        kubectl("create", "-f-", data=webhook)
        # The API server notices a new configuration within a moment: probe until it does.
        probe = service("probe")
        while "probe" not in recorded:
            global case
            case = "probe"
            kubectl("create", "--dry-run=server", "-f-", data=probe)
        changes()
    finally:
        kubectl("delete", "--ignore-not-found", "validatingwebhookconfiguration", NAMESPACE)
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    recorded.pop("probe", None)
    recorded.pop("", None)
    for name, review in sorted(recorded.items()):
        for which in ("object", "oldObject"):
            (review["request"].get(which) or {}).get("metadata", {}).pop("managedFields", None)
        (out / f"{name}.json").write_text(json.dumps(review, indent=1, sort_keys=True) + "\n")
        print(f"{name}.json")


main()
