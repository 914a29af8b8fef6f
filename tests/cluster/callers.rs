//! Who may call the two ports, and what a caller without credentials learns there: a client certificate of a
//! real API server, the token of scrapes, and made-up reviews.
//!
//! How much a caller may occupy is in `abuse` and `occupied`.

use std::path::Path;
use std::sync::Arc;

use kube::api::PostParams;
use serde_json::{Value, json};

use crate::support::caller::{Caller, response, review};
use crate::support::case::{Case, refusal};
use crate::support::control_plane::{self, Elsewhere};
use crate::support::harness::Test;
use crate::support::http;
use crate::support::issuer::Issuer;
use crate::support::names;
use crate::support::objects::{source, source_json, source_set};
use crate::support::waiting::{check, until};

const TOKEN: &str = "s3cret";

pub fn tests() -> Vec<Test> {
    vec![
        Test::new(module_path!(), "only_the_api_server_is_let_in", only_the_api_server_is_let_in)
            .needs(control_plane::programs()),
        Test::new(
            module_path!(),
            "made_up_reviews_learn_names_only",
            made_up_reviews_learn_names_only,
        ),
    ]
}

/// The files of docs/admission.md, "Client certificates", and the flag that names them.
fn admission_configuration(dir: &Path, ca: &Issuer, webhook: u16) -> String {
    let write = |name: &str, content: &str| {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let shown = ca.client("the-api-server");
    let user = json!({
        "client-certificate": write("client.crt", &shown.chain),
        "client-key": write("client.key", &shown.key),
    });
    // The webhooks of a run have an address instead of the name of a Service.
    let users = json!([{"name": format!("127.0.0.1:{webhook}"), "user": user}]);
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "users": users});
    let kubeconfig = write("webhooks.kubeconfig", &kubeconfig.to_string());
    let plugin = |name: &str| {
        let configuration = json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": kubeconfig,
        });
        json!({"name": name, "configuration": configuration})
    };
    let plugins = ["ValidatingAdmissionWebhook", "MutatingAdmissionWebhook"].map(plugin);
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": plugins,
    });
    let configuration = write("admission.yaml", &configuration.to_string());
    format!("--admission-control-config-file={configuration}")
}

async fn only_the_api_server_is_let_in(t: Arc<Case>) {
    let elsewhere = Elsewhere::open(&t, 1, 1).await;
    let Elsewhere { case: t, control } = &elsewhere;
    let (product, dir) = (&t.world.product, &t.world.dir);
    let ca = Issuer::new("CA of API servers");
    let file = |name: &str, content: &str| {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let (cas, token) = (file("clients.crt", &ca.pem), file("metrics-token", TOKEN));
    product.spawn(
        0,
        &[
            &format!("--webhook-client-ca-file={cas}"),
            "--webhook-client-names=the-api-server",
            &format!("--metrics-token-file={token}"),
        ],
    );
    product.until_ready(0).await;

    // The API server has not been told to present a certificate.
    let write = async |name: &str, settings: &[(&str, &str)]| {
        t.services().create(&PostParams::default(), &source_set(name, settings)).await
    };
    let text = refusal(write("early", &[]).await).message;
    assert!(text.contains("failed calling webhook \"validate.zen-lead.io\""), "{text}");

    let flag = admission_configuration(dir, &ca, product.webhook_port(0));
    control.kill(0);
    control.launch(0, &[&flag]);
    control.until_ready(0).await;
    until("an annotated write passes", || write("web", &[])).await;
    let bad = refusal(write("bad", &[(names::STICKY, "perhaps")]).await);
    assert_eq!(bad.code, 422, "{}", bad.message);

    let caller = Caller::new(t, 0).await;
    let asked = review("u", &source_json("web", &json!({}))).to_string();
    // With TLS 1.3, a client learns after its own part of the handshake that it is refused.
    let answer = caller.review("/validate", asked.as_bytes()).await;
    assert!(answer.is_err(), "a caller without a certificate is answered: {answer:?}");

    let port = product.admin_port(0);
    for (given, code) in [("", 401), ("guessed", 401), (TOKEN, 200)] {
        let answer = http::get_with(given, port, "/metrics").await.unwrap();
        assert_eq!(answer.code, code, "{given}");
        assert_eq!(answer.body.contains("zen_lead_build_info"), code == 200, "{}", answer.body);
    }
    // Without a token. Its watches have to find the API server again.
    product.until_ready(0).await;
    elsewhere.close().await;
}

/// What docs/decisions/what-a-caller-learns.md lists, and nothing about pods, leaders or other namespaces.
async fn made_up_reviews_learn_names_only(t: Arc<Case>) {
    let pods = ["secret-a", "secret-b"];
    let made = t.ready_pods("web", &pods).await;
    let web = t.web(&[]).await;
    t.create(&source("plain", &json!({"metadata": {"annotations": null}}))).await;
    t.until_led_by("web-leader", "secret-a").await;
    let mut hidden: Vec<String> = pods.map(str::to_owned).to_vec();
    hidden.extend(made.iter().filter_map(|pod| pod.metadata.uid.clone()));
    hidden.extend(made.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.clone()));
    hidden.extend(web.metadata.uid.clone());

    let caller = Caller::new(&t, 0).await;
    let ask = async |namespace: &str, service: &Value, path: &str| {
        let mut made_up = review("u", service);
        made_up["request"]["namespace"] = json!(namespace);
        let answer = caller.review(path, made_up.to_string().as_bytes()).await.unwrap();
        for hidden in &hidden {
            assert!(!answer.body.contains(hidden.as_str()), "{hidden}: {}", answer.body);
        }
        response(&answer, "u")
    };
    let named = |name: &str, leader: &str| {
        let set = json!({"metadata": {"annotations": {names::LEADER_NAME: leader}}});
        source_json(name, &set)
    };
    let with_selector =
        |name: &str, app: &str| source_json(name, &json!({"spec": {"selector": {"app": app}}}));
    // The watch of this replica may be behind.
    for (service, learns) in [
        (named("other", "web-leader"), "this is the leader Service of Service \\\"web\\\""),
        (named("other", "plain"), "Service \\\"plain\\\" exists in namespace"),
        (with_selector("other", "web"), "Service \\\"web\\\" selects the same pods"),
    ] {
        until(learns, || async {
            let said = ask(&t.ns, &service, "/validate").await.to_string();
            check(said.contains(learns), said)
        })
        .await;
    }
    // What does not exist, and what exists in another namespace, are answered alike.
    for (namespace, service) in [
        (&*t.ns, named("other", "nothing")),
        ("elsewhere", named("other", "web-leader")),
        ("elsewhere", with_selector("other", "web")),
    ] {
        assert_eq!(
            ask(namespace, &service, "/validate").await,
            json!({"uid": "u", "allowed": true})
        );
    }
    ask(&t.ns, &named("other", "web-leader"), "/mutate").await;
}
