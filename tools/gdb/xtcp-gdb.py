"""gdb(1) commands and pretty printers for xtcp. docs/debugging.md shows how to use them.

    (gdb) source tools/gdb/xtcp-gdb.py
    (gdb) xtcp-connections          the connections of all loops, one line each
    (gdb) print $xtcp_conn(conn)    one connection in full; conn is a ConnPtr, a Conn* or an address

They read members by name, so they change with lib/; test/lint/check_gdb.sh compares what they print.
They call no function of the program, so they work on a core.
"""

import gdb
import gdb.printing

INTERNAL = "xtcp::internal::"


def atomic(value):
    """The value of a std::atomic."""
    fields = [field.name for field in value.type.strip_typedefs().fields()]
    if "_M_i" in fields:
        return value["_M_i"]
    if "_M_b" in fields:
        return value["_M_b"]["_M_p"]
    return atomic(value[value.type.strip_typedefs().fields()[0]])  # in a base class


def enumerator(value):
    """The name of an enumerator without its scope."""
    return str(value).rpartition("::")[2]


def nanoseconds(value):
    return int(value["__r"])


def seconds(value):
    """A duration or a time of CLOCK_MONOTONIC."""
    count = nanoseconds(value)
    return "never" if count == 2**63 - 1 else "%.3f s" % (count / 1e9)


def string(value):
    """The bytes of a std::string."""
    data, size = value["_M_dataplus"]["_M_p"], int(value["_M_string_length"])
    return bytes(int(data[i]) & 0xFF for i in range(size))


def code(value):
    """A std::error_code by its number: no function of the program is called."""
    number = int(value["_M_value"])
    return "none" if number == 0 else "%d of %s" % (number, value["_M_cat"].dynamic_type.name)


class Address:
    """xtcp::Address, as ToString prints it."""

    def __init__(self, value):
        self.value = value

    def to_string(self):
        kind = enumerator(self.value["kind_"])
        if kind == "kNone":
            return "none"
        if kind == "kUnix":
            path = string(self.value["path_"])
            return "unix:" + path.replace(b"\0", b"@", 1).decode("ascii", "backslashreplace")
        octets = [int(self.value["ip_"]["_M_elems"][i]) for i in range(16)]
        port = int(self.value["port_"])
        if kind == "kIpv4":
            return "%d.%d.%d.%d:%d" % (*octets[:4], port)
        words = ["%x" % (octets[i] << 8 | octets[i + 1]) for i in range(0, 16, 2)]
        zone = int(self.value["zone_"])
        return "[%s%s]:%d" % (":".join(words), "%%%d" % zone if zone else "", port)


def alternative(variant):
    """Which alternative a std::variant holds, and that one: it lies at the variant's address."""
    index = int(variant["_M_index"])
    held = variant.type.strip_typedefs().template_argument(index)
    return index, variant.address.cast(held.pointer()).dereference()


class ConnectionEnds:
    """Both addresses of a connection."""

    def __init__(self, value):
        self.value = value

    def ends(self):
        index, ends = alternative(self.value["ends_"])
        if index == 1:
            return [self.ipv4(ends[end]) for end in ("first", "second")]
        others = ends["_M_t"]["_M_t"]["_M_head_impl"]
        if int(others) == 0:
            return ["none", "none"]
        return [Address(others[end]).to_string() for end in ("first", "second")]

    @staticmethod
    def ipv4(end):
        octets = [int(end["ip"]["_M_elems"][i]) for i in range(4)]
        return "%d.%d.%d.%d:%d" % (*octets, int(end["port"]))

    def to_string(self):
        return "%s <-> %s" % tuple(self.ends())


class InboundBuffer:
    """How much waits for the rest of its packet, and how it begins."""

    def __init__(self, value):
        self.block = value["block_"]

    def to_string(self):
        if int(self.block) == 0:
            return "empty"
        size, head = int(self.block["size"]), int(self.block["head"])
        data = (self.block + 1).cast(gdb.lookup_type("unsigned char").pointer()) + head
        shown = " ".join("%02x" % int(data[i]) for i in range(min(size, 16)))
        more = " ..." if size > 16 else ""
        return "%d bytes in a block of %d: %s%s" % (size, int(self.block["capacity"]), shown, more)


