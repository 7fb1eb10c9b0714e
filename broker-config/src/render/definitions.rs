//! `definitions.json`: what a broker loads at start so that it is complete before anyone connects.
//!
//! Agents that log in with a token need no user here; their queue and binding are enough. Nothing secret is rendered:
//! passwords appear as salted hashes only.

use std::collections::BTreeSet;

use serde::Serialize;
use thiserror::Error;

use super::password::PasswordHash;
use crate::names::InvalidId;
use crate::permissions::{Permission, TopicPermission};
use crate::topology::{Arguments, Binding, ExchangeKind, Topology};

/// Most agents in one file. Above it a single virtual host is the wrong shape, and the broker's own boot time suffers.
pub const MAX_AGENTS: usize = 20_000;

/// Longest user or virtual host name in bytes: the limit of an AMQP short string.
const MAX_NAME_LEN: usize = 255;

/// A user who logs in with a password, or with a client certificate when there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserLogin {
    /// The user name.
    pub name: String,
    /// The password; `None` gives an empty hash, with which nobody can log in by password.
    pub password: Option<PasswordHash>,
}

/// How one agent logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentUser {
    /// With a token: the broker keeps no user for it.
    Token,
    /// As an internal user named like the agent, by client certificate only.
    Certificate,
    /// As an internal user named like the agent, by password.
    Password(PasswordHash),
}

/// What to render.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definitions {
    /// Names, virtual host and queue type.
    pub topology: Topology,
    /// The server's user.
    pub server: UserLogin,
    /// A user with every right and the `administrator` tag, for people and tests.
    pub administrator: Option<UserLogin>,
    /// Agents by id, with their login. The order in the file is by id.
    pub agents: Vec<(String, AgentUser)>,
}

/// Why definitions cannot be rendered. Nothing is rendered in part.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DefinitionsError {
    /// An agent's id breaks the rule.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// Two users or agents would share a name and so each other's rights.
    #[error("the name {name:?} is used twice; give every agent and user a name of its own")]
    Twice {
        /// The name.
        name: String,
    },
    /// A user or virtual host name is empty, too long or holds control characters.
    #[error("{what} must be 1 to 255 bytes without control characters")]
    Name {
        /// Which name.
        what: &'static str,
    },
    /// More than [`MAX_AGENTS`].
    #[error("{count} agents are too many for one virtual host; the limit is {MAX_AGENTS}")]
    TooMany {
        /// How many were given.
        count: usize,
    },
}

impl Definitions {
    /// The file's text, with a final line feed.
    ///
    /// # Errors
    /// When a name or id is invalid or used twice, or there are more than [`MAX_AGENTS`].
    pub fn to_json(&self) -> Result<String, DefinitionsError> {
        let file = self.file()?;
        let mut text =
            serde_json::to_string_pretty(&file).expect("plain strings, numbers and string-keyed maps always serialise");
        text.push('\n');
        Ok(text)
    }

    fn file(&self) -> Result<File<'_>, DefinitionsError> {
        if self.agents.len() > MAX_AGENTS {
            return Err(DefinitionsError::TooMany { count: self.agents.len() });
        }
        let vhost = check_name("the virtual host", &self.topology.vhost)?;
        let mut file = File::new(vhost, &self.topology);
        let mut names = BTreeSet::new();
        if let Some(admin) = &self.administrator {
            take_name(&mut names, check_name("the administrator's user name", &admin.name)?)?;
            let all = || ".*".to_owned();
            file.add_user(&admin.name, admin.password.as_ref(), &["administrator"]);
            file.permit(&admin.name, Permission { configure: all(), write: all(), read: all() });
        }
        take_name(&mut names, check_name("the server's user name", &self.server.name)?)?;
        file.add_user(&self.server.name, self.server.password.as_ref(), &[]);
        file.permit(&self.server.name, Permission::server());

        let mut agents: Vec<_> = self.agents.iter().collect();
        agents.sort_by(|a, b| a.0.cmp(&b.0));
        for (id, login) in agents {
            take_name(&mut names, id)?;
            file.add_queue(self.topology.agent_queue(id)?);
            file.add_binding(self.topology.agent_binding(id)?);
            match login {
                AgentUser::Token => continue,
                AgentUser::Certificate => file.add_user(id, None, &[]),
                AgentUser::Password(hash) => file.add_user(id, Some(hash), &[]),
            }
            file.permit(id, Permission::agent(id)?);
            let rights = TopicPermission::agent(id)?;
            file.topic_permissions.push(UserTopicPermission { user: id, vhost, rights });
        }
        Ok(file)
    }
}

fn check_name<'a>(what: &'static str, name: &'a str) -> Result<&'a str, DefinitionsError> {
    let fits = (1..=MAX_NAME_LEN).contains(&name.len()) && !name.chars().any(char::is_control);
    if fits { Ok(name) } else { Err(DefinitionsError::Name { what }) }
}

