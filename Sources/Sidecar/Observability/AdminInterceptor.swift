import WeirCore

/// The admin listener: `/metrics`, `/healthz`, `/readyz`, `/config`, answered in this process. Bind
/// it where only operators and scrapers reach it.
package final class AdminInterceptor: Interceptor {
    private let handler: LocalHandler

    /// `state` is asked for each request, on the listener's loop.
    package init(metrics: Metrics, state: @escaping @Sendable () -> AdminPages.State) {
        handler = LocalHandler(bodyBytesMax: 0) { request in
            guard request.method == "GET" || request.method == "HEAD" else {
                return Self.refusal(.method, request)
            }
            guard let page = AdminPages.page(path: request.path, state: state(), metrics: metrics)
            else { return Self.refusal(.unknownRoute, request) }
            return LocalResponse(
                status: page.status, contentType: page.contentType, page.body)
        }
        super.init()
    }

    override package func requestBegan(_ exchange: Exchange) -> Verdict { .local(handler) }

    private static func refusal(_ reason: Reason, _ request: LocalRequest) -> LocalResponse {
        LocalResponse(
            status: reason.status, contentType: "application/problem+json",
            Refusal(reason).document(requestID: request.requestID))
    }
}
