import SidecarCore
import WeirCore

/// The gateway's listener: every request is for the gateway's own endpoints. One for each worker.
package final class GatewayInterceptor: Interceptor {
    private let handler: LocalHandler

    package init(service: GatewayService, state: GatewayState, worker: Worker) {
        let transport = LoopTransport(worker: worker)
        let own = GatewayWorker(transport: transport, clock: LoopClock(loop: worker.loop))
        handler = LocalHandler(bodyBytesMax: GatewayLimits.requestBytesMax) { request in
            if let snapshot = state.snapshot { transport.keep(snapshot) }
            let answer = await service.respond(to: GatewayRequest(request), on: own)
            return LocalResponse(
                status: answer.status, fields: answer.fields.map { ($0.name, $0.value) },
                body: .bytes(answer.body))
        }
        super.init()
    }

    package override func requestBegan(_ exchange: Exchange) -> Verdict { .local(handler) }
}

extension GatewayRequest {
    fileprivate init(_ request: LocalRequest) {
        self.init(
            id: request.requestID, method: request.method, path: request.path,
            fields: request.fields.map { GatewayField($0.name.lowercased(), $0.value) },
            body: request.body)
    }
}
