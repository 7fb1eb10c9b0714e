//! `longshore broker`: whether the broker is as it should be, and the files that make it so.

use std::net::SocketAddr;
use std::path::PathBuf;

use broker_config::Topology;
use broker_config::node::Node;
use broker_config::render::{
    AgentUser, ClientCertificate, Definitions, RabbitmqConf, TlsFiles, TlsListener, UserLogin,
};
use clap::{Args, Subcommand};
use link::amqp::Role;
use messages::AgentId;
use serde::Serialize;
use server::views::{AgentsView, Schema};

use crate::args::Global;
use crate::client::Client;
use crate::config::{BrokerFlags, BrokerSettings, ConfigFile, QueueType, SettingsError};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::home::Home;
use crate::output::{Cell, Column, Printer, Table};
use crate::serving;

/// Commands about the broker.
#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// Reach the broker and check it against what we need; exit code 1 when something is missing, 69 when it is not there
    Check(BrokerCheckArgs),
    /// Print definitions.json: exchanges, queues, policies and permissions
    Definitions(BrokerDefinitionsArgs),
    /// Print rabbitmq.conf
    Conf,
}

/// Arguments of `longshore broker check`.
#[derive(Debug, Args)]
pub(crate) struct BrokerCheckArgs {
    /// The configuration file [default: config.toml in the home folder, if it exists]
    #[arg(long, env = "LONGSHORE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    broker: BrokerFlags,
    /// The agents whose queues are looked at, too, separated by commas [default: those in the configuration; for the broker of
    /// `longshore dev` those that its server knows]
    #[arg(long, env = "LONGSHORE_AGENTS", value_name = "NAMES", value_delimiter = ',')]
    agents: Option<Vec<AgentId>>,
}

/// Arguments of `longshore broker definitions`.
#[derive(Debug, Args)]
pub(crate) struct BrokerDefinitionsArgs {
    /// The agents that get a queue, separated by commas
    #[arg(long, env = "LONGSHORE_AGENTS", value_name = "NAMES", value_delimiter = ',')]
    agents: Vec<AgentId>,
    /// The type of the queues
    #[arg(long, env = "LONGSHORE_QUEUE_TYPE", value_enum, value_name = "TYPE", default_value = "quorum")]
    queue_type: QueueType,
}

/// A broker that was looked at.
#[derive(Debug, Clone, Serialize)]
struct CheckView {
    /// Its address, without the password.
    url: String,
    /// Whether everything is as it should be.
    ok: bool,
    /// Everything that was asked for.
    findings: Vec<FindingView>,
}

/// One thing that must be there.
#[derive(Debug, Clone, Serialize)]
struct FindingView {
    what: String,
    ok: bool,
    problem: Option<String>,
    messages: Option<u32>,
    consumers: Option<u32>,
}

impl Schema for CheckView {
    const SCHEMA: &'static str = "longshore.broker-check/1";
}

/// Does what was asked for.
pub(crate) fn run(command: &BrokerCommand, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    match command {
        BrokerCommand::Check(args) => {
            let home = Home::find(global.dir.as_deref())?;
            let file = ConfigFile::read(args.config.as_deref(), &home.config_file())?;
            let mut agents = args.agents.clone().or(file.server.agents);
            let mut settings = BrokerSettings::new(file.broker, &args.broker)?;
            // Nobody named a broker, but this home folder has its own, and perhaps a server that knows its agents.
            if !settings.given
                && let Ok(Some(node)) = Node::find(&home.broker_dir())
            {
                settings.url = node.url.parse().map_err(SettingsError::from)?;
                agents = agents.or_else(|| known_agents(global));
            }
            check(&settings, agents.unwrap_or_default(), printer)
        }
        BrokerCommand::Definitions(args) => definitions(&args.agents, args.queue_type, printer),
        BrokerCommand::Conf => conf(printer),
    }
}

