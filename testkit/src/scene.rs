//! What an operation on messages finds, and what must be true of it after a death: of a topic, or of a service.

use anyhow::Result;
use atomic_matrix::{Matrix, ReaderId};

use crate::accounts::When;
use crate::ops::Op;
use crate::stage::Stage;
use crate::{service_plot, service_scene, topic_plot, topic_scene};

/// What there is before an operation, and what must be there after it.
#[derive(Clone, Copy, Debug)]
pub enum Plot {
    /// A topic.
    Topic(topic_plot::Plot),
    /// A service.
    Service(service_plot::Plot),
}

impl From<topic_plot::Plot> for Plot {
    fn from(plot: topic_plot::Plot) -> Self {
        Self::Topic(plot)
    }
}

impl From<service_plot::Plot> for Plot {
    fn from(plot: service_plot::Plot) -> Self {
        Self::Service(plot)
    }
}

/// What the survivor has of a plot.
pub enum Scene {
    /// A topic, and handles on it.
    Topic(Box<topic_scene::Scene>),
    /// A service, and handles on it.
    Service(Box<service_scene::Scene>),
}

impl Scene {
    /// Makes what the plot says.
    ///
    /// # Errors
    /// One of it is refused.
    pub fn set(matrix: &Matrix, plot: Plot) -> Result<Self> {
        Ok(match plot {
            Plot::Topic(plot) => Self::Topic(Box::new(topic_scene::Scene::set(matrix, plot)?)),
            Plot::Service(plot) => {
                Self::Service(Box::new(service_scene::Scene::set(matrix, plot)?))
            }
        })
    }

    /// What the living do before anybody recovers: nobody waits for the dead, but for what they have in hand.
    ///
    /// # Errors
    /// Somebody waits, or a message has changed.
    pub fn go_on(&mut self, matrix: &Matrix, when: When) -> Result<()> {
        match self {
            Self::Topic(scene) => scene.go_on(matrix, when),
            Self::Service(scene) => scene.go_on(when),
        }
    }

    /// Judges after recovery, which found so many `claims`, and takes all apart: none of its blocks is there any more.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn judge(self, stage: &Stage<'_>, op: &Op, when: When, claims: u64) -> Result<()> {
        match self {
            Self::Topic(scene) => scene.judge(stage, op, when, claims),
            Self::Service(scene) => scene.judge(stage, op, when, claims),
        }
    }

    /// What actors must know of it.
    #[must_use]
    pub fn cue(&self) -> Cue {
        match self {
            Self::Topic(scene) => Cue { witness: scene.witness_id(), request_bytes: 0 },
            Self::Service(scene) => Cue { witness: None, request_bytes: scene.len_bytes() },
        }
    }
}

/// What an actor must know of a scene.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cue {
    /// How others follow the witness of a topic.
    pub witness: Option<ReaderId>,
    /// The length of the requests and responses of a service.
    pub request_bytes: usize,
}