fn take_name<'a>(names: &mut BTreeSet<&'a str>, name: &'a str) -> Result<(), DefinitionsError> {
    if names.insert(name) { Ok(()) } else { Err(DefinitionsError::Twice { name: name.to_owned() }) }
}

/// The file. Field order is the order in the text.
#[derive(Serialize)]
struct File<'a> {
    vhosts: [Vhost<'a>; 1],
    users: Vec<User<'a>>,
    permissions: Vec<UserPermission<'a>>,
    topic_permissions: Vec<UserTopicPermission<'a>>,
    policies: [Policy<'a>; 1],
    exchanges: Vec<ExchangeEntry<'a>>,
    queues: Vec<QueueEntry<'a>>,
    bindings: Vec<BindingEntry<'a>>,
}

#[derive(Serialize)]
struct Vhost<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
    password_hash: &'a str,
    hashing_algorithm: &'static str,
    tags: &'static [&'static str],
}

#[derive(Serialize)]
struct UserPermission<'a> {
    user: &'a str,
    vhost: &'a str,
    #[serde(flatten)]
    rights: Permission,
}

#[derive(Serialize)]
struct UserTopicPermission<'a> {
    user: &'a str,
    vhost: &'a str,
    #[serde(flatten)]
    rights: TopicPermission,
}

#[derive(Serialize)]
struct Policy<'a> {
    vhost: &'a str,
    name: &'static str,
    pattern: &'static str,
    #[serde(rename = "apply-to")]
    apply_to: &'static str,
    priority: u8,
    definition: PolicyDefinition,
}

#[derive(Serialize)]
struct PolicyDefinition {
    #[serde(rename = "queue-leader-locator")]
    queue_leader_locator: &'static str,
}

#[derive(Serialize)]
struct ExchangeEntry<'a> {
    name: &'static str,
    vhost: &'a str,
    r#type: ExchangeKind,
    durable: bool,
    auto_delete: bool,
    internal: bool,
    arguments: Arguments,
}

#[derive(Serialize)]
struct QueueEntry<'a> {
    name: String,
    vhost: &'a str,
    durable: bool,
    auto_delete: bool,
    arguments: Arguments,
}

#[derive(Serialize)]
struct BindingEntry<'a> {
    source: &'static str,
    vhost: &'a str,
    destination: String,
    destination_type: &'static str,
    routing_key: String,
    arguments: Arguments,
}

impl<'a> File<'a> {
    fn new(vhost: &'a str, topology: &Topology) -> Self {
        let exchanges = topology.exchanges().into_iter().map(|exchange| ExchangeEntry {
            name: exchange.name,
            vhost,
            r#type: exchange.kind,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Arguments::new(),
        });
        // The only thing that is a policy and not an argument: one server declares every queue, and without this all
        // their leaders would sit on the cluster node that it happens to be connected to.
        let policy = Policy {
            vhost,
            name: "longshore-v1",
            pattern: r"^longshore\.v1\.",
            apply_to: "queues",
            priority: 0,
            definition: PolicyDefinition { queue_leader_locator: "balanced" },
        };
        let mut file = Self {
            vhosts: [Vhost { name: vhost }],
            users: Vec::new(),
            permissions: Vec::new(),
            topic_permissions: Vec::new(),
            policies: [policy],
            exchanges: exchanges.collect(),
            queues: Vec::new(),
            bindings: Vec::new(),
        };
        topology.server_queues().into_iter().for_each(|queue| file.add_queue(queue));
        topology.server_bindings().into_iter().for_each(|binding| file.add_binding(binding));
        file
    }

    fn vhost(&self) -> &'a str {
        self.vhosts[0].name
    }

    fn add_user(&mut self, name: &'a str, hash: Option<&'a PasswordHash>, tags: &'static [&'static str]) {
        let password_hash = hash.map_or("", PasswordHash::as_str);
        let hashing_algorithm = "rabbit_password_hashing_sha256";
        self.users.push(User { name, password_hash, hashing_algorithm, tags });
    }

    fn permit(&mut self, user: &'a str, rights: Permission) {
        self.permissions.push(UserPermission { user, vhost: self.vhost(), rights });
    }

    fn add_queue(&mut self, queue: crate::topology::Queue) {
        self.queues.push(QueueEntry {
            name: queue.name,
            vhost: self.vhost(),
            durable: true,
            auto_delete: false,
            arguments: queue.arguments,
        });
    }

    fn add_binding(&mut self, binding: Binding) {
        self.bindings.push(BindingEntry {
            source: binding.exchange,
            vhost: self.vhost(),
            destination: binding.queue,
            destination_type: "queue",
            routing_key: binding.routing_key,
            arguments: Arguments::new(),
        });
    }
}
