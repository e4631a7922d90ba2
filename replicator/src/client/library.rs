//! The client library: a [`Machine`] with a socket.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::codec::{Greeting, Packet, PacketKind, Packets};
use super::error::{ClientError, Full};
use super::machine::{Counters, Machine, MachineOptions, Reply};
use crate::ids::ClusterId;
use crate::tls::{Tls, TlsFiles, cluster_name};
use crate::transport::{Stream, Waiting, connect, is_early, tune};

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Who it is.
    pub principal: String,
    /// What only it and the nodes know.
    pub token: String,
    /// Bytes of an event slot.
    pub event_size: u32,
    /// Most requests in flight.
    pub window: u32,
    /// A request without an answer for so long: the next node is asked.
    pub answer_within: Duration,
    /// With certificates, or without.
    pub tls: Option<TlsFiles>,
}

/// A client: one session, which lives on over any number of connections.
///
/// ```no_run
/// use std::time::Duration;
///
/// use lockstep_replicator::client::{Client, ClientOptions};
///
/// let addresses = ["127.0.0.1:7401".to_owned(), "127.0.0.1:7402".to_owned()];
/// let options = ClientOptions::new("paris".parse()?, 64);
/// let mut client = Client::connect(&addresses, &options, Duration::from_secs(10))?;
/// let reply = client.call(&[0; 64], Duration::from_secs(10))?;
/// println!("request {} is at position {}", reply.number, reply.position);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client {
    machine: Machine,
    cluster: ClusterId,
    tls: Option<Tls>,
    stream: Option<Stream>,
    is_connected: bool,
    started: Instant,
    waiting: Waiting,
    waited: Option<usize>,
    addresses: Vec<String>,
    last_problem: String,
}

impl ClientOptions {
    /// Defaults: 64 requests in flight, a second for an answer, no token, no certificates.
    #[must_use]
    pub fn new(cluster: ClusterId, event_size: u32) -> ClientOptions {
        ClientOptions {
            cluster,
            principal: "client".to_owned(),
            token: String::new(),
            event_size,
            window: 64,
            answer_within: Duration::from_secs(1),
            tls: None,
        }
    }

    fn machine(&self) -> MachineOptions {
        MachineOptions {
            cluster: self.cluster,
            principal: self.principal.clone(),
            token: self.token.clone(),
            event_size: self.event_size,
            window: self.window,
            answer_within_ns: nanos(self.answer_within),
            retry_ns: 10_000_000,
        }
    }
}

impl Client {
    /// A client that has not connected yet: the caller gives it turns.
    ///
    /// # Errors
    ///
    /// There is no address, or the certificates cannot be used.
    pub fn new(addresses: &[String], options: &ClientOptions) -> Result<Client, ClientError> {
        Ok(Client {
            machine: Machine::new(options.machine(), addresses)?,
            cluster: options.cluster,
            tls: options.tls.as_ref().map(Tls::read).transpose()?,
            stream: None,
            is_connected: false,
            started: Instant::now(),
            waiting: Waiting::default(),
            waited: None,
            addresses: addresses.to_vec(),
            last_problem: "it has not ended".to_owned(),
        })
    }

    /// Connects to whoever leads, and opens a session.
    ///
    /// # Errors
    ///
    /// Nobody answered in time, or the client was refused.
    pub fn connect(
        addresses: &[String],
        options: &ClientOptions,
        within: Duration,
    ) -> Result<Client, ClientError> {
        let mut client = Client::new(addresses, options)?;
        let started = Instant::now();
        while !client.machine.is_ready() {
            client.turn_within(started, within)?;
        }
        Ok(client)
    }

    /// Asks for an event: the request's number. Nothing is written before a turn.
    ///
    /// # Errors
    ///
    /// The window is full.
    pub fn ask(&mut self, slot: &[u8]) -> Result<u32, Full> {
        let now = self.now_ns();
        self.machine.ask(slot, now)
    }

    /// The next answer that has come, in the order of the requests.
    pub fn reply(&mut self) -> Option<Reply> {
        self.machine.reply()
    }

    /// Asks, and waits for the answer; answers to earlier requests are dropped.
    ///
    /// # Errors
    ///
    /// Nobody answered in time, or the client cannot go on. The event may have been done.
    pub fn call(&mut self, slot: &[u8], within: Duration) -> Result<Reply, ClientError> {
        let started = Instant::now();
        let mut asked = None;
        loop {
            if asked.is_none() {
                asked = self.ask(slot).ok();
            }
            self.turn_within(started, within)?;
            // Ends: each turn takes one of finitely many.
            while let Some(reply) = self.reply() {
                if Some(reply.number) == asked {
                    return Ok(reply);
                }
            }
        }
    }

