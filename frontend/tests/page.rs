//! The page in a real Chromium, against the real API. Needs `--features browser`, Chromium and chromedriver.

#[cfg(test)]
mod browser;

#[cfg(test)]
mod page {
    use std::{
        net::SocketAddr,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use axum::{
        Router,
        extract::Request,
        http::{HeaderValue, Method, StatusCode},
        middleware::{Next, from_fn},
        response::IntoResponse,
    };
    use fantoccini::{Client, Locator, elements::Element, key::Key};
    use serde_json::json;
    use tasktracker_backend::{
        clock::Clock,
        docs,
        metrics::Metrics,
        router::{self, Options},
        state::AppState,
        storage::{Place, Storage},
        tasks::{ListQuery, NewTask, NewTaskBody, Task},
    };
    use tasktracker_frontend::router as page_router;
    use tasktracker_service::server::Draining;
    use tasktracker_testbed::wait::wait_until_async;
    use tempfile::TempDir;
    use tokio::{net::TcpListener, task::JoinHandle};

    use crate::browser::Browser;

    const HOSTILE: &str = "<img src=x onerror=alert(1)>";

    /// A service on a free port; it goes when this goes.
    struct Service {
        address: SocketAddr,
        served: JoinHandle<()>,
    }

    impl Service {
        fn start(listener: TcpListener, router: Router) -> Self {
            let address = listener.local_addr().unwrap();
            let served = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            Self { address, served }
        }

        fn url(&self, path: &str) -> String {
            format!("http://{}{path}", self.address)
        }
    }

    impl Drop for Service {
        fn drop(&mut self) {
            self.served.abort();
        }
    }

    async fn free_port() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        (listener, origin)
    }

    /// The API on a database in `folder`, which pages from `origin` may call.
    async fn api(folder: &TempDir, origin: Option<&str>) -> (Router, Storage) {
        let request_timeout = Duration::from_secs(10);
        let place = Place::File(folder.path().join("tasks.db"));
        let storage = Storage::open(&place, request_timeout).await.unwrap();
        let state = AppState {
            storage: storage.clone(),
            clock: Clock::fixed("2025-03-04T05:06:07Z".parse().unwrap()),
            metrics: Metrics::new(&docs::document()).unwrap(),
            draining: Draining::default(),
            revision: "test".into(),
        };
        let allowed_origins =
            origin.map(|origin| HeaderValue::from_str(origin).unwrap()).into_iter().collect();
        let options = Options { allowed_origins, request_timeout };
        (router::build(state, options).unwrap(), storage)
    }

    async fn stored(storage: &Storage) -> Vec<Task> {
        storage.list(&ListQuery::default()).await.unwrap().items
    }

    async fn find(client: &Client, css: &str) -> Element {
        client.wait().at_most(Duration::from_secs(10)).for_element(Locator::Css(css)).await.expect(css)
    }

    /// The texts of all elements at one moment.
    async fn texts(client: &Client, css: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)";
        let texts = client.execute(script, vec![css.into()]).await.unwrap();
        texts.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the elements have these texts.
    async fn expect_texts(client: &Client, css: &str, expected: &[&str]) {
        let what = format!("{css} has {expected:?}");
        wait_until_async(what, async || texts(client, css).await == expected).await;
    }

    async fn add(client: &Client, title: &str) {
        let input = find(client, "[data-testid=task-title-input]").await;
        input.clear().await.unwrap();
        input.send_keys(title).await.unwrap();
        find(client, "[data-testid=task-add]").await.click().await.unwrap();
    }

    const TITLES: &str = "[data-testid=task-list] [data-testid=task-title]";
    const ERRORS: &str = "[data-testid=error]";

    #[tokio::test]
    async fn tasks_are_added_completed_and_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let (listener, origin) = free_port().await;
        let (router, storage) = api(&folder, Some(&origin)).await;
        let api = Service::start(free_port().await.0, router);
        let page = page_router::build(&api.url("").parse().unwrap(), Draining::default());
        let page = Service::start(listener, page);
        let browser = Browser::start().await.unwrap();
        let client = &browser.client;
        client.goto(&page.url("/")).await.unwrap();
        find(client, "[data-testid=empty]:not([hidden])").await;

        add_and_see(client, &storage).await;
        complete(client, &storage).await;
        refuse(client, &storage).await;
        delete(client, &storage).await;

