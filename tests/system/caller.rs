//! A client of the HTTPS listener: one connection pool, with or without a client certificate.

use crate::process::SOON;
use crate::request::{Holder, Request};
use reqwest::blocking::{Client, RequestBuilder, Response};
use serde_json::Value;

pub(crate) struct Caller {
    http: Client,
    base: String,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Value,
}

impl Caller {
    /// Trusts only `root`, a PEM.
    pub(crate) fn new(base: String, root: &str, identity: Option<&Holder>) -> Self {
        let root = reqwest::Certificate::from_pem(root.as_bytes()).unwrap();
        let mut builder = Client::builder()
            .tls_certs_only([root])
            .no_proxy()
            .timeout(SOON);
        if let Some(holder) = identity {
            builder = builder.identity(holder.identity());
        }
        Self {
            http: builder.build().unwrap(),
            base,
        }
    }

    /// A bare POST to `/v1/certificates`, to be completed.
    pub(crate) fn post(&self) -> RequestBuilder {
        self.post_to("/v1/certificates")
    }

    /// The same for another address.
    pub(crate) fn post_to(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.base))
    }

    /// The result of a request, or the error of a lost connection.
    pub(crate) fn try_ask(&self, request: &Request) -> reqwest::Result<Answer> {
        let post = self
            .post()
            .header("idempotency-key", &request.idempotency_key);
        Answer::read(post.json(&request.body()).send()?)
    }

    pub(crate) fn ask(&self, request: &Request) -> Answer {
        self.try_ask(request).unwrap()
    }

    /// Requests a certificate, which must be issued.
    pub(crate) fn obtain(&self, request: &Request) -> Holder {
        let answer = self.ask(request);
        assert_eq!(answer.status, 201, "{answer:?}");
        request.holder(&answer.body)
    }

    pub(crate) fn try_get(&self, path: &str) -> reqwest::Result<Answer> {
        let url = format!("{}{path}", self.base);
        Answer::read(self.http.get(url).send()?)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap()
    }
}

impl Answer {
    pub(crate) fn read(response: Response) -> reqwest::Result<Self> {
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let (content_type, retry_after) = (header("content-type"), header("retry-after"));
        Ok(Self {
            status: response.status().as_u16(),
            content_type: content_type.unwrap_or_default(),
            retry_after: retry_after.map(|seconds| seconds.parse().unwrap()),
            body: serde_json::from_slice(&response.bytes()?).unwrap_or_default(),
        })
    }

    /// The stable code of a problem document.
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}
