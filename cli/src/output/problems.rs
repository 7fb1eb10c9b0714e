//! Problems of a text, each drawn at its place.

use std::fmt;

pub(crate) use miette::Severity;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use server::views::ProblemView;

use super::clean;

/// Columns of the drawing. Fixed, so that the same problem is the same text everywhere.
const WIDTH: usize = 100;

#[derive(Debug)]
struct Shown<'a> {
    view: &'a ProblemView,
    severity: Severity,
    source: &'a NamedSource<String>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clean(&self.view.problem.what))
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.view.problem.hint.as_ref().map(|hint| Box::new(clean(hint)) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.view.problem.span.as_ref().map(|_| self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.view.problem.span.clone()?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some("here".into()), span))))
    }
}

/// The problems as text, coloured; the printer takes the colours out where they are not wanted.
pub(crate) fn render(problems: &[ProblemView], severity: Severity, name: &str, text: &str) -> String {
    // What a terminal would act upon is replaced byte by byte, so that the places stay where they are.
    let harmless: String =
        text.chars().map(|c| if c.is_ascii_control() && !"\n\t".contains(c) { ' ' } else { c }).collect();
    let source = NamedSource::new(name, harmless);
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode())
        .with_width(WIDTH)
        .with_links(false)
        .with_context_lines(1)
        .without_syntax_highlighting();
    let mut all = String::new();
    for view in problems {
        let mut drawing = String::new();
        // A drawing that fails half-way still must not hide the problem.
        if handler.render_report(&mut drawing, &Shown { view, severity, source: &source }).is_err() {
            let place = view.position.map(|place| format!("{}:{}: ", place.line, place.column)).unwrap_or_default();
            drawing = format!("{name}:{place}{}\n", clean(&view.problem.what));
        }
        all.push_str(drawing.trim_end());
        all.push_str("\n\n");
    }
    all
}
