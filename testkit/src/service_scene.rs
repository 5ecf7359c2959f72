//! A service with the survivor's handles on it, and what must be true of it after a death.
//!
//! Every request says who asked and as which of his, and every response who answered which. The survivor is a client
//! and a server. Some of its requests wait when the operation begins; in the end it has an answer to each,
//! and nobody's number or seat is the dead's any more.

use am_matrix::SERVICE_KIND;
use am_topic::MEMBERS;
use anyhow::{Context, Result, ensure};
use atomic_matrix::{Delivery, Matrix, Server, Service, TopicError};

use crate::accounts::When;
use crate::asker::{Asker, answer_to};
use crate::bells::{self, Living};
use crate::letter::{self, HEIR, SURVIVOR, payload, read};
use crate::ops::{A, B, C, Op};
use crate::product;
use crate::service_plot::{CLIENTS, NAME, Plot};
use crate::stage::Stage;
use crate::topic_scene::SLOTS;

/// Requests of either client before the operation, and again after it: each ring turns more than once.
const TURN: u64 = SLOTS + SLOTS / 4;
/// How many of those are asked at once.
const LOT: u64 = 8;

/// A request as the survivor's server got it.
#[derive(Clone, Copy, Debug)]
struct Served {
    owner: usize,
    index: u64,
    attempts: u8,
    delivery: Delivery,
}

/// The service of a stage.
pub struct Scene {
    plot: Plot,
    service: Option<Service<[u8], [u8]>>,
    server: Option<Server<[u8], [u8]>>,
    asker: Option<Asker>,
    /// Requests of the survivor's that were over when the operation began.
    over: u64,
    /// Requests of those who have the actor's number before or after it.
    heirs: u64,
    served: Vec<Served>,
}

impl Scene {
    /// Makes the service, if the plot has one, and asks what the plot says.
    ///
    /// # Errors
    /// One of it is refused.
    pub fn set(matrix: &Matrix, plot: Plot) -> Result<Self> {
        let mut scene = Self {
            plot,
            service: None,
            server: None,
            asker: None,
            over: 0,
            heirs: 0,
            served: Vec::new(),
        };
        if plot.made {
            scene.enter(plot.builder(matrix).create()?)?;
            scene.turn().context("the first turn")?;
            scene.over = scene.asker()?.asked;
            for _ in 0..plot.asked {
                scene.asker()?.ask()?;
            }
            if plot.servers.returned > 0 {
                scene.server()?.try_receive().context("nothing to return")?.nack();
            }
        }
        Ok(scene)
    }

    /// The length of each request and response.
    pub(crate) fn len_bytes(&self) -> usize {
        self.plot.len_bytes()
    }

    fn enter(&mut self, service: Service<[u8], [u8]>) -> Result<()> {
        self.server = Some(service.server()?);
        self.asker = Some(Asker::new(SURVIVOR, service.client()?, self.plot.len_bytes()));
        self.service = Some(service);
        Ok(())
    }

    fn service(&self) -> Result<&Service<[u8], [u8]>> {
        self.service.as_ref().context("there is no service")
    }

    fn asker(&mut self) -> Result<&mut Asker> {
        self.asker.as_mut().context("there is no client")
    }

    fn server(&mut self) -> Result<&mut Server<[u8], [u8]>> {
        self.server.as_mut().context("there is no server")
    }

    /// Lets the survivor, and another client of its, ask as many as there are slots and more, and answers them.
    fn turn(&mut self) -> Result<()> {
        let client = self.service()?.client().context("the other client")?;
        let mut heir = Asker::new(HEIR, client, self.plot.len_bytes());
        let dropped = self.asker()?.dropped();
        for _ in 0..TURN / LOT {
            for _ in 0..LOT {
                heir.ask()?;
                self.asker()?.ask()?;
            }
            self.serve()?;
            heir.take()?;
            self.asker()?.take()?;
            let waiting = heir.waiting() + self.asker()?.waiting();
            ensure!(waiting == 0, "{waiting} requests were not answered");
        }
        let dropped = heir.dropped() + self.asker()?.dropped() - dropped;
        ensure!(dropped == 0, "{dropped} responses were for nobody");
        self.heirs += heir.asked;
        Ok(())
    }

    /// Answers all that the survivor's server gets. Nobody keeps it waiting (S3).
    fn serve(&mut self) -> Result<()> {
        let len_bytes = self.plot.len_bytes();
        let server = self.server.as_mut().context("there is no server")?;
        while let Some(request) = server.try_receive() {
            let (owner, index) = read(request.bytes()).context("a request")?;
            let attempts = request.attempts();
            let response = payload(SURVIVOR, answer_to(owner, index), len_bytes);
            let delivery = request.respond(&response[..]).context("a response")?;
            self.served.push(Served { owner, index, attempts, delivery });
        }
        Ok(())
    }

