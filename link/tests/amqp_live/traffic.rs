//! What travels while nothing goes wrong with the broker.

use broker_config::{DEAD_QUEUE, SERVER_QUEUE, UP_EXCHANGE, agent_queue_name, up_key};
use link::session::{DeliveryTag, Published};
use link::wire::{Refusal, WireEvent};
use messages::limits::ENVELOPE_BYTES_MAX;
use messages::{EndpointId, Seq, unbundle};

use crate::support::{Test, broker, message, runtime, to_agent};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("messages_travel_both_ways_and_are_confirmed", both_ways),
        ("ten_thousand_messages_arrive_once_and_in_order", ten_thousand),
        ("what_waits_together_travels_together_to_whoever_takes_it_so", together),
        ("an_unroutable_publish_is_reported_and_its_queue_is_declared", returned),
        ("a_publish_to_a_full_queue_is_reported_as_nacked", nacked),
        ("what_is_garbled_or_too_large_ends_in_the_dead_queue_and_nothing_else_does", dead),
        ("acknowledgements_never_cover_a_delivery_that_was_discarded_or_is_undecided", interleaved),
        ("the_transport_ends_when_the_driver_is_gone", driver_gone),
    ]
}

fn both_ways() {
    let broker = broker();
    runtime().block_on(async {
        let mut server = broker.server(&["ways"]);
        server.up().await;
        let mut agent = broker.agent("ways");
        agent.up().await;
        broker.outside().await.tidy().await;

        let down = message(to_agent("ways"), 1, b"down");
        server.publish(down.clone()).await;
        let confirmed = server.until("confirm", |event| match event {
            WireEvent::Confirmed(all) => Some(all),
            WireEvent::Refused { refusal, .. } => panic!("refused: {refusal:?}"),
            _ => None,
        });
        assert_eq!(confirmed.await, [(to_agent("ways"), Published::Message(Seq::FIRST))]);
        let (tag, bytes) = agent.delivery().await;
        assert_eq!(bytes, down.frame.bytes());
        agent.acknowledge(&[tag]).await;

        let up = message(EndpointId::Server, 1, b"up");
        agent.publish_until_confirmed(up.clone()).await;
        let (tag, bytes) = server.delivery().await;
        assert_eq!(bytes, up.frame.bytes());
        server.acknowledge(&[tag]).await;
        agent.stop().await;
        server.stop().await;

        // Acknowledged means gone.
        let outside = broker.outside().await;
        assert_eq!(outside.waiting(SERVER_QUEUE).await, 0);
        assert_eq!(outside.waiting(&agent_queue_name("ways").unwrap()).await, 0);
    });
}

fn ten_thousand() {
    const COUNT: u64 = 10_000;
    const IN_FLIGHT: u64 = 2_000;
    let broker = broker();
    runtime().block_on(async {
        let mut server = broker.server(&["many"]);
        server.up().await;
        let mut agent = broker.agent("many");
        agent.up().await;
        let sending = tokio::spawn(async move {
            let (mut sent, mut confirmed) = (0, 0);
            while confirmed < COUNT {
                while sent < COUNT && sent - confirmed < IN_FLIGHT {
                    sent += 1;
                    server.publish(message(to_agent("many"), sent, &sent.to_be_bytes())).await;
                }
                let all = server.until("confirm", |event| match event {
                    WireEvent::Confirmed(all) => Some(all),
                    other => panic!("{other:?}"),
                });
                let all = all.await;
                assert!(all.iter().all(|(_, what)| matches!(what, Published::Message(_))));
                confirmed += all.len() as u64;
            }
            server
        });
        let mut tags: Vec<DeliveryTag> = Vec::new();
        for expected in 1..=COUNT {
            let (tag, bytes) = agent.delivery().await;
            assert_eq!(bytes[bytes.len() - 8..], expected.to_be_bytes(), "the order was not kept");
            tags.push(tag);
            if tags.len() == 97 || expected == COUNT {
                agent.acknowledge(&tags).await;
                tags.clear();
            }
        }
        sending.await.unwrap().stop().await;
        agent.stop().await;
        assert_eq!(broker.outside().await.waiting(&agent_queue_name("many").unwrap()).await, 0);
    });
}

fn together() {
    const COUNT: u64 = 300;
    let numbered = |seq| message(to_agent("both"), seq, &u64::to_be_bytes(seq));
    let is = |seq, bytes: &[u8]| assert_eq!(bytes, numbered(seq).frame.bytes(), "number {seq}");
    let broker = broker();
    // With one thread all of them wait before the first is published.
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let mut server = broker.server(&["both"]);
        server.up().await;
        let outside = broker.outside().await;
        outside.tidy().await;
        let mut agent = broker.agent("both");
        agent.up().await;
        agent.publish_until_confirmed(message(EndpointId::Server, 1, b"word")).await;
        let (tag, _) = server.delivery().await;
        server.acknowledge(&[tag]).await;

        for seq in 1..=COUNT {
            server.publish(numbered(seq)).await;
        }
        let mut tags = Vec::new();
        for seq in 1..=COUNT {
            let (tag, bytes) = agent.delivery().await;
            is(seq, &bytes);
            tags.push(tag);
        }
        let last = tags.pop().unwrap();
        let with_last = tags.iter().filter(|tag| **tag == last).count();
        assert!(last.tag <= COUNT / 10 && with_last > 0, "{last:?}, {with_last} with it");
        // What is not decided whole stays with the broker whole.
        agent.acknowledge(&tags).await;
        agent.stop().await;
        let queue = agent_queue_name("both").unwrap();
        let left = unbundle(outside.take(&queue, 1).await.remove(0));
        assert_eq!(left.len(), with_last + 1);
        is(COUNT, &left[with_last]);
        assert_eq!(outside.waiting(&queue).await, 0);

        // An older program has taken its place, which marks nothing.
        outside.publish(UP_EXCHANGE, &up_key("both", "link").unwrap(), b"word").await;
        let (tag, _) = server.delivery().await;
        server.acknowledge(&[tag]).await;
        for seq in 1..=COUNT {
            server.publish(numbered(seq)).await;
        }
        let taken = outside.take(&queue, usize::try_from(COUNT).unwrap()).await;
        (1..).zip(&taken).for_each(|(seq, bytes)| is(seq, bytes));
        server.stop().await;
    });
}