class OutboundBuffer:
    """How much waits to be written."""

    def __init__(self, value):
        self.last = value["last_"]

    def to_string(self):
        if int(self.last) == 0:
            return "empty"
        chunks, size, chunk = 0, 0, self.last
        while True:
            chunk = chunk["next"]
            chunks += 1
            size += int(chunk["end"]) - int(chunk["begin"])
            if chunk == self.last or chunks == 100000:
                return "%d bytes in %d chunks" % (size, chunks)


class SendBudget:
    """How much of send_buffer_limit is spoken for."""

    def __init__(self, value):
        self.value = value

    def to_string(self):
        refused = int(self.value["refused_"])
        text = "%d bytes charged" % int(self.value["charged_"])
        return text + (", a send of %d was refused" % refused if refused else "")


class Deadlines:
    """The times from which a connection's deadlines run, of CLOCK_MONOTONIC."""

    def __init__(self, value):
        self.value = value

    def to_string(self):
        stopped = ", input clock stopped" if self.value["input_clock_stopped_"] else ""
        return "active at %s, output at %s, packet or linger due %s%s" % (
            seconds(self.value["active_at_"]),
            seconds(self.value["output_at_"]),
            seconds(self.value["fixed_due_"]),
            stopped,
        )


class Connection:
    """xtcp::internal::ConnImpl, and DialedConn, which is one."""

    STOPS = ("none", "graceful", "now", "graceful, then now")

    def __init__(self, value):
        self.conn = value.cast(gdb.lookup_type(INTERNAL + "ConnImpl"))
        self.dialed = value.type.strip_typedefs().name.endswith("DialedConn")
        self.intake = self.conn["intake_"]
        self.inbound = self.conn["in_"]
        self.outbound = self.conn["out_"]
        self.account = self.outbound["account_"]
        index, state = alternative(self.intake["sends_"])
        self.sends, self.outcome = (state, None) if index == 0 else (None, state)

    def to_string(self):
        local, remote = ConnectionEnds(self.intake["ends_"]).ends()
        return "%s %s %s" % (local, "->" if self.dialed else "<-", remote)

    def flags(self, value, *names):
        """Which of these members are true."""
        return ", ".join(name.strip("_") for name in names if value[name]) or "none"

    def children(self):
        signals = int(atomic(self.intake["signals_"]))
        pending = int(atomic(self.intake["pending_bytes_"]))
        yield "phase", enumerator(self.conn["phase_"])
        yield "send_state", enumerator(atomic(self.intake["state_"]))
        yield "stops", self.STOPS[signals & 3]
        yield "paused", "yes" if signals & 4 else "no"
        yield "descriptor", str(int(self.conn["fd_"]["fd_"]))
        yield "flags", self.flags(self.conn, "starved_", "parked_", "fin_seen_", "fin_sent_")
        yield "inbound", InboundBuffer(self.inbound["buffer_"]).to_string()
        yield "inbound_flags", self.flags(self.inbound, "backlog_", "held_", "got_packet_")
        block = self.inbound["buffer_"]["block_"]
        yield "need", str(int(block["unfinished"]["need"]) if int(block) != 0 else 0)
        yield "received_bytes", str(int(atomic(self.inbound["received_bytes_"])))
        yield "received_packets", str(int(atomic(self.inbound["received_packets_"])))
        yield "sending", OutboundBuffer(self.outbound["sending_"]).to_string()
        yield "pending", "%d bytes" % pending
        yield "outbound_flags", self.flags(self.outbound, "blocked_")
        yield "write_errno", str(int(self.outbound["error_"]))
        yield "accepted_bytes", str(int(atomic(self.account["accepted_bytes"])) + pending)
        yield "written_bytes", str(int(atomic(self.account["written_bytes"])))
        yield "refused_sends", str(int(self.intake["refused_sends_"]))
        if self.sends is not None:
            yield "budget", SendBudget(self.sends["budget"]).to_string()
        yield "deadlines", Deadlines(self.conn["deadlines_"]).to_string()
        yield "timer_due", seconds(self.conn["timer_due_"])
        yield "error", "none" if self.outcome is None else code(self.outcome["error"])


