//! Fetches and unpacks Debian's packages without root.
//!
//! apt checks the signatures and checksums; this file only tells it where to work. The machine's own package state is
//! read, never written: where its lists are missing or out of date, private ones are fetched into a directory of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::command::{self, CommandError};
use super::error::InstallError;
use super::install::Progress;

/// Reading lists and unpacking are local work.
const LOCAL_LIMIT: Duration = Duration::from_secs(300);
/// Some 35 MB (lists: 10 MB more), on a slow line.
const NETWORK_LIMIT: Duration = Duration::from_secs(900);
/// What RabbitMQ needs of its dependencies, by name: Erlang. The rest (init system, log rotation, users) is for services.
const WANTED_PREFIX: &str = "erlang-";
const RABBITMQ: &str = "rabbitmq-server";

/// Which package lists apt shall use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lists<'a> {
    /// The machine's.
    System,
    /// Our own, under this directory.
    Private(&'a Path),
}

/// Downloads RabbitMQ and its Erlang into `debs` and returns the files. Tries the machine's package lists first; they
/// may be empty (a container image) or name versions that the mirror has replaced.
pub(crate) fn download(
    work: &Path,
    debs: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<PathBuf>, InstallError> {
    create_dir(debs)?;
    progress(Progress::ReadingLists);
    if let Ok(files) = download_with(Lists::System, debs, progress) {
        return Ok(files);
    }
    let private = work.join("apt");
    for dir in ["lists/partial", "cache/archives/partial"] {
        create_dir(&private.join(dir))?;
    }
    progress(Progress::UpdatingLists);
    let lists = Lists::Private(&private);
    // An update may report an error because of one source among many; the download shows whether it was enough.
    let updated = command::run(apt("apt-get", lists).arg("update"), NETWORK_LIMIT);
    match (download_with(lists, debs, progress), updated) {
        (Ok(files), _) => Ok(files),
        (Err(_), Err(update)) => Err(update.into()),
        (Err(error), Ok(_)) => Err(error),
    }
}

fn download_with(
    lists: Lists<'_>,
    debs: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<PathBuf>, InstallError> {
    let mut query = apt("apt-cache", lists);
    query.args(["depends", "--recurse"]);
    for kind in ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"] {
        query.arg(format!("--no-{kind}"));
    }
    let listing = match command::run(query.arg(RABBITMQ), LOCAL_LIMIT) {
        Ok(listing) => listing,
        Err(CommandError::Failed { .. }) => return Err(InstallError::NotOffered),
        Err(error) => return Err(error.into()),
    };
    let names = wanted(&listing);
    if !names.contains(&RABBITMQ) || names.len() < 2 {
        return Err(InstallError::NotOffered);
    }
    progress(Progress::Downloading { packages: names.len() });
    // apt writes into the current directory, and its own lock-free `download` needs no root.
    let mut fetch = apt("apt-get", lists);
    fetch.arg("download").args(&names).current_dir(debs);
    command::run(&mut fetch, NETWORK_LIMIT)?;
    let files = deb_files(debs)?;
    if files.len() < names.len() {
        let reason = format!("apt fetched {} of {} packages", files.len(), names.len());
        return Err(InstallError::Broken { reason });
    }
    Ok(files)
}

/// The packages to fetch, from the output of `apt-cache depends --recurse`: names start at the first column.
fn wanted(listing: &str) -> Vec<&str> {
    let mut names: Vec<&str> = listing
        .lines()
        .filter(|line| !line.starts_with([' ', '<', '|']))
        .map(str::trim_end)
        .filter(|name| *name == RABBITMQ || name.starts_with(WANTED_PREFIX))
        .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Unpacks every file into `root`.
pub(crate) fn unpack(debs: &[PathBuf], root: &Path, progress: &mut dyn FnMut(Progress)) -> Result<(), InstallError> {
    create_dir(root)?;
    for (done, deb) in debs.iter().enumerate() {
        progress(Progress::Unpacking { done, packages: debs.len() });
        let mut unpack = Command::new("dpkg-deb");
        command::run(unpack.arg("-x").arg(deb).arg(root), LOCAL_LIMIT)?;
    }
    Ok(())
}

fn apt(program: &str, lists: Lists<'_>) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
    // As root, apt would switch to a user that may not write into our directory; for others this changes nothing.
    for option in ["APT::Sandbox::User=root", "Acquire::Retries=3", "Acquire::http::Timeout=30"] {
        command.args(["-o", option]);
    }
    match lists {
        Lists::System => {}
        Lists::Private(dir) => {
            let dir = dir.display();
            for option in [
                format!("Dir::State::lists={dir}/lists"),
                format!("Dir::Cache={dir}/cache"),
                "Acquire::Languages=none".to_owned(),
            ] {
                command.args(["-o", &option]);
            }
        }
    }
    command
}

fn deb_files(dir: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let io = |source| InstallError::Io { action: "read", path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

pub(crate) fn create_dir(path: &Path) -> Result<(), InstallError> {
    fs::create_dir_all(path).map_err(|source| InstallError::Io { action: "create", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rabbitmq_and_erlang_are_taken_from_the_dependencies() {
        let listing = "rabbitmq-server\n  Depends: adduser\n |Depends: erlang-base\n  Depends: <erlang-base-hipe>\n\
                       adduser\nerlang-base\n<erlang-abi-17.0>\nerlang-base\nlogrotate\nerlang-x;rm\n";
        assert_eq!(wanted(listing), ["erlang-base", "rabbitmq-server"]);
        assert!(wanted("").is_empty());
    }
}
