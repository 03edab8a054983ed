"""A guest that is not there: the agent's side of the real protocol, over a stream in memory.

It answers as `crates/wire/src/guest.rs` says an agent does, runs the programs of `fake_programs`,
and has a disk (a dict of files), listening sockets and relays.
"""

from __future__ import annotations

import asyncio
import ipaddress
import uuid
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable

import msgspec

from hyperfleet.vmm import fake_http, fake_lies
from hyperfleet.vmm.fake_calls import Calls
from hyperfleet.vmm.fake_command import Command
from hyperfleet.vmm.fake_faults import Channel
from hyperfleet.vmm.fake_kept import KeptCalls, KeptMessage
from hyperfleet.vmm.memory_stream import MemoryStream
from hyperfleet.wire import WireError, guest, slip

_AGENT = "fake"
_FIRST_RELAY_PORT = 40000
# How long a host that has not read all is waited for.
_READ_AGAIN_S = 0.001


class Socket(msgspec.Struct, frozen=True):
    """A listening socket of the guest: where, and the folder that is served."""

    address: str
    port: int
    folder: str


class FakeGuest:
    """What lives from power-on to power-off. `files` outlives it: it is the machine's disk."""

    def __init__(
        self,
        files: dict[str, bytes],
        *,
        guest_ip: str,
        behaviour: Channel,
        on_power_off: Callable[[], None],
        write: Callable[[bytes], None],
    ) -> None:
        """`write` takes what is written to its console."""
        self.hostname = "localhost"
        # What time it was told, and how often.
        self.time_ns = self.times_told = 0
        self.files = files
        self.power_off = on_power_off
        self._guest_ip = guest_ip
        self._behaviour = behaviour
        self.boot_id = str(uuid.uuid4())
        self.sockets: list[Socket] = []
        self._relays: dict[tuple[str, int], int] = {}
        # How much has happened; and of a watch that is not answered: its id, and what was seen.
        self._news = 1
        self._watch: tuple[int, int] | None = None
        self._awake = False
        # The first is served; a second one connects and waits in silence, as on virtio-serial.
        self._streams: list[MemoryStream] = []
        self._unread: list[tuple[MemoryStream, bytes]] = []
        self._frames = slip.Reader()
        # The rest of what it says, when the host has not read all yet; a lie may be without end.
        self._saying: asyncio.TimerHandle | None = None
        self._calls = Calls(self, self._say)
        self._kept = KeptCalls(self, self._say)
        self._command = Command(self, write=write, on_change=self._happened)

    def connect(self) -> tuple[StreamReader, StreamWriter]:
        """The host's end of a new connection to the agent's port."""
        stream = MemoryStream(lambda data: self._heard(stream, data), lambda: self._hung_up(stream))
        self._streams.append(stream)
        return stream.near

    def wake(self) -> None:
        """The boot is over: what the host has said so far is read."""
        self._awake = True
        self._catch_up()

    def end(self) -> None:
        """The power is off."""
        self._awake = False
        self._calls.forget()
        self._kept.drop()
        self._command.drop()
        self.sockets.clear()
        self.hang_up()

    def turn(self, behaviour: Channel) -> None:
        """See `fake_programs.System`. From the next answer on."""
        self._behaviour = behaviour

    def freeze(self) -> None:
        """From now on nothing of what the host says is read, as in a guest that hangs."""
        self._awake = False

    def hang_up(self) -> None:
        """Closes every connection of the host's."""
        for stream in list(self._streams):
            stream.close()

    def listen(self, address: str, port: int, folder: str) -> bool:
        """See `fake_programs.System`."""
        wanted = ipaddress.ip_address(address)
        for taken in self.sockets:
            other = ipaddress.ip_address(taken.address)
            if taken.port == port and (
                other == wanted or other.is_unspecified or wanted.is_unspecified
            ):
                return False
        self.sockets.append(Socket(address, port, folder))
        self._happened()
        return True

    def stop_listening(self) -> None:
        """See `fake_programs.System`."""
        self.sockets.clear()
        self._happened()

    def server(self, port: int) -> Socket | None:
        """The socket that a connection to the guest's own address and `port` reaches."""
        for socket in self.sockets:
            relay = self._relays.get((socket.address, socket.port))
            if (socket.port == port and self._is_direct(socket)) or relay == port:
                return socket
        return None

    async def serve(self, port: int, reader: StreamReader, writer: StreamWriter) -> None:
        """A connection from outside: served, or reset as slirp does when nothing listens."""
        socket = self.server(port)
        if socket is None:
            writer.transport.abort()
        else:
            await fake_http.serve(reader, writer, self.files, socket.folder)

    def _is_direct(self, socket: Socket) -> bool:
        return socket.address in ("0.0.0.0", "::", self._guest_ip)

    def _hung_up(self, stream: MemoryStream) -> None:
        if self._saying is not None and stream is self._streams[0]:
            self._saying.cancel()
            self._saying = None
        self._streams.remove(stream)
        self._unread = [(other, data) for other, data in self._unread if other is not stream]
        self._catch_up()

    def _heard(self, stream: MemoryStream, data: bytes) -> None:
        self._unread.append((stream, data))
        self._catch_up()

    def _catch_up(self) -> None:
        """Takes what the connection that is served has said so far."""
        if not self._awake or not self._streams:
            return
        served = self._streams[0]
        ours = [data for stream, data in self._unread if stream is served]
        self._unread = [(stream, data) for stream, data in self._unread if stream is not served]
        for data in ours:
            self._take(data)

    def _take(self, data: bytes) -> None:
        for payload in list(self._frames.feed(data)):
            if isinstance(payload, WireError):
                continue
            try:
                message = guest.decode_to_guest(payload)
            except WireError as error:
                self._say(guest.Refused(id=0, code="unknown_message", message=error.message))
            else:
                self._answer(message)

    def _answer(self, message: guest.ToGuest) -> None:
        if isinstance(message, guest.Hello):
            self._welcome(message)
            return
        if self._behaviour is Channel.MUTE:
            return
        if self._behaviour is Channel.DROPS:
            self.hang_up()
            return
        if isinstance(message, KeptMessage):
            self._kept.take(message)
            return
        self._do(message)

    def _do(self, message: guest.ToGuest) -> None:
        match message:
            case guest.Exec() | guest.Stdin() | guest.OutputTaken() | guest.Resize() | guest.Kill():
                if not self._kept.pass_on(message):
                    self._calls.take(message)
            case guest.Configure(id=call, config=config):
                self.hostname = config.hostname
                self.time_ns = config.time_ns
                self.times_told += 1
                self._say(guest.Done(id=call))
            case guest.Ports(id=call):
                self._say(guest.Listeners(id=call, listeners=self._listeners(), truncated=False))
            case guest.Supervise(id=call, command=command):
                self._command.supervise(command)
                self._say(guest.Done(id=call))
            case guest.Watch(id=call, seen=seen):
                self._watched(call, seen)
            case guest.RelayCall(id=call, address=address, port=port):
                free = _FIRST_RELAY_PORT + len(self._relays)
                relay = self._relays.setdefault((address, port), free)
                self._say(guest.Relay(id=call, port=relay))
            case guest.Shutdown(id=call):
                self._say(guest.Done(id=call))
                asyncio.get_running_loop().call_soon(self.power_off)
            case guest.Sync(id=call) | guest.Ping(id=call):
                self._say(guest.Done(id=call))

    def _watched(self, call: int, seen: int) -> None:
        self._tell()
        self._watch = (call, seen)
        if self._behaviour is Channel.RESTLESS:
            self._happened()
        elif seen != self._news:
            self._tell()

    def _happened(self) -> None:
        if self._behaviour is not Channel.DEAF:
            self._news += 1
            self._tell()

    def _tell(self) -> None:
        """Answers the watch that there is, if there is one."""
        watch, self._watch = self._watch, None
        if watch is not None:
            self._say(guest.News(id=watch[0], number=self._news, command=self._command.state))

    def _welcome(self, hello: guest.Hello) -> None:
        self._calls.forget()
        self._kept.detach()
        self._watch = None
        if not hello.min <= guest.PROTOCOL <= hello.max:
            why = f"this agent speaks version {guest.PROTOCOL}"
            self._say(guest.Refused(id=0, code="version", message=why))
            return
        self._say(
            guest.Welcome(
                nonce=hello.nonce, protocol=guest.PROTOCOL, agent=_AGENT, boot_id=self.boot_id
            )
        )

    def _listeners(self) -> tuple[guest.ListenerMessage, ...]:
        return tuple(
            guest.ListenerMessage(
                port=socket.port, address=socket.address, direct=self._is_direct(socket)
            )
            for socket in self.sockets
        )

    def _say(self, message: guest.FromGuest) -> None:
        if not self._streams:
            return
        if self._behaviour is Channel.OK:
            self._streams[0].send(slip.frame(guest.encode(message)))
        elif self._saying is None:
            self._lie(self._streams[0], fake_lies.pieces(self._behaviour, message))

    def _lie(self, stream: MemoryStream, pieces: fake_lies.Pieces) -> None:
        """Says one piece after the other; what has no end, as fast as it is read."""
        self._saying = None
        for piece in pieces:
            if stream.is_closing():
                return
            stream.send(piece)
            if stream.is_full:
                loop = asyncio.get_running_loop()
                self._saying = loop.call_later(_READ_AGAIN_S, self._lie, stream, pieces)
                return
