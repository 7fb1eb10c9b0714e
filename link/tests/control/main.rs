//! The owner's socket, asked as the tools ask it: what it shows of stopped streams, and the one thing that it changes.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod running;

use link::control::{AskError, Question, Reply, Unresolved, ask};
use link::session::{PeerView, ResolveError};
use messages::{EndpointId, Seq};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use running::Running;

fn server() -> EndpointId {
    EndpointId::Server
}

async fn views(dir: &TempDir, question: &Question) -> Vec<PeerView> {
    match ask(dir.path(), question).await.unwrap() {
        Reply::Link(_, views) => views.into_iter().map(|view| view.streams).collect(),
        other => panic!("{other:?}"),
    }
}

async fn resolve(dir: &TempDir, peer: EndpointId) -> Result<(), Unresolved> {
    match ask(dir.path(), &Question::Resolve(peer)).await.unwrap() {
        Reply::Resolve(resolved) => resolved,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_streams_say_why_and_what_to_do_and_go_on_when_a_person_decided() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path(), "a1", "server", &[]).await;
    let view = views(&dir, &Question::Links).await.remove(0);
    assert_eq!((view.frozen, view.advice, view.resolvable), (None, None, false));
    running.is_doubled().await;
    let view = views(&dir, &Question::Links).await.remove(0);
    assert!(view.frozen.is_some_and(|why| why.contains("another process in this opening")));
    let advice = view.advice.unwrap();
    assert!(
        advice.starts_with("Nothing is lost") && advice.contains("`longshore reconcile resolve server --endpoint a1`")
    );
    assert!(view.resolvable);
    let before = running.said().sending.incarnation;
    assert_eq!(view.outgoing.incarnation, before);
    assert_eq!(resolve(&dir, server()).await, Ok(()));
    let view = views(&dir, &Question::Link(vec![server()])).await.remove(0);
    assert_eq!((view.frozen, view.resolvable), (None, false));
    assert_ne!(view.outgoing.incarnation, before, "its journal goes on under another name");
    running.says(|status| status.sending.incarnation != before && !status.frozen && status.probe.is_some()).await;
    let another = running.said().sending.incarnation;
    running.stop().await;
    let running = Running::start(dir.path(), "a1", "server", &[]).await;
    let after = running.said().sending.clone();
    let parts: Vec<_> = after.lineage.iter().flat_map(|lineage| lineage.iter().map(|part| part.incarnation)).collect();
    assert!(parts.contains(&another), "the decision was on disk before it was answered: {after:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decided_changes_nothing_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path(), "server", "a1", &["a2"]).await;
    let peer = running.said().to.clone();
    let unknown: EndpointId = "a9".parse().unwrap();
    assert_eq!(views(&dir, &Question::Links).await.len(), 2, "also the peer that was never heard");
    assert_eq!(resolve(&dir, peer.clone()).await, Err(ResolveError::NotStopped { peer: peer.clone() }.into()));
    assert_eq!(resolve(&dir, unknown.clone()).await, Err(ResolveError::UnknownPeer { peer: unknown }.into()));
    running.contradicts().await;
    let at = Seq::FIRST;
    let expected = Err(ResolveError::Diverged { peer: peer.clone(), at }.into());
    assert_eq!(resolve(&dir, peer.clone()).await, expected);
    let view = views(&dir, &Question::Link(vec![peer])).await.remove(0);
    assert!(view.frozen.is_some() && !view.resolvable);
    assert!(view.advice.unwrap().contains("`longshore journal quarantine`"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_the_peer_stopped_say_where_it_is_decided() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path(), "a1", "server", &[]).await;
    running.hears(|status| status.frozen = true).await;
    running.is_stopped().await;
    let view = views(&dir, &Question::Links).await.remove(0);
    assert!(view.advice.unwrap().contains("`longshore reconcile show a1 --endpoint server`") && !view.resolvable);
    assert_eq!(resolve(&dir, server()).await, Err(ResolveError::NotStopped { peer: server() }.into()));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_is_none_is_not_answered_and_a_stopped_endpoint_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), "a1", "server", &[]).await;
    // Too long, not a question, and a name that no endpoint may have.
    let named = |peer| messages::to_msgpack(&std::collections::BTreeMap::from([("resolve", peer)])).unwrap();
    assert_eq!(messages::from_msgpack::<Question>(&named("server")).unwrap(), Question::Resolve(server()));
    let framed = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    for bytes in [u32::MAX.to_be_bytes().to_vec(), framed(&[0xc1]), framed(&named("../x"))] {
        let mut stream = tokio::net::UnixStream::connect(dir.path().join(link::control::SOCKET)).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        // It hangs up, and if something of the question was not read, the system says so.
        let ended = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() && ended.is_ok_and(|read| read == 0), "{answer:?}");
    }
    running.stop().await;
    let answered = ask(dir.path(), &Question::Resolve(server())).await;
    assert!(matches!(answered, Err(AskError::NotRunning { .. })), "{answered:?}");
}
