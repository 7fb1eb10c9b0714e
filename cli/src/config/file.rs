//! The configuration file, `config.toml` in the home folder. Every key is optional. Unknown keys and wrong types are refused with
//! their place: a setting that has no effect is worse than an error.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use messages::AgentId;
use serde::Deserialize;
use server::job_file::Problem;
use server::views::ProblemView;
use toml::de::DeTable;

use super::broker_url::BrokerUrl;
use super::keys;
use super::settings::{JournalEngine, QueueType};
use crate::exit::Exit;
use crate::failure::Failure;

/// Bytes of a configuration file. It holds a dozen settings and a list of agents.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// What a configuration file says.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    /// How to reach the broker.
    pub(crate) broker: BrokerSection,
    /// For `server run`.
    pub(crate) server: ServerSection,
    /// For `agent run`.
    pub(crate) agent: AgentSection,
}

/// How to reach the broker.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BrokerSection {
    /// Its address. Default: `amqp://guest:guest@127.0.0.1:5672`.
    pub(crate) url: Option<BrokerUrl>,
    /// PEM file of the authority that signed its certificate. Default: none.
    pub(crate) ca: Option<PathBuf>,
    /// PEM file of the certificate to show it. Default: none. Only with `client_key`.
    pub(crate) client_cert: Option<PathBuf>,
    /// PEM file of that certificate's key.
    pub(crate) client_key: Option<PathBuf>,
    /// The file that says so.
    #[serde(skip)]
    pub(crate) file: Option<PathBuf>,
}

/// For `server run`.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServerSection {
    /// Where the API listens. Default: `127.0.0.1:7766`.
    pub(crate) listen: Option<SocketAddr>,
    /// The agents that there are. Default: none.
    pub(crate) agents: Option<Vec<AgentId>>,
    /// The type of the queues. Default: `quorum`.
    pub(crate) queue_type: Option<QueueType>,
    /// What keeps the journal. Default: what it has, `sled` for a new one.
    pub(crate) journal_engine: Option<JournalEngine>,
}

/// For `agent run`.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AgentSection {
    /// Its name. No default.
    pub(crate) name: Option<AgentId>,
    /// Runs that it does at once, 1 to 1024. Default: 2.
    pub(crate) slots: Option<u16>,
    /// What keeps the journal. Default: what it has, `sled` for a new one.
    pub(crate) journal_engine: Option<JournalEngine>,
    /// The pool that it belongs to. Default: none.
    pub(crate) pool: Option<String>,
    /// Its labels, by name. Default: none.
    pub(crate) labels: Option<BTreeMap<String, String>>,
    /// Whether it does one run and then ends. Default: no.
    pub(crate) once: Option<bool>,
    /// Ended runs that it keeps with their folders. Default: 200.
    pub(crate) keep_runs: Option<usize>,
    /// MiB that the folders of ended runs may have together. Default: 4096.
    pub(crate) keep_mib: Option<u64>,
    /// MiB that its whole folder may have for new runs to be taken. Default: no limit.
    pub(crate) quota_mib: Option<u64>,
    /// MiB that are to be free on its disk for new runs to be taken. Default: 2 % of the disk, between 256 and 1024.
    pub(crate) free_mib: Option<u64>,
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too large to be one.
    #[error("the configuration {} is larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Its content is wrong.
    #[error("the configuration {} cannot be used", path.display())]
    Problems {
        /// The file.
        path: PathBuf,
        /// Its text.
        text: String,
        /// What is wrong with it.
        problems: Vec<Problem>,
    },
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let failure = Self::new(Exit::Config, &error, "nothing was started", "mend the file, or name another");
        match error {
            ConfigError::Read { .. } | ConfigError::TooLarge { .. } => failure,
            ConfigError::Problems { path, text, problems } => {
                let problems = problems.into_iter().map(|problem| ProblemView::new(problem, &text)).collect();
                failure.with_problems(problems, &path.display().to_string(), &without_passwords(&text))
            }
        }
    }
}