/// The agents that the server knows, if it can be asked.
fn known_agents(global: &Global) -> Option<Vec<AgentId>> {
    let view: AgentsView = Client::new(global).and_then(|client| client.get("/v1/agents")).ok()?;
    Some(view.agents.into_iter().map(|agent| agent.name).collect())
}

/// Reaches the broker and prints what was found.
fn check(settings: &BrokerSettings, agents: Vec<AgentId>, printer: &Printer) -> Result<Exit, Failure> {
    let nobody = agents.is_empty();
    let config = settings.transport(Role::Server { agents: agents.clone() }, QueueType::Quorum)?;
    let found = serving::run(|_| async move { link::amqp::check(&config, &agents).await })?;
    let url = settings.url.to_string();
    let findings = found.map_err(|error| {
        let next = "check the address and the login, and whether RabbitMQ runs: `rabbitmq-diagnostics check_port_connectivity`";
        let state = "nothing was changed; a server and its agents would go on and keep their messages in their journals";
        Failure::words(Exit::Unreachable, format!("the broker {url} cannot be used: {error}"), state, next)
    })?;
    let findings: Vec<FindingView> = findings
        .into_iter()
        .map(|finding| FindingView {
            what: finding.what,
            ok: finding.problem.is_none(),
            problem: finding.problem,
            messages: finding.messages,
            consumers: finding.consumers,
        })
        .collect();
    let ok = findings.iter().all(|finding| finding.ok);
    let columns = [Column::new("WHAT"), Column::new("STATE"), Column::number("MESSAGES"), Column::number("CONSUMERS")];
    let mut table = Table::new(columns);
    for finding in &findings {
        let count = |count: Option<u32>| count.map_or_else(Cell::none, Cell::new);
        let state = finding.problem.as_ref().map_or_else(|| Cell::new("ok"), Cell::new);
        table.row([Cell::new(&finding.what), state, count(finding.messages), count(finding.consumers)]);
    }
    printer.one(&CheckView { url: url.clone(), ok, findings }, &format!("{url} answers\n"), &table)?;
    if nobody {
        printer.note("no agents were named, so no agent's queue was looked at; name them with --agents");
    }
    Ok(if ok { Exit::Ok } else { Exit::Failed })
}

/// Prints definitions.json.
fn definitions(agents: &[AgentId], queue_type: QueueType, printer: &Printer) -> Result<Exit, Failure> {
    let definitions = Definitions {
        topology: Topology { queue_type: queue_type.into(), ..Topology::default() },
        server: UserLogin { name: "longshore".to_owned(), password: None },
        administrator: None,
        agents: agents.iter().map(|agent| (agent.to_string(), AgentUser::Certificate)).collect(),
    };
    let text = definitions.to_json().map_err(|error| {
        Failure::new(Exit::Usage, &error, "nothing was printed", "give other agent names with --agents")
    })?;
    printer.text(&text)?;
    printer.note(
        "The users have no password yet: give them one with `rabbitmqctl change_password USER` before anybody logs in.",
    );
    Ok(Exit::Ok)
}

/// Prints rabbitmq.conf.
fn conf(printer: &Printer) -> Result<Exit, Failure> {
    let tls = |name: &str| PathBuf::from("/etc/rabbitmq/tls").join(name);
    let conf = RabbitmqConf {
        definitions: Some("/etc/rabbitmq/definitions.json".into()),
        ..RabbitmqConf::tls(TlsListener {
            address: SocketAddr::from(([0, 0, 0, 0], 5671)),
            files: TlsFiles { ca: tls("ca.pem"), certificate: tls("server.pem"), key: tls("server.key") },
            client_certificate: ClientCertificate::Required,
        })
    };
    let text = conf.render().map_err(|error| {
        Failure::new(Exit::Failed, &error, "nothing was printed", "report this: the built-in settings should be valid")
    })?;
    printer.text(&text)?;
    Ok(Exit::Ok)
}