        let log = browser.log().await.unwrap();
        let unexpected: Vec<_> = log.iter().filter(|entry| !is_answer_422(entry)).collect();
        assert!(unexpected.is_empty(), "{unexpected:#?}");
        assert!(log.iter().any(is_answer_422), "the log is heard");
        browser.stop().await.unwrap();
    }

    /// Chromium logs every answer of 400 and above; the one for the title that is refused is expected.
    fn is_answer_422(entry: &serde_json::Value) -> bool {
        let message = entry["message"].as_str().unwrap_or_default();
        message.contains("/tasks") && message.contains("status of 422")
    }

    async fn add_and_see(client: &Client, storage: &Storage) {
        add(client, "Water the plants").await;
        expect_texts(client, TITLES, &["Water the plants"]).await;
        find(client, "[data-testid=task-description-input]").await.send_keys("Also\nthis").await.unwrap();
        add(client, HOSTILE).await;
        expect_texts(client, TITLES, &[HOSTILE, "Water the plants"]).await;
        let tasks = stored(storage).await;
        assert_eq!((tasks[0].title.as_str(), tasks[0].description.as_str()), (HOSTILE, "Also\nthis"));
        assert!(client.find_all(Locator::Css("main img")).await.unwrap().is_empty(), "text, not markup");
        let item = find(client, "[data-testid=task-item]").await;
        assert_eq!(item.attr("data-id").await.unwrap(), Some(tasks[0].id.to_string()));
    }

    async fn complete(client: &Client, storage: &Storage) {
        let tick = find(client, "[data-testid=task-item][data-id='1'] [data-testid=task-complete]").await;
        tick.click().await.unwrap();
        find(client, "[data-testid=task-item][data-id='1'].completed").await;
        assert!(stored(storage).await[1].completed);
        // By keyboard, and back again.
        tick.send_keys(" ").await.unwrap();
        find(client, "[data-testid=task-item][data-id='1']:not(.completed)").await;
        assert!(!stored(storage).await[1].completed);
    }

    async fn refuse(client: &Client, storage: &Storage) {
        add(client, "   ").await;
        expect_texts(client, ERRORS, &["Title must not be empty"]).await;
        let input = find(client, "[data-testid=task-title-input]").await;
        assert_eq!(input.attr("aria-invalid").await.unwrap().as_deref(), Some("true"));
        assert_eq!(stored(storage).await.len(), 2);
        add(client, "Enter works too").await;
        expect_texts(client, ERRORS, &[]).await;
        expect_texts(client, TITLES, &["Enter works too", HOSTILE, "Water the plants"]).await;
    }

    async fn delete(client: &Client, storage: &Storage) {
        let button = find(client, "[data-testid=task-item][data-id='2'] [data-testid=task-delete]").await;
        button.send_keys(&Key::Enter.to_string()).await.unwrap();
        expect_texts(client, TITLES, &["Enter works too", "Water the plants"]).await;
        assert_eq!(stored(storage).await.len(), 2);
        let focused = client.active_element().await.unwrap();
        let label = focused.attr("aria-label").await.unwrap();
        assert_eq!(
            label.as_deref(),
            Some("Delete: Water the plants"),
            "the keyboard goes on to the neighbour"
        );
    }

    #[tokio::test]
    async fn one_origin_serves_page_and_api_and_survives_an_outage() {
        let folder = tempfile::tempdir().unwrap();
        let (router, storage) = api(&folder, None).await;
        for number in 1..=60 {
            store(&storage, &format!("Task {number}"), "", false).await;
        }
        let page = page_router::build(&"".parse().unwrap(), Draining::default());
        let together = Router::new().nest("/api", router).fallback_service(page);
        let (listener, _) = free_port().await;
        let service = Service::start(listener, together);
        let browser = Browser::start().await.unwrap();
        let client = &browser.client;

        client.goto(&service.url("/")).await.unwrap();
        find(client, "[data-testid=load-more]:not([hidden])").await.click().await.unwrap();
        find(client, "[data-testid=task-item][data-id='1']").await;
        assert_eq!(texts(client, TITLES).await.len(), 60);
        find(client, "[data-testid=load-more][hidden]").await;

        client.goto(&service.url("/api/docs")).await.unwrap();
        find(client, "details .method.post").await;
        assert_eq!(browser.log().await.unwrap(), Vec::<serde_json::Value>::new());

        client.goto(&service.url("/")).await.unwrap();
        find(client, "[data-testid=task-item]").await;
        outage(client, &browser).await;
        // The browser says when it is online again, and the page tries again by itself.
        browser.command("goog/cdp/execute", &network(false)).await.unwrap();
        expect_first(client, "Typed during the outage").await;
        find(client, "[data-testid=offline][hidden]").await;

        // Another reconnection reads the list, and adds nothing.
        let before = answers(client).await;
        browser.command("goog/cdp/execute", &network(true)).await.unwrap();
        browser.command("goog/cdp/execute", &network(false)).await.unwrap();
        wait_for_answers(client, before + 1).await;
        let tasks = stored(&storage).await;
        assert_eq!(tasks.iter().filter(|task| task.title == "Typed during the outage").count(), 1);
        browser.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_task_whose_answer_is_lost_is_added_once() {
        let folder = tempfile::tempdir().unwrap();
        let (router, storage) = api(&folder, None).await;
        let page = page_router::build(&"".parse().unwrap(), Draining::default());
        let together = Router::new().nest("/api", lose_first_post(router)).fallback_service(page);
        let service = Service::start(free_port().await.0, together);
        let browser = Browser::start().await.unwrap();
        let client = &browser.client;
        client.goto(&service.url("/")).await.unwrap();
        find(client, "[data-testid=empty]:not([hidden])").await;

        add(client, "Once").await;
        find(client, "[data-testid=offline]:not([hidden])").await;
        assert_eq!(stored(&storage).await.len(), 1, "it is stored, only its answer is lost");
        // By the form again, since the person cannot know.
        find(client, "[data-testid=task-add]").await.click().await.unwrap();
        find(client, "[data-testid=offline][hidden]").await;
        expect_texts(client, TITLES, &["Once"]).await;
        assert_eq!(stored(&storage).await.len(), 1);

        // The same text is another task once the first one is confirmed.
        add(client, "Once").await;
        expect_texts(client, TITLES, &["Once", "Once"]).await;
        browser.stop().await.unwrap();
    }

    /// Answers the first POST with 502 after the API has carried it out.
    fn lose_first_post(router: Router) -> Router {
        let is_lost = Arc::new(AtomicBool::new(false));
        router.layer(from_fn(move |request: Request, next: Next| {
            let is_lost = is_lost.clone();
            async move {
                let is_post = request.method() == Method::POST;
                let response = next.run(request).await;
                if is_post && !is_lost.swap(true, Ordering::Relaxed) {
                    StatusCode::BAD_GATEWAY.into_response()
                } else {
                    response
                }
            }
        }))
    }

    /// How many requests to the API the page has had answered.
    async fn answers(client: &Client) -> u64 {
        let script = "return performance.getEntriesByType('resource')
                      .filter(({ name }) => name.includes('/api/tasks')).length";
        client.execute(script, Vec::new()).await.unwrap().as_u64().unwrap()
    }

    async fn wait_for_answers(client: &Client, least: u64) {
        wait_until_async("the page has its answers", async || answers(client).await >= least).await;
    }

    /// Adds a task while nothing can be reached: the page says so and keeps what was typed.
    async fn outage(client: &Client, browser: &Browser) {
        browser.command("goog/cdp/execute", &json!({"cmd": "Network.enable", "params": {}})).await.unwrap();
        browser.command("goog/cdp/execute", &network(true)).await.unwrap();
        add(client, "Typed during the outage").await;
        find(client, "[data-testid=offline]:not([hidden])").await;
        find(client, "[data-testid=retry]").await.click().await.unwrap();
        find(client, "[data-testid=offline]:not([hidden])").await;
        let input = find(client, "[data-testid=task-title-input]").await;
        assert_eq!(input.prop("value").await.unwrap().as_deref(), Some("Typed during the outage"));
    }

    fn network(offline: bool) -> serde_json::Value {
        let conditions =
            json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        json!({"cmd": "Network.emulateNetworkConditions", "params": conditions})
    }

    async fn expect_first(client: &Client, title: &str) {
        let is_first = async || texts(client, TITLES).await.first().map(String::as_str) == Some(title);
        wait_until_async(format!("{title} is the first task"), is_first).await;
    }

    async fn store(storage: &Storage, title: &str, description: &str, completed: bool) {
        let body = NewTaskBody {
            title: Some(title.to_owned()),
            description: Some(description.to_owned()),
            completed: Some(completed),
        };
        let now = "2025-03-04T05:06:07Z".parse().unwrap();
        storage.insert(&NewTask::try_from(body).unwrap(), now).await.unwrap();
    }
}
