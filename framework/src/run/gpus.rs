//! What a run says of CUDA devices that are not there.

use super::coordinator::Coordinator;
use super::event::Event;
use crate::schedule::{Device, TaskId};
use crate::worker::Gpus;
use crate::{Result, stage};

impl Coordinator<'_> {
    /// What to do about a task that no worker can ever run.
    pub(super) fn advice(&self, id: TaskId) -> String {
        let demands = self.tasks.get(&id).is_some_and(|task| task.device == Device::Cuda);
        match self.options.gpus.missing().filter(|_| demands) {
            Some(reason) => format!("{reason}; or say device = \"auto\" under `needs`"),
            None => "ask for less under `needs`".to_owned(),
        }
    }

    /// Says, once a run, that a stage which would compute on a CUDA device finds none: only programs that were built for
    /// CUDA do.
    pub(super) fn tell_of_missing_gpus(&mut self, id: TaskId) -> Result<()> {
        if self.told_of_gpus || !Gpus::is_built() {
            return Ok(());
        }
        let Some(task) = self.tasks.get(&id) else { return Ok(()) };
        let may = task.request.task.needs.device == stage::Device::Auto && task.request.stage.signature().devices;
        let Some(reason) = self.options.gpus.missing().filter(|_| may) else { return Ok(()) };
        let (name, message) = (task.label().to_owned(), format!("{reason}: it computes on the processor"));
        self.told_of_gpus = true;
        self.tell(Event::Warning { name, message })
    }
}
