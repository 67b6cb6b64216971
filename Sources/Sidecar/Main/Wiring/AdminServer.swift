import SidecarCore
import WeirCore

/// The admin listener, on the control loop: `/metrics`, `/healthz`, `/readyz`, `/config`. Apart
/// from the workers, so that it answers while they are busy and drains last.
final class AdminServer {
    private let worker: Worker
    private let listener: Listener
    let address: SocketAddress

    init(
        on address: SocketAddress, loop: EventLoop, metrics: Metrics,
        state: @escaping () -> AdminPages.State
    ) throws {
        let worker = Worker(loop: loop)
        let handler = LocalHandler(bodyBytesMax: 0) { request in
            guard request.method == "GET" || request.method == "HEAD" else {
                return Self.refusal(.method, request)
            }
            guard let page = AdminPages.page(path: request.path, state: state(), metrics: metrics)
            else { return Self.refusal(.unknownRoute, request) }
            return LocalResponse(status: page.status, contentType: page.contentType, page.body)
        }
        let interceptor = LocalInterceptor { _, _ in handler }
        let listener = try Listener(Socket.listen(on: address), loop: loop) { descriptor, peer in
            worker.serve(descriptor: descriptor, peer: peer, interceptor: interceptor)
        }
        self.worker = worker
        self.listener = listener
        self.address = listener.address
    }

    func close() { listener.close() }

    private static func refusal(_ reason: Reason, _ request: LocalRequest) -> LocalResponse {
        LocalResponse(
            status: reason.status, contentType: "application/problem+json",
            Refusal(reason).document(requestID: request.requestID))
    }
}
