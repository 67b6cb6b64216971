import Foundation
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import ServiceLifecycle

/// One agent on one listener: reads a request, waits as long as the real one would, answers, and
/// lets a fault have its way with the delivery.
struct AgentServer: Sendable {
    /// The channel is kept because some faults cut it.
    struct Context: RequestContext {
        var coreContext: CoreRequestContextStorage
        let channel: any Channel

        init(source: ApplicationRequestContextSource) {
            coreContext = .init(source: source)
            channel = source.channel
        }
    }

    /// Larger bodies are refused with 413.
    static let bodyBytesMax = 8 << 20
    /// How much of a body `GET /__stats` shows.
    static let shownBytesMax = 64 << 10

    let kind: AgentKind
    let latency: Latency
    let state: AgentState

    init(kind: AgentKind, latency: Latency, firstFault: Fault?) {
        self.kind = kind
        self.latency = latency
        state = AgentState(fault: firstFault)
    }

    func application(host: String, port: Int, logger: Logger) -> some Service {
        let router = Router(context: Context.self)
        for path in kind.workPaths {
            router.post(RouterPath(path)) { request, context in
                try await work(request, context)
            }
        }
        addStatusRoutes(to: router)
        ControlRoutes(state: state).add(to: router)
        return Application(
            router: router,
            configuration: .init(address: .hostname(host, port: port), serverName: nil),
            onServerRunning: { channel in
                let port = channel.localAddress?.port ?? 0
                // Whoever started this process waits for the line; so it is not buffered.
                let line = "\(kind.rawValue) listening on \(host):\(port)\n"
                FileHandle.standardOutput.write(Data(line.utf8))
            },
            logger: logger)
    }

    private func addStatusRoutes(to router: Router<Context>) {
        router.get("/health") { _, _ in
            state.fault == .unhealthy
                ? json(Health(status: "unhealthy"), status: .serviceUnavailable)
                : json(Health(status: "ok"))
        }
        guard kind == .gpt4Turbo || kind == .llama else { return }
        router.get("/v1/models") { _, _ in
            json(ModelList(models: kind.models))
        }
    }

    private func work(_ request: Request, _ context: Context) async throws -> Response {
        state.update {
            $0.requests += 1
            $0.inFlight += 1
        }
        do {
            let fault = requestedFault(request) ?? state.takeFault()
            let body = try await read(request)
            if case .call(let port) = fault {
                let called = try await OwnCall(port: port).make(for: request)
                state.update { $0.called = called }
            }
            let answer = self.answer(body, fault: fault)
            let delay = delayMilliseconds(fault)
            // A model that streams says its first word early and spends the rest of its time on
            // the others.
            let firstByte = answer.streams ? delay * 3 / 10 : delay
            try await Task.sleep(for: .milliseconds(firstByte))
            return try await Delivery(
                answer: answer, fault: fault, state: state,
                streamMilliseconds: delay - firstByte
            )
            .response(on: context.channel)
        } catch {
            state.update {
                $0.aborted += 1
                $0.inFlight -= 1
            }
            throw error
        }
    }

    private func requestedFault(_ request: Request) -> Fault? {
        request.headers.first { $0.name.canonicalName == "sample-fault" }
            .flatMap { Fault($0.value) }
    }

    private func read(_ request: Request) async throws -> [UInt8] {
        let buffer = try await request.body.collect(upTo: Self.bodyBytesMax)
        let body = Array(buffer.readableBytesView)
        let seen = AgentState.Seen(
            method: request.method.rawValue, path: request.uri.description,
            headers: request.headers.map { [$0.name.canonicalName, $0.value] },
            body: String(decoding: body.prefix(Self.shownBytesMax), as: UTF8.self))
        state.update {
            $0.bodies += 1
            $0.bodyBytes += body.count
            $0.last = seen
        }
        return body
    }

    private func delayMilliseconds(_ fault: Fault?) -> Int {
        let usual = latency.milliseconds(of: kind)
        return if case .slow(let milliseconds) = fault { usual + milliseconds } else { usual }
    }

    private func answer(_ body: [UInt8], fault: Fault?) -> Answer {
        let usage: UsageReport =
            switch fault {
            case .wrongUsage: .excessive
            case .noUsage: .missing
            default: .truthful
            }
        switch fault {
        case .fail(let status): return error(status, "told to fail")
        case .rateLimited(let seconds):
            var answer = error(429, "told to limit")
            answer.fields.append(("retry-after", String(seconds)))
            return answer
        default:
            do throws(Refusal) {
                return try kind.answer(
                    body, usage: usage, createdSeconds: Int(Date().timeIntervalSince1970))
            } catch {
                return self.error(error.status, error.message)
            }
        }
    }

    private func error(_ status: Int, _ message: String) -> Answer {
        Answer(
            status: status, fields: [("sample", "true")],
            pieces: [kind.errorBody(status: status, message: message)])
    }
}

func json(_ value: some Encodable, status: HTTPResponse.Status = .ok) -> Response {
    Response(
        status: status, headers: [.contentType: "application/json"],
        body: .init(byteBuffer: ByteBuffer(bytes: SampleJSON.encode(value))))
}

private struct Health: Encodable {
    let status: String
    let sample = true
}

private struct ModelList: Encodable {
    struct Model: Encodable {
        let id: String
        let object = "model"
        let created = 0
        let owned_by = "sample"
    }

    let object = "list"
    let data: [Model]
    let sample = true

    init(models: [String]) { data = models.map { Model(id: $0) } }
}
