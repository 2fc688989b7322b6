//! HTTP/2 over TLS to one collector: a connection, requests, a stream of notices.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The longest that connecting or one exchange may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// A silent connection is probed this often and given up after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The largest answer in bytes: a sealed policy is a few KiB.
const MAX_ANSWER: usize = 4 << 20;
/// The port when the address names none.
const DEFAULT_PORT: u16 = 443;

/// Why an exchange with the collector failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is not one.
    #[error("\"{0}\" is not a collector address: https://HOST:PORT")]
    Address(String),
    /// No connection.
    #[error("cannot connect to {authority}")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the system or TLS says.
        source: std::io::Error,
    },
    /// Nothing came in time.
    #[error("{0} did not answer in time")]
    Slow(String),
    /// The connection broke.
    #[error("the exchange with {authority} broke off")]
    Broken {
        /// Host and port.
        authority: String,
        /// What HTTP says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The collector says no.
    #[error("{authority} answered {status}: {detail}")]
    Refused {
        /// Host and port.
        authority: String,
        /// The status.
        status: StatusCode,
        /// Its words.
        detail: String,
        /// Seconds after which to come again, when it says so.
        retry_after: Option<u64>,
    },
}

/// A connection to the collector.
#[derive(Clone)]
pub struct Link {
    authority: String,
    sender: http2::SendRequest<Full<Bytes>>,
}

fn authority_of(url: &str) -> Result<(String, String, u16), HttpError> {
    let refuse = || HttpError::Address(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| refuse())?;
    if uri.scheme_str() != Some("https") {
        return Err(refuse());
    }
    let host =
        uri.host().ok_or_else(refuse)?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
    let authority =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Ok((authority, host, port))
}

impl Link {
    /// Connects.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn connect(url: &str, tls: Arc<ClientConfig>) -> Result<Self, HttpError> {
        let (authority, host, port) = authority_of(url)?;
        match tokio::time::timeout(PATIENCE, Self::connect_now(&authority, host, port, tls)).await {
            Ok(link) => link,
            Err(_) => Err(HttpError::Slow(authority)),
        }
    }

    async fn connect_now(
        authority: &str,
        host: String,
        port: u16,
        tls: Arc<ClientConfig>,
    ) -> Result<Self, HttpError> {
        let refuse = |source| HttpError::Connect { authority: authority.to_owned(), source };
        let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(refuse)?;
        tcp.set_nodelay(true).map_err(refuse)?;
        let name =
            ServerName::try_from(host).map_err(|error| refuse(std::io::Error::other(error)))?;
        let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(refuse)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| HttpError::Broken {
                authority: authority.to_owned(),
                source: error.into(),
            })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the collector ended");
            }
        });
        Ok(Self { authority: authority.to_owned(), sender })
    }

    /// Sends JSON and reads the answer whole.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn post(&self, path: &str, json: String) -> Result<Bytes, HttpError> {
        self.exchange(Method::POST, path, json, MAX_ANSWER).await
    }

    /// Reads a document whole.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn read(&self, path: &str) -> Result<Bytes, HttpError> {
        self.read_within(path, MAX_ANSWER).await
    }

    /// Reads a document of at most so many bytes whole.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn read_within(&self, path: &str, most: usize) -> Result<Bytes, HttpError> {
        self.exchange(Method::GET, path, String::new(), most).await
    }

    /// Opens a body that goes on for as long as the connection does.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn stream(&self, path: &str) -> Result<Incoming, HttpError> {
        let response = self.in_time(self.send(Method::GET, path, String::new())).await?;
        if response.status().is_success() {
            Ok(response.into_body())
        } else {
            Err(self.refusal(response).await)
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        json: String,
        most: usize,
    ) -> Result<Bytes, HttpError> {
        self.in_time(async {
            let response = self.send(method, path, json).await?;
            if !response.status().is_success() {
                return Err(self.refusal(response).await);
            }
            let body = Limited::new(response.into_body(), most).collect().await;
            body.map(http_body_util::Collected::to_bytes).map_err(|source| self.broken(source))
        })
        .await
    }

    async fn in_time<T>(
        &self,
        exchange: impl Future<Output = Result<T, HttpError>>,
    ) -> Result<T, HttpError> {
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| Err(HttpError::Slow(self.authority.clone())))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        json: String,
    ) -> Result<Response<Incoming>, HttpError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(json)))
            .map_err(|source| self.broken(source.into()))?;
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(|source| self.broken(source.into()))?;
        sender.send_request(request).await.map_err(|source| self.broken(source.into()))
    }

    fn broken(&self, source: Box<dyn std::error::Error + Send + Sync>) -> HttpError {
        HttpError::Broken { authority: self.authority.clone(), source }
    }

    async fn refusal(&self, response: Response<Incoming>) -> HttpError {
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok());
        let body = Limited::new(response.into_body(), 64 * 1024)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let detail = serde_json::from_slice::<serde_json::Value>(&body)
            .ok()
            .and_then(|problem| {
                problem.get("detail").and_then(|detail| detail.as_str()).map(str::to_owned)
            })
            .unwrap_or_else(|| {
                String::from_utf8_lossy(&body)
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(200)
                    .collect()
            });
        HttpError::Refused { authority: self.authority.clone(), status, detail, retry_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_a_port_and_brackets_where_they_belong() {
        assert_eq!(
            authority_of("https://[2001:db8::1]:8443").unwrap(),
            ("[2001:db8::1]:8443".into(), "2001:db8::1".into(), 8443)
        );
        assert_eq!(authority_of("https://collector.example").unwrap().0, "collector.example:443");
        for bad in ["http://collector:1", "collector:1", "", "https://"] {
            assert!(authority_of(bad).is_err(), "{bad}");
        }
    }
}
