//! What goes wrong with machines, links and tasks.

use super::coordinator::Status;
use super::machine::Machine;
use super::world::{Happening, World};
use crate::schedule::{Event, TaskId};
use rand::RngExt;

impl World {
    /// The pool ends a worker of its own.
    pub(super) fn kill_of_pool(&mut self, which: impl Fn(&Machine) -> bool) {
        let found = |machine: &Machine| machine.alive && machine.order.is_some() && which(machine);
        if let Some(machine) = self.machines.iter().position(found) {
            self.kill(machine);
        }
    }

    /// A machine dies. It comes back, unless it is of a pool.
    pub(super) fn kill(&mut self, machine: usize) {
        let link = self.machines[machine].link;
        self.machines[machine].die();
        self.machines[machine].life += 1;
        if let Some(link) = link {
            let life = self.life;
            self.soon(2_000_000, Happening::Silent { life, link });
        }
        if self.machines[machine].order.is_none() {
            let life = self.machines[machine].life;
            self.soon(5_000_000, Happening::Revives { machine, life });
        }
    }

    pub(super) fn fault(&mut self) {
        if self.machines.is_empty() {
            return;
        }
        let machine = self.rng.random_range(0..self.machines.len());
        let link = self.machines[machine].link;
        match self.rng.random_range(0..5) {
            0 | 1 if self.machines[machine].alive => self.kill(machine),
            2 => {
                if let Some(link) = link {
                    self.break_link(link);
                }
            }
            3 => {
                if let Some(link) = link {
                    self.tell(Event::Draining(link));
                    let life = self.machines[machine].life;
                    self.soon(5_000_000, Happening::Leaves { machine, life });
                }
            }
            4 => self.ask_anew(),
            _ => {}
        }
    }

    /// A task is given up and asked for anew, as when an input of it was lost.
    pub(super) fn ask_anew(&mut self) {
        let Some(coordinator) = &self.coordinator else { return };
        let task = self.rng.random_range(0..coordinator.status.len());
        if let Status::Scheduled(name) = coordinator.status[task] {
            self.tell(Event::Cancelled(TaskId(name)));
            self.ledger.is_over(name);
            self.submit(task);
        }
    }
}
