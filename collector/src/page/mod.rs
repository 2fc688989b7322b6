//! The page: what is cut now, what was found, who reports, which policy is in force.
//!
//! What enters: views of the store. What leaves: HTML without outside assets. Event data comes
//! from hosts that an intruder may own: every text is escaped and made visible. It must not
//! know HTTP, nor change anything.

mod board;
mod chart;
mod finding;
pub mod learning;
mod plot;
pub mod text;
mod watch;

pub use board::Board;
pub use watch::Around;

use askama::Template;

/// The whole page, with the nonce of its content security policy.
#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    nonce: &'a str,
    board: &'a Board,
}

/// The part of the page that is renewed.
#[derive(Template)]
#[template(path = "board.html")]
struct Fragment<'a> {
    board: &'a Board,
}

/// Renders the whole page; the nonce marks its own style and script.
///
/// # Errors
/// When the template fails.
pub fn render_page(board: &Board, nonce: &str) -> askama::Result<String> {
    Page { nonce, board }.render()
}

/// Renders the part of the page that is renewed.
///
/// # Errors
/// When the template fails.
pub fn render_board(board: &Board) -> askama::Result<String> {
    Fragment { board }.render()
}

/// The page of learning, with the nonce of its content security policy.
#[derive(Template)]
#[template(path = "learning.html")]
struct LearningPage<'a> {
    nonce: &'a str,
    board: &'a learning::LearningBoard,
}

/// Renders the page of learning; the nonce marks its own style.
///
/// # Errors
/// When the template fails.
pub fn render_learning(board: &learning::LearningBoard, nonce: &str) -> askama::Result<String> {
    LearningPage { nonce, board }.render()
}

#[cfg(test)]
mod tests;
