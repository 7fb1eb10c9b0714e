//! The third reference of the storm: what an agent cannot do without when it comes back, and nothing else. It consumes its queue, says
//! how it stands, and is answered. Neither end has a journal, and a status is a number.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

use super::raw::{Client, WINDOW, confirmed, next, within};
use super::storm::AT_ONCE;
use super::{BenchError, BrokerAt};

/// The queue of the one that all of them ask.
pub(super) const STATUSES: &str = "bench.raw.statuses";

/// The largest frame of an agent, which says little. The library touches rings of many frames once they are used.
const FRAME_BYTES: u32 = 8_192;

/// Between two tries of the same.
const PAUSE: Duration = Duration::from_millis(50);

/// Has an agent come back for each of these queues, as many at a time as connections are opened, and says how long it took until the last
/// had its answer. Those that have it stay connected until then.
pub(super) async fn come_back(broker: &BrokerAt, queues: &[String]) -> Result<Duration, BenchError> {
    let began = Instant::now();
    let (server, statuses) = again(|| server(broker)).await?;
    let agents = (0_u64..).zip(queues).map(|(number, queue)| again(move || agent(broker, number, queue)));
    let agents = stream::iter(agents).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>();
    tokio::select! {
        agents = agents => {
            let took = began.elapsed();
            drop(agents?);
            Ok(took)
        }
        failed = answer(&server, statuses, queues) => failed.map(|never| match never {}),
    }
}

/// Tries until it works, since a broker that was started a moment ago refuses to consume some queues for a while.
async fn again<T, F: Future<Output = Result<T, BenchError>>>(mut attempt: impl FnMut() -> F) -> Result<T, BenchError> {
    let tries = async {
        loop {
            match attempt().await {
                Err(BenchError::Amqp(_)) => tokio::time::sleep(PAUSE).await,
                done => return done,
            }
        }
    };
    within("a broker that takes consumers", tries).await?
}

/// Who is asked, and what it is asked.
async fn server(broker: &BrokerAt) -> Result<(Client, Consumer), BenchError> {
    let client = Client::connect(broker).await?;
    client.confirms().await?;
    let statuses = client.consume(STATUSES).await?;
    Ok((client, statuses))
}

/// Answers every status with itself, to the queue of the agent that it comes from, for as long as it is let.
async fn answer(server: &Client, mut statuses: Consumer, queues: &[String]) -> Result<Infallible, BenchError> {
    let mut confirms = VecDeque::with_capacity(WINDOW);
    loop {
        let status = next(&mut statuses, STATUSES).await?;
        let found = status.data.first_chunk().map_or(u64::MAX, |number| u64::from_le_bytes(*number));
        let queue = usize::try_from(found).ok().and_then(|place| queues.get(place));
        let (what, expected) = ("the number of an agent that asks", queues.len() as u64);
        let queue = queue.ok_or(BenchError::Wrong { what, expected, found })?;
        confirms.push_back(server.publish(queue, &status.data).await?);
        server.channel.basic_ack(status.delivery_tag, BasicAckOptions::default()).await?;
        if confirms.len() == WINDOW
            && let Some(oldest) = confirms.pop_front()
        {
            confirmed(oldest).await?;
        }
    }
}

/// One agent: a connection, a channel that consumes and one that publishes, both used at once. Returns when it has its answer.
async fn agent(broker: &BrokerAt, number: u64, queue: &str) -> Result<(Client, Channel), BenchError> {
    let client = Client::connect_framed(broker, FRAME_BYTES).await?;
    let consume = async {
        let channel = client.another_channel().await?;
        let options = BasicConsumeOptions::default();
        let answers = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
        Ok::<_, BenchError>((channel, answers))
    };
    let ask = async {
        client.confirms().await?;
        confirmed(client.publish(STATUSES, &number.to_le_bytes()).await?).await
    };
    let ((channel, mut answers), ()) = tokio::try_join!(consume, ask)?;
    let answer = next(&mut answers, queue).await?;
    channel.basic_ack(answer.delivery_tag, BasicAckOptions::default()).await?;
    Ok((client, channel))
}
