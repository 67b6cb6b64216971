import SidecarCore
import WeirCore

/// The gateway's listener: every request is for the gateway's own endpoints. One for each worker.
package enum GatewayInterceptor {
    package static func make(
        service: GatewayService, state: GatewayState, worker: Worker
    ) -> Interceptor {
        let transport = LoopTransport(worker: worker)
        let loop = worker.loop
        let own = GatewayWorker(transport: transport, clock: LoopClock(loop: loop)) { work in
            loop.spawn { await work() }
        }
        let handler = LocalHandler(
            bodyBytesMax: GatewayLimits.requestBytesMax, publicFields: [CallerIdentity.tagsField]
        ) { request in
            if let snapshot = state.snapshot { transport.keep(snapshot) }
            let answer = await service.respond(to: GatewayRequest(request), on: own)
            return LocalResponse(
                status: answer.status, fields: answer.fields.map { ($0.name, $0.value) },
                body: .init(answer.body, loop: worker.loop), trailerNames: answer.trailerNames)
        }
        return LocalInterceptor { _, _ in handler }
    }
}

extension GatewayRequest {
    fileprivate init(_ request: LocalRequest) {
        self.init(
            id: request.requestID, method: request.method, path: request.path,
            query: request.query,
            fields: request.fields.map { GatewayField($0.name.lowercased(), $0.value) },
            body: request.body)
    }
}

extension LocalResponse.Body {
    fileprivate init(_ body: GatewayAnswer.Body, loop: EventLoop) {
        switch body {
        case .bytes(let bytes): self = .bytes(bytes)
        case .stream(let write):
            self = .stream { writer in
                try await write(LoopAnswerWriter(bound: LoopBound(writer, loop: loop)))
            }
        }
    }
}

private struct LoopAnswerWriter: AnswerWriter {
    let bound: LoopBound<LocalWriter>

    func write(_ bytes: [UInt8]) async throws(CancellationError) {
        try await bound.value.write(bytes)
    }

    func addTrailer(_ field: GatewayField) { bound.value.addTrailer(field.name, field.value) }
}
