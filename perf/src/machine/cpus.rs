//! The CPUs of this machine, as the kernel describes them, and those that we may use.
//!
//! Everything is read below a root directory, so that tests read captured machines. What a
//! kernel or a container does not tell stays unknown, and is never guessed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::cpu_list;
use super::pin;

/// One CPU, that is, one hardware thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    /// The number that `taskset` takes.
    pub id: u32,
    /// Its socket.
    pub package: Option<u32>,
    /// Its core, unique within a socket.
    pub core: Option<u32>,
    /// Its NUMA node.
    pub node: Option<u32>,
    /// The lowest CPU that shares its last-level cache: the name of that cache.
    pub l3: Option<u32>,
    /// All CPUs of its core, itself included.
    pub siblings: Vec<u32>,
    /// Taken out of the scheduler's hands by `isolcpus`.
    pub isolated: bool,
}

/// How near two CPUs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distance {
    /// One core: hardware threads of it.
    SameCore,
    /// One last-level cache.
    SameL3,
    /// One NUMA node, two caches.
    SameNode,
    /// Two NUMA nodes.
    CrossNode,
    /// The kernel does not tell.
    Unknown,
}

impl Distance {
    /// As it is written in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SameCore => "same-core",
            Self::SameL3 => "same-L3",
            Self::SameNode => "cross-L3",
            Self::CrossNode => "cross-node",
            Self::Unknown => "unknown",
        }
    }
}

/// The machine as this process sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Every CPU that is online.
    pub cpus: Vec<Cpu>,
    /// The CPUs that this process may use: its affinity mask at the start.
    pub allowed: Vec<u32>,
    /// CPU time that the container may use, in CPUs, if it is limited.
    pub quota: Option<f64>,
    /// CPUs without a scheduler tick.
    pub nohz_full: Vec<u32>,
    /// The CPU's name.
    pub model: String,
    /// Who runs us, if we are a guest.
    pub hypervisor: Option<String>,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    /// This machine. Call it before any thread is pinned: a pinned thread sees its own CPU
    /// only.
    #[must_use]
    pub fn here() -> Self {
        let root = Path::new("/");
        let allowed = pin::allowed().ok().filter(|cpus| !cpus.is_empty());
        Self::read(root, allowed)
    }

    /// The machine described below `root`; `allowed` is the affinity mask, or else what
    /// `proc/self/status` says.
    #[must_use]
    pub fn read(root: &Path, allowed: Option<Vec<u32>>) -> Self {
        let files = Files(root);
        let allowed = allowed
            .or_else(|| files.status_list("Cpus_allowed_list"))
            .unwrap_or_else(as_many_as_the_library_says);
        let cpus = files.cpus(&allowed);
        let cpuinfo = files.text("proc/cpuinfo").unwrap_or_default();
        Self {
            cpus,
            allowed,
            quota: files.quota(),
            nohz_full: files.list("sys/devices/system/cpu/nohz_full"),
            model: field(&cpuinfo, "model name")
                .or_else(|| field(&cpuinfo, "CPU part"))
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            hypervisor: files.hypervisor(&cpuinfo),
            kernel: files
                .text("proc/sys/kernel/osrelease")
                .unwrap_or_else(|| std::env::consts::OS.to_owned()),
        }
    }

    /// One CPU by its number, if it is online.
    #[must_use]
    pub fn cpu(&self, id: u32) -> Option<&Cpu> {
        self.cpus.iter().find(|cpu| cpu.id == id)
    }

    /// How many threads may spin at the same time: allowed CPUs, or what the container's
    /// quota pays for, whichever is less; never 0.
    #[must_use]
    pub fn spinners_max(&self) -> usize {
        let paid = self.quota.map_or(usize::MAX, |cpus| {
            usize::try_from(crate::args::quantity::whole(cpus.floor())).unwrap_or(usize::MAX)
        });
        self.allowed.len().min(paid).max(1)
    }

    /// The isolated CPUs, whether or not they are in our mask.
    #[must_use]
    pub fn isolated(&self) -> Vec<u32> {
        let isolated = self.cpus.iter().filter(|cpu| cpu.isolated);
        isolated.map(|cpu| cpu.id).collect()
    }

    /// How near `a` and `b` are.
    #[must_use]
    pub fn distance(&self, a: u32, b: u32) -> Distance {
        let (Some(a), Some(b)) = (self.cpu(a), self.cpu(b)) else {
            return Distance::Unknown;
        };
        if a.siblings.contains(&b.id) {
            return Distance::SameCore;
        }
        if a.node.is_some() && b.node.is_some() && a.node != b.node {
            return Distance::CrossNode;
        }
        match (a.l3, b.l3) {
            (Some(x), Some(y)) if x == y => Distance::SameL3,
            (Some(_), Some(_)) => Distance::SameNode,
            _ => Distance::Unknown,
        }
    }

    /// How many last-level caches and NUMA nodes the online CPUs have; 0 where unknown.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape {
            cores: distinct(
                self.cpus
                    .iter()
                    .map(|c| c.core.map(|core| (c.package, core))),
            ),
            l3: distinct(self.cpus.iter().map(|c| c.l3)),
            nodes: distinct(self.cpus.iter().map(|c| c.node)),
        }
    }

    /// `AMD EPYC, KVM guest, 2 CPUs (0-1), 1 L3, 1 node · Linux 6.18`.
    #[must_use]
    pub fn summary(&self) -> String {
        let shape = self.shape();
        let guest = self
            .hypervisor
            .as_ref()
            .map(|name| format!(", {name} guest"))
            .unwrap_or_default();
        let quota = self
            .quota
            .map(|cpus| format!(", quota {cpus:.2} CPUs"))
            .unwrap_or_default();
        let usable = if self.allowed.len() == self.cpus.len() {
            format!(
                "{} CPUs ({})",
                self.cpus.len(),
                cpu_list::show(&self.allowed)
            )
        } else {
            format!(
                "{} of {} CPUs ({})",
                self.allowed.len(),
                self.cpus.len(),
                cpu_list::show(&self.allowed)
            )
        };
        format!(
            "{}{guest}, {usable}{quota}{}{} · {} {}",
            self.model,
            plural(shape.l3, "L3"),
            plural(shape.nodes, "node"),
            system_name(),
            // What a distribution adds to the number is in the result.
            self.kernel.split('-').next().unwrap_or_default()
        )
    }
}