def to_connection(value):
    """A ConnImpl from a ConnPtr, a Conn* of any kind, or the number of an address."""
    value_type = value.type.strip_typedefs()
    if value_type.code == gdb.TYPE_CODE_REF:
        value = value.referenced_value()
        value_type = value.type.strip_typedefs()
    if value_type.code == gdb.TYPE_CODE_STRUCT and "shared_ptr" in str(value_type):
        value = value["_M_ptr"]
    value = value.cast(gdb.lookup_type("xtcp::Conn").pointer())
    return value.cast(value.dynamic_type).dereference()


class ConnFunction(gdb.Function):
    """$xtcp_conn(conn): the connection that a ConnPtr, a Conn* or an address names."""

    def __init__(self):
        super().__init__("xtcp_conn")

    def invoke(self, conn):
        return to_connection(conn)


class ConnectionsCommand(gdb.Command):
    """xtcp-connections: the connections of all loops, one line each."""

    def __init__(self):
        super().__init__("xtcp-connections", gdb.COMMAND_DATA)

    @staticmethod
    def loop_of(thread):
        """The LoopCore whose loop runs on this thread, or None."""
        thread.switch()
        frame = gdb.newest_frame()
        while frame is not None:
            if frame.name() in (INTERNAL + "LoopCore::Run", INTERNAL + "LoopCore::RunOnce"):
                frame.select()
                core = gdb.parse_and_eval("this")
                return None if core.is_optimized_out else core.dereference()
            frame = frame.older()
        return None

    @staticmethod
    def connections_of(core):
        """The connections of all services on a loop, as pointers to xtcp::Conn."""
        conn_type = gdb.lookup_type("xtcp::Conn").pointer()
        service = core["services_"]
        while int(service) != 0:
            whole = service.cast(service.dynamic_type)
            kind = service.dynamic_type.target().name
            if kind == INTERNAL + "ServerLoop":
                vector = whole["conns_"]["_M_impl"]
                for i in range(int(vector["_M_finish"] - vector["_M_start"])):
                    yield vector["_M_start"][i]["_M_ptr"]
            elif kind == INTERNAL + "DialedConn":  # a service of its own
                yield whole.cast(conn_type)
            service = service["after_"]

    def invoke(self, argument, from_tty):
        del argument, from_tty
        selected = gdb.selected_thread(), gdb.selected_frame()
        try:
            for thread in sorted(gdb.selected_inferior().threads(), key=lambda one: one.num):
                core = self.loop_of(thread)
                if core is not None:
                    self.show(thread, core)
        finally:
            selected[0].switch()
            selected[1].select()

    def show(self, thread, core):
        conns = list(self.connections_of(core))
        index = int(core["context_"]["_M_ptr"]["index"])
        gdb.write(
            "thread %d (%s), loop %d: %d connections\n"
            % (thread.num, thread.name, index, len(conns))
        )
        for pointer in conns:
            conn = Connection(to_connection(pointer))
            gdb.write(
                "  %#x  %s  %s, %s, stops: %s, inbound %s, sending %s, pending %d bytes\n"
                % (
                    int(pointer),
                    conn.to_string(),
                    enumerator(conn.conn["phase_"]),
                    enumerator(atomic(conn.intake["state_"])),
                    conn.STOPS[int(atomic(conn.intake["signals_"])) & 3],
                    InboundBuffer(conn.inbound["buffer_"]).to_string().partition(" in")[0],
                    OutboundBuffer(conn.outbound["sending_"]).to_string().partition(" in")[0],
                    int(atomic(conn.intake["pending_bytes_"])),
                )
            )


def printers():
    collection = gdb.printing.RegexpCollectionPrettyPrinter("xtcp")
    for name, printer in (
        ("xtcp::Address", Address),
        (INTERNAL + "ConnectionEnds", ConnectionEnds),
        (INTERNAL + "InboundBuffer", InboundBuffer),
        (INTERNAL + "OutboundBuffer", OutboundBuffer),
        (INTERNAL + "SendBudget", SendBudget),
        (INTERNAL + "Deadlines", Deadlines),
        (INTERNAL + "ConnImpl", Connection),
        (INTERNAL + "DialedConn", Connection),
    ):
        collection.add_printer(name, "^%s$" % name, printer)
    return collection


gdb.printing.register_pretty_printer(None, printers(), replace=True)
ConnFunction()
ConnectionsCommand()
