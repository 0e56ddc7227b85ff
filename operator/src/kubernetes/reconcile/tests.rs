use http::Method;
use kube::Api;
use serde_json::Value;

use super::{
    super::{
        FINALIZER,
        fake::{self, FakeApi, stack_path},
        secrets::ClusterSecrets,
        source::Cluster,
    },
    *,
};
use crate::{
    engine::{Memory, Parts},
    source::Secrets,
};

fn context(api: &FakeApi) -> Context {
    let client = api.client();
    let metrics = Arc::new(Metrics::new().unwrap());
    let lease = Api::namespaced(client.clone(), "system");
    let leadership = Arc::new(Leadership::new(lease, "operator".to_owned(), "us".to_owned()));
    let generations = Arc::<Generations>::default();
    let source =
        Cluster { client: client.clone(), leadership: leadership.clone(), history: generations.clone() };
    let stacks = Stacks::new(Parts {
        source: Arc::new(source),
        secrets: Secrets::from_store(Arc::new(ClusterSecrets(client.clone()))),
        memory: Arc::new(Memory::none()),
        metrics: metrics.clone(),
        listener: None,
    });
    let events = Arc::new(Events::start(client.clone(), "us".to_owned()));
    let controller = metrics.controller(1).unwrap();
    let limits = (vec![PathBuf::from("/opt")], Duration::from_mins(10));
    Context::new(
        client,
        stacks,
        (events, leadership, generations),
        Arc::default(),
        (controller, metrics),
        limits,
    )
}

async fn reconciled(object: &DynamicObject, context: &Context) -> Result<Next, ApiError> {
    Box::pin(reconcile_object(object, context)).await
}

/// The object as the API server has it.
fn stored(api: &FakeApi, name: &str) -> DynamicObject {
    serde_json::from_value(api.object(&stack_path(name)).unwrap()).unwrap()
}

fn finalizers(api: &FakeApi, name: &str) -> Value {
    api.object(&stack_path(name)).unwrap()["metadata"]["finalizers"].clone()
}

fn is_followed(context: &Context, object: &DynamicObject) -> bool {
    context.stacks().get(&key_of(object)).is_some()
}

#[tokio::test]
async fn a_stack_is_followed_only_once_its_finalizer_is_stored() {
    let (api, mut object) = (FakeApi::default(), fake::stack("staging"));
    object.data["spec"]["policy"] = serde_json::json!({ "deletion": "Down" });
    api.store(&stack_path("staging"), &object);
    let (object, context) = (stored(&api, "staging"), context(&api));

    api.refuse(&Method::PATCH, true);
    assert!(reconciled(&object, &context).await.is_err());
    assert!(!is_followed(&context, &object), "its host is worked on before its deletion waits for that");

    api.refuse(&Method::PATCH, false);
    assert_eq!(reconciled(&object, &context).await.unwrap(), Next::WaitForChange);
    assert!(is_followed(&context, &object));
    assert_eq!(finalizers(&api, "staging"), serde_json::json!([FINALIZER]));

    // Where nothing is to be removed any more, it goes again.
    let mut object = stored(&api, "staging");
    object.data["spec"]["policy"]["deletion"] = "Retain".into();
    object.metadata.generation = Some(2);
    api.store(&stack_path("staging"), &object);
    reconciled(&stored(&api, "staging"), &context).await.unwrap();
    assert_eq!(finalizers(&api, "staging"), serde_json::json!([]));
}

#[tokio::test]
async fn a_stack_that_is_refused_gets_no_finalizer() {
    let api = FakeApi::default();
    let context = context(&api);
    api.store(&stack_path("staging"), &fake::stack("staging"));
    reconciled(&stored(&api, "staging"), &context).await.unwrap();
    // On the same host, with another directory.
    let mut rival = fake::stack("rival");
    rival.data["spec"]["policy"] = serde_json::json!({ "deletion": "Down" });
    rival.data["spec"]["hosts"][0]["directory"] = "/opt/rival".into();
    rival.metadata.creation_timestamp = Some(Time("2025-03-05T05:06:07Z".parse().unwrap()));
    api.store(&stack_path("rival"), &rival);
    reconciled(&stored(&api, "rival"), &context).await.unwrap();
    assert!(!is_followed(&context, &rival));
    assert_eq!(finalizers(&api, "rival"), Value::Null);
    let status = &api.object(&stack_path("rival")).unwrap()["status"];
    assert!(status.to_string().contains("InvalidSpec"), "{status}");
}