fn returned() {
    let broker = broker();
    runtime().block_on(async {
        let mut server = broker.server(&["gone"]);
        server.up().await;
        let outside = broker.outside().await;
        outside.delete(&agent_queue_name("gone").unwrap()).await;
        // One whose queue is lost, and one that the transport was not told of.
        for (name, seq) in [("gone", 1), ("new-one", 2)] {
            let lost = message(to_agent(name), seq, b"lost");
            server.publish(lost.clone()).await;
            let answer = server.until("answer", |event| match event {
                WireEvent::Refused { to, what, refusal } => Some((to, what, refusal)),
                WireEvent::Confirmed(_) => panic!("confirmed although there is no queue"),
                _ => None,
            });
            assert_eq!(answer.await, (to_agent(name), lost.what, Refusal::Returned));
            server.publish_until_confirmed(lost.clone()).await;
            let queue = agent_queue_name(name).unwrap();
            assert_eq!(outside.take(&queue, 1).await, [lost.frame.bytes()]);
            outside.delete(&queue).await;
        }
        server.stop().await;
    });
}

fn nacked() {
    let broker = broker();
    runtime().block_on(async {
        let mut server = broker.server(&["full"]);
        server.up().await;
        let body = vec![7; 250 * 1024];
        let mut seq = 0;
        let refusal = loop {
            seq += 1;
            assert!(seq < 1_000, "the queue is bounded to 64 MiB");
            server.publish(message(to_agent("full"), seq, &body)).await;
            let refusal = server.until("answer", |event| match event {
                WireEvent::Confirmed(_) => Some(None),
                WireEvent::Refused { refusal, .. } => Some(Some(refusal)),
                _ => None,
            });
            if let Some(refusal) = refusal.await {
                break refusal;
            }
        };
        assert_eq!(refusal, Refusal::Nacked);
        server.stop().await;
        broker.outside().await.delete(&agent_queue_name("full").unwrap()).await;
    });
}

fn dead() {
    let broker = broker();
    runtime().block_on(async {
        let mut server = broker.server(&["bad"]);
        server.up().await;
        let outside = broker.outside().await;
        outside.tidy().await;
        let key = up_key("bad", "link").unwrap();
        let large = vec![9; ENVELOPE_BYTES_MAX + 1];
        let largest = vec![8; ENVELOPE_BYTES_MAX];
        for bytes in [&b"one"[..], &large, &largest, b"garbage", b""] {
            outside.publish(UP_EXCHANGE, &key, bytes).await;
        }
        let mut tags = Vec::new();
        for expected in [&b"one"[..], &largest, b"garbage", b""] {
            let (tag, bytes) = server.delivery().await;
            assert!(bytes == expected, "{} bytes", bytes.len());
            tags.push(tag);
        }
        server.acknowledge(&tags[..2]).await;
        server.discard(&tags[2..3]).await;
        server.acknowledge(&tags[3..]).await;
        let mut dead = outside.take(DEAD_QUEUE, 2).await;
        dead.sort_by_key(Vec::len);
        assert!(dead[0] == b"garbage" && dead[1] == large);
        server.stop().await;
        assert_eq!(outside.waiting(SERVER_QUEUE).await, 0);
        assert_eq!(outside.waiting(DEAD_QUEUE).await, 0);
    });
}

fn interleaved() {
    let broker = broker();
    runtime().block_on(async {
        let mut server = broker.server(&["mixed"]);
        server.up().await;
        let outside = broker.outside().await;
        outside.tidy().await;
        let key = up_key("mixed", "link").unwrap();
        let mut tags = Vec::new();
        for number in 1..=10_u8 {
            outside.publish(UP_EXCHANGE, &key, &[number]).await;
        }
        for number in 1..=10_u8 {
            let (tag, bytes) = server.delivery().await;
            assert_eq!(bytes, [number]);
            tags.push(tag);
        }
        let stale = DeliveryTag { connection: tags[0].connection - 1, tag: 10 };
        server.acknowledge(&[stale]).await;
        server.acknowledge(&tags[..3]).await;
        server.discard(&tags[3..4]).await;
        server.acknowledge(&tags[4..6]).await;
        server.discard(&tags[6..7]).await;
        // The ninth is decided before the eighth, which stays open.
        server.acknowledge(&tags[8..9]).await;
        let mut dead = outside.take(DEAD_QUEUE, 2).await;
        dead.sort();
        assert_eq!(dead, [[4], [7]]);
        server.stop().await;
        assert_eq!(outside.take(SERVER_QUEUE, 3).await, [[8], [9], [10]]);
        assert_eq!(outside.waiting(SERVER_QUEUE).await, 0);
    });
}

fn driver_gone() {
    let broker = broker();
    runtime().block_on(async {
        let mut server = broker.server(&[]);
        server.up().await;
        server.abandon().await;
    });
}
