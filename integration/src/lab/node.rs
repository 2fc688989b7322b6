//! A host of the laboratory: one network namespace, the commands and the actors that run in it.

use crate::lab::bins;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// A host: a network namespace by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name for people, such as `web-1`.
    pub name: String,
    /// Name of its network namespace.
    pub netns: String,
}

/// Runs a command and returns what it printed; fails loudly with its stderr.
pub fn must(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command to its end.
pub fn output(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

/// `ip ARGS`, in the root namespace.
pub fn ip(args: &str) -> String {
    must(Command::new("ip").args(args.split_whitespace()))
}

impl Node {
    /// A command that will run in this host's namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns]).arg(program);
        command
    }

    /// Runs words as a command in this host; fails loudly.
    pub fn run(&self, words: &str) -> String {
        let mut words = words.split_whitespace();
        must(self.command(words.next().expect("a program")).args(words))
    }

    /// `ip ARGS` in this host.
    pub fn ip(&self, args: &str) -> String {
        must(Command::new("ip").args(["-n", &self.netns]).args(args.split_whitespace()))
    }

    /// The Ethernet address of one of its devices.
    #[must_use]
    pub fn mac(&self, device: &str) -> String {
        let links: Value = serde_json::from_str(&self.ip(&format!("-j link show dev {device}")))
            .expect("ip prints JSON");
        links[0]["address"].as_str().expect("a device with an address").to_owned()
    }

    /// Starts an actor in this host and waits until it says that it is ready.
    #[must_use]
    pub fn actor(&self, arguments: &[&str]) -> Actor {
        Actor::start(
            self.command(bins::actor()),
            &format!("{} on {}", arguments.join(" "), self.name),
            arguments,
        )
    }

    /// Starts an actor as another executable path: programs are told apart by it.
    #[must_use]
    pub fn actor_as(&self, executable: &Path, arguments: &[&str]) -> Actor {
        Actor::start(
            self.command(executable),
            &format!("{} on {}", arguments.join(" "), self.name),
            arguments,
        )
    }
}

/// A running actor: a child process that ends when its standard input closes, so none outlives the laboratory.
#[derive(Debug)]
pub struct Actor {
    what: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// What it said when it was ready.
    pub hello: Value,
}

/// Long, because a busy machine must not look like a broken one.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

impl Actor {
    /// Starts an actor by a prepared command.
    pub fn start(mut command: Command, what: &str, arguments: &[&str]) -> Self {
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start actor {what}: {error}"));
        let input = child.stdin.take();
        let reader = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut actor = Self { what: what.to_owned(), child, input, lines, hello: Value::Null };
        actor.hello = actor.line();
        actor
    }

    fn line(&self) -> Value {
        match self.lines.recv_timeout(ANSWER_WITHIN) {
            Ok(line) => serde_json::from_str(&line)
                .unwrap_or_else(|error| panic!("actor {} said \"{line}\": {error}", self.what)),
            Err(RecvTimeoutError::Timeout) => {
                panic!("actor {} did not answer within {ANSWER_WITHIN:?}", self.what)
            }
            Err(RecvTimeoutError::Disconnected) => {
                panic!("actor {} ended without an answer", self.what)
            }
        }
    }

    /// Asks the actor something and waits for its answer.
    pub fn ask(&mut self, question: &str) -> Value {
        let input = self.input.as_mut().expect("the actor has not been finished");
        writeln!(input, "{question}")
            .unwrap_or_else(|error| panic!("actor {} has gone: {error}", self.what));
        self.line()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Closes its input and waits until it has ended by itself; ends it after `deadline`.
    pub fn let_go(mut self, deadline: Duration) {
        drop(self.input.take());
        let _ended =
            crate::lab::wait::wait_until(deadline, || self.child.try_wait().ok().flatten());
    }

    /// Asks for the report and ends the actor.
    pub fn finish(mut self) -> Value {
        self.ask("report")
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        drop(self.input.take());
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}
