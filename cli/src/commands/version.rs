//! `longshore version`: the versions of this program and, if there is one, of the server. A server that is not there is no failure.

use serde::Serialize;
use server::views::{Schema, ServerView};

use crate::args::Global;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Column, Printer, Table, clean};

/// The versions.
#[derive(Debug, Clone, Serialize)]
struct VersionView {
    version: &'static str,
    protocol: u8,
    server: Option<String>,
    server_url: Option<String>,
}

impl Schema for VersionView {
    const SCHEMA: &'static str = "longshore.version/1";
}

/// Prints the versions.
pub(crate) fn run(global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let client = Client::new(global).ok();
    let server = client.as_ref().and_then(|client| client.get::<ServerView>("/v1/status").ok());
    let view = VersionView {
        version: env!("CARGO_PKG_VERSION"),
        protocol: messages::PROTOCOL_VERSION.value(),
        server_url: server.as_ref().and(client.as_ref()).map(|client| client.url().to_owned()),
        server: server.map(|server| server.version),
    };
    let mut table = Table::new([Column::new("WHAT"), Column::new("VERSION")]);
    table.row([Cell::new("longshore"), Cell::new(view.version)]);
    table.row([Cell::new("protocol"), Cell::new(view.protocol)]);
    table.row([Cell::new("server"), view.server.as_ref().map_or_else(Cell::none, Cell::new)]);
    let server = match (&view.server, &view.server_url) {
        (Some(version), Some(url)) => format!("{version} at {url}"),
        _ => "not reached".to_owned(),
    };
    if printer.for_people() {
        let text = format!("longshore {} · protocol {} · server {}\n", view.version, view.protocol, clean(&server));
        printer.text(&text)?;
    } else {
        printer.one(&view, "", &table)?;
    }
    Ok(Exit::Ok)
}
