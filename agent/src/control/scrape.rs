//! The metrics page, by a very small HTTP/1 server.

use super::server::Serving;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// The longest that a scraper may take for its request and our answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves `/metrics` for ever.
pub async fn serve_metrics(listener: TcpListener, serving: Arc<dyn Serving>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the metrics address");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let serving = Arc::clone(&serving);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let serving = Arc::clone(&serving);
                async move { Ok::<_, Infallible>(page(&request, serving.as_ref())) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, connection).await {
                tracing::debug!(%error, "a scraper went away");
            }
        });
    }
}

fn page(request: &Request<Incoming>, serving: &dyn Serving) -> Response<Full<Bytes>> {
    if request.method() == Method::GET && request.uri().path() == "/metrics" {
        let mut response = Response::new(Full::new(Bytes::from(serving.metrics().render())));
        response.headers_mut().insert(
            CONTENT_TYPE,
            hyper::header::HeaderValue::from_static("text/plain; version=0.0.4"),
        );
        return response;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(b"metrics are at /metrics\n")));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
