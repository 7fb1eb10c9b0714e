//! Writes the tables and pictures of the page about performance, between markers, and nothing else of it.

use std::io;
use std::path::{Path, PathBuf};

use super::{Benchmark, Outcome, picture, table};

/// Behind the last part.
const LAST: &str = "<!-- bench: end -->";

/// The page, below the folder of documents.
pub const PAGE: &str = "performance.md";

/// Why a page cannot be written. It is as it was then.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// A marker is not there, or not in order.
    #[error("{} has no part between `{begin}` and `{end}`, nor `{LAST}` to add it before; nothing was written", path.display())]
    NoMarkers {
        /// The page.
        path: PathBuf,
        /// The marker before the part.
        begin: String,
        /// The marker behind it.
        end: String,
    },
    /// A file cannot be read or written.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Puts the tables of these outcomes into the page in that folder, and draws their pictures beside it.
///
/// # Errors
/// [`PageError`]
pub fn write(docs: &Path, outcomes: &[Outcome]) -> Result<(), PageError> {
    let path = docs.join(PAGE);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| PageError::Io { path, source }
    };
    let mut page = std::fs::read_to_string(&path).map_err(io(&path))?;
    let mut pictures = Vec::new();
    page = update(&path, &page, "machine", &table::machine())?;
    for outcome in outcomes {
        let mut part = format!("### {}: {}\n\n{}", outcome.id, outcome.what, table::markdown(outcome));
        if let Some(of) = Benchmark::of(outcome.id).and_then(|benchmark| benchmark.picture) {
            part += &format!("\n![{}]({})\n", outcome.what, of.file);
            pictures.push((docs.join(of.file), picture::svg(&of, outcome)));
        }
        page = update(&path, &page, outcome.id, &part)?;
    }
    for (path, picture) in pictures {
        std::fs::write(&path, picture).map_err(io(&path))?;
    }
    std::fs::write(&path, page).map_err(io(&path))
}

/// The page with that part replaced, or added behind the others where it is new.
fn update(path: &Path, page: &str, name: &str, part: &str) -> Result<String, PageError> {
    let [begin, end] = ["begin", "end"].map(|edge| format!("<!-- bench {name}: {edge} -->"));
    let whole = format!("{begin}\n\n{}\n\n{end}", part.trim());
    if let Some(from) = page.find(&begin)
        && let Some(length) = page[from..].find(&end)
    {
        return Ok(format!("{}{whole}{}", &page[..from], &page[from + length + end.len()..]));
    }
    match page.find(LAST).filter(|_| !page.contains(&begin) && !page.contains(&end)) {
        Some(at) => Ok(format!("{}{whole}\n\n{}", &page[..at], &page[at..])),
        None => Err(PageError::NoMarkers { path: path.to_owned(), begin, end }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PAGE: &str = "a\n<!-- bench R1: begin -->old<!-- bench R1: end -->\nb\n<!-- bench: end -->\nc";

    #[test]
    fn only_what_is_between_its_own_markers_changes_and_again_gives_the_same() {
        let once = update(Path::new("p"), PAGE, "R1", "new\n").unwrap();
        assert_eq!(once, "a\n<!-- bench R1: begin -->\n\nnew\n\n<!-- bench R1: end -->\nb\n<!-- bench: end -->\nc");
        assert_eq!(update(Path::new("p"), &once, "R1", "new").unwrap(), once);
    }

    #[test]
    fn a_part_that_is_new_is_added_behind_the_others_and_is_not_new_again() {
        let once = update(Path::new("p"), PAGE, "R2", "x").unwrap();
        assert!(
            once.ends_with("b\n<!-- bench R2: begin -->\n\nx\n\n<!-- bench R2: end -->\n\n<!-- bench: end -->\nc"),
            "{once}"
        );
        assert_eq!(update(Path::new("p"), &once, "R2", "x").unwrap(), once);
    }

    #[test]
    fn a_page_without_the_markers_in_their_order_is_refused() {
        for page in [
            "",
            "<!-- bench R1: begin --><!-- bench: end -->",
            "<!-- bench R1: end --><!-- bench R1: begin --><!-- bench: end -->",
        ] {
            assert!(matches!(update(Path::new("p"), page, "R1", "x"), Err(PageError::NoMarkers { .. })), "{page}");
        }
    }
}
