import Glibc
import HTTPTypes
import Hummingbird
import NIOCore

/// How an answer goes out: whole, in a stream, or broken in the way that a fault asks for.
struct Delivery: Sendable {
    /// Ends an answer whose connection a fault cut; never sent to anybody.
    private struct Cut: Error {}

    let answer: Answer
    let fault: Fault?
    let state: AgentState
    /// How long the pieces of a stream take together.
    let streamMilliseconds: Int

    func response(on channel: any Channel) async throws -> Response {
        if fault == .stall {
            try await stall(channel)
            try await cut(channel)
        }
        return Response(
            status: .init(code: answer.status), headers: fields,
            body: ResponseBody { writer in
                do {
                    try await write(to: &writer, on: channel)
                    try await writer.finish(nil)
                    ended { $0.completed += 1 }
                } catch {
                    ended { $0.aborted += 1 }
                    throw error
                }
            })
    }

    private var fields: HTTPFields {
        var fields: HTTPFields = [.contentType: answer.contentType]
        for field in answer.fields {
            guard let name = HTTPField.Name(field.name) else { continue }
            fields[name] = field.value
        }
        if fault == .garbageHead {
            fields.append(HTTPField(name: .contentLength, value: String(body.count)))
            fields.append(HTTPField(name: .contentLength, value: String(body.count + 1)))
        } else if !answer.streams {
            fields[.contentLength] = String(body.count)
        }
        return fields
    }

    /// The whole body; only its pieces matter where it is a stream.
    private var body: [UInt8] {
        fault == .garbage ? Self.garbage : answer.pieces.flatMap { $0 }
    }

    /// Neither JSON nor UTF-8.
    private static let garbage: [UInt8] = Array(#"{"result": [1, 2, "#.utf8) + [0xff, 0x00, 0xfe]

    /// Concurrent, as the writer's own methods are: it is not sendable, so it stays on one side.
    @concurrent
    private func write(to writer: inout any ResponseBodyWriter, on channel: any Channel)
        async throws
    {
        switch fault {
        case .stallAfterHead:
            // An empty write makes the head leave.
            try await writer.write(ByteBuffer())
            try await Task.sleep(for: .seconds(Fault.stallSecondsMax))
            try await cut(channel)
        case .die(let afterBytes):
            try await writer.write(ByteBuffer(bytes: body.prefix(afterBytes ?? body.count / 2)))
            try await cut(channel)
        case .garbage:
            try await writer.write(ByteBuffer(bytes: body))
        default:
            let pause = Duration.milliseconds(streamMilliseconds) / max(1, answer.pieces.count)
            for piece in answer.pieces {
                if answer.streams, pause > .zero { try await Task.sleep(for: pause) }
                try await writer.write(ByteBuffer(bytes: piece))
            }
        }
    }

    /// Until the other side leaves, or for the longest time that a stall may take.
    private func stall(_ channel: any Channel) async throws {
        let end = ContinuousClock.now + .seconds(Fault.stallSecondsMax)
        while ContinuousClock.now < end, try await isThere(channel) {
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    /// The server lets its clients close their direction and go on reading, so the channel stays
    /// open then; the kernel knows.
    private func isThere(_ channel: any Channel) async throws -> Bool {
        guard channel.isActive, let socket = channel as? any SocketOptionProvider else {
            return false
        }
        let established: UInt8 = 1  // TCP_ESTABLISHED, tcp(7)
        return try await socket.getTCPInfo().map { $0.tcpi_state == established }.get()
    }

    /// Closes both directions at once, in the middle of whatever was going on.
    private func cut(_ channel: any Channel) async throws {
        // It may be closed already: what a stall waits for.
        try? await channel.close(mode: .all).get()
        throw Cut()
    }

    private func ended(_ count: (inout AgentState.Stats) -> Void) {
        state.update {
            count(&$0)
            $0.inFlight -= 1
            guard answer.status == 200 else { return }
            $0.inputTokens += answer.inputTokens
            $0.outputTokens += answer.outputTokens
        }
    }
}
