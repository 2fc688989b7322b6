//! `c2.sliver`: Sliver's HTTP, DNS and mutual TLS as they come out of the box.
//!
//! HTTP (BishopFox/sliver, `implant/sliver/transports/httpclient`, `server/configs/http-c2.go`): one
//! or more path segments that end in `.js`, `.php`, `.html`, `.png` or nothing; a query parameter of
//! one letter whose value is a decimal nonce of 4 to 12 digits with up to three letters put in; at
//! the start of a session a second one of two letters. Web pages ask for `/js/app.js?v=20240131` all
//! day, so that shape alone is nothing. Beside it these signs are counted:
//! * a Go program that calls itself Chrome: `User-Agent` with Chrome, `Accept-Encoding: gzip` alone
//! * Chrome 106 to 108, the shipped versions
//! * a letter inside the nonce
//! * one cookie of the shipped names with 32 hexadecimal digits
//! * a two-letter parameter with a number, in a POST
//! * `Upgrade-Insecure-Requests: 1`, and for GET the shipped `Accept` and `Accept-Language`
//!
//! The false browser is needed; two signs with it are suspect, four the grade of the pack. It never
//! cuts: every constant is honest by itself and an operator can change each.
//!
//! DNS: names of 180 letters and more in labels of 63 base32 or base58 letters, six different ones of
//! a zone within a minute: suspect, as other tunnels look alike. Mutual TLS: the JA4 of old Go
//! programs without a server name toward port 8888: odd.
//!
//! What evades it: another C2 profile, TLS.
//!
//! Measured on the 1,845 requests and 85,638 DNS questions of the public captures: 0 findings of the
//! HTTP signs; the DNS shape only in captures that hold a tunnel.

use super::super::Outlook;
use super::super::registry::{Registration, Setup, Weight, WireDetector, is_own_word, reads};
use super::super::signal::{Pattern, Signal, Warrant};
use super::cobaltstrike::{parameters, path_and_query};
use super::codec::digest;
use super::framework::{Asked, ask, lesser};
use crate::app::hello::ClientHello;
use crate::app::http_head::RequestHead;
use crate::flow::{Appetite, Observation, ObservationKind, Toward};
use crate::learn::Bounded;
use sekisho_schema::{Evidence, Grade, Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

pub(super) const REGISTRATION: Registration = Registration {
    id: "c2.sliver",
    reads: reads::REQUEST | reads::MESSAGE | reads::HELLO,
    weight: Weight::Scores,
    build: |setup| Ok(Box::new(Sliver::new(setup)?)),
};

/// Zones watched at once for all inside ends.
const ZONES: usize = 2048;
/// Different names of a zone that are remembered.
const NAMES: usize = 16;
/// The span within which they come.
const WITHIN: Span = Span::from_secs(60);
/// Longest label (RFC 1035 §2.3.4): the encoder fills each but the last.
const LABEL: usize = 63;
/// Least length of a name that is filled with data.
const LONG: usize = 180;

/// The constants of [`REGISTRATION`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct SliverSettings {
    /// Names of cookies that hold the session.
    cookies: Vec<String>,
    /// First and last version of Chrome that is claimed.
    chrome: [u16; 2],
    /// Ends of file names; the empty one stands for none.
    extensions: Vec<String>,
    /// Accept and Accept-Language of every GET.
    accept: String,
    accept_language: String,
    /// Port of mutual TLS, and JA4 of its client.
    mtls_port: u16,
    client_hellos: Vec<String>,
    /// Different long names of a zone that are told, 2 to 16.
    names: usize,
}

impl Default for SliverSettings {
    fn default() -> Self {
        let texts = |text: &str| text.split(' ').map(str::to_owned).collect();
        Self {
            cookies: texts(COOKIES),
            chrome: [106, 108],
            extensions: [".js", ".php", ".html", ".png", ""].map(str::to_owned).to_vec(),
            accept: "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.9".to_owned(),
            accept_language: "en-US,en;q=0.9".to_owned(),
            mtls_port: 8888,
            client_hellos: texts("t13d190900_9dc949149365_97f8aa674fd9"),
            names: 6,
        }
    }
}

/// The cookie names that Sliver ships (`server/configs/http-c2.go`), each once.
const COOKIES: &str = "PHPSESSID SID SSID APISID csrf-state AWSALBCORS _ga _gid _gat JSESSIONID rememberMe authToken userId userName language theme locale currency lastVisited loggedIn userRole cartId accessToken refreshToken consent notificationPreference userSettings sessionTimeout error errorMessage successMessage infoMessage warningMessage errorMessageKey successMessageKey infoMessageKey warningMessageKey cookie session lang user auth remember_me preferences cart basket order recent_items search_history tracking analytics marketing notification popup ad banner survey feedback login logged_in logout visit visitor viewed visited liked favorite last_visit first_visit referral source";