    /// Takes the answers that are under way, and closes the session: it does not wait for its expiry, so
    /// its place is free for another. `false`: nobody was connected to whom it could be said.
    ///
    /// # Errors
    ///
    /// The client cannot go on, or there was no answer in time; the session ends when it expires.
    pub fn close(mut self, within: Duration) -> Result<bool, ClientError> {
        let started = Instant::now();
        // Ends: all are answered, or the time is over.
        loop {
            while self.machine.reply().is_some() {}
            if self.machine.in_flight() == 0 {
                break;
            }
            self.turn_within(started, within)?;
        }
        let is_said = self.machine.close();
        // Ends: all is written, the connection is gone, or the time is over.
        while is_said && self.has_unwritten() && started.elapsed() < within {
            // Nothing is answered to it: no turn may wait for an answer.
            self.turn(Duration::from_millis(1))?;
        }
        if let Some(stream) = &mut self.stream {
            stream.finish();
        }
        Ok(is_said)
    }

    /// Reads and writes what there is; waits at most `timeout` for something to happen.
    ///
    /// # Errors
    ///
    /// The client cannot go on.
    pub fn turn(&mut self, timeout: Duration) -> Result<(), ClientError> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.clear();
        let most = self.prepare(&mut waiting);
        let waited = waiting.wait(timeout.min(most)).map_err(ClientError::Wait);
        let taken = waited.and_then(|_| self.take(&waiting));
        self.waiting = waiting;
        taken
    }

    /// The first half of a turn, for who waits for several clients at once.
    pub fn prepare(&mut self, waiting: &mut Waiting) -> Duration {
        let now = self.now_ns();
        if self.machine.turn(now) {
            self.stream = None;
        }
        self.dial(now);
        self.write(now);
        self.waited = self.stream.as_ref().map(|stream| {
            let wants_write =
                !self.is_connected || stream.wants_write() || !self.machine.out().is_empty();
            waiting.add(stream.fd(), self.is_connected, wants_write)
        });
        Duration::from_nanos(self.machine.due_ns().saturating_sub(self.now_ns()))
    }

    /// The second half, after the waiting.
    ///
    /// # Errors
    ///
    /// The client cannot go on.
    pub fn take(&mut self, waiting: &Waiting) -> Result<(), ClientError> {
        let Some(number) = self.waited.take() else {
            return Ok(());
        };
        let now = self.now_ns();
        if waiting.is_writable(number) && !self.is_connected {
            self.finish_dialing(now);
        }
        if waiting.is_writable(number) {
            self.write(now);
        }
        if waiting.is_readable(number) && self.is_connected {
            self.read(now)?;
        }
        Ok(())
    }

    /// Requests without an answer that was taken.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.machine.in_flight()
    }

    /// The session, once it is open.
    #[must_use]
    pub fn session(&self) -> Option<u64> {
        self.machine.session()
    }

    /// Whether it is connected with who leads, as far as one can know.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.machine.is_ready()
    }

    /// What happened to it.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.machine.counters()
    }

    /// The node that it asks.
    #[must_use]
    pub fn address(&self) -> &str {
        self.machine.address()
    }

    /// Nanoseconds since it was made: the clock of [`Reply::asked_ns`].
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        nanos(self.started.elapsed())
    }

    /// Writes, and says whether anything is left.
    fn has_unwritten(&mut self) -> bool {
        self.write(self.now_ns());
        !self.machine.out().is_empty() && self.stream.is_some()
    }

    fn turn_within(&mut self, started: Instant, within: Duration) -> Result<(), ClientError> {
        let left = within.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(ClientError::NoAnswer {
                millis: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
                addresses: self.addresses.join(", "),
                last: self.last_problem.clone(),
            });
        }
        self.turn(left)
    }

    fn dial(&mut self, now: u64) {
        if self.stream.is_some() {
            return;
        }
        let Some(address) = self.machine.wants_connection(now).map(str::to_owned) else {
            return;
        };
        match open(&address, self.cluster, self.tls.as_ref()) {
            Ok(stream) => {
                self.stream = Some(stream);
                self.is_connected = false;
                self.machine.dialing(now);
            }
            Err(error) => self.lose(now, &error),
        }
    }

    fn finish_dialing(&mut self, now: u64) {
        let Some(stream) = &self.stream else {
            return;
        };
        let failed = stream.socket().take_error().unwrap_or_else(Some);
        match (failed, stream.socket().peer_addr()) {
            (None, Ok(_)) => {
                self.is_connected = true;
                self.machine.connected(now);
            }
            (None, Err(error)) if error.kind() == io::ErrorKind::NotConnected => {}
            (Some(error), _) | (None, Err(error)) => self.lose(now, &error),
        }
    }

    fn write(&mut self, now: u64) {
        let Some(stream) = self.stream.as_mut().filter(|_| self.is_connected) else {
            return;
        };
        if let Err(error) = push(stream, &mut self.machine) {
            self.lose(now, &error);
        }
    }

    fn read(&mut self, now: u64) -> Result<(), ClientError> {
        // Ends: the socket says that nothing is there, or ends.
        while let Some(stream) = &mut self.stream {
            let room = self.machine.room();
            let most = room.len();
            match stream.read(room) {
                Ok(0) => self.lose(now, &io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    let is_all = count < most && stream.tells_its_end();
                    if !self.machine.filled(count, now)? {
                        self.stream = None;
                    }
                    if is_all {
                        return Ok(());
                    }
                }
                Err(error) if is_early(&error) => return Ok(()),
                Err(error) => self.lose(now, &error),
            }
        }
        Ok(())
    }

    fn lose(&mut self, now: u64, why: &io::Error) {
        self.last_problem = format!("{}: {why}", self.machine.address());
        self.stream = None;
        self.machine.lost(now);
    }
}