    /// What the living do before anybody recovers: a client asks, a server answers, and nobody waits for the dead
    /// but for what they have in hand.
    ///
    /// # Errors
    /// Something is refused, or does not come.
    pub(crate) fn go_on(&mut self, when: When) -> Result<()> {
        if self.service.is_none() {
            return Ok(());
        }
        self.asker()?.ask().context("beside the dead")?;
        self.serve().context("beside the dead")?;
        self.asker()?.take()?;
        let (waiting, most) = (self.asker()?.waiting(), self.plot.waiting_max(when));
        ensure!(waiting <= most, "beside the dead {waiting} requests wait, {most} at most may");
        // Of what is served from here on it is known whose client is gone.
        self.served.iter_mut().filter(|s| s.owner != SURVIVOR).for_each(|s| {
            s.delivery = Delivery::ClientGone;
        });
        Ok(())
    }

    /// Judges the service after recovery, which found so many `claims`, and takes it apart: none of its blocks is
    /// there any more.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub(crate) fn judge(
        mut self,
        stage: &Stage<'_>,
        op: &Op,
        when: When,
        claims: u64,
    ) -> Result<()> {
        self.find(stage.matrix, when)?;
        // The survivor's client, nobody, the survivor's server.
        let living = [1, 0, 1].map(|nappers| Living { nappers, ..Living::default() });
        bells::judge_sets(stage.matrix, NAME, SERVICE_KIND, &living)?;
        self.served.retain(|served| served.owner != HEIR);
        // Looking for its response the client takes note of all that came.
        self.asker()?.ask().context("after recovery")?;
        self.serve()?;
        self.asker()?.take()?;
        let waiting = self.asker()?.waiting();
        ensure!(waiting == 0, "{waiting} requests are not answered");
        self.judge_answers(op, when)?;
        self.judge_deliveries(op, when)?;
        self.judge_requests(op, when)?;
        self.judge_claims(op, when, claims)?;
        // Whoever finds no number or seat recovers: that may not be what brings the dead's back.
        product::alone(stage.matrix)?;
        self.turn().context("a turn by who has the dead one's number")?;
        self.judge_seats()?;
        self.take_apart(stage)
    }

    /// Finds the service that the actor made, or did not come to make.
    fn find(&mut self, matrix: &Matrix, when: When) -> Result<()> {
        if self.service.is_none() {
            let there = self.plot.builder(matrix).open().is_ok();
            let right = when == When::Amid || there == (when == When::After);
            ensure!(right, "the service is there: {there}");
            self.enter(self.plot.builder(matrix).open_or_create()?)?;
        }
        Ok(())
    }

    /// Each request of the survivor's was answered to it once: the first so many by the actors (S1, S2).
    fn judge_answers(&mut self, op: &Op, when: When) -> Result<()> {
        let (plot, over) = (self.plot, self.over);
        let answers = &self.asker()?.answers;
        let late = answers.range(over..).map(|(&index, &answer)| (index, answer));
        let others: Vec<_> = late.filter(|&(_, answer)| answer != Some(SURVIVOR)).collect();
        let count = |responder| others.iter().filter(|&&(_, by)| by == responder).count() as u64;
        let by_a = if plot.refuses { None } else { Some(A) };
        let beside = if op.beside.is_some() { plot.beside_answers } else { 0 };
        let allowed = [
            (by_a, plot.servers.done.allowed(when)),
            (Some(B), beside..=beside),
            (Some(C), 0..=plot.victim.1),
        ];
        let mut known = 0;
        for (responder, allowed) in allowed {
            let count = count(responder);
            ensure!(allowed.contains(&count), "{count} answers by {responder:?}, not {allowed:?}");
            known += count;
        }
        ensure!(known == others.len() as u64, "answers by {others:?}");
        let in_order = others.iter().zip(over..).all(|(&(index, _), number)| index == number);
        ensure!(in_order || op.beside.is_some(), "others answered {others:?}");
        Ok(())
    }

    /// Nothing that another has answered came to the survivor's server, but for the one that was being answered; all else
    /// came once, and as one that was delivered before if it was.
    fn judge_deliveries(&mut self, op: &Op, when: When) -> Result<()> {
        let (plot, over) = (self.plot, self.over);
        let loose = op.victim.is_some() || op.beside.is_some();
        let subject = over + plot.servers.done.before;
        let asker = self.asker.as_ref().context("there is no client")?;
        let mut twice = 0;
        let mut came = vec![0; asker.asked as usize];
        for served in self.served.iter().filter(|s| s.owner == SURVIVOR && s.index >= over) {
            let Served { index, attempts, .. } = *served;
            came[index as usize] += 1;
            let is_subject = index == subject || op.beside.is_some();
            let allowed = plot.servers.attempts_allowed(is_subject, loose, when);
            ensure!(allowed.contains(&attempts), "{index} came after {attempts} attempts");
            if asker.answers[&index] != Some(SURVIVOR) {
                let may = index == subject && (when == When::Amid || loose);
                ensure!(may, "{index} came again after it was answered");
                twice += 1;
            }
        }
        for index in over..asker.asked {
            let (times, by) = (came[index as usize], asker.answers[&index]);
            let right = times == 1 || times == 0 && by != Some(SURVIVOR);
            ensure!(right, "{index}, answered by {by:?}, came {times} times");
        }
        let dropped = asker.dropped();
        ensure!(dropped == twice, "{dropped} responses were dropped, {twice} were second ones");
        Ok(())
    }

    /// The requests of the dead came from the first on, in order, as many as must be; nobody waits for their responses.
    fn judge_requests(&self, op: &Op, when: When) -> Result<()> {
        let mut next = [0; 3];
        for served in &self.served {
            let Served { owner, index, delivery, .. } = *served;
            let is_there = delivery == Delivery::Sent;
            ensure!(is_there == (owner == SURVIVOR), "{index} of {owner} was {delivery:?}");
            if let Some(next) = next.get_mut(owner) {
                ensure!(index == *next, "{index} of {owner} came, not {next}");
                *next += 1;
            }
        }
        let of_victim = if op.victim.is_some() { self.plot.victim.0 } else { 0 };
        for (owner, allowed) in [(A, self.plot.asks.allowed(when)), (B, 0..=0), (C, 0..=of_victim)]
        {
            let count = next[owner];
            ensure!(allowed.contains(&count), "{count} requests of {owner}, not {allowed:?}");
        }
        Ok(())
    }

    /// No number of a request is missing but one that the dead had claimed, and recovery found no more than that
    /// and the response that was being written.
    fn judge_claims(&mut self, op: &Op, when: When, claims: u64) -> Result<()> {
        let missed = self.server()?.missed();
        let of_dead = self.served.iter().filter(|served| served.owner < SURVIVOR).count() as u64;
        let known = self.asker()?.asked + self.heirs + of_dead + self.plot.asks_itself;
        let requested = self.service()?.requested();
        ensure!(
            requested == known + missed,
            "{requested} requests: {known} known, {missed} missed"
        );
        let others = op.victim.is_some() || op.beside.is_some();
        let (requests, responses) = match when == When::Amid || others {
            true => self.plot.claims_max,
            false => (0, 0),
        };
        ensure!(missed <= requests, "{missed} requests were missed, {requests} at most may be");
        let most = requests + responses;
        ensure!(claims <= most, "{claims} claims were recovered, {most} at most may be");
        ensure!(others || missed <= claims, "{missed} were missed, {claims} claims recovered");
        Ok(())
    }

    /// No number of a client and no seat of a server is the dead's any more.
    fn judge_seats(&mut self) -> Result<()> {
        drop((self.asker.take(), self.server.take()));
        let service = self.service()?;
        let clients = (0..CLIENTS).map(|_| service.client()).collect::<Result<Vec<_>, _>>();
        let clients = clients.context("clients")?;
        let more = service.client().map(drop);
        let refused = matches!(more, Err(TopicError::TooManyClients { maximum: CLIENTS, .. }));
        ensure!(refused, "one more than {} clients: {more:?}", clients.len());
        let servers = (0..MEMBERS).map(|_| service.server()).collect::<Result<Vec<_>, _>>();
        drop(servers.context("servers")?);
        Ok(())
    }

    /// Checks that every block is the service's own or one slot's message, and frees all.
    fn take_apart(self, stage: &Stage<'_>) -> Result<()> {
        drop(self.service);
        // Those of the requests, and of each client's responses.
        let expected = if self.plot.in_ring { 0 } else { (1 + CLIENTS as u64) * SLOTS };
        let found = letter::free_all(stage, NAME, SERVICE_KIND)?;
        ensure!(found == expected, "{found} blocks hold messages, not {expected}");
        Ok(())
    }
}
