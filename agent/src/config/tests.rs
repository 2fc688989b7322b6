use super::*;
use std::fs;

fn load(files: &[(&str, &str)]) -> Result<Config, LoadConfigError> {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("agent.d")).unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    Config::load(&dir.path().join("agent.toml"))
}

#[test]
fn an_empty_file_gives_every_default() {
    let config = load(&[("agent.toml", "")]).unwrap();
    assert_eq!(config.socket().to_str(), Some("/run/sekisho/agent.sock"));
    assert_eq!((config.ring_bytes, config.promiscuous, config.interfaces), (32 << 20, false, None));
    assert_eq!(config.metrics.unwrap().to_string(), "127.0.0.1:9477");
    assert!(!config.host.is_empty());
}

#[test]
fn an_unknown_key_is_refused_with_file_line_and_column() {
    let error =
        load(&[("agent.toml", "host = \"a\"\n[capture]\nring-mb = 3\n")]).unwrap_err().to_string();
    assert!(error.contains("agent.toml:3:1:") && error.contains("ring-mb"), "{error}");
    let error = load(&[("agent.toml", ""), ("agent.d/10-x.toml", "\n[colector]\n")])
        .unwrap_err()
        .to_string();
    assert!(error.contains("10-x.toml:2:") && error.contains("colector"), "{error}");
}

#[test]
fn a_later_fragment_replaces_only_the_keys_it_has() {
    let config = load(&[
        ("agent.toml", "host = \"a\"\n[capture]\ninterfaces = [\"eth0\"]\nring-mib = 8\n"),
        ("agent.d/20-b.toml", "[capture]\nring-mib = 64\n"),
        ("agent.d/10-a.toml", "host = \"b\"\n[capture]\nring-mib = 16\n"),
    ])
    .unwrap();
    assert_eq!(
        (config.host.as_str(), config.ring_bytes, config.interfaces),
        ("b", 64 << 20, Some(vec!["eth0".to_owned()]))
    );
}

#[test]
fn values_without_sense_are_refused_with_the_key() {
    for (text, key) in [
        ("[capture]\ninterfaces = []", "capture.interfaces"),
        ("[capture]\nring-mib = 4096", "capture.ring-mib"),
        ("[limits]\nflows = 0", "limits.flows"),
        ("[collector]\nurl = \"http://a\"", "collector.url"),
        ("host = \" \"", "host"),
    ] {
        let error = load(&[("agent.toml", text)]).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn a_missing_file_is_said_with_its_path() {
    let error =
        Config::load(std::path::Path::new("/nonexistent/agent.toml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/agent.toml"), "{error}");
}
