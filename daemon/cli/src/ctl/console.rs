//! Runs `hallmark console`: gives the browser of this user the pages of the admin socket.
//!
//! A browser cannot reach a Unix socket, and every user of the machine can reach a port of the
//! loopback. So this command listens on a port for itself, and passes on only what comes with its
//! cookie. A browser gets the cookie for a token that is good once and is printed in an address.
//! The requests arrive at the socket as this user's, and end with this command.

use super::failure::Failure;
use super::show::{Show, written};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use hallmark_base::printable;
use hallmark_base::socket_path;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, SET_COOKIE};
use hyper::header::{CONNECTION, CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use reqwest::{Body, Client, Url, redirect};
use serde_json::json;
use std::convert::Infallible;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// The bytes of the token and of the cookie.
const SECRET_BYTES: usize = 32;
/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Headers of one connection (RFC 9110, section 7.6.1).
const OF_A_CONNECTION: [&str; 4] = ["connection", "keep-alive", "transfer-encoding", "upgrade"];

/// The port, its secrets, and the client of the admin socket.
struct Gate {
    address: SocketAddr,
    /// The token, until a browser has brought it.
    token: Mutex<Option<String>>,
    cookie: String,
    daemon: Client,
}

/// Returns the address to ask the daemon for, of pages alone. A path is judged after its dot
/// segments are resolved (RFC 3986, section 5.2.4), because the client of the socket resolves them,
/// and `/console/../v1/blocks` would reach the whole API.
fn daemon_url(asked: &Uri) -> Option<Url> {
    let path = asked.path_and_query()?.as_str();
    // The host is not used: the connection is the socket. The header of the request stays.
    let url = Url::parse(&format!("http://localhost{path}")).ok()?;
    let is_of_pages = url.path() == "/console" || url.path().starts_with("/console/");
    (is_of_pages && url.path() == asked.path()).then_some(url)
}

/// Serves until the command is interrupted.
pub(super) fn run(socket: &Path, show: &Show, port: u16) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::Failed(error.to_string()))?;
    runtime.block_on(async {
        let (gate, listener) = Gate::open(socket, port).await?;
        gate.announce(show)?;
        gate.serve(listener).await
    })
}

impl Gate {
    async fn open(socket: &Path, port: u16) -> Result<(Arc<Self>, TcpListener), Failure> {
        socket_path::check(socket, "--admin-socket or HALLMARK_ADMIN_SOCKET")
            .map_err(|refusal| Failure::Usage(refusal.to_string()))?;
        let daemon = Client::builder()
            .unix_socket(socket)
            .no_proxy()
            .tls_certs_only([])
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.map_err(|error| {
            Failure::Failed(format!("cannot listen on 127.0.0.1:{port}: {error}"))
        })?;
        let address = listener.local_addr();
        let address = address.map_err(|error| Failure::Failed(error.to_string()))?;
        let gate = Self {
            address,
            token: Mutex::new(Some(secret()?)),
            cookie: secret()?,
            daemon,
        };
        Ok((Arc::new(gate), listener))
    }

    /// Prints the address with the token.
    fn announce(&self, show: &Show) -> Result<(), Failure> {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        let token = token.as_deref().unwrap_or_default();
        let url = format!("http://{}/?token={token}", self.address);
        if show.json {
            return show.exact_line(&json!({ "url": url }));
        }
        show.line(&url)?;
        let hint = "Open this address in a browser of this machine; it is good once. The console \
                    ends with this command (Ctrl-C).";
        written(writeln!(printable::err(), "{hint}"))
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) -> Result<(), Failure> {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(Arc::clone(&self).converse(stream))),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    async fn converse(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request| {
            let gate = Arc::clone(&self);
            async move { Ok::<_, Infallible>(gate.answer(request).await) }
        });
        // A browser that hangs up is no failure.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        // A page elsewhere may resolve its own name to this address, and then read the answers.
        if !self.is_meant(request.headers()) {
            return said(StatusCode::FORBIDDEN, "this address has another name");
        }
        if let Some(token) = token_of(&request) {
            return self.admit(token);
        }
        if !self.has_cookie(request.headers()) {
            let text = "this browser has no permission: run `hallmark console` again, and open the \
                        address that it prints";
            return said(StatusCode::FORBIDDEN, text);
        }
        match daemon_url(request.uri()) {
            Some(url) => self.pass_on(request, url).await,
            None => redirected(None),
        }
    }

    fn is_meant(&self, headers: &HeaderMap) -> bool {
        let port = self.address.port();
        let host = headers.get(HOST).and_then(|it| it.to_str().ok());
        let names = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
        host.is_some_and(|host| names.iter().any(|name| name == host))
    }

    /// Gives the cookie for the token, once.
    fn admit(&self, brought: &str) -> Response<Body> {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if token.as_deref().is_some_and(|it| is_same(it, brought)) {
            *token = None;
            let name = self.cookie_name();
            let cookie = &self.cookie;
            let cookie = format!("{name}={cookie}; Path=/console; HttpOnly; SameSite=Strict");
            return redirected(HeaderValue::from_str(&cookie).ok());
        }
        let text = "this address was used, or is of another run: run `hallmark console` again";
        said(StatusCode::FORBIDDEN, text)
    }

    /// Browsers send the cookies of one port to all others of the same host.
    fn cookie_name(&self) -> String {
        format!("hallmark-console-{}", self.address.port())
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let name = self.cookie_name();
        let sent = headers.get_all(COOKIE).iter();
        let mut pairs = sent
            .filter_map(|it| it.to_str().ok())
            .flat_map(|it| it.split(';'))
            .filter_map(|it| it.trim().split_once('='));
        pairs.any(|(key, value)| key == name && is_same(&self.cookie, value))
    }

    /// Asks the daemon, and passes on its answer as it comes.
    async fn pass_on(&self, request: Request<Incoming>, url: Url) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        head.headers.remove(COOKIE);
        remove_those_of_a_connection(&mut head.headers);
        let asked = self.daemon.request(head.method, url);
        let asked = asked.headers(head.headers).body(Body::wrap(body));
        match asked.send().await {
            Ok(answer) => {
                let mut answer = Response::<Body>::from(answer);
                remove_those_of_a_connection(answer.headers_mut());
                answer
            }
            Err(_) => {
                let text = "the daemon does not answer at its admin socket; is it running?";
                said(StatusCode::BAD_GATEWAY, text)
            }
        }
    }
}

fn token_of(request: &Request<Incoming>) -> Option<&str> {
    let uri = request.uri();
    let query = uri.query().filter(|_| uri.path() == "/")?;
    query.strip_prefix("token=")
}

fn remove_those_of_a_connection(headers: &mut HeaderMap) {
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
}

/// Leads a browser to the first page, with a cookie if it gets one.
fn redirected(cookie: Option<HeaderValue>) -> Response<Body> {
    let mut answer = said(StatusCode::SEE_OTHER, "the console is at /console");
    let headers = answer.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_static("/console"));
    headers.extend(cookie.map(|it| (SET_COOKIE, it)));
    answer
}

fn said(status: StatusCode, text: &str) -> Response<Body> {
    let mut answer = Response::new(Body::from(format!("{text}\n")));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, plain);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn is_same(secret: &str, brought: &str) -> bool {
    verify_slices_are_equal(secret.as_bytes(), brought.as_bytes()).is_ok()
}

fn secret() -> Result<String, Failure> {
    let mut bytes = [0; SECRET_BYTES];
    rand::fill(&mut bytes)
        .map_err(|_| Failure::Failed("this machine gives no random numbers".into()))?;
    Ok(hex::encode(bytes))
}