fn push(stream: &mut Stream, machine: &mut Machine) -> io::Result<()> {
    stream
        .flush()
        .or_else(|error| if is_early(&error) { Ok(()) } else { Err(error) })?;
    // Ends: each turn writes at least a byte.
    while !machine.out().is_empty() {
        match stream.write(&[io::IoSlice::new(machine.out())]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => machine.written(count),
            Err(error) if is_early(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Begins a connection; with certificates, to any node of the cluster.
fn open(address: &str, cluster: ClusterId, tls: Option<&Tls>) -> io::Result<Stream> {
    let socket = connect(resolve(address)?)?;
    tune(&socket, Duration::from_secs(5))?;
    match tls {
        None => Ok(Stream::plain(socket)),
        Some(tls) => {
            let tls = tls
                .dial(&cluster_name(&cluster))
                .map_err(io::Error::other)?;
            Ok(Stream::tls(socket, tls))
        }
    }
}

fn resolve(address: &str) -> io::Result<SocketAddr> {
    let mut all = address.to_socket_addrs()?;
    all.next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Asks one node for what an operator wants: its code (0: well done) and its answer.
///
/// # Errors
///
/// The node did not answer in time, or refused.
pub fn admin(
    address: &str,
    options: &ClientOptions,
    command: &str,
    is_dry: bool,
    within: Duration,
) -> Result<(u16, String), ClientError> {
    let started = Instant::now();
    let no_answer = |last: String| ClientError::NoAnswer {
        millis: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
        addresses: address.to_owned(),
        last,
    };
    let tls = options.tls.as_ref().map(Tls::read).transpose()?;
    let mut stream = open(address, options.cluster, tls.as_ref())
        .map_err(|error| no_answer(error.to_string()))?;
    let mut out = Vec::new();
    let greeting = Greeting {
        cluster: options.cluster.bytes(),
        principal: options.principal.clone(),
        token: options.token.clone(),
        event_size: 0,
    };
    Packet::bare(PacketKind::Hello, 0, 0, 0).encode(&mut out, &[&greeting.encode()]);
    Packet::bare(PacketKind::Admin, 1, u64::from(is_dry), 0)
        .encode(&mut out, &[command.as_bytes()]);
    let mut packets = Packets::default();
    let mut waiting = Waiting::default();
    let mut ended: Option<io::Error> = None;
    loop {
        while let Some(packet) = packets.next().map_err(|source| ClientError::Packet {
            address: address.to_owned(),
            source,
        })? {
            let text = packet.text().unwrap_or("").to_owned();
            match packet.kind {
                PacketKind::AdminAnswer => {
                    return Ok((u16::try_from(packet.a).unwrap_or(u16::MAX), text));
                }
                PacketKind::Refused => {
                    return Err(ClientError::Refused {
                        address: address.to_owned(),
                        code: u16::try_from(packet.b).unwrap_or(u16::MAX),
                        text,
                    });
                }
                _ => {}
            }
        }
        // Only now: a node says why it refuses, and closes.
        if let Some(error) = ended {
            return Err(no_answer(error.to_string()));
        }
        let left = within.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(no_answer("nothing came in that time".to_owned()));
        }
        waiting.clear();
        let wants_write = !out.is_empty() || stream.wants_write();
        waiting.add(stream.fd(), true, wants_write);
        waiting.wait(left).map_err(ClientError::Wait)?;
        ended = exchange(&mut stream, &mut out, &mut packets).err();
    }
}

fn exchange(stream: &mut Stream, out: &mut Vec<u8>, packets: &mut Packets) -> io::Result<()> {
    if !out.is_empty() {
        match stream.write(&[io::IoSlice::new(out)]) {
            Ok(count) => drop(out.drain(..count)),
            Err(error) if is_early(&error) || error.kind() == io::ErrorKind::NotConnected => {}
            Err(error) => return Err(error),
        }
    }
    // Ends: the socket says that nothing is there, or ends.
    loop {
        match stream.read(packets.room()) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => packets.filled(count),
            Err(error) if is_early(&error) || error.kind() == io::ErrorKind::NotConnected => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}