/// How many of what the online CPUs have; 0 where the kernel does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Cores, each with one or more hardware threads.
    pub cores: usize,
    /// Last-level caches.
    pub l3: usize,
    /// NUMA nodes.
    pub nodes: usize,
}

fn system_name() -> &'static str {
    match std::env::consts::OS {
        "linux" => "Linux",
        "macos" => "macOS",
        other => other,
    }
}

fn plural(count: usize, name: &str) -> String {
    match count {
        0 => String::new(),
        1 => format!(", 1 {name}"),
        n if name == "node" => format!(", {n} nodes"),
        n => format!(", {n} {name}"),
    }
}

fn distinct<T: Ord>(values: impl Iterator<Item = Option<T>>) -> usize {
    values
        .flatten()
        .map(|v| (v, ()))
        .collect::<BTreeMap<_, _>>()
        .len()
}

fn as_many_as_the_library_says() -> Vec<u32> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    (0..u32::try_from(count).unwrap_or(1)).collect()
}

/// The value of the first `name : value` line.
pub(crate) fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// The files of one machine, below its root.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a>(pub &'a Path);

impl Files<'_> {
    /// A file's text without the white space around it.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.0.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// A file that holds one number.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// A file that holds a list of CPUs.
    #[must_use]
    pub fn list(&self, path: &str) -> Vec<u32> {
        self.text(path)
            .map(|text| cpu_list::from_kernel(&text))
            .unwrap_or_default()
    }

    fn status_list(&self, name: &str) -> Option<Vec<u32>> {
        let status = self.text("proc/self/status")?;
        let cpus = cpu_list::from_kernel(&field(&status, name)?);
        (!cpus.is_empty()).then_some(cpus)
    }

    fn cpus(&self, allowed: &[u32]) -> Vec<Cpu> {
        let mut online = self.list("sys/devices/system/cpu/online");
        if online.is_empty() {
            online = allowed.to_vec();
        }
        let isolated = self.list("sys/devices/system/cpu/isolated");
        let nodes = self.nodes();
        online
            .into_iter()
            .map(|id| self.one(id, isolated.contains(&id), nodes.get(&id).copied()))
            .collect()
    }

    fn one(&self, id: u32, isolated: bool, node: Option<u32>) -> Cpu {
        let base = format!("sys/devices/system/cpu/cpu{id}");
        let number = |name: &str| {
            let value = self.number(&format!("{base}/topology/{name}"))?;
            u32::try_from(value).ok()
        };
        let mut siblings = self.list(&format!("{base}/topology/thread_siblings_list"));
        if siblings.is_empty() {
            siblings = vec![id];
        }
        Cpu {
            id,
            package: number("physical_package_id"),
            core: number("core_id"),
            node,
            l3: self.last_level_cache(&base),
            siblings,
            isolated,
        }
    }

    /// The lowest CPU that shares the cache of the highest level.
    fn last_level_cache(&self, base: &str) -> Option<u32> {
        let caches = (0..10).map(|index| format!("{base}/cache/index{index}"));
        let (_, shared) = caches
            .filter_map(|cache| {
                let level = self.number(&format!("{cache}/level"))?;
                let shared = self.list(&format!("{cache}/shared_cpu_list"));
                (!shared.is_empty()).then_some((level, shared))
            })
            .max_by_key(|(level, _)| *level)?;
        shared.into_iter().min()
    }

    fn nodes(&self) -> BTreeMap<u32, u32> {
        let mut nodes = BTreeMap::new();
        for node in self.list("sys/devices/system/node/online") {
            let path = format!("sys/devices/system/node/node{node}/cpulist");
            nodes.extend(self.list(&path).into_iter().map(|cpu| (cpu, node)));
        }
        nodes
    }

    fn hypervisor(&self, cpuinfo: &str) -> Option<String> {
        let flags = field(cpuinfo, "flags").unwrap_or_default();
        if !flags.split_whitespace().any(|flag| flag == "hypervisor") {
            return None;
        }
        let vendor = self.text("sys/class/dmi/id/sys_vendor").unwrap_or_default();
        let product = self
            .text("sys/class/dmi/id/product_name")
            .unwrap_or_default();
        let both = format!("{vendor} {product}").to_lowercase();
        let known = [
            ("kvm", "KVM"),
            ("qemu", "KVM"),
            ("firecracker", "Firecracker"),
            ("vmware", "VMware"),
            ("microsoft", "Hyper-V"),
            ("xen", "Xen"),
            ("amazon", "Nitro"),
            ("google", "Google"),
        ];
        let name = known.iter().find(|(word, _)| both.contains(word));
        Some(name.map_or("VM", |(_, name)| name).to_owned())
    }

    /// The least CPU time that our control group or one above it grants.
    fn quota(&self) -> Option<f64> {
        let groups = self.text("proc/self/cgroup").unwrap_or_default();
        let mut least: Option<f64> = None;
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            let found = if controllers.is_empty() {
                self.least_above("sys/fs/cgroup", path, Self::quota_v2)
            } else if controllers.split(',').any(|c| c == "cpu") {
                let mounts = ["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"];
                mounts
                    .into_iter()
                    .find_map(|mount| self.least_above(mount, path, Self::quota_v1))
            } else {
                None
            };
            least = [least, found].into_iter().flatten().reduce(f64::min);
        }
        least
    }

    /// The least quota of the group at `path` and of all above it, up to the mount.
    fn least_above(
        &self,
        mount: &str,
        path: &str,
        quota: impl Fn(&Self, &Path) -> Option<f64>,
    ) -> Option<f64> {
        let mut at = PathBuf::from(path.trim_start_matches('/'));
        let mut least: Option<f64> = None;
        loop {
            let here = quota(self, &Path::new(mount).join(&at));
            least = [least, here].into_iter().flatten().reduce(f64::min);
            // Ends: each turn shortens the path by one part.
            if !at.pop() {
                return least;
            }
        }
    }

    /// `cpu.max`: `QUOTA PERIOD`, or `max PERIOD`.
    fn quota_v2(&self, group: &Path) -> Option<f64> {
        let text = self.text(group.join("cpu.max").to_str()?)?;
        let (quota, period) = text.split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    }

    /// `cpu.cfs_quota_us` (-1: no limit) and `cpu.cfs_period_us`.
    fn quota_v1(&self, group: &Path) -> Option<f64> {
        let read = |name: &str| {
            let text = self.text(group.join(name).to_str()?)?;
            text.parse::<f64>().ok()
        };
        let quota = read("cpu.cfs_quota_us").filter(|quota| *quota > 0.0)?;
        Some(quota / read("cpu.cfs_period_us").filter(|period| *period > 0.0)?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes a machine's files into a fresh directory and removes them at the end.
    #[derive(Debug)]
    pub(crate) struct Captured(PathBuf);

    impl Captured {
        pub(crate) fn new(name: &str, files: &[(String, String)]) -> Self {
            let root = std::env::temp_dir()
                .join(format!("lockstep-machine-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }

        pub(crate) fn root(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Captured {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn file(path: impl Into<String>, text: impl Into<String>) -> (String, String) {
        (path.into(), text.into())
    }

    /// A machine of `sockets` nodes with `cores` cores each, two threads a core if `smt`,
    /// one L3 for each `l3_cores` cores.
    pub(crate) fn tree(
        sockets: u32,
        cores: u32,
        smt: bool,
        l3_cores: u32,
    ) -> Vec<(String, String)> {
        let all_cores = sockets * cores;
        let threads = if smt { 2 } else { 1 };
        let total = all_cores * threads;
        let mut files = vec![
            file(
                "sys/devices/system/cpu/online",
                format!("0-{}\n", total - 1),
            ),
            file("sys/devices/system/cpu/isolated", "\n"),
            file(
                "proc/self/status",
                format!("Name:\tx\nCpus_allowed_list:\t0-{}\n", total - 1),
            ),
            file(
                "proc/cpuinfo",
                "model name\t: Example CPU\nflags\t\t: fpu hypervisor\n",
            ),
            file("sys/class/dmi/id/sys_vendor", "QEMU\n"),
            file("proc/sys/kernel/osrelease", "6.1.0\n"),
            file(
                "sys/devices/system/node/online",
                format!("0-{}\n", sockets - 1),
            ),
        ];
        let mut nodes: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for id in 0..total {
            let core = id % all_cores;
            nodes.entry(core / cores).or_default().push(id);
            let base = format!("sys/devices/system/cpu/cpu{id}");
            let siblings: Vec<u32> = (0..threads).map(|t| core + t * all_cores).collect();
            let first = core / l3_cores * l3_cores;
            let shared: Vec<u32> = (0..total)
                .filter(|other| (first..first + l3_cores).contains(&(other % all_cores)))
                .collect();
            files.extend([
                file(
                    format!("{base}/topology/physical_package_id"),
                    (core / cores).to_string(),
                ),
                file(
                    format!("{base}/topology/core_id"),
                    (core % cores).to_string(),
                ),
                file(
                    format!("{base}/topology/thread_siblings_list"),
                    cpu_list::show(&siblings),
                ),
                file(format!("{base}/cache/index0/level"), "1"),
                file(
                    format!("{base}/cache/index0/shared_cpu_list"),
                    cpu_list::show(&siblings),
                ),
                file(format!("{base}/cache/index3/level"), "3"),
                file(
                    format!("{base}/cache/index3/shared_cpu_list"),
                    cpu_list::show(&shared),
                ),
            ]);
        }
        for (node, cpus) in nodes {
            let path = format!("sys/devices/system/node/node{node}/cpulist");
            files.push(file(path, cpu_list::show(&cpus)));
        }
        files
    }

    #[test]
    fn two_sockets_with_smt_have_the_distances_they_have() {
        let captured = Captured::new("two-sockets", &tree(2, 16, true, 8));
        let machine = Machine::read(captured.root(), None);
        assert_eq!(machine.cpus.len(), 64);
        assert_eq!(machine.spinners_max(), 64);
        let shape = machine.shape();
        assert_eq!((shape.cores, shape.l3, shape.nodes), (32, 4, 2));
        assert_eq!(machine.distance(0, 32), Distance::SameCore);
        assert_eq!(machine.distance(0, 7), Distance::SameL3);
        assert_eq!(machine.distance(0, 8), Distance::SameNode);
        assert_eq!(machine.distance(0, 16), Distance::CrossNode);
        assert_eq!(machine.distance(0, 99), Distance::Unknown);
        assert_eq!(
            machine.summary().split(" · ").next().unwrap(),
            "Example CPU, KVM guest, 64 CPUs (0-63), 4 L3, 2 nodes"
        );
    }

    #[test]
    fn one_cpu_is_a_machine() {
        let captured = Captured::new("one", &tree(1, 1, false, 1));
        let machine = Machine::read(captured.root(), None);
        assert_eq!(machine.allowed, [0]);
        assert_eq!(machine.spinners_max(), 1);
    }

    #[test]
    fn a_mask_with_holes_and_isolated_cpus_is_kept_as_it_is() {
        let mut files = tree(1, 8, false, 8);
        files.retain(|(path, _)| !path.ends_with("status") && !path.ends_with("isolated"));
        files.push(file("proc/self/status", "Cpus_allowed_list:\t1,3-4\n"));
        files.push(file("sys/devices/system/cpu/isolated", "6-7\n"));
        let captured = Captured::new("holes", &files);
        let machine = Machine::read(captured.root(), None);
        assert_eq!(machine.allowed, [1, 3, 4]);
        assert_eq!(machine.isolated(), [6, 7]);
        assert_eq!(machine.spinners_max(), 3);
    }

    #[test]
    fn a_containers_quota_limits_the_spinners() {
        let mut files = tree(1, 8, false, 8);
        files.push(file("proc/self/cgroup", "0::/pod/box\n"));
        files.push(file("sys/fs/cgroup/pod/box/cpu.max", "max 100000\n"));
        files.push(file("sys/fs/cgroup/pod/cpu.max", "250000 100000\n"));
        let captured = Captured::new("quota-v2", &files);
        let machine = Machine::read(captured.root(), None);
        assert_eq!(machine.quota, Some(2.5));
        assert_eq!(machine.spinners_max(), 2);
    }

    #[test]
    fn the_older_kind_of_control_groups_is_read_too() {
        let mut files = tree(1, 8, false, 8);
        files.push(file(
            "proc/self/cgroup",
            "4:memory:/x\n3:cpu,cpuacct:/docker/7\n0::/\n",
        ));
        files.push(file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"));
        files.push(file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"));
        let captured = Captured::new("quota-v1", &files);
        let machine = Machine::read(captured.root(), None);
        assert_eq!(machine.quota, Some(0.5));
        assert_eq!(machine.spinners_max(), 1, "less than one CPU is still one");
    }

    #[test]
    fn a_kernel_that_tells_nothing_leaves_things_unknown() {
        let captured = Captured::new("silent", &[file("proc/x", "")]);
        let machine = Machine::read(captured.root(), Some(vec![0, 1]));
        assert_eq!(machine.cpus.len(), 2);
        assert_eq!(machine.distance(0, 1), Distance::Unknown);
        assert_eq!(machine.quota, None);
        let shape = machine.shape();
        assert_eq!((shape.cores, shape.l3, shape.nodes), (0, 0, 0));
    }
}
