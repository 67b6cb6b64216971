import CLinux
import Glibc
import WeirCore

/// A downstream connection as its worker keeps it, whatever it speaks.
protocol ServedConnection: MemoryHolder {
    /// Position in the worker's list.
    var index: Int { get set }
    /// No new requests; those in flight end.
    func drain()
    /// At once.
    func cut()
}

/// What all connections of one loop share. One worker is one thread; nothing here is locked.
///
/// Everything that belongs to a worker refers to it `unowned(unsafe)`: it outlives its loop's
/// thread (`SidecarServer` joins that first), and a counted reference cost 48 atomic pairs a
/// request.
package final class Worker {
    package let loop: EventLoop
    package let timeouts: Timeouts
    let scratch = WriteScratch()
    /// Where heads are parsed to before anything is decided about them.
    let headFields: UnsafeMutablePointer<HTTPField>
    /// Where HTTP/2 blocks are put together and messages laid out; made when the first peer speaks
    /// it.
    private(set) lazy var headAssembler = HTTP2HeadAssembler()
    private(set) lazy var nameValues = HTTP2NameValues()
    package internal(set) var isDraining = false
    package internal(set) var exchangesBegun: UInt64 = 0

    private var connections: ContiguousArray<any ServedConnection> = []
    private var memoryHolders = MemoryHolders()
    private var reliefIsDue = false
    private var sources: ContiguousArray<OutputSource> = []
    /// Connections whose handshake is not over.
    private var handshakes: ContiguousArray<ServerHandshake> = []
    private var freeExchanges: ContiguousArray<Exchange> = []
    private static let freeExchangesMax = 256
    private var freeStreams: ContiguousArray<HTTP2ServerStream> = []
    private var tables: HTTP2ServerTables?
    private var randomSource = PseudoRandom()
    private var dateSeconds: Int64 = -1
    private let dateLine: UnsafeMutableRawBufferPointer
    private var drained: (() -> Void)?

    package init(loop: EventLoop, timeouts: Timeouts = Timeouts()) {
        self.loop = loop
        self.timeouts = timeouts
        headFields = .allocate(capacity: Limits.fieldsMax)
        dateLine = .allocate(byteCount: 37, alignment: 1)
    }

    deinit {
        headFields.deallocate()
        dateLine.deallocate()
    }

    /// Ends the turn: what has gathered for a connection leaves.
    func flush() {
        if !sources.isEmpty { produce() }
        scratch.flush()
    }

    /// Asks `source` for its output before the turn ends.
    func produceLater(_ source: OutputSource) {
        guard !source.isWaiting else { return }
        source.isWaiting = true
        sources.append(source)
    }

    /// What one produces may wake others, in both directions of a proxied stream: until all have
    /// had their turn.
    private func produce() {
        while let source = sources.popLast() {
            source.isWaiting = false
            source.produce()
        }
    }

    // MARK: Exchanges

    func takeExchange() -> Exchange {
        exchangesBegun &+= 1
        return freeExchanges.popLast() ?? Exchange(worker: self)
    }

    func putBack(_ exchange: Exchange) {
        if freeExchanges.count < Self.freeExchangesMax {
            freeExchanges.append(exchange)
        } else {
            loop.clearDeadline(exchange)
        }
    }

    // MARK: HTTP/2

    func http2Tables() throws(HTTP2Error) -> HTTP2ServerTables {
        if let tables { return tables }
        let made = try HTTP2ServerTables()
        tables = made
        return made
    }

    func takeHTTP2Stream(for connection: HTTP2ServerConnection) -> HTTP2ServerStream {
        freeStreams.popLast() ?? HTTP2ServerStream(worker: self, peer: connection.accepted.peer)
    }

    func putBack(_ stream: HTTP2ServerStream) {
        if freeStreams.count < HTTP2ServerLimits.freeStreamsMax {
            freeStreams.append(stream)
        } else {
            stream.forgetDeadline()
        }
    }

    // MARK: Connections

    package var connectionCount: Int { connections.count + handshakes.count }

    /// Takes over an accepted socket. Above the limit it is closed at once.
    package func serve(
        descriptor: Int32, peer: SocketAddress, interceptor: Interceptor, tls: TLSListener? = nil
    ) {
        guard connectionCount < Limits.connectionsPerLoop, !isDraining else {
            _ = close(descriptor)
            return
        }
        if peer.family != AF_UNIX { Socket.disableNagle(descriptor) }
        let accepted = AcceptedConnection(worker: self, peer: peer, interceptor: interceptor)
        do {
            if let tls {
                try shakeHands(descriptor, accepted, tls)
            } else {
                let connection = HTTP1ServerConnection(accepted)
                try connection.start(descriptor)
                added(connection)
            }
        } catch {
            _ = close(descriptor)
        }
    }

    private func shakeHands(
        _ descriptor: Int32, _ accepted: AcceptedConnection, _ tls: TLSListener
    ) throws {
        // Whoever begins handshakes without ending them pushes out another one of his own sooner
        // than somebody who ends it in milliseconds.
        if handshakes.count >= TLSLimits.handshakesPerLoop {
            handshakes[Int(random() % UInt64(handshakes.count))].close()
        }
        let handshake = ServerHandshake(accepted, tls)
        try handshake.start(descriptor)
        handshake.index = handshakes.count
        handshakes.append(handshake)
    }

    func handshakeEnded(_ handshake: ServerHandshake) {
        let index = handshake.index
        guard index >= 0, index < handshakes.count else { return }
        handshake.index = -1
        let last = handshakes.removeLast()
        if index < handshakes.count {
            handshakes[index] = last
            last.index = index
        }
    }

    /// A handshake has ended well: from here on the connection is a codec's.
    func open(
        _ accepted: AcceptedConnection, on connection: Connection, as chosen: ApplicationProtocol
    ) {
        switch chosen {
        case .http1:
            let codec = HTTP1ServerConnection(accepted)
            connection.handOver(to: codec)
            codec.start(on: connection)
            added(codec)
        case .http2:
            do throws(HTTP2Error) {
                let codec = try HTTP2ServerConnection(accepted)
                codec.start(on: connection)
                added(codec)
            } catch {
                connection.close()
            }
        }
    }

    private func added(_ connection: any ServedConnection) {
        connection.index = connections.count
        connections.append(connection)
    }

    // MARK: Memory

    /// Something waits for its peer, with bytes. Who has to go where that is too much is decided
    /// when this turn is over: they may be in the middle of it.
    @inline(__always)
    func holdsMemory(_ holder: any MemoryHolder) {
        if loop.pool.lentBytes > Limits.holdersKnownAboveBytes { note(holder) }
    }

    private func note(_ holder: any MemoryHolder) {
        memoryHolders.insert(holder)
        guard loop.pool.lentBytes > Limits.relievedAboveBytes, !reliefIsDue else { return }
        reliefIsDue = true
        loop.schedule(afterNanoseconds: 0) { [self] in relieve() }
    }

    func holdsNothing(_ holder: any MemoryHolder) {
        if holder.holderIndex >= 0 { memoryHolders.remove(holder) }
    }

    private func relieve() {
        reliefIsDue = false
        while loop.pool.lentBytes > Limits.relievedAboveBytes,
            let holder = memoryHolders.pick(random())
        {
            holder.giveUp()
            precondition(holder.holderIndex < 0, "what was given up is still held")
        }
        flush()
    }

    /// The connection goes on in other hands.
    func replace(_ connection: any ServedConnection, by successor: any ServedConnection) {
        successor.index = connection.index
        connections[connection.index] = successor
        connection.index = -1
        holdsNothing(connection)
    }

    func connectionClosed(_ connection: any ServedConnection) {
        holdsNothing(connection)
        let index = connection.index
        guard index >= 0, index < connections.count else { return }
        connection.index = -1
        let last = connections.removeLast()
        if index < connections.count {
            connections[index] = last
            last.index = index
        }
        if isDraining, connections.isEmpty { finishDrain() }
    }

    /// Takes no new connections and requests; exchanges in flight end, with `Connection: close`;
    /// what is left after the drain time is cut. Then `completed` is called.
    package func drain(completed: @escaping () -> Void) {
        loop.preconditionInLoop()
        isDraining = true
        drained = completed
        for handshake in handshakes { handshake.close() }
        for connection in connections { connection.drain() }
        if connections.isEmpty { return finishDrain() }
        loop.schedule(afterNanoseconds: timeouts.drainNanoseconds) { [self] in
            for connection in connections { connection.cut() }
        }
    }

    private func finishDrain() {
        let completed = drained
        drained = nil
        completed?()
    }

    // MARK: Randomness and time

    func random() -> UInt64 { randomSource.next() }

    package func wallClock() -> UnixTime {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME_COARSE, &now)
        return UnixTime(milliseconds: Int64(now.tv_sec) * 1000 + Int64(now.tv_nsec) / 1_000_000)
    }

    /// `date: …` of RFC 9110 §5.6.7 with its line end, written once a second.
    func writeDate(to writer: inout HeadWriter) {
        refreshDate()
        writer.write(UnsafeRawBufferPointer(dateLine))
    }

    /// The value alone; valid as long as the worker.
    func dateValue() -> UnsafeRawBufferPointer {
        refreshDate()
        return UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(dateLine)[6..<35])
    }

    private func refreshDate() {
        let seconds = wallClock().seconds
        if seconds != dateSeconds {
            dateSeconds = seconds
            var line = HeadWriter(dateLine)
            writeDateLine(seconds, to: &line)
        }
    }

    private func writeDateLine(_ seconds: Int64, to line: inout HeadWriter) {
        let days = seconds / 86_400
        let date = CivilDate(daysSinceEpoch: days)
        let names: StaticString = "ThuFriSatSunMonTueWed"
        let months: StaticString = "JanFebMarAprMayJunJulAugSepOctNovDec"
        line.write("date: ")
        line.write(UnsafeRawBufferPointer(start: names.utf8Start + Int(days % 7) * 3, count: 3))
        line.write(", ")
        writeTwo(Int64(date.day), to: &line)
        line.write(" ")
        line.write(UnsafeRawBufferPointer(start: months.utf8Start + (date.month - 1) * 3, count: 3))
        line.write(" ")
        line.write(decimal: UInt64(date.year))
        for (position, unit) in [seconds % 86_400 / 3600, seconds / 60 % 60, seconds % 60]
            .enumerated()
        {
            line.write(position == 0 ? " " : ":")
            writeTwo(unit, to: &line)
        }
        line.write(" GMT\r\n")
    }

    private func writeTwo(_ value: Int64, to line: inout HeadWriter) {
        if value < 10 { line.write("0") }
        line.write(decimal: UInt64(value))
    }
}
