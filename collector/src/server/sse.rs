//! Server-sent events: notices to agents, and word to the page that something changed.

use super::room::{Listening, Room};
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often a comment shows that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The page is told of changes this often at most.
const PAGE_PACE: Duration = Duration::from_millis(500);
/// A reader that takes nothing for this long is let go.
const STALLED: Duration = Duration::from_secs(30);

/// A response body fed from a channel.
struct Feed(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

fn response(feed: Feed) -> Response {
    (
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")],
        Body::new(feed),
    )
        .into_response()
}

struct Reader(mpsc::Sender<Bytes>);

impl Reader {
    /// `false` when the reader is gone.
    async fn tell(&self, text: String) -> bool {
        matches!(tokio::time::timeout(STALLED, self.0.send(Bytes::from(text))).await, Ok(Ok(())))
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The notice stream of an agent: the policy in force, orders that wait, what its group has spent; now and whenever
/// it changes. That orders wait is told again until they are answered.
pub(super) fn notices(room: &Arc<Room>, agent: String, group: String, role: String) -> Response {
    let (sender, receiver) = mpsc::channel(4);
    let listening = room.listening(&agent);
    let room = Arc::clone(room);
    tokio::spawn(async move {
        feed_notices(&room, &agent, (&group, &role), Reader(sender), listening).await;
    });
    response(Feed(receiver))
}

async fn feed_notices(
    room: &Room,
    agent: &str,
    (group, role): (&str, &str),
    reader: Reader,
    _listening: Listening,
) {
    let (mut orders, mut spent) = (room.orders.subscribe(), room.spent.subscribe());
    let (mut policy, mut denied, mut closing) =
        (room.policy.subscribe(), room.denied.subscribe(), room.closing.subscribe());
    let (mut certified, mut fleet) = (room.certified.subscribe(), room.fleet.subscribe());
    let mut ticks = ticks();
    if !reader.tell(": connected\n\n".to_owned()).await {
        return;
    }
    policy.mark_changed();
    certified.mark_changed();
    orders.mark_changed();
    let (mut waiting, mut told, mut left) = (BTreeSet::new(), None, None);
    loop {
        let text = tokio::select! {
            () = reader.0.closed() => return,
            _ = closing.wait_for(|closing| *closing) => return,
            changed = denied.changed() => {
                if changed.is_err() || denied.borrow_and_update().contains(agent) {
                    return;
                }
                continue;
            }
            changed = policy.changed() => {
                if changed.is_err() {
                    return;
                }
                let Some(notice) = policy.borrow_and_update().as_ref().map(|policy| format!("event: policy\ndata: {{\"version\":{},\"digest\":\"{}\"}}\n\n", policy.stored.version, policy.stored.digest)) else { continue };
                notice
            }
            changed = orders.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = orders.borrow_and_update().get(agent).cloned().unwrap_or_default();
                // As many as before need not be the same: an answer and a new order may fall into one look.
                let is_new = !now.is_subset(&waiting);
                waiting = now;
                if !is_new {
                    continue;
                }
                order_notice(waiting.len())
            }
            changed = spent.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = spent.borrow_and_update().get(group).copied();
                let Some(spent) = now.filter(|_| now != told) else { continue };
                told = now;
                format!("event: group\ndata: {{\"count\":{},\"since\":\"{}\"}}\n\n", spent.count, spent.since)
            }
            changed = certified.changed() => {
                if changed.is_err() {
                    return;
                }
                // Which role the agent asks for is its own affair.
                if certified.borrow_and_update().is_empty() {
                    continue;
                }
                "event: certified\ndata: {}\n\n".to_owned()
            }
            changed = fleet.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = fleet.borrow_and_update().get(role).map(|spent| (spent.of, spent.left));
                let Some((of, some)) = now.filter(|_| now != left) else { continue };
                left = now;
                format!("event: fleet\ndata: {{\"of\":{of},\"left\":{some}}}\n\n")
            }
            _ = ticks.tick() => if waiting.is_empty() { ": keep-alive\n\n".to_owned() } else { order_notice(waiting.len()) },
        };
        if !reader.tell(text).await {
            return;
        }
    }
}

fn order_notice(waiting: usize) -> String {
    format!("event: order\ndata: {{\"waiting\":{waiting}}}\n\n")
}

/// Word to the page whenever the database changed.
pub(super) fn live(room: &Arc<Room>) -> Response {
    let (sender, receiver) = mpsc::channel(4);
    let room = Arc::clone(room);
    tokio::spawn(async move { feed_live(&room, Reader(sender)).await });
    response(Feed(receiver))
}

async fn feed_live(room: &Room, reader: Reader) {
    let (mut changes, mut closing) = (room.changes.subscribe(), room.closing.subscribe());
    let mut ticks = ticks();
    if !reader.tell("retry: 3000\n: connected\n\n".to_owned()).await {
        return;
    }
    loop {
        let text = tokio::select! {
            () = reader.0.closed() => return,
            _ = closing.wait_for(|closing| *closing) => return,
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                let number = *changes.borrow_and_update();
                format!("event: change\ndata: {{\"number\":{number}}}\n\n")
            }
            _ = ticks.tick() => ": keep-alive\n\n".to_owned(),
        };
        if !reader.tell(text).await {
            return;
        }
        tokio::time::sleep(PAGE_PACE).await;
    }
}
