import WeirCore

/// Answers everything in this process: what the admin listener and the gateway stand on. A closure
/// and not a subclass, so that other modules can make one.
package final class LocalInterceptor: Interceptor {
    private let route: (_ method: String, _ path: String) -> LocalHandler?

    /// `path` comes without the query; `nil` is 404 `unknown_route`.
    package init(route: @escaping (_ method: String, _ path: String) -> LocalHandler?) {
        self.route = route
        super.init()
    }

    override package func requestBegan(_ exchange: Exchange) -> Verdict {
        let head = exchange.requestHead
        let target = head.text(head.target)
        let path = String(target.prefix { $0 != "?" })
        guard let handler = route(head.text(head.methodRange), path) else {
            return .refuse(Refusal(.unknownRoute))
        }
        return .local(handler)
    }
}