/// What a request shows beside its shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Signs {
    false_browser: bool,
    version: bool,
    letters: bool,
    cookie: bool,
    start: bool,
    fields: bool,
}

impl Signs {
    fn count(self) -> usize {
        [self.version, self.letters, self.cookie, self.start, self.fields]
            .into_iter()
            .filter(|sign| *sign)
            .count()
    }

    fn named(self) -> String {
        let mut text = String::from("a Go client that calls itself Chrome");
        for (sign, what) in [
            (self.version, "Chrome 106 to 108"),
            (self.letters, "letters inside the nonce"),
            (self.cookie, "a known cookie with a session's 32 digits"),
            (self.start, "a second parameter of two letters, as at the start of a session"),
            (self.fields, "the fields that it ships"),
        ] {
            if sign {
                text.push_str(", ");
                text.push_str(what);
            }
        }
        text
    }
}

/// Digits with at most three letters among them; tells whether there are letters.
fn nonce(value: &[u8]) -> Option<bool> {
    let digits = value.iter().filter(|byte| byte.is_ascii_digit()).count();
    let letters = value.iter().filter(|b| b.is_ascii_lowercase() || **b == b'_').count();
    let fits = (4..=12).contains(&digits) && letters <= 3 && digits + letters == value.len();
    fits.then_some(letters > 0)
}

/// The major version of Chrome that a User-Agent claims, as `major.0.build.patch`.
fn chrome(agent: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(agent).ok()?;
    let (_, version) = text.split_once(" Chrome/")?;
    version.split(['.', ' ']).next()?.parse().ok()
}

/// Whether the path ends as Sliver's do and has no more segments than its generator makes.
fn has_shape(path: &[u8], extensions: &[String]) -> bool {
    let Some(path) = path.strip_prefix(b"/") else { return false };
    let segments = path.split(|byte| *byte == b'/').count();
    let file = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let dot = file.iter().rposition(|byte| *byte == b'.').unwrap_or(file.len());
    let (name, extension) = file.split_at_checked(dot).unwrap_or_default();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    segments <= 10
        && !name.is_empty()
        && name.iter().all(plain)
        && extensions.iter().any(|known| known.as_bytes() == extension)
}

fn signs(head: &RequestHead<'_>, settings: &SliverSettings) -> Option<Signs> {
    let is_get = head.method == b"GET";
    let (path, query) = path_and_query(head.target);
    if (!is_get && head.method != b"POST") || !has_shape(path, &settings.extensions) {
        return None;
    }
    let mut signs = Signs::default();
    let (mut nonces, mut others) = (0, 0);
    for (key, value) in parameters(query) {
        match (key, nonce(value)) {
            ([b'a'..=b'z' | b'_'], Some(letters)) => {
                nonces += 1;
                signs.letters = letters;
            }
            ([b'a'..=b'z' | b'_', b'a'..=b'z' | b'_'], Some(_)) if !is_get => signs.start = true,
            _ => others += 1,
        }
    }
    let agent = head.field("User-Agent")?;
    let version = chrome(agent)?;
    if nonces != 1 || others != 0 {
        return None;
    }
    signs.false_browser = head.field("Accept-Encoding") == Some(b"gzip");
    let [first, last] = settings.chrome;
    signs.version = (first..=last).contains(&version);
    signs.cookie = head.field("Cookie").is_some_and(|cookie| {
        let split = cookie.iter().position(|byte| *byte == b'=').unwrap_or(cookie.len());
        let (name, value) = cookie.split_at_checked(split).unwrap_or_default();
        let digits = value.get(1..).unwrap_or_default();
        digits.len() == 32
            && digits.iter().all(u8::is_ascii_hexdigit)
            && settings.cookies.iter().any(|known| known.as_bytes() == name)
    });
    let is = |name: &str, wanted: &str| head.field(name) == Some(wanted.as_bytes());
    signs.fields = is("Upgrade-Insecure-Requests", "1")
        && (!is_get
            || (is("Accept", &settings.accept)
                && is("Accept-Language", &settings.accept_language)));
    Some(signs)
}

