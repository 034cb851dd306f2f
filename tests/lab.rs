//! Small networks of network namespaces: a coordinator's and some workers', on a switch of their own.

use crate::support::{Project, root, skip};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where a coordinator listens. The addresses mean nothing outside of the lab's own namespaces.
pub(crate) const COORDINATOR: &str = "10.87.0.1:7777";

/// The network is taken down when it is dropped; what a killed test left is taken down by the next.
pub(crate) struct Lab {
    name: String,
    namespaces: Vec<String>,
    wires: Vec<Child>,
}

/// Runs `ip`; what it says when it fails.
fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Removes the namespaces of processes that are no more.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let owner = name.strip_prefix("ropeway-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !std::path::Path::new(&format!("/proc/{owner}")).exists()) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

impl Lab {
    /// A network with so many workers; `None`, said in a line, where this process may make none.
    pub(crate) fn new(workers: usize) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let name = format!("ropeway-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut lab = Self { name, namespaces: Vec::new(), wires: Vec::new() };
        if let Err(reason) = lab.namespace("hub") {
            skip("net", &format!("no network namespaces here ({reason})"));
            return None;
        }
        let hub = lab.hub();
        ip(&format!("-n {hub} link add switch type bridge")).unwrap();
        ip(&format!("-n {hub} addr add 10.87.0.1/24 dev switch")).unwrap();
        ip(&format!("-n {hub} link set switch up")).unwrap();
        for worker in 0..workers {
            let there = lab.namespace(&format!("w{worker}")).unwrap();
            ip(&format!("-n {hub} link add port{worker} type veth peer name card netns {there}")).unwrap();
            ip(&format!("-n {hub} link set port{worker} master switch up")).unwrap();
            ip(&format!("-n {there} addr add 10.87.0.{}/24 dev card", worker + 10)).unwrap();
            ip(&format!("-n {there} link set card up")).unwrap();
        }
        Some(lab)
    }

    fn namespace(&mut self, role: &str) -> Result<String, String> {
        let name = format!("{}-{role}", self.name);
        ip(&format!("netns add {name}"))?;
        self.namespaces.push(name.clone());
        ip(&format!("-n {name} link set lo up"))?;
        Ok(name)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    /// Makes a worker's wire slow and leaky, in both directions.
    pub(crate) fn spoil(&mut self, worker: usize, delay_millis: u32, loss_percent: u32) {
        // Not `tc netem`, which many kernels lack.
        let (hub, there) = (self.hub(), format!("{}-w{worker}", self.name));
        let between = self.namespace(&format!("wire{worker}")).unwrap();
        ip(&format!("-n {there} link del card")).unwrap();
        ip(&format!("-n {between} link add one type veth peer name port{worker} netns {hub}")).unwrap();
        ip(&format!("-n {between} link add other type veth peer name card netns {there}")).unwrap();
        ip(&format!("-n {hub} link set port{worker} master switch up")).unwrap();
        ip(&format!("-n {there} addr add 10.87.0.{}/24 dev card", worker + 10)).unwrap();
        for (namespace, end) in [(&there, "card"), (&between, "one"), (&between, "other")] {
            ip(&format!("-n {namespace} link set {end} up")).unwrap();
        }
        let mut wire = Command::new("ip");
        wire.args(["netns", "exec", &between, "python3"]).arg(root().join("tests/wire.py")).args(["one", "other"]);
        wire.args([delay_millis, loss_percent, worker as u32].map(|number| number.to_string()));
        let mut wire = wire.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(wire.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        self.wires.push(wire);
        assert_eq!(ready.trim(), "ready");
    }

    /// Cuts a worker off: nothing gets through, and nobody is told.
    pub(crate) fn cut(&self, worker: usize) {
        ip(&format!("-n {} link set port{worker} down", self.hub())).unwrap();
    }

    /// Ends what [`Lab::cut`] began.
    pub(crate) fn heal(&self, worker: usize) {
        ip(&format!("-n {} link set port{worker} up", self.hub())).unwrap();
    }

    /// The program, ready to be started where the coordinator is.
    pub(crate) fn coordinator(&self, project: &Project, arguments: &[&str]) -> Command {
        inside(&self.hub(), project.command(arguments))
    }

    /// The program, ready to be started where a worker is.
    pub(crate) fn worker(&self, worker: usize, project: &Project, arguments: &[&str]) -> Command {
        inside(&format!("{}-w{worker}", self.name), project.command(arguments))
    }
}

/// The same command in a namespace. `ip` becomes the program, so that a signal meets the right process.
fn inside(namespace: &str, command: Command) -> Command {
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", namespace]).arg(command.get_program()).args(command.get_args());
    inside.current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
    inside
}

impl Drop for Lab {
    fn drop(&mut self) {
        for wire in &mut self.wires {
            let _ = wire.kill();
            let _ = wire.wait();
        }
        for namespace in &self.namespaces {
            let _ = ip(&format!("netns del {namespace}"));
        }
    }
}
