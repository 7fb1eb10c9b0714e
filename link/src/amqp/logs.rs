//! The server's queue of pieces of logs, consumed beside its messages on a channel of its own. Its failure costs logs their time and
//! nothing else: messages never wait for it. Never holds more pieces than a few, the rest waits at the broker.

use std::time::Duration;

use broker_config::{LOGS_QUEUE, Topology};
use futures_util::StreamExt as _;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use messages::limits::ENVELOPE_BYTES_MAX;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::CALL_LIMIT;
use super::dial::Link;
use super::failure::{Failure, within};
use super::topology;
use crate::seldom::Seldom;

/// Pieces that may be open: enough to keep the disk busy, some 3 MiB in the library's memory.
const PREFETCH: u16 = 64;

/// Between two tries at a queue that cannot be declared or consumed, as when the node that holds it is down.
const AGAIN: Duration = Duration::from_secs(10);

// Whoever can publish can make this happen as often as he likes.
static TOO_LARGE: Seldom = Seldom::new();

/// Why it is not consumed any more.
enum Ended {
    /// Whoever takes the pieces is gone.
    NotWanted,
    /// Nothing was delivered for so long that the consumer may be deaf (`consume.rs`).
    Quiet,
}

/// Hands pieces on until their taker is gone, for as long as the connection lasts; its owner notices its end.
pub(super) async fn consume(link: &Link, listen_anew: Duration, logs: &mpsc::Sender<Vec<u8>>) {
    loop {
        match consume_once(link, listen_anew, logs).await {
            Ok(Ended::NotWanted) => return,
            Ok(Ended::Quiet) => continue,
            Err(error) => {
                tracing::warn!(queue = LOGS_QUEUE, %error, "Logs cannot be fetched from the broker; they stay with their agents. Messages go on.");
            }
        }
        sleep(AGAIN).await;
    }
}

async fn consume_once(link: &Link, listen_anew: Duration, logs: &mpsc::Sender<Vec<u8>>) -> Result<Ended, Failure> {
    let channel = link.channel().await?;
    topology::declare_logs(&channel, &Topology::default()).await?;
    let qos = channel.basic_qos(PREFETCH, BasicQosOptions::default());
    within(CALL_LIMIT, "setting the prefetch", qos).await?.map_err(|e| Failure::of(&e))?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let consume = channel.basic_consume(LOGS_QUEUE.into(), "".into(), options, none);
    let consumer = within(CALL_LIMIT, "beginning to consume", consume).await?;
    let mut consumer = consumer.map_err(|e| Failure::of_consume(&e, LOGS_QUEUE))?;
    loop {
        let Ok(next) = timeout(listen_anew, consumer.next()).await else {
            let close = channel.close(200, "consuming anew".into());
            within(CALL_LIMIT, "closing a channel", close).await?.map_err(|e| Failure::of_life(&e))?;
            return Ok(Ended::Quiet);
        };
        let Some(delivery) = next else { return Err(Failure::Cancelled { queue: LOGS_QUEUE.to_owned() }) };
        let delivery = delivery.map_err(|e| Failure::of_life(&e))?;
        let (tag, bytes) = (delivery.delivery_tag, delivery.data);
        if bytes.len() > ENVELOPE_BYTES_MAX {
            if let Some(left_out) = TOO_LARGE.now() {
                tracing::warn!(bytes = bytes.len(), left_out, "Something too large for a piece of a log was dropped.");
            }
        } else if logs.send(bytes).await.is_err() {
            return Ok(Ended::NotWanted);
        }
        acknowledge(&channel, tag).await?;
    }
}

// Whoever has it need not keep it: what is lost from here on is sent again by its agent, whose file has it.
async fn acknowledge(channel: &Channel, tag: u64) -> Result<(), Failure> {
    let ack = channel.basic_ack(tag, BasicAckOptions::default());
    within(CALL_LIMIT, "acknowledging", ack).await?.map_err(|e| Failure::of_life(&e))
}
