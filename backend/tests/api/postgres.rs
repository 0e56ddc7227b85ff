//! What only a PostgreSQL server shows.

use std::{fs, io::Read, process::Stdio, thread, time::Duration};

use futures::future::join_all;
use sqlx::{Connection, PgConnection};
use tasktracker_backend::storage::{Place, Storage};
use tasktracker_testbed::{
    PostgresServer, http,
    wait::{elapse, wait_until},
};

use crate::{
    process::{Service, backend, free_address, healthcheck, wait_until_ready},
    support::WAIT,
    tasks,
};

/// The server of all tests here: one, since each start of another takes seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_server() {
    let mut server = PostgresServer::start().unwrap();
    tasks::on_a_server(&server).await;
    those_that_start_together_migrate_once(&server).await;
    tables_of_a_newer_release_are_still_used(&server).await;
    a_wrong_password_is_told_without_it(&server);
    a_pause_loses_no_request(&server);
    its_restart_is_survived(&mut server);
}

async fn those_that_start_together_migrate_once(server: &PostgresServer) {
    for _ in 0..5 {
        let url = server.database().unwrap();
        let place = Place::Server(url.parse().unwrap());
        for opened in join_all((0..6).map(|_| Storage::open(&place, WAIT))).await {
            opened.unwrap().close().await;
        }
        assert_eq!(applied(&url).await, [(1,), (2,), (3,)]);
    }
}

async fn applied(url: &str) -> Vec<(i64,)> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let statement = sqlx::query_as("SELECT version FROM _sqlx_migrations ORDER BY version");
    statement.fetch_all(&mut connection).await.unwrap()
}

async fn tables_of_a_newer_release_are_still_used(server: &PostgresServer) {
    let url = server.database().unwrap();
    let place = Place::Server(url.parse().unwrap());
    Storage::open(&place, WAIT).await.unwrap().close().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let statement = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (9999, 'from the future', TRUE, '', 0)";
    sqlx::query(statement).execute(&mut connection).await.unwrap();
    Storage::open(&place, WAIT).await.unwrap().ping().await.unwrap();
}

fn a_wrong_password_is_told_without_it(server: &PostgresServer) {
    let right = server.database().unwrap();
    for wrong in
        [right.replace(PostgresServer::password(), "canary-wrong"), "mysql://canary-wrong@127.0.0.1/x".into()]
    {
        let output = backend().env("DATABASE_URL", wrong).output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8(told).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("DATABASE_URL") && !told.contains("canary"), "{told}");
    }
}

/// A database that pauses for less time than a request may take, and for more.
fn a_pause_loses_no_request(server: &PostgresServer) {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("url");
    fs::write(&url, server.database().unwrap()).unwrap();
    let start = |limit: &str| {
        let address = free_address();
        let mut command = backend();
        command.env("LISTEN", &address).env("DATABASE_URL_FILE", &url).env("REQUEST_TIMEOUT", limit);
        let mut service = Service::start(command.stdout(Stdio::null()));
        wait_until_ready(&address, &mut service);
        (address.parse().unwrap(), service)
    };
    let ((patient, mut one), (impatient, mut other)) = (start("30"), start("1"));
    server.pause().unwrap();
    let users = ["GET /tasks", "POST /tasks\n{\"title\": \"late\"}"]
        .map(|request| thread::spawn(move || http(patient, request)));
    let answer = http(impatient, "GET /tasks").map(|(status, _)| status);
    elapse(Duration::from_secs(2));
    assert!(users.iter().all(|user| !user.is_finished()), "they were not waited for");
    server.resume().unwrap();
    let answers = users.map(|user| user.join().unwrap().map(|(status, _)| status));
    assert_eq!((answers, answer), ([Some(200), Some(201)], Some(503)));
    assert!(one.terminate() && other.terminate());
}

fn its_restart_is_survived(server: &mut PostgresServer) {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("url");
    fs::write(&url, server.database().unwrap()).unwrap();
    let address = free_address();
    let mut command = backend();
    command.env("LISTEN", &address).env("DATABASE_URL_FILE", &url).env("LOG_LEVEL", "trace");
    let mut service = Service::start(command.stdout(Stdio::piped()));
    let mut log = service.output();
    let log = thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).map(|_| text)
    });
    wait_until_ready(&address, &mut service);
    server.stop().unwrap();
    wait_until("it is not ready without a database", || !healthcheck(&address).status.success());
    server.go_on().unwrap();
    wait_until_ready(&address, &mut service);
    assert!(service.terminate());
    let log = log.join().unwrap().unwrap();
    assert!(log.contains("not ready") && !log.contains(PostgresServer::password()), "{log}");
}
