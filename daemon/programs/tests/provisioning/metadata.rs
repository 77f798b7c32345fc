//! Replaces the metadata service of an Azure machine (IMDS), on loopback. It gives out the
//! emulator's own bearer token for Azure Resource Manager, and counts.

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

pub(crate) struct Metadata {
    pub(crate) address: SocketAddr,
    asked: Asked,
    answers: Arc<Mutex<Answers>>,
}

type Asked = Arc<Mutex<Vec<HashMap<String, String>>>>;

struct Answers {
    status: StatusCode,
    token: String,
    expires_in: String,
}

impl Metadata {
    pub(crate) async fn start(token: &str) -> Self {
        let answers = Arc::new(Mutex::new(Answers {
            status: StatusCode::OK,
            token: token.to_owned(),
            expires_in: "3599".to_owned(),
        }));
        let asked = Asked::default();
        let router = Router::new()
            .route("/metadata/identity/oauth2/token", get(answer))
            .with_state((answers.clone(), asked.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            asked,
            answers,
        }
    }

    /// From now on it answers with this status, and when it succeeds, this token.
    pub(crate) fn answer(&self, status: u16, token: &str, expires_in: &str) {
        let mut answers = self.answers.lock().unwrap();
        answers.status = StatusCode::from_u16(status).unwrap();
        (answers.token, answers.expires_in) = (token.to_owned(), expires_in.to_owned());
    }

    /// The queries so far.
    pub(crate) fn asked(&self) -> Vec<HashMap<String, String>> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(
    State((answers, asked)): State<(Arc<Mutex<Answers>>, Asked)>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> (StatusCode, axum::Json<Value>) {
    asked.lock().unwrap().push(query);
    if headers.get("metadata").is_none_or(|value| value != "true") {
        return (StatusCode::BAD_REQUEST, axum::Json(json!({})));
    }
    let answers = answers.lock().unwrap();
    let body = json!({
        "access_token": answers.token,
        "expires_in": answers.expires_in,
        "token_type": "Bearer",
        "error": "scripted",
    });
    (answers.status, axum::Json(body))
}