/// The zone, two labels, of a name that is filled with base32 or base58.
fn filled(name: &str) -> Option<&str> {
    let (first, _) = name.split_once('.')?;
    if name.len() < LONG || first.len() != LABEL {
        return None;
    }
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at);
    let (data, zone) = dots.nth(1).and_then(|at| Some((name.get(..at)?, name.get(at + 1..)?)))?;
    let coded = data.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.');
    // PlugX's own alphabet ends at p, hexadecimal digits at f: neither is this.
    let beyond = data.bytes().filter(|byte| (b'q'..=b'z').contains(byte)).count();
    (coded && beyond * 8 >= data.len()).then_some(zone)
}

#[derive(Clone, Copy, Debug)]
struct Zone {
    names: [u64; NAMES],
    count: usize,
    since: Timestamp,
}

#[derive(Debug)]
struct Sliver {
    scored: Warrant,
    suspect: Warrant,
    odd: Warrant,
    settings: SliverSettings,
    zones: Bounded<(IpAddr, u64), Zone>,
}

impl Sliver {
    fn new(setup: &Setup<'_>) -> Result<Self, String> {
        let mut settings: SliverSettings = setup.settings()?;
        settings.names = settings.names.clamp(2, NAMES);
        Ok(Self {
            scored: lesser(&setup.warrant, Grade::Malicious),
            suspect: lesser(&setup.warrant, Grade::Suspect),
            odd: lesser(&setup.warrant, Grade::Odd),
            settings,
            zones: Bounded::new(ZONES, setup.seed),
        })
    }

    fn observe_request(
        &self,
        o: &Observation<'_>,
        toward: Toward,
        head: &RequestHead<'_>,
        emit: &mut Vec<Signal>,
    ) {
        let Some(signs) = signs(head, &self.settings).filter(|signs| signs.false_browser) else {
            return;
        };
        let count = signs.count();
        let warrant = match count {
            0 | 1 => return,
            2 | 3 => &self.suspect,
            _ => &self.scored,
        };
        let (from, to) = match toward {
            Toward::Remote => ("{host}", "{remote}"),
            Toward::Local => ("{remote}", "{host}"),
        };
        let told = format!(
            "{from} sent {to} a request with a path and a nonce like those of Sliver, and {} of 6 further signs: {}.",
            count + 1,
            signs.named()
        );
        let target: String = String::from_utf8_lossy(head.target).chars().take(64).collect();
        let evidence = vec![Evidence::new(
            "header",
            [("target", target.into()), ("signs", (count + 1).into())],
        )];
        emit.push(warrant.pattern(o, is_own_word(toward), Pattern { told, evidence }));
    }

    fn observe_name(&mut self, o: &Observation<'_>, emit: &mut Vec<Signal>) {
        let Some(Asked { host, who: [who, whom], question }) = ask(o) else { return };
        if !matches!(question.qtype, 1 | 16 | 28) {
            return;
        }
        let Some(zone) = filled(question.name.as_str()) else { return };
        let key = (host, digest(zone.as_bytes()));
        let fresh = || Zone { names: [0; NAMES], count: 0, since: o.at };
        let Some(seen) = self.zones.upsert(&key, fresh, |_| true) else { return };
        if o.at.since(seen.since) > WITHIN {
            *seen = fresh();
        }
        let name = digest(question.name.as_str().as_bytes());
        if seen.names.iter().take(seen.count).any(|known| *known == name) {
            return;
        }
        if let Some(place) = seen.names.get_mut(seen.count) {
            *place = name;
            seen.count += 1;
        }
        if seen.count != self.settings.names {
            return;
        }
        let told = format!(
            "{who} asked {whom} for {} different names of {LONG} letters and more under {zone} within {} s, filled with letters of base32 or base58, as Sliver's DNS and other tunnels do.",
            seen.count,
            o.at.since(seen.since).millis() / 1000,
        );
        let shown: String = question.name.as_str().chars().take(64).collect();
        let evidence = vec![Evidence::new(
            "name",
            [("name", shown.into()), ("zone", zone.into()), ("type", question.qtype.into())],
        )];
        let mut signal = self.suspect.pattern(o, true, Pattern { told, evidence });
        // The resolver that was asked is not the tunnel's end.
        signal.target = None;
        signal.name = Some(zone.to_owned());
        emit.push(signal);
    }

    fn observe_hello(&self, o: &Observation<'_>, hello: &ClientHello<'_>, emit: &mut Vec<Signal>) {
        let port = self.settings.mtls_port;
        let key = &o.flow.key;
        if (key.remote.port() != port && key.local.port() != port) || hello.sni().is_some() {
            return;
        }
        let ja4 = hello.ja4();
        if self.settings.client_hellos.iter().any(|known| known == ja4.as_str()) {
            let told = format!(
                "{{host}} and {{remote}} began TLS on Sliver's port {port} for mutual TLS, without a server name and with the JA4 {} of Go programs.",
                ja4.as_str()
            );
            let evidence = vec![Evidence::new("fingerprint", [("ja4", ja4.as_str().into())])];
            emit.push(self.odd.pattern(o, true, Pattern { told, evidence }));
        }
    }
}

