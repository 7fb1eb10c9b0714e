//! `longshore job schema`: the JSON Schema of a job file, for editors. Asks no server.

use server::job_file::schema;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;

/// Prints the schema, which is JSON in every format.
pub(crate) fn run(printer: &Printer) -> Result<Exit, Failure> {
    printer.text(&format!("{:#}\n", schema()))?;
    Ok(Exit::Ok)
}
