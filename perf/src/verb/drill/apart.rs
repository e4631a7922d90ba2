//! A network of its own for each node: namespaces, joined by a bridge, which end with the drill.
//!
//! ```text
//!   drill, clients ── hub (bridge, 10.77.0.254) ─┬─ link1 ═ eth0 of node 1 (10.77.0.1)
//!                                                ├─ link2 ═ eth0 of node 2 (10.77.0.2)
//!                                                └─ link3 ═ eth0 of node 3 (10.77.0.3)
//! ```
//!
//! Nothing here has a name in the file system: a namespace lives as long as a process or an open file
//! holds it. So nothing is left behind, however the drill ends. Who is not root gets a user namespace
//! around it, where the system allows that.
//!
//! A cable is pulled by taking the hub's end of it down. One node is made deaf to another by giving the
//! other one a neighbour address that nobody has: frames leave, and nobody takes them. That needs
//! neither packet filters nor queue disciplines, which small kernels lack.

#![expect(
    unsafe_code,
    reason = "namespaces are entered by system calls, in a child between fork and exec"
)]

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// The network of the drill's nodes.
const NETWORK: [u8; 3] = [10, 77, 0];

/// Where the drill and its clients are in it.
const HUB: u8 = 254;

/// A neighbour that nobody is.
const NOBODY: &str = "02:00:00:00:00:fe";

/// The namespaces, one for each node; this process is in one of its own, with the bridge.
#[derive(Debug)]
pub(super) struct Apart {
    nodes: Vec<File>,
}

/// Why there cannot be namespaces here, in a line; tried in a child, which leaves nothing.
pub(super) fn obstacle() -> Option<String> {
    let outer = Outer::see();
    let flags = libc::CLONE_NEWNET | outer.user_flag();
    let mut trial = Command::new("ip");
    trial.args(["link", "add", "hub", "type", "bridge"]);
    // SAFETY: between fork and exec only what is async-signal-safe may be called, and nothing may be
    // allocated: `unshare` is a system call, writing short texts that are there to short paths is three of
    // them each, and an error from the system's number does not allocate.
    unsafe {
        trial.pre_exec(move || unshare(flags).and_then(|()| outer.map()));
    }
    match trial.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr);
            Some(format!("`ip link add`: {}", words.trim()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some("the program `ip` (package iproute2) is not there".to_owned())
        }
        Err(error) => Some(format!("namespaces: {error}")),
    }
}

/// Mounts of its own for this process: they go when it does. `false`: the system does not allow it.
pub(super) fn own_mounts() -> bool {
    let outer = Outer::see();
    let entered = unshare(libc::CLONE_NEWNS | outer.user_flag()).and_then(|()| outer.map());
    entered.is_ok() && keep_mounts_here().is_ok()
}

impl Apart {
    /// Moves this process, which has one thread yet, into a network of its own, and lays the others.
    pub(super) fn enter(nodes: u16) -> anyhow::Result<Self> {
        let outer = Outer::see();
        unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS | outer.user_flag())
            .and_then(|()| outer.map())
            .context("cannot enter namespaces")?;
        keep_mounts_here()?;
        ip(None, &["link", "set", "lo", "up"])?;
        ip(None, &["link", "add", "hub", "type", "bridge"])?;
        let own = format!("{}/24", address(u16::from(HUB)));
        ip(None, &["address", "add", &own, "dev", "hub"])?;
        ip(None, &["link", "set", "hub", "up"])?;
        let mut apart = Self { nodes: Vec::new() };
        for node in 1..=nodes {
            apart.add(node)?;
        }
        Ok(apart)
    }

    fn add(&mut self, node: u16) -> anyhow::Result<()> {
        let space = std::thread::spawn(|| {
            unshare(libc::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let space = space
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        let space = space.with_context(|| format!("no network for node {node}"))?;
        let held = format!("/proc/{}/fd/{}", std::process::id(), space.as_raw_fd());
        let link = link(node);
        let pair = [
            "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &held,
        ];
        ip(None, &pair)?;
        ip(None, &["link", "set", &link, "master", "hub", "up"])?;
        let inside = Some(space.as_raw_fd());
        let own = format!("{}/24", address(node));
        ip(inside, &["address", "add", &own, "dev", "eth0"])?;
        ip(inside, &["link", "set", "lo", "up"])?;
        ip(inside, &["link", "set", "eth0", "up"])?;
        self.nodes.push(space);
        Ok(())
    }

    /// What a process has to enter to be this node.
    pub(super) fn space(&self, node: u16) -> Option<RawFd> {
        let space = self.nodes.get(usize::from(node).checked_sub(1)?)?;
        Some(space.as_raw_fd())
    }

    /// Pulls a node's cable, or puts it back.
    pub(super) fn plug(&self, node: u16, is_in: bool) -> anyhow::Result<()> {
        let state = if is_in { "up" } else { "down" };
        ip(None, &["link", "set", &link(node), state])
    }

    /// What one node sends does not reach the other, or does again; nothing else changes.
    pub(super) fn hear(&self, from: u16, to: u16, is_heard: bool) -> anyhow::Result<()> {
        let to = address(to).to_string();
        let space = self.space(from);
        if is_heard {
            return ip(space, &["neighbour", "delete", &to, "dev", "eth0"]);
        }
        let gone = [
            "neighbour",
            "replace",
            &to,
            "lladdr",
            NOBODY,
            "nud",
            "permanent",
            "dev",
            "eth0",
        ];
        ip(space, &gone)
    }

    /// Loses so many of a hundred packets on their way to each node, where the kernel can (`sch_netem`).
    pub(super) fn lose(&self, percent: u8) -> anyhow::Result<()> {
        let loss = format!("{percent}%");
        for node in 1..=self.nodes.len() {
            let link = link(u16::try_from(node)?);
            let arguments = ["qdisc", "add", "dev", &link, "root", "netem", "loss", &loss];
            run("tc", None, &arguments)?;
        }
        Ok(())
    }
}

/// Where a node is reached.
pub(super) fn socket(node: u16, port: u16) -> SocketAddr {
    SocketAddr::from((address(node), port))
}

fn address(node: u16) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, node.to_le_bytes()[0])
}

