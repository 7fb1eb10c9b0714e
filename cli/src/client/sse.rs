//! Reading server-sent events: lines into events, with bounds. Knows nothing of what the events say.

use std::io::{self, BufRead, BufReader, Read};

use ureq::BodyReader;

/// Bytes of one event. A view of a job must fit, see the bound on answers.
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Event {
    /// Its name.
    pub(crate) name: String,
    /// Its id, if it has one.
    pub(crate) id: Option<String>,
    /// What it carries.
    pub(crate) data: String,
}

/// Why an event stream ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The stream ended or was lost, or nothing was heard for too long.
    #[error("the event stream was lost")]
    Lost(#[from] io::Error),
    /// An event is larger than any that the server makes.
    #[error("an event is larger than {EVENT_BYTES_MAX} bytes")]
    TooLarge,
}

/// An open event stream.
#[derive(Debug)]
pub(crate) struct EventReader<R = BodyReader<'static>> {
    lines: BufReader<R>,
}

impl<R: Read> EventReader<R> {
    /// Reads events from a body.
    pub(crate) fn new(body: R) -> Self {
        Self { lines: BufReader::new(body) }
    }

    /// The next event. Comments, which only keep the stream alive, are passed over.
    ///
    /// # Errors
    /// [`StreamError`]; the stream is of no more use then.
    pub(crate) fn next(&mut self) -> Result<Event, StreamError> {
        let mut event = Event::default();
        let mut bytes = 0;
        let mut some = false;
        loop {
            let mut line = Vec::new();
            let room = (EVENT_BYTES_MAX - bytes) as u64 + 1;
            let read = (&mut self.lines).take(room).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            bytes += read;
            if bytes > EVENT_BYTES_MAX {
                return Err(StreamError::TooLarge);
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                if some {
                    return Ok(event);
                }
                bytes = 0;
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "id" => event.id = Some(value.to_owned()),
                "data" => {
                    if !event.data.is_empty() {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                }
                // A comment has an empty field name; others are for other clients.
                _ => continue,
            }
            some = true;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_they_were_written() {
        let text = ":\n\nevent: job\nid: 7\ndata: {\"a\":\ndata: 1}\n\n: still here\n\nevent:log\r\ndata:x\r\n\r\nevent: cut\n";
        let mut reader = EventReader::new(text.as_bytes());
        let event = |name: &str, id: Option<&str>, data: &str| Event {
            name: name.into(),
            id: id.map(str::to_owned),
            data: data.into(),
        };
        assert_eq!(reader.next().unwrap(), event("job", Some("7"), "{\"a\":\n1}"));
        assert_eq!(reader.next().unwrap(), event("log", None, "x"));
        assert!(matches!(reader.next(), Err(StreamError::Lost(_))));
    }

    #[test]
    fn an_endless_event_is_given_up() {
        let endless = io::repeat(b'x');
        assert!(matches!(EventReader::new(endless).next(), Err(StreamError::TooLarge)));
    }
}