impl WireDetector for Sliver {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        match o.kind {
            ObservationKind::Request { toward, head } => {
                self.observe_request(o, toward, head, emit)
            }
            ObservationKind::Hello(hello) => self.observe_hello(o, hello, emit),
            _ => self.observe_name(o, emit),
        }
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.zones.evicted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::http_head::HeadReading;

    const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/107.0.4321.77 Safari/537.36";

    fn found(method: &str, target: &str, fields: &str) -> Option<Signs> {
        let text = format!("{method} {target} HTTP/1.1\r\nHost: c2.example\r\n{fields}\r\n");
        let HeadReading::Whole(head) = RequestHead::parse(text.as_bytes()) else { return None };
        signs(&head, &SliverSettings::default())
    }

    fn shipped_fields() -> String {
        let settings = SliverSettings::default();
        format!(
            "User-Agent: {AGENT}\r\nAccept: {}\r\nAccept-Language: {}\r\nCookie: PHPSESSID=0123456789abcdef0123456789abcdef\r\nUpgrade-Insecure-Requests: 1\r\nAccept-Encoding: gzip\r\n",
            settings.accept, settings.accept_language
        )
    }

    #[test]
    fn a_poll_as_shipped_shows_every_sign() {
        for target in [
            "/js/lib/jquery.js?q=98f3421y05",
            "/bundle.js?_=8123a4567",
            "/app/index.php?x=12_34567",
        ] {
            let signs = found("GET", target, &shipped_fields()).unwrap();
            assert!(signs.false_browser && !signs.start, "{target}");
            assert_eq!(signs.count(), 4, "{target}: {signs:?}");
        }
        let start = found("POST", "/home/login.html?b=1234567&zq=00a123456", &shipped_fields());
        assert_eq!(start.map(|signs| (signs.start, signs.false_browser)), Some((true, true)));
    }

    #[test]
    fn the_web_of_every_day_is_no_sliver() {
        let browser = shipped_fields().replace("gzip", "gzip, deflate");
        assert!(found("GET", "/js/app.js?v=20240131", &browser).is_some_and(|s| !s.false_browser));
        let go = "User-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n";
        assert_eq!(found("GET", "/js/app.js?v=20240131", go), None);
        for target in [
            "/js/app.js",
            "/js/app.js?ver=20240131",
            "/js/app.js?v=1.2.3",
            "/js/app.js?v=20240131&lang=en",
            "/style.css?v=20240131",
            "/js/app.js?v=abcdef12",
            "/?v=20240131",
            "/a/b/c/d/e/f/g/h/i/j/k.js?v=20240131",
        ] {
            assert_eq!(found("GET", target, &shipped_fields()), None, "{target}");
        }
        let crawler =
            format!("User-Agent: {AGENT}\r\nAccept-Encoding: gzip\r\n").replace("107", "124");
        let signs = found("GET", "/js/app.js?v=20240131", &crawler).unwrap();
        assert_eq!(signs.count(), 0);
    }

    #[test]
    fn long_names_of_tunnels_are_filled_and_others_are_not() {
        let label = "9k2mqz7wv3xtr5yq8n4hzx6sv1qw2er3ty4up5as6df7gh8jk9zx1cv2bn3mq4w";
        assert_eq!(label.len(), 63);
        let name = format!("{label}.{label}.{label}.1.example.com");
        assert_eq!(filled(&name), Some("example.com"));
        for other in [
            format!("{label}.example.com"),
            format!("{0}.{0}.{0}.example.com", "a".repeat(63)),
            format!(
                "{0}.{0}.{0}.example.com",
                "ponmlkjihgfedcbaponmlkjihgfedcbaponmlkjihgfedcbaponmlkjihgfedcb"
            ),
            format!(
                "{0}.{0}.{0}.example.com",
                "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"
            ),
            format!("www.{label}.{label}.{label}.example.com"),
            "example.com".to_owned(),
            String::new(),
        ] {
            assert_eq!(filled(&other), None, "{other}");
        }
    }

    #[test]
    fn shipped_settings_are_the_defaults() {
        let shipped: SliverSettings = super::super::framework::shipped("c2.sliver");
        assert_eq!(shipped, SliverSettings::default());
    }
}