/// The text without the passwords of addresses, byte for byte as long: what is drawn of it may end in a log.
fn without_passwords(text: &str) -> String {
    let hidden = |line: &str| {
        let (begin, end) = (line.find("://")? + 3, line.rfind('@')?);
        let begin = begin + line.get(begin..end)?.find(':')? + 1;
        Some(format!("{}{}{}", line.get(..begin)?, "*".repeat(end - begin), line.get(end..)?))
    };
    text.split_inclusive('\n').map(|line| hidden(line).unwrap_or_else(|| line.to_owned())).collect()
}

impl ConfigFile {
    /// Reads the file that was given, which must exist, or else the usual one, which need not.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(crate) fn read(given: Option<&Path>, usual: &Path) -> Result<Self, ConfigError> {
        let path = given.unwrap_or(usual);
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && given.is_none() => return Ok(Self::default()),
            opened => opened.map_err(failed)?,
        };
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(ConfigError::TooLarge { path: path.to_owned() });
        }
        let parsed = Self::parse(&text);
        let mut file = parsed.map_err(|problems| ConfigError::Problems { path: path.to_owned(), text, problems })?;
        // A path in a file is meant from where the file is, whoever reads it from where.
        let folder = path.parent().unwrap_or(Path::new(""));
        let broker = &mut file.broker;
        for named in [&mut broker.ca, &mut broker.client_cert, &mut broker.client_key].into_iter().flatten() {
            *named = folder.join(&*named);
        }
        broker.file = Some(path.to_owned());
        Ok(file)
    }

    fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let place = |error: &toml::de::Error| error.span().filter(|span| text.get(span.clone()).is_some());
        let words = |error: &toml::de::Error| error.message().lines().next().unwrap_or_default().to_owned();
        let problem = |error: &toml::de::Error| Problem { span: place(error), what: words(error), hint: None };
        let document = DeTable::parse(text).map_err(|error| vec![problem(&error)])?;
        let document = document.get_ref();
        let unknown = keys::unknown(document);
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let file = toml::from_str(text).map_err(|error| {
            let named = place(&error).and_then(|span| keys::at(document, text, &span, &words(&error)));
            vec![named.unwrap_or_else(|| problem(&error))]
        })?;
        let unusable = keys::unusable(document, text);
        if unusable.is_empty() { Ok(file) } else { Err(unusable) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
[broker]
url = "amqps://u:hush@mq.example"
ca = "ca.pem"
client_cert = "c.pem"
client_key = "k.pem"
[server]
listen = "127.0.0.1:1"
agents = ["a1", "a2"]
queue_type = "classic"
journal_engine = "sled"
[agent]
name = "a1"
slots = 4
journal_engine = "segments"
pool = "linux"
labels = { env = "prod", zone = "eu-1" }
once = true
"#;

    #[test]
    fn every_documented_key_is_taken() {
        let file = ConfigFile::parse(WHOLE).unwrap();
        assert_eq!(file.broker.url.unwrap().to_string(), "amqps://u@mq.example:5671/%2f");
        assert_eq!((file.server.agents.unwrap().len(), file.server.queue_type), (2, Some(QueueType::Classic)));
        let engines = (file.server.journal_engine, file.agent.journal_engine);
        assert_eq!(engines, (Some(JournalEngine::Sled), Some(JournalEngine::Segments)));
        assert_eq!((file.agent.name.unwrap().as_str(), file.agent.slots), ("a1", Some(4)));
        assert_eq!((file.agent.pool.as_deref(), file.agent.once), (Some("linux"), Some(true)));
        assert_eq!(file.agent.labels.unwrap()["zone"], "eu-1");
        assert_eq!(ConfigFile::parse("").unwrap(), ConfigFile::default());
    }

    #[test]
    fn what_is_wrong_is_marked_where_it_is() {
        for (text, place, what, hint) in [
            ("[brokr]\n", "brokr", "unknown key `brokr`", "did you mean `broker`?"),
            ("[broker]\nurll = 'x'", "urll", "unknown key `urll`", "did you mean `url`?"),
            (
                "[broker]\nurl = 'http://u:secret@x'",
                "'http://u:secret@x'",
                "`url` under [broker] cannot be used: a broker URL begins",
                "amqps://USER",
            ),
            (
                "[server]\nlisten = 'x'",
                "'x'",
                "`listen` under [server] cannot be 'x': invalid socket",
                "127.0.0.1:7766",
            ),
            (
                "[server]\nlisten='[::]:1'",
                "'[::]:1'",
                "`listen` under [server] cannot be '[::]:1': other machines",
                "port 0",
            ),
            (
                "[server]\nagents = ['A']",
                "['A']",
                "`agents` under [server] cannot be ['A']: agent name `A`",
                "[\"a1\", \"a2\"]",
            ),
            (
                "[server]\nqueue_type = 'stream'",
                "'stream'",
                "`queue_type` under [server] cannot be 'stream': unknown",
                "\"quorum\" or",
            ),
            (
                "[agent]\njournal_engine = 'rocks'",
                "'rocks'",
                "`journal_engine` under [agent] cannot be 'rocks'",
                "\"sled\" or",
            ),
            ("[agent]\nslots = -1", "-1", "`slots` under [agent] cannot be -1: invalid value", "from 1 to 1024"),
            ("[agent]\nslots = 0", "0", "`slots` under [agent] cannot be 0:", "from 1 to 1024"),
            ("[agent]\nslots = 0x401", "0x401", "`slots` under [agent] cannot be 0x401:", "from 1 to 1024"),
            ("[agent]\nkeep_mib = 1.5", "1.5", "`keep_mib` under [agent] cannot be 1.5: invalid type", "number of MiB"),
            ("[agent]\npool = 'a b'", "'a b'", "`pool` under [agent] cannot be 'a b':", "without spaces"),
            (
                "[agent]\nlabels = { a = 1 }",
                "1",
                "`labels` under [agent] cannot be 1: invalid type",
                "{ env = \"prod\" }",
            ),
            ("[agent.labels]\na = 'ä'", "'ä'", "`labels` under [agent] cannot be 'ä':", "{ env = \"prod\" }"),
            ("[agent.labels]\n'a b' = 'c'", "'a b'", "`labels` under [agent] cannot be 'a b':", "{ env = \"prod\" }"),
            ("[agent.labels]\na = 1", "1", "`labels` under [agent] cannot be 1:", "{ env = \"prod\" }"),
            ("[agent]\nslots = 1\nslots = 2", "slots", "duplicate key", ""),
            ("broker = 1", "1", "`broker` is a section", "write [broker]"),
        ] {
            let problems = ConfigFile::parse(text).unwrap_err();
            let found = problems[0].span.clone().map(|span| &text[span]);
            assert_eq!(found, Some(place), "{problems:?}");
            assert!(problems[0].what.starts_with(what), "{problems:?}");
            assert!(problems[0].hint.as_deref().unwrap_or_default().contains(hint), "{problems:?}");
            assert!(!problems[0].what.contains("secret"), "{problems:?}");
        }
    }

    #[test]
    fn a_password_is_hidden_and_everything_stays_where_it_is() {
        for (text, shown) in [
            ("a=1\nurl='amqp://u:p\u{e4}@:x@h' # b\nc=2", "a=1\nurl='amqp://u:******@h' # b\nc=2"),
            ("url='amqp://u@h:1'\n", "url='amqp://u@h:1'\n"),
            ("url='amqp://h:1'\n# @", "url='amqp://h:1'\n# @"),
            ("@ u:p ://", "@ u:p ://"),
        ] {
            assert_eq!((without_passwords(text).as_str(), shown.len()), (shown, text.len()));
        }
    }

    #[test]
    fn the_files_that_it_names_are_looked_for_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, "[broker]\nca='ca.pem'\nclient_cert='/c.pem'\nclient_key='k/k.pem'").unwrap();
        let broker = ConfigFile::read(Some(&path), &path).unwrap().broker;
        assert_eq!(broker.ca, Some(folder.path().join("ca.pem")));
        assert_eq!(
            (broker.client_cert, broker.client_key),
            (Some("/c.pem".into()), Some(folder.path().join("k/k.pem")))
        );
    }

    #[test]
    fn the_usual_file_may_be_missing_and_a_given_one_may_not() {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("none");
        assert_eq!(ConfigFile::read(None, &none).unwrap(), ConfigFile::default());
        assert!(matches!(ConfigFile::read(Some(&none), &none), Err(ConfigError::Read { .. })));
        let large = folder.path().join("large");
        std::fs::write(&large, "#".repeat(256 * 1024 + 1)).unwrap();
        assert!(matches!(ConfigFile::read(None, &large), Err(ConfigError::TooLarge { .. })));
    }
}