fn link(node: u16) -> String {
    format!("link{node}")
}

/// Makes what a command becomes this node's, and lets it die with this process.
pub(super) fn bind(command: &mut Command, space: Option<RawFd>) {
    // SAFETY: between fork and exec only what is async-signal-safe may be called, and nothing may be
    // allocated: `setns` and `prctl` are system calls, and an error from the system's number does not
    // allocate. The descriptor is open in the child as it is in the parent: it is closed by exec.
    unsafe {
        command.pre_exec(move || {
            die_with_parent()?;
            space.map_or(Ok(()), enter)
        });
    }
}

fn ip(space: Option<RawFd>, arguments: &[&str]) -> anyhow::Result<()> {
    run("ip", space, arguments)
}

fn run(program: &str, space: Option<RawFd>, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    bind(&mut command, space);
    let output = command
        .output()
        .with_context(|| format!("cannot run `{program}`"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("`{program} {}`: {}", arguments.join(" "), words.trim());
    }
    Ok(())
}

/// Mounts from here on are not seen outside.
fn keep_mounts_here() -> anyhow::Result<()> {
    run("mount", None, &["--make-rprivate", "/"])
}

/// Who this process is outside of a user namespace.
#[derive(Debug)]
struct Outer {
    is_root: bool,
    /// Root inside is who it was outside.
    users: String,
    groups: String,
}

impl Outer {
    fn see() -> Self {
        // SAFETY: `geteuid` wants nothing, and cannot fail.
        let user = unsafe { libc::geteuid() };
        // SAFETY: nor does `getegid`, and nor can it.
        let group = unsafe { libc::getegid() };
        Self {
            is_root: user == 0,
            users: format!("0 {user} 1"),
            groups: format!("0 {group} 1"),
        }
    }

    /// Root needs no user namespace.
    fn user_flag(&self) -> libc::c_int {
        if self.is_root { 0 } else { libc::CLONE_NEWUSER }
    }

    fn map(&self) -> std::io::Result<()> {
        if self.is_root {
            return Ok(());
        }
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", &self.users)?;
        std::fs::write("/proc/self/gid_map", &self.groups)
    }
}

fn unshare(flags: libc::c_int) -> std::io::Result<()> {
    // SAFETY: `unshare` takes flags and no memory; which it does not know it refuses.
    told(unsafe { libc::unshare(flags) })
}

fn enter(space: RawFd) -> std::io::Result<()> {
    // SAFETY: `setns` takes a descriptor and a kind; another one than a network namespace's it refuses.
    told(unsafe { libc::setns(space, libc::CLONE_NEWNET) })
}

fn die_with_parent() -> std::io::Result<()> {
    // SAFETY: this option of `prctl` takes a signal's number and no memory.
    told(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
}

fn told(result: libc::c_int) -> std::io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}
